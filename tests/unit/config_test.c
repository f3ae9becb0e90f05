/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Configuration files: every type of value, precedence, rules, and the sentence for each mistake.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <ftw.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_fixture.h"
#include "config_table.h"

static void test_defaults_are_the_tables(void **state)
{
	struct config *config = load_good();

	(void)state;
	assert_int_equal(config->broker.limits[LIMIT_GUEST].max[LEDGER_MAPPINGS].max, 4194304);
	assert_int_equal(config->broker.limits[LIMIT_GUEST].max[LEDGER_PINNED_BYTES].max,
			 UINT64_MAX);
	assert_int_equal(config->broker.pin_slice_bytes, 256ull << 20);
	assert_int_equal(config->broker.require_seals, BROKER_SEALS_PERMISSIVE);
	assert_int_equal(config->broker.designations, S390_DESIGNATIONS_ALL);
	assert_int_equal(config->rpc.first_request_ms, 10000);
	assert_int_equal(config->rpc.n_client_uids, 0);
	assert_int_equal(config->broker.n_device_rules, 0);
	assert_true(config->broker.limits[LIMIT_HOST].max[LEDGER_PINNED_BYTES].max > 0);
	assert_true(config->broker.limits[LIMIT_HOST].max[LEDGER_PINNED_BYTES].max <
		    (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
	config_free(config);
}

static void test_values_of_every_type(void **state)
{
	struct config *config;

	(void)state;
	file_write("iommubrokerd.conf", "# comment\n"
					"[Limits]\n"
					"PinnedMemoryMax=12G\n"
					"PinnedMemoryPerGuestMax = 1234\n"
					"MappingsPerGuestMax=infinity\n"
					"[Memory]\n"
					"RequireSeals=required\n"
					"PinSliceSize=2M\n"
					"[Clients]\n"
					"Users=root 1234\n"
					"Groups=0\n"
					"FirstRequestTimeout=250ms\n"
					"RateDelayMax=20ms\n"
					"[Translation]\n"
					"Designations=RT ST\n");
	config = load_good();
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_PINNED_BYTES].max,
			 12ull << 30);
	assert_int_equal(config->broker.limits[LIMIT_GUEST].max[LEDGER_PINNED_BYTES].max, 1234);
	assert_int_equal(config->broker.limits[LIMIT_GUEST].max[LEDGER_MAPPINGS].max, UINT64_MAX);
	assert_int_equal(config->broker.require_seals, BROKER_SEALS_REQUIRED);
	assert_int_equal(config->broker.pin_slice_bytes, 2ull << 20);
	assert_int_equal(config->rpc.n_client_uids, 2);
	assert_int_equal(config->rpc.client_uids[0], 0);
	assert_int_equal(config->rpc.client_uids[1], 1234);
	assert_int_equal(config->rpc.n_client_gids, 1);
	assert_int_equal(config->rpc.first_request_ms, 250);
	assert_int_equal(config->rpc.rate_delay_ms, 20);
	assert_int_equal(config->broker.designations,
			 1u << S390_LEVEL_SEGMENT | 1u << S390_LEVEL_REGION_THIRD);
	config_free(config);
}

static void test_drop_ins_follow_in_order_of_names(void **state)
{
	struct config *config;

	(void)state;
	file_write("iommubrokerd.conf", "[Limits]\nSessionsMax=5\nGuestsPerSessionMax=3\n");
	file_write("iommubrokerd.conf.d/20-b.conf", "[Limits]\nSessionsMax=7\n");
	file_write("iommubrokerd.conf.d/10-a.conf", "[Limits]\nSessionsMax=6\n");
	file_write("iommubrokerd.conf.d/30-c.txt", "[Limits]\nSessionsMax=8\n");
	config = load_good();
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 7);
	assert_int_equal(config->broker.limits[LIMIT_SESSION].max[LEDGER_GUESTS].max, 3);
	config_free(config);
}

