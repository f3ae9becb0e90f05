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

#include "config.h"
#include "config_table.h"

static char folder[64];

static int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *walk)
{
	(void)status;
	(void)flag;
	(void)walk;
	return remove(path);
}

static int setup(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/config-test-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void file_write(const char *name, const char *text)
{
	char path[256], *slash;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	slash = strrchr(path, '/');
	*slash = 0;
	mkdir(path, 0700);
	*slash = '/';
	file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void folder_make(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void link_make(const char *name, const char *target)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(symlink(target, path), 0);
}

static void file_remove(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(unlink(path), 0);
}

static int load(struct config **ret)
{
	const char *const folders[] = {folder};

	*ret = NULL;
	return config_load(ret, folders, 1);
}

static struct config *load_good(void)
{
	struct config *config;
	int status = load(&config);

	if (status)
		fail_msg("%s", config_error(config, status));
	return config;
}

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

/* ── all of them at once ───────────────────────────────────────────────────────────────────── */

/* Every mistake of the table, each in a file of its own: all are told, and of each only itself. */
static void test_all_mistakes_are_told_in_one_go(void **state)
{
	static const struct {
		const char *file, *text;
		size_t n;
		const char *errors[4];
	} files[] = {
		{"iommubrokerd.conf",
		 "[Limts]\nSessionsMax=1\nGuestsMax=2\n[Limits]\nSessionsMax=x\n  2 3\n"
		 "SessionsMax=5\n",
		 3,
		 {"iommubrokerd.conf:1: unknown section 'Limts'; did you mean Limits?",
		  "iommubrokerd.conf:5: [Limits] SessionsMax=: 'x' is not a number",
		  "iommubrokerd.conf:6: neither [Section], Key=value nor a comment"}},
		{"iommubrokerd.conf.d/a.conf",
		 "SessionsMax=1\n[Limits\nSessionsMax=2\n",
		 2,
		 {"a.conf:1: a key before any [Section]",
		  "a.conf:2: neither [Section], Key=value nor a comment"}},
		{"quota.d/10-a.conf",
		 "[Match]\nUsr=*\n[Quota]\nGuestsMax=-1\n",
		 2,
		 {"10-a.conf:2: unknown key 'Usr'", "10-a.conf:4: GuestsMax=: '-1'"}},
		{"quota.d/20-b.conf",
		 "[Quota]\nGuestsMax=1\n",
		 1,
		 {"20-b.conf: [Match] names nobody"}},
		{"device.d/a.conf",
		 "[Device]\nFunctionId=x\n[Device]\nUser=0\n[Device]\nFunctionId=1\n",
		 2,
		 {"a.conf:2: FunctionId=: 'x'", "a.conf:4: [Device] that names no"}},
	};
	struct config *config;
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		file_write(files[i].file, files[i].text);
	assert_int_equal(load(&config), -EINVAL);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		for (size_t j = 0; j < files[i].n; j++, n++)
			if (!strstr(config->mistakes[n], files[i].errors[j]))
				fail_msg("'%s' should say '%s'", config->mistakes[n],
					 files[i].errors[j]);
	assert_int_equal(config->n_mistakes, n);
	config_free(config);
}

static void test_more_mistakes_are_counted(void **state)
{
	char text[4096] = "[Limits]\n", *told = NULL;
	struct config *config;
	size_t bytes;
	FILE *out;

	(void)state;
	for (size_t i = 0; i < CONFIG_MISTAKES_MAX + 3; i++)
		strcat(text, "SessionsMax=x\n");
	file_write("iommubrokerd.conf", text);
	assert_int_equal(load(&config), -EINVAL);
	assert_int_equal(config->n_mistakes, CONFIG_MISTAKES_MAX + 3);
	out = open_memstream(&told, &bytes);
	assert_non_null(out);
	config_print_mistakes(out, config, -EINVAL);
	fclose(out);
	assert_non_null(strstr(told, ":33: [Limits] SessionsMax="));
	assert_null(strstr(told, ":34: "));
	assert_non_null(strstr(told, "\nand 3 more\n"));
	free(told);
	config_free(config);
}

/* ── precedence ────────────────────────────────────────────────────────────────────────────── */

static struct config *load_three(int want)
{
	char paths[3][128];
	const char *const folders[] = {paths[0], paths[1], paths[2]};
	struct config *config = NULL;
	int status;

	snprintf(paths[0], sizeof(paths[0]), "%s/etc", folder);
	snprintf(paths[1], sizeof(paths[1]), "%s/run", folder);
	snprintf(paths[2], sizeof(paths[2]), "%s/lib", folder);
	status = config_load(&config, folders, 3);
	if (status != want)
		fail_msg("%s", config_error(config, status));
	return config;
}

static uint64_t limit_of(const struct config *config, size_t rule)
{
	return config->broker.tenant_rules[rule].limits[LIMIT_TENANT].max[LEDGER_GUESTS].max;
}

/* By the name of the file, in every folder, and what is empty or /dev/null hides what is below. */
static void test_folders_in_order_of_precedence(void **state)
{
	static const char *const tops[] = {"etc", "run", "lib"};
	struct config *config;
	char name[64], text[96];

	(void)state;
	for (int i = 0; i < 3; i++) {
		folder_make(tops[i]);
		snprintf(name, sizeof(name), "%s/quota.d", tops[i]);
		folder_make(name);
		snprintf(name, sizeof(name), "%s/quota.d/50-all.conf", tops[i]);
		snprintf(text, sizeof(text), "[Match]\nUser=*\n[Quota]\nGuestsMax=%d\n", 1 + i);
		file_write(name, text);
		snprintf(name, sizeof(name), "%s/iommubrokerd.conf", tops[i]);
		snprintf(text, sizeof(text), "[Limits]\nSessionsMax=%d\n", 11 + i);
		file_write(name, text);
	}
	file_write("lib/quota.d/40-low.conf", "[Match]\nUser=0\n[Quota]\nGuestsMax=9\n");
	config = load_three(0);
	assert_int_equal(config->broker.n_tenant_rules, 2);
	assert_string_equal(config->broker.tenant_rules[0].name, "low");
	assert_int_equal(limit_of(config, 1), 1);
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 11);
	config_free(config);

	file_remove("etc/quota.d/50-all.conf");
	file_remove("etc/iommubrokerd.conf");
	config = load_three(0);
	assert_int_equal(limit_of(config, 1), 2);
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 12);
	config_free(config);

	link_make("etc/quota.d/50-all.conf", "/dev/null");
	file_write("etc/quota.d/40-low.conf", "");
	link_make("etc/iommubrokerd.conf", "/dev/null");
	config = load_three(0);
	assert_int_equal(config->broker.n_tenant_rules, 0);
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 2048);
	config_free(config);
}

