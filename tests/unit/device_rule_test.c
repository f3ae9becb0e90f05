/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Device rules: what each kind of property fits, and that the first that matches wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/device_rule.h"

static const struct iommu_device_info card = {
	.has_fid = true,
	.fid = 0x12,
	.pci_address = "0000:3b:00.1",
	.vendor = 0x8086,
	.device = 0x1572,
};
static const struct iommu_device_info no_fid = {
	.pci_address = "0001:00:00.0",
	.vendor = 0x1af4,
	.device = 0x1041,
};
/* As it is asked for, when there is none of that name. */
static const struct iommu_device_info only_fid = {.has_fid = true, .fid = 0x12};
static const struct iommu_device_info unknown = {0};

static const struct device_client prod = {.tenant = "prod", .uid = 1000};
static const struct device_client vm = {
	.tenant = "vms/machine-qemu\\x2d7.scope",
	.uid = 64055,
};

static struct device_judgement judge(const struct broker_device_rule *rules, size_t n,
				     const struct device_client *client, bool passed,
				     const struct iommu_device_info *info)
{
	const struct broker_settings settings = {.device_rules = rules, .n_device_rules = n};
	struct device_judgement judgement;

	device_judge(&settings, client, passed, info, &judgement);
	return judgement;
}

static bool allows(const struct broker_device_rule *rule, const struct device_client *client,
		   const struct iommu_device_info *info)
{
	return judge(rule, 1, client, false, info).kind == DEVICE_ALLOWED;
}