static void test_device_rules_are_sections_in_order(void **state)
{
	const struct broker_device_rule *rules;
	struct config *config;

	(void)state;
	file_write("device.d/10.conf",
		   "[Device]\nTenant=prod vms/*\nUser=7 8\nFunctionId=1, 0x12-0x1f\n"
		   "PciAddress=0000:00:04.0 0000:3B:00.*\nId=8086:1572 1AF4:*\n"
		   "RelaxedTranslation=yes\n"
		   "[Device]\nFunctionId=*\n"
		   "[Device]\nUser=9\nPassedDescriptor=yes\n"
		   "[Device]\nAllow=no\nTenant=*\nUser=*\nId=*\n");
	config = load_good();
	rules = config->broker.device_rules;
	assert_int_equal(config->broker.n_device_rules, 4);
	assert_int_equal(rules[0].n_tenants, 2);
	assert_string_equal(rules[0].tenants[1], "vms/*");
	assert_int_equal(rules[0].n_users, 2);
	assert_int_equal(rules[0].users[1], 8);
	assert_int_equal(rules[0].n_fids, 2);
	assert_int_equal(rules[0].fids[0].last, 1);
	assert_int_equal(rules[0].fids[1].first, 0x12);
	assert_int_equal(rules[0].fids[1].last, 0x1f);
	assert_int_equal(rules[0].n_addresses, 2);
	assert_string_equal(rules[0].addresses[1], "0000:3b:00.*");
	assert_int_equal(rules[0].n_ids, 2);
	assert_int_equal(rules[0].ids[0].vendor, 0x8086);
	assert_int_equal(rules[0].ids[0].device, 0x1572);
	assert_true(rules[0].ids[1].any_device && !rules[0].ids[1].any_vendor);
	assert_true(rules[0].by_name && rules[0].relaxed && !rules[0].passed_descriptor);
	assert_non_null(strstr(rules[0].where, "10.conf:2"));
	assert_true(rules[1].by_name && !rules[1].n_fids && !rules[1].relaxed && !rules[1].deny);
	assert_true(rules[2].passed_descriptor && !rules[2].by_name);
	assert_true(rules[3].deny && rules[3].by_name && !rules[3].n_users && !rules[3].n_tenants &&
		    !rules[3].n_ids);
	assert_int_equal(config->broker.rule_lost, BROKER_RULE_LOST_KEEP);
	config_free(config);
}

static void test_quota_rules_are_files_in_order(void **state)
{
	const struct tenant_rule *rule;
	struct config *config;

	(void)state;
	file_write("quota.d/50-vms.conf",
		   "# all machines\n[Match]\nSlice=machine.slice *-vms.slice\n"
		   "User=0 1[0-9]*\nTenantPer=unit\n[Quota]\n"
		   "PinnedMemoryMax=64G\nPinnedMemoryPerGuestMax=16G\n"
		   "GuestsMax=32\n");
	file_write("quota.d/90-rest.conf", "[Match]\nUser=root\nGroup=*\n[Quota]\n"
					   "PinnedMemoryMax=infinity\nGuestsMax=0\n");
	config = load_good();
	assert_int_equal(config->broker.n_tenant_rules, 2);
	rule = &config->broker.tenant_rules[0];
	assert_string_equal(rule->name, "vms");
	assert_int_equal(rule->per, TENANT_PER_UNIT);
	assert_int_equal(rule->match.n[TENANT_SLICE], 2);
	assert_string_equal(rule->match.patterns[TENANT_SLICE][1], "*-vms.slice");
	assert_string_equal(rule->match.patterns[TENANT_USER][1], "1[0-9]*");
	assert_true(rule->limits[LIMIT_TENANT].max[LEDGER_PINNED_BYTES].set);
	assert_int_equal(rule->limits[LIMIT_TENANT].max[LEDGER_PINNED_BYTES].max, 64ull << 30);
	assert_non_null(
		strstr(rule->limits[LIMIT_TENANT].max[LEDGER_PINNED_BYTES].where, "50-vms.conf:7"));
	assert_int_equal(rule->limits[LIMIT_GUEST].max[LEDGER_PINNED_BYTES].max, 16ull << 30);
	assert_int_equal(rule->limits[LIMIT_TENANT].max[LEDGER_GUESTS].max, 32);
	assert_false(rule->limits[LIMIT_GUEST].max[LEDGER_GUESTS].set);
	rule++;
	assert_string_equal(rule->name, "rest");
	assert_string_equal(rule->match.patterns[TENANT_USER][0], "0"); /* names become numbers */
	assert_string_equal(rule->match.patterns[TENANT_GROUP][0], "*");
	assert_int_equal(rule->limits[LIMIT_TENANT].max[LEDGER_PINNED_BYTES].max, UINT64_MAX);
	assert_true(rule->limits[LIMIT_TENANT].max[LEDGER_GUESTS].set);
	assert_int_equal(rule->limits[LIMIT_TENANT].max[LEDGER_GUESTS].max, 0);
	config_free(config);
}