static void test_drop_ins_of_a_rule(void **state)
{
	struct config *config;

	(void)state;
	folder_make("etc");
	folder_make("run");
	folder_make("lib");
	folder_make("etc/quota.d");
	folder_make("lib/quota.d");
	file_write("lib/quota.d/50-a.conf",
		   "[Match]\nUser=7\n[Quota]\nGuestsMax=1\nDevicesMax=4\n");
	file_write("lib/quota.d/50-a.conf.d/20-x.conf", "[Quota]\nGuestsMax=2\n");
	file_write("etc/quota.d/50-a.conf.d/10-y.conf", "[Match]\nUser=8\n[Quota]\nGuestsMax=3\n");
	config = load_three(0);
	assert_int_equal(config->broker.n_tenant_rules, 1);
	assert_int_equal(limit_of(config, 0), 2);
	assert_int_equal(config->broker.tenant_rules[0].match.n[TENANT_USER], 2);
	config_free(config);

	file_write("etc/quota.d/50-a.conf.d/20-x.conf", "");
	config = load_three(0);
	assert_int_equal(limit_of(config, 0), 3);
	config_free(config);

	/* A mask hides the rule with all that adds to it. */
	link_make("etc/quota.d/50-a.conf", "/dev/null");
	config = load_three(0);
	assert_int_equal(config->broker.n_tenant_rules, 0);
	config_free(config);

	file_write("etc/quota.d/60-b.conf.d/x.conf", "[Quota]\nGuestsMax=3\n");
	config = load_three(-EINVAL);
	assert_non_null(
		strstr(config->mistakes[0], "60-b.conf.d: there is no 60-b.conf to add to"));
	assert_int_equal(config->n_mistakes, 1);
	config_free(config);
}

/* ── odd files ─────────────────────────────────────────────────────────────────────────────── */

static void test_what_editors_make(void **state)
{
	struct config *config;

	(void)state;
	file_write("iommubrokerd.conf", "\xef\xbb\xbf[Limits]\r\n\r\n  SessionsMax = 7 \r\n"
					"GuestsMax: 9 ; nine\r\n# end");
	file_write("iommubrokerd.conf.d/a.conf", "[Memory]\nPinSliceSize=1M");
	file_write("iommubrokerd.conf.d/a.conf~", "nonsense");
	file_write("iommubrokerd.conf.d/.a.conf", "nonsense");
	config = load_good();
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 7);
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_GUESTS].max, 9);
	assert_int_equal(config->broker.pin_slice_bytes, 1 << 20);
	config_free(config);
}