static void test_for_whom(void **state)
{
	const struct {
		struct broker_device_rule rule;
		bool prod, vm;
	} table[] = {
		{{.by_name = true}, true, true},
		{{.by_name = true, .n_tenants = 1, .tenants = {"prod"}}, true, false},
		{{.by_name = true, .n_tenants = 1, .tenants = {"pro"}}, false, false},
		{{.by_name = true, .n_tenants = 1, .tenants = {"vms/*"}}, false, true},
		{{.by_name = true, .n_tenants = 1, .tenants = {"vms"}}, false, false},
		{{.by_name = true, .n_tenants = 2, .tenants = {"v*", "p?od"}}, true, true},
		{{.by_name = true, .n_tenants = 1, .tenants = {"*7.scope"}}, false, true},
		{{.by_name = true, .n_users = 1, .users = {1000}}, true, false},
		{{.by_name = true, .n_users = 2, .users = {1, 64055}}, false, true},
		{{.by_name = true, .n_users = 1, .users = {0}}, false, false},
		/* both must fit */
		{{.by_name = true,
		  .n_tenants = 1,
		  .tenants = {"prod"},
		  .n_users = 1,
		  .users = {64055}},
		 false,
		 false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (allows(&table[i].rule, &prod, &card) != table[i].prod)
			fail_msg("row %zu, prod", i);
		if (allows(&table[i].rule, &vm, &card) != table[i].vm)
			fail_msg("row %zu, vm", i);
	}
}

static void test_which_function(void **state)
{
	const struct {
		struct broker_device_rule rule;
		bool card, no_fid, only_fid, unknown;
	} table[] = {
		{{.by_name = true}, true, true, true, true},
		{{.by_name = true, .n_fids = 1, .fids = {{0x12, 0x12}}}, true, false, true, false},
		{{.by_name = true, .n_fids = 1, .fids = {{0x13, UINT32_MAX}}}, false},
		{{.by_name = true, .n_fids = 2, .fids = {{0, 0x11}, {0x12, 0x20}}},
		 true,
		 false,
		 true,
		 false},
		{{.by_name = true, .n_fids = 1, .fids = {{0, UINT32_MAX}}},
		 true,
		 false,
		 true,
		 false},
		{{.by_name = true, .n_addresses = 1, .addresses = {"0000:3b:00.*"}}, true},
		{{.by_name = true, .n_addresses = 1, .addresses = {"0000:3b:00.0"}}, false},
		{{.by_name = true, .n_addresses = 2, .addresses = {"x", "*:00:00.0"}}, false, true},
		/* no name is no name that a glob fits */
		{{.by_name = true, .n_addresses = 1, .addresses = {"*"}}, true, true, false, false},
		{{.by_name = true, .n_ids = 1, .ids = {{.vendor = 0x8086, .device = 0x1572}}},
		 true},
		{{.by_name = true, .n_ids = 1, .ids = {{.vendor = 0x8086, .device = 0x1573}}},
		 false},
		{{.by_name = true, .n_ids = 1, .ids = {{.vendor = 0x1af4, .any_device = true}}},
		 false,
		 true},
		{{.by_name = true, .n_ids = 1, .ids = {{.any_vendor = true, .device = 0x1572}}},
		 true},
		{{.by_name = true, .n_ids = 1, .ids = {{.any_vendor = true, .any_device = true}}},
		 true,
		 true,
		 false,
		 false},
		/* all kinds must fit */
		{{.by_name = true,
		  .n_fids = 1,
		  .fids = {{0x12, 0x12}},
		  .n_addresses = 1,
		  .addresses = {"0000:3b:*"},
		  .n_ids = 1,
		  .ids = {{.vendor = 0x8086, .any_device = true}}},
		 true},
		{{.by_name = true,
		  .n_fids = 1,
		  .fids = {{0x12, 0x12}},
		  .n_ids = 1,
		  .ids = {{.vendor = 0x1af4, .any_device = true}}},
		 false},
		{{.by_name = true,
		  .n_fids = 1,
		  .fids = {{0x13, 0x13}},
		  .n_addresses = 1,
		  .addresses = {"0000:3b:*"}},
		 false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (allows(&table[i].rule, &prod, &card) != table[i].card)
			fail_msg("row %zu, card", i);
		if (allows(&table[i].rule, &prod, &no_fid) != table[i].no_fid)
			fail_msg("row %zu, no_fid", i);
		if (allows(&table[i].rule, &prod, &only_fid) != table[i].only_fid)
			fail_msg("row %zu, only_fid", i);
		if (allows(&table[i].rule, &prod, &unknown) != table[i].unknown)
			fail_msg("row %zu, unknown", i);
	}
}

static void test_descriptors(void **state)
{
	const struct broker_device_rule rules[] = {
		{.by_name = true, .n_fids = 1, .fids = {{0x12, 0x12}}, .where = "f:1"},
		{.passed_descriptor = true, .where = "f:2"}, /* names no function */
		{.by_name = true, .where = "f:3"},
	};
	const struct broker_settings named = {.device_rules = rules, .n_device_rules = 1};
	const struct broker_settings both = {.device_rules = rules, .n_device_rules = 2};

	(void)state;
	assert_int_equal(judge(rules, 3, &prod, true, &card).kind, DEVICE_NO_DESCRIPTOR);
	assert_string_equal(judge(rules, 3, &prod, true, &card).where, "f:1");
	assert_int_equal(judge(rules, 3, &prod, true, &no_fid).kind, DEVICE_ALLOWED);
	assert_int_equal(judge(rules, 3, &prod, true, &unknown).kind, DEVICE_ALLOWED);
	/* which opens none by its name */
	assert_int_equal(judge(&rules[1], 1, &prod, false, &no_fid).kind, DEVICE_NO_RULE);
	assert_string_equal(judge(rules, 3, &prod, false, &no_fid).where, "f:3");
	assert_false(device_may_pass(&named, &prod));
	assert_true(device_may_pass(&both, &prod));
}

static void test_refusals_name_it(void **state)
{
	const struct broker_device_rule rule = {
		.by_name = true, .deny = true, .where = "device.d/10-no.conf:7"};
	struct device_judgement judgement = judge(&rule, 1, &prod, false, &card);
	struct refusal refusal = {0};

	(void)state;
	assert_int_equal(device_refuse_judgement(&judgement, &prod, &card, &refusal), REFUSED);
	assert_int_equal(refusal.kind, REFUSAL_DENIED);
	assert_string_equal(refusal.reason, "DEVICE_DENIED");
	assert_string_equal(refusal.tenant, "prod");
	assert_string_equal(refusal.rule, "device.d/10-no.conf:7");
	assert_string_equal(refusal.message,
			    "the rule at device.d/10-no.conf:7 denies 0000:3b:00.1 "
			    "(function 0x12), 8086:1572 to tenant 'prod'");
	device_note(&card, &refusal);
	assert_string_equal(refusal.note,
			    "the function is 0000:3b:00.1 (function 0x12), 8086:1572");
	judgement = judge(&rule, 0, &prod, false, &only_fid);
	device_refuse_judgement(&judgement, &prod, &only_fid, &refusal);
	assert_string_equal(refusal.reason, "NO_DEVICE_RULE");
	assert_string_equal(refusal.rule, "");
	assert_string_equal(refusal.note, "");
	assert_string_equal(refusal.message,
			    "no device rule lets tenant 'prod', user 1000, have function 0x12");
}

/* ── any rules ─────────────────────────────────────────────────────────────────────────────── */

#define RULES  12
#define ROUNDS 20000

static uint32_t seed = 20220314;

static uint32_t roll(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

static struct broker_device_rule rule_random(size_t number)
{
	static const char *const tenants[] = {"prod", "vms/*", "*", "test"};
	static const char *const addresses[] = {"0000:3b:00.*", "0001:*", "*", "ffff:*"};
	struct broker_device_rule rule = {
		.by_name = roll(4),
		.passed_descriptor = roll(2),
		.deny = !roll(3),
		.relaxed = roll(2),
		.n_tenants = roll(2),
		.tenants = {tenants[roll(4)]},
		.n_users = !roll(3),
		.users = {roll(2) ? 1000 : 64055},
		.n_addresses = !roll(3),
		.addresses = {addresses[roll(4)]},
		.n_fids = !roll(3),
		.n_ids = !roll(4),
		.ids = {{.vendor = 0x8086, .any_device = true, .any_vendor = roll(2)}},
	};

	rule.fids[0].first = roll(0x20);
	rule.fids[0].last = rule.fids[0].first + roll(0x20);
	snprintf(rule.where, sizeof(rule.where), "rule:%zu", number);
	return rule;
}

/* The judgement of all is that of the first which, alone, says anything at all; rules after it, and
 * rules that say nothing, change nothing. */
static void test_the_first_that_matches_wins(void **state)
{
	static const struct iommu_device_info *const infos[] = {&card, &no_fid, &only_fid,
								&unknown};
	struct broker_device_rule rules[RULES];
	size_t by_rule = 0, by_none = 0, denied = 0;

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		const struct device_client *client = roll(2) ? &prod : &vm;
		const struct iommu_device_info *info = infos[roll(4)];
		struct device_judgement all, one = {.kind = DEVICE_NO_RULE};
		bool passed = roll(2);
		size_t n = roll(RULES + 1);

		for (size_t i = 0; i < n; i++)
			rules[i] = rule_random(i);
		all = judge(rules, n, client, passed, info);
		for (size_t i = 0; i < n && one.kind == DEVICE_NO_RULE; i++)
			one = judge(&rules[i], 1, client, passed, info);
		assert_int_equal(all.kind, one.kind);
		assert_int_equal(all.relaxed, one.relaxed);
		assert_string_equal(all.where, one.where);
		by_rule += all.kind != DEVICE_NO_RULE;
		by_none += all.kind == DEVICE_NO_RULE;
		denied += all.kind == DEVICE_DENIED;
	}
	assert_true(by_rule > ROUNDS / 4 && by_none > ROUNDS / 20 && denied > ROUNDS / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_for_whom),
		cmocka_unit_test(test_which_function),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_refusals_name_it),
		cmocka_unit_test(test_the_first_that_matches_wins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