static void test_emulated_functions_are_sections(void **state)
{
	struct config *config;

	(void)state;
	file_write("iommubrokerd.conf",
		   "[EmulatedFunction]\nFunctionId=0x20\nPciAddress=0001:00:00.0\n"
		   "[EmulatedFunction]\nPciAddress=0002:00:00.0\nFunctionId=33\n"
		   "DmaFirst=0\nDmaLast=0xffffffff\nDesignations=RT\nRefreshRequired=no\n");
	config = load_good();
	assert_int_equal(config->n_emulated, 2);
	assert_int_equal(config->emulated[0].fid, 0x20);
	assert_int_equal(config->emulated[0].dma_first, 0x100000000);
	assert_true(config->emulated[0].refresh_required);
	assert_int_equal(config->emulated[1].fid, 33);
	assert_int_equal(config->emulated[1].dma_last, 0xffffffff);
	assert_false(config->emulated[1].refresh_required);
	assert_string_equal(config->emulated[1].pci_address, "0002:00:00.0");
	config_free(config);
}

/* 195 characters with the key before it: a number behind it crosses inih's limit. */
#define ONES20 "1 1 1 1 1 1 1 1 1 1 "
#define LONG   ONES20 ONES20 ONES20 ONES20 ONES20 ONES20 ONES20 ONES20 ONES20 "1 1"