static void test_what_is_no_file(void **state)
{
	static const char *const told[] = {
		"/10-a.conf: is a folder, not a file",
		"/20-b.conf: cannot be read: Too many levels of symbolic links",
		"/30-c.conf: cannot be read: No such file or directory",
		"/40-d.conf: is neither a file nor a link to /dev/null",
		"/50-e.conf: is neither a file nor a link to /dev/null",
		"/60-f.conf: has more than 1048576 bytes",
	};
	struct config *config;
	char path[128];

	(void)state;
	folder_make("quota.d");
	folder_make("quota.d/10-a.conf");
	link_make("quota.d/20-b.conf", "20-b.conf");
	link_make("quota.d/30-c.conf", "nothing");
	snprintf(path, sizeof(path), "%s/quota.d/40-d.conf", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	link_make("quota.d/50-e.conf", "/dev/zero");
	file_write("quota.d/60-f.conf", "");
	snprintf(path, sizeof(path), "%s/quota.d/60-f.conf", folder);
	assert_int_equal(truncate(path, (1 << 20) + 1), 0);
	assert_int_equal(load(&config), -EINVAL);
	for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++)
		if (!strstr(config->mistakes[i], told[i]))
			fail_msg("'%s' should say '%s'", config->mistakes[i], told[i]);
	assert_int_equal(config->n_mistakes, sizeof(told) / sizeof(told[0]));
	config_free(config);

	assert_int_equal(nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	file_write("quota.d", "");
	file_write("device.d", "");
	assert_int_equal(load(&config), -EINVAL);
	assert_int_equal(config->n_mistakes, 2);
	assert_non_null(strstr(config->mistakes[0], "/quota.d: cannot be read: Not a directory"));
	assert_non_null(strstr(config->mistakes[config->n_mistakes - 1],
			       "/device.d: cannot be read: Not a directory"));
	config_free(config);
}

static void test_zero_bytes(void **state)
{
	char path[128];
	struct config *config;
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "%s/iommubrokerd.conf", folder);
	file = fopen(path, "we");
	assert_non_null(file);
	fwrite("[Limits]\nSessions\0Max=1\n", 1, 24, file);
	fclose(file);
	assert_int_equal(load(&config), -EINVAL);
	assert_int_equal(config->n_mistakes, 1);
	assert_non_null(strstr(config->mistakes[0], ":2: a zero byte"));
	config_free(config);
}

/* ── shown as it is read ───────────────────────────────────────────────────────────────────── */

/* Room for the value of any type, and as many numbers as a list has. */
union value {
	uint64_t number;
	uint32_t ids[CONFIG_IDS_MAX];
	char text[16];
};

static size_t value_bytes(enum setting_type type, size_t n)
{
	switch (type) {
	case SETTING_USERS:
	case SETTING_GROUPS:
		return n * sizeof(uint32_t);
	case SETTING_BOOL:
		return sizeof(bool);
	case SETTING_HEX16:
		return sizeof(uint16_t);
	case SETTING_COUNT32:
	case SETTING_MILLISECONDS:
	case SETTING_CHOICE:
	case SETTING_DESIGNATIONS:
		return sizeof(uint32_t);
	case SETTING_PCI_ADDRESS:
		return 13;
	default:
		return sizeof(uint64_t);
	}
}

static void assert_reads_back(const struct setting *setting, const union value *value, size_t n)
{
	union value read = {0};
	bool list = setting->type == SETTING_USERS || setting->type == SETTING_GROUPS;
	char text[1024], error[256] = "";
	size_t n_read = n;

	setting_format(setting, value, n, text, sizeof(text));
	if (setting_parse(setting, text, &read, list ? &n_read : NULL, error, sizeof(error)))
		fail_msg("%s: '%s' of our own writing: %s", setting->name, text, error);
	assert_int_equal(n_read, n);
	if (memcmp(&read, value, value_bytes(setting->type, n)))
		fail_msg("%s: '%s' is read as another value", setting->name, text);
}