static const struct {
	const char *file, *text, *error;
} mistakes[] = {
	{"iommubrokerd.conf", "[Limits]\nPinedMemoryMax=1\n",
	 ":2: unknown key 'PinedMemoryMax'; did you mean PinnedMemoryMax?"},
	{"iommubrokerd.conf", "[Limit]\nSessionsMax=1\n",
	 ":1: unknown section 'Limit'; did you mean Limits?"},
	{"iommubrokerd.conf", "[Nonsense]\nSessionsMax=1\n", ":1: unknown section 'Nonsense'"},
	{"iommubrokerd.conf", "\n[Limits]\nSessionsMax=many\n",
	 ":3: [Limits] SessionsMax=: 'many' is not a number"},
	{"iommubrokerd.conf", "[Limits]\nSessionsMax=0\n",
	 ":2: [Limits] SessionsMax=: '0' is not between 1 and 18446744073709551615"},
	{"iommubrokerd.conf", "[Limits]\nSessionsMax=-1\n", "'-1' is not a number"},
	{"iommubrokerd.conf", "[Limits]\nPinnedMemoryMax=18446744073709551616\n", "is not a size"},
	{"iommubrokerd.conf", "[Limits]\nPinnedMemoryMax=17179869184G\n", "is not a size"},
	{"iommubrokerd.conf", "[Limits]\nPinnedMemoryMax=101%\n", "is not a size"},
	{"iommubrokerd.conf", "[Limits]\nPinnedMemoryMax=1Q\n", "is not a size"},
	{"iommubrokerd.conf", "[Limits]\nRequestRateMax=500\n",
	 ":2: [Limits] RequestRateMax=: '500' is not so many a second: 500/s, or infinity"},
	{"iommubrokerd.conf", "[Limits]\nRefreshRatePerTenantMax=0/s\n",
	 "'0/s' is not between 1 and"},
	{"quota.d/a.conf", "[Match]\nUser=*\n[Quota]\nConnectionRateMax=5/m\n",
	 ":4: ConnectionRateMax=: '5/m' is not so many a second: 500/s, or infinity"},
	{"iommubrokerd.conf", "[Memory]\nRequireSeals=maybe\n",
	 "'maybe' is not one of off, permissive, required"},
	{"iommubrokerd.conf", "[Memory]\nPinSliceSize=512M\n",
	 "is not between 1048576 and 268435456"},
	{"iommubrokerd.conf", "[Clients]\nUsers=no-such-user-here\n", "is not a user of this host"},
	{"iommubrokerd.conf", "[Clients]\nGroups=no-such-group-here\n",
	 "is not a group of this host"},
	{"iommubrokerd.conf", "[Clients]\nFirstRequestTimeout=10\n", "is not a time with its unit"},
	{"iommubrokerd.conf", "[Translation]\nDesignations=ST XT\n",
	 "'XT' is not one of ST, RT, RS, RF"},
	{"iommubrokerd.conf", "[Translation]\nDesignations=\n", "is not a set of ST"},
	{"iommubrokerd.conf", "[Limits]\njust words\n",
	 ":2: neither [Section], Key=value nor a comment"},
	{"iommubrokerd.conf", "[EmulatedFunction]\nFunctionId=1\n", "PciAddress= is missing"},
	{"iommubrokerd.conf", "[EmulatedFunction]\nPciAddress=0:0:4.0\n", "is not a PCI address"},
	{"iommubrokerd.conf",
	 "[EmulatedFunction]\nFunctionId=1\nPciAddress=0000:00:01.0\n"
	 "[EmulatedFunction]\nFunctionId=1\nPciAddress=0000:00:02.0\n",
	 "numbers 1 and 2 have the same"},
	{"device.d/a.conf", "[Device]\nFunctionId=x\n", ":2: FunctionId=: 'x' is not a number"},
	{"device.d/a.conf", "[Device]\nFunctionId=1-\n", ":2: FunctionId=: '1-' is not a number"},
	{"device.d/a.conf", "[Device]\nFunctionId=0x100000000\n", "a number of at most 32 bits"},
	{"device.d/a.conf", "[Device]\nFunctionId=7-6\n", "'7-6' ends before it begins"},
	{"device.d/a.conf", "[Device]\nPciAddress=3b:00.0\n",
	 "'3b:00.0' is not a PCI address like 0000:00:04.0"},
	{"device.d/a.conf", "[Device]\nPciAddress=3b:00.*\n",
	 ":2: PciAddress=: no PCI address fits '3b:00.*'; a glob is like 0000:3b:00.*"},
	{"device.d/a.conf", "[Device]\nPciAddress=0000:xx:*\n", "no PCI address fits"},
	{"device.d/a.conf", "[Device]\nId=8086\n", ":2: Id=: '8086' is not a vendor and a device"},
	{"device.d/a.conf", "[Device]\nId=8086:15722\n", "is not a vendor and a device id in hex"},
	{"device.d/a.conf", "[Device]\nTenant=\nId=*\n", ":2: Tenant=: names nothing; * is any"},
	{"device.d/a.conf", "[Device]\nSlice=prod.slice\nFunctionId=*\n",
	 ":2: Slice= is a key of [Match] in quota.d"},
	{"device.d/a.conf", "[Device]\nTennant=prod\n", "did you mean Tenant?"},
	{"device.d/a.conf",
	 "[Device]\nFunctionId=1\nAllow=no\nRelaxedTranslation=yes\n[Device]\n"
	 "Id=*\n",
	 ":2: [Device] with Allow=no that grants"},
	{"iommubrokerd.conf", "[Devices]\nOnRuleLost=drop\n",
	 ":2: [Devices] OnRuleLost=: 'drop' is not one of keep, revoke"},
	{"device.d/a.conf", "[Device]\nUser=1\n", "names no FunctionId=, PciAddress="},
	{"device.d/a.conf", "[Device]\nUser=\nFunctionId=1\n", ":2: User=: names nobody"},
	{"device.d/a.conf", "[Device]\nUser= ,\nFunctionId=1\n", ":2: User=: names nobody"},
	/* neither goes on in the next line, nor is cut in two */
	{"iommubrokerd.conf", "[Clients]\nUsers=1\n  2 3\n",
	 ":3: neither [Section], Key=value nor a comment"},
	{"device.d/a.conf", "[Device]\nUser=1\nFunctionId=" LONG " 0x1234\n",
	 ":3: more than 198 characters"},
	{"device.d/a.conf", "[Device]\nFunctonId=1\n",
	 ":2: unknown key 'FunctonId'; did you mean FunctionId?"},
	{"device.d/a.conf", "[Devices]\nFunctionId=1\n",
	 ":1: unknown section 'Devices'; did you mean Device?"},
	{"device.d/a.conf", "[Device]\nFunctionId=1\nRelaxedTranslation=perhaps\n",
	 ":3: RelaxedTranslation=: 'perhaps' is not yes or no"},
	{"quota.d/a.conf", "[Match]\nUser=*\n[Quotas]\nGuestsMax=1\n",
	 ":3: unknown section 'Quotas'; did you mean Quota?"},
	{"quota.d/a.conf", "[Macht]\nUser=*\n", ":1: unknown section 'Macht'; did you mean Match?"},
	{"quota.d/a.conf", "[Match]\nUsr=*\n", ":2: unknown key 'Usr'; did you mean User?"},
	{"quota.d/a.conf", "[Match]\nUser=*\n[Quota]\nPinnedMemoryMaks=1G\n",
	 ":4: unknown key 'PinnedMemoryMaks'; did you mean PinnedMemoryMax?"},
	{"quota.d/a.conf", "[Match]\nUser=*\n[Quota]\nPinnedMemoryMax=1Q\n",
	 ":4: PinnedMemoryMax=: '1Q' is not a size"},
	{"quota.d/a.conf", "[Match]\nUser=*\n[Quota]\nGuestsMax=-1\n",
	 ":4: GuestsMax=: '-1' is not a number"},
	{"quota.d/a.conf", "[Match]\nUser=no such user here\n", ":2: User=: 'no'"},
	{"quota.d/a.conf", "[Match]\nUser=nosuchuser-*\n",
	 ":2: User=: no user's name matches 'nosuchuser-*'"},
	{"quota.d/a.conf", "[Match]\nGroup=nosuchgroup-*\n",
	 ":2: Group=: no group's name matches 'nosuchgroup-*'"},
	{"quota.d/a.conf", "[Match]\nUser=\n", ":2: User=: names nothing; * is any"},
	{"quota.d/a.conf", "[Match]\nCGroup=machine.slice\n",
	 ":2: CGroup=: 'machine.slice' does not begin with /"},
	{"quota.d/a.conf", "[Match]\nUser=*\nTenantPer=pod\n",
	 ":3: TenantPer=: 'pod' is not one of rule, user, unit, slice"},
	{"quota.d/a.conf", "[Quota]\nGuestsMax=1\n", "[Match] names nobody; User=* is everybody"},
	{"quota.d/b c.conf", "[Match]\nUser=*\n", "letters, digits and - _ . only"},
	{"quota.d/a-name-that-is-longer-than-a-tenant-may-have.conf", "[Match]\nUser=*\n",
	 "has more than 23 bytes"},
};