static uint64_t random_next(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Within the setting's bounds, of every size, and often a whole number of some unit. */
static uint64_t number_make(const struct setting *setting, uint64_t widest)
{
	uint64_t max = setting->max ? setting->max : widest;
	uint64_t value = random_next() >> random_next() % 64;

	if (random_next() % 2)
		value = value >> random_next() % 64 << 10 * (random_next() % 6);
	if (random_next() % 8 == 0)
		value = max;
	return value < setting->min ? setting->min : value > max ? max : value;
}

static size_t value_make(const struct setting *setting, union value *ret)
{
	size_t n = 0;

	*ret = (union value){0};
	switch (setting->type) {
	case SETTING_USERS:
	case SETTING_GROUPS:
		for (n = 0; n < random_next() % (CONFIG_IDS_MAX + 1); n++)
			ret->ids[n] = (uint32_t)(random_next() % UINT32_MAX);
		return n;
	case SETTING_BOOL:
		*(bool *)ret = random_next() % 2;
		return 0;
	case SETTING_CHOICE:
		while (setting->choices[n])
			n++;
		ret->ids[0] = (uint32_t)(random_next() % n);
		return 0;
	case SETTING_DESIGNATIONS:
		ret->ids[0] = (uint32_t)(1 + random_next() % 15);
		return 0;
	case SETTING_HEX16:
		*(uint16_t *)ret = (uint16_t)random_next();
		return 0;
	case SETTING_COUNT32:
	case SETTING_MILLISECONDS:
		ret->ids[0] = (uint32_t)number_make(setting, UINT32_MAX);
		return 0;
	case SETTING_PCI_ADDRESS:
		snprintf(ret->text, sizeof(ret->text), "%04x:%02x:%02x.%x",
			 (unsigned int)random_next() & 0xffff, (unsigned int)random_next() & 0xff,
			 (unsigned int)random_next() & 0x1f, (unsigned int)random_next() & 7);
		return 0;
	default:
		ret->number = number_make(setting, UINT64_MAX);
		return 0;
	}
}

static void test_values_are_written_as_they_are_read(void **state)
{
	union value value;
	size_t n;

	(void)state;
	for (size_t i = 0; i < n_config_settings + n_emulated_settings; i++) {
		const struct setting *setting = i < n_config_settings
							? &config_settings[i]
							: &emulated_settings[i - n_config_settings];

		for (int turn = 0; turn < 500; turn++) {
			n = value_make(setting, &value);
			assert_reads_back(setting, &value, n);
		}
	}
}

static bool row_find(const struct config *running, const struct config *read, const char *section,
		     const char *key, struct operator_setting *ret)
{
	size_t at = 0;

	while (config_show_next(running, read, &at, ret))
		if (!strcmp(ret->section, section) && !strcmp(ret->key, key))
			return true;
	return false;
}

/* What is read at start only is shown as it runs, with what is to come; all else as it was read. */
static void test_shown_with_where_it_comes_from(void **state)
{
	struct config *running = load_good(), *read;
	struct operator_setting row;
	char from[128];

	(void)state;
	assert_true(n_config_settings <= CONFIG_SETTINGS_MAX);
	file_write("iommubrokerd.conf",
		   "[Limits]\nPinnedMemoryMax=50%\nSessionsMax=3\nSessionsMax=4\n"
		   "[Clients]\nUsers=root\n[Service]\nWorkerThreadsMax=5\n"
		   "[EmulatedFunction]\nFunctionId=9\nPciAddress=0000:00:09.0\n");
	file_write("quota.d/50-a.conf", "[Match]\nUser=root\n[Quota]\nGuestsMax=1\nGuestsMax=2\n");
	read = load_good();
	assert_true(row_find(running, read, "Limits", "SessionsMax", &row));
	assert_string_equal(row.value, "4");
	snprintf(from, sizeof(from), "%s/iommubrokerd.conf:4", folder);
	assert_string_equal(row.from, from);
	assert_true(row_find(running, read, "Limits", "PinnedMemoryMax", &row));
	assert_non_null(strstr(row.value, "50% ("));
	assert_true(row_find(running, read, "Clients", "Users", &row));
	assert_string_equal(row.value, "root");
	assert_true(row_find(running, read, "Service", "WorkerThreadsMax", &row));
	assert_string_equal(row.value, "32");
	assert_string_equal(row.pending, "5");
	assert_string_equal(row.from, "");
	assert_true(row_find(running, read, "EmulatedFunction", "FunctionId", &row));
	assert_string_equal(row.value, "");
	assert_string_equal(row.pending, "9");
	assert_true(row_find(running, read, "quota.d/50-a.conf [Quota]", "GuestsMax", &row));
	assert_string_equal(row.value, "2");
	assert_true(row_find(running, read, "quota.d/50-a.conf [Match]", "User", &row));
	assert_true(row_find(read, read, "EmulatedFunction", "FunctionId", &row));
	assert_string_equal(row.value, "9");
	assert_string_equal(row.pending, "");
	config_free(running);
	config_free(read);
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
		cmocka_unit_test_setup_teardown(test_all_mistakes_are_told_in_one_go, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_more_mistakes_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_folders_in_order_of_precedence, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_drop_ins_of_a_rule, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_editors_make, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_no_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zero_bytes, setup, teardown),
		cmocka_unit_test(test_values_are_written_as_they_are_read),
		cmocka_unit_test_setup_teardown(test_packaged_rule_is_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_name_that_need_not_exist, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits_say_where_they_stand, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shown_with_where_it_comes_from, setup,
						teardown),
		cmocka_unit_test(test_missing_folder_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