static void test_each_mistake_is_told(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
		struct config *config = NULL;

		file_write(mistakes[i].file, mistakes[i].text);
		assert_int_equal(load(&config), -EINVAL);
		if (!strstr(config->mistakes[0], mistakes[i].error))
			fail_msg("'%s' should say '%s'", config->mistakes[0], mistakes[i].error);
		config_free(config);
		file_remove(mistakes[i].file);
	}
}

/* As the package puts it there; on this host the group may be or not be. */
static void packaged_copy(const char *name, const char *as)
{
	char text[4096] = "";
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), PACKAGED "/%s", name);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_true(fread(text, 1, sizeof(text) - 1, file) > 0);
	fclose(file);
	file_write(as, text);
}

static void test_packaged_rule_is_closed(void **state)
{
	const struct group *group = getgrnam("iommubroker-clients");
	struct tenant_identity other = {.uid = 4711, .n_groups = 1, .groups = {4711}};
	struct tenant_identity member = {.uid = 4712, .n_groups = 1};
	char name[TENANT_NAME_MAX];
	const struct tenant_rule *rule;
	struct config *config;

	(void)state;
	packaged_copy("10-clients.conf", "iommubrokerd.conf.d/10-clients.conf");
	packaged_copy("90-clients.conf", "quota.d/90-clients.conf");
	config = load_good();
	assert_int_equal(config->broker.n_tenant_rules, 1);
	assert_int_equal(config->rpc.n_client_gids, group ? 1 : 0);
	rule = &config->broker.tenant_rules[0];
	assert_null(tenant_rule_find(rule, 1, &other));
	assert_true(rule->limits[LIMIT_TENANT].max[LEDGER_PINNED_BYTES].set);
	if (group) {
		member.groups[0] = group->gr_gid;
		assert_ptr_equal(tenant_rule_find(rule, 1, &member), rule);
		tenant_rule_name(rule, &member, name);
		assert_string_equal(name, "clients/4712");
	}
	config_free(config);
}

static void test_a_name_that_need_not_exist(void **state)
{
	struct tenant_identity root = {.n_groups = 1};
	struct config *config;

	(void)state;
	file_write("iommubrokerd.conf", "[Clients]\nUsers=-no-such-user-here -root\n"
					"Groups=-no-such-group-here\n");
	file_write("quota.d/a.conf", "[Match]\nGroup=-no-such-group-here -root\n");
	file_write("quota.d/b.conf", "[Match]\nGroup=-no-such-group-here\n");
	config = load_good();
	assert_int_equal(config->rpc.n_client_uids, 1);
	assert_int_equal(config->rpc.client_uids[0], 0);
	assert_int_equal(config->rpc.n_client_gids, 0);
	assert_string_equal(tenant_rule_find(config->broker.tenant_rules, 2, &root)->name, "a");
	assert_null(tenant_rule_find(config->broker.tenant_rules + 1, 1, &root));
	config_free(config);
}

static void test_limits_say_where_they_stand(void **state)
{
	const struct limit_set *limits;
	struct config *config;

	(void)state;
	file_write("iommubrokerd.conf", "[Limits]\nGuestsMax=5\n");
	config = load_good();
	limits = config->broker.limits;
	assert_non_null(strstr(limits[LIMIT_HOST].max[LEDGER_GUESTS].where, "iommubrokerd.conf:2"));
	assert_string_equal(limits[LIMIT_TENANT].max[LEDGER_GUESTS].where,
			    "setting GuestsPerTenantMax= (default)");
	assert_string_equal(limits[LIMIT_HOST].high[LEDGER_PINNED_BYTES].where,
			    "setting PinnedMemoryHigh= (default)");
	config_free(config);
}

/* Two files may not be one tenant by accident. */
static void test_quota_rules_have_names_of_their_own(void **state)
{
	struct config *config = NULL;

	(void)state;
	file_write("quota.d/10-a.conf", "[Match]\nUser=*\n");
	file_write("quota.d/20-a.conf", "[Match]\nUser=*\n");
	assert_int_equal(load(&config), -EINVAL);
	assert_non_null(strstr(config->mistakes[0], "another file's rule is called 'a' too"));
	config_free(config);
}

static void test_missing_folder_is_told(void **state)
{
	struct config *config = NULL;

	(void)state;
	assert_int_equal(config_load(&config, (const char *const[]){"/nonexistent/folder"}, 1),
			 -EINVAL);
	assert_non_null(strstr(config->mistakes[0], "/nonexistent/folder"));
	config_free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults_are_the_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_values_of_every_type, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drop_ins_follow_in_order_of_names, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_device_rules_are_sections_in_order, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_emulated_functions_are_sections, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_quota_rules_are_files_in_order, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_quota_rules_have_names_of_their_own, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_each_mistake_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(test_packaged_rule_is_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_name_that_need_not_exist, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits_say_where_they_stand, setup, teardown),
		cmocka_unit_test(test_missing_folder_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
