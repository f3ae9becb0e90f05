/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which rule a client falls under, and what its tenant is called. */

#include "broker/tenant_rule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define QEMU  "/machine.slice/machine-qemu\\x2d7\\x2dweb.scope"
#define POD   "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12ab.slice/cri-77.scope"
#define USERS "/user.slice/user-1000.slice/user@1000.service"

static struct tenant_identity client(uid_t uid, gid_t gid, const char *cgroup)
{
	struct tenant_identity identity = {.uid = uid, .n_groups = 1, .groups = {gid}};

	snprintf(identity.cgroup, sizeof(identity.cgroup), "%s", cgroup);
	return identity;
}

static struct tenant_rule rule_of(enum tenant_property property, const char *pattern)
{
	struct tenant_rule rule = {.name = "rule"};

	rule.match.n[property] = 1;
	rule.match.patterns[property][0] = pattern;
	return rule;
}

static void test_each_property(void **state)
{
	const struct {
		enum tenant_property property;
		const char *pattern, *cgroup;
		bool want;
	} cases[] = {
		{TENANT_USER, "1000", QEMU, true},
		{TENANT_USER, "100", QEMU, false},
		{TENANT_USER, "10000", QEMU, false},
		{TENANT_USER, "*", "", true},
		{TENANT_GROUP, "36", QEMU, true},
		{TENANT_GROUP, "1000", QEMU, false},
		{TENANT_UNIT, "machine-qemu\\\\x2d*.scope", QEMU, true},
		{TENANT_UNIT, "machine-*", QEMU, true},
		{TENANT_UNIT, "machine.slice", QEMU, false}, /* a slice is no unit here */
		{TENANT_UNIT, "*", "/", false},
		{TENANT_SLICE, "machine.slice", QEMU, true},
		{TENANT_SLICE, "machine", QEMU, false},
		{TENANT_SLICE, "machine-*", QEMU, false},
		{TENANT_SLICE, "kubepods-burstable-pod*.slice", POD, true},
		{TENANT_SLICE, "kubepods.slice", POD, true}, /* every ancestor */
		{TENANT_CGROUP, "/machine.slice", QEMU, true},
		{TENANT_CGROUP, "/machine.slice/*", QEMU, true},
		{TENANT_CGROUP, "/*", QEMU, true},
		{TENANT_CGROUP, "machine.slice", QEMU, false},
		{TENANT_CGROUP, "/kubepods.slice/*/cri-77.scope", POD,
		 false}, /* * stays in a name */
		{TENANT_CGROUP, "/kubepods.slice/*/*/cri-77.scope", POD, true},
		{TENANT_CGROUP, "/*", "", false},
		{TENANT_SLICE, "*", "", false},
		/* What a user's own manager made, of whatever name. */
		{TENANT_UNIT, "prod.service", USERS "/prod.service", false},
		{TENANT_SLICE, "prod.slice", USERS "/prod.slice/a.service", false},
		{TENANT_UNIT, "user@1000.service", USERS "/prod.service", true},
		{TENANT_SLICE, "user-1000.slice", USERS "/prod.service", true},
		{TENANT_UNIT, "prod.service", "/given/prod.service", false},
		/* A name that only looks like an ancestor's. */
		{TENANT_SLICE, "machine.slice", "/user.slice/notmachine.slice/a.service", false},
		{TENANT_CGROUP, "/machine.slice", "/machine.slice.d/a.service", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tenant_rule rule = rule_of(cases[i].property, cases[i].pattern);
		struct tenant_identity identity = client(1000, 36, cases[i].cgroup);

		if (tenant_match(&rule.match, &identity) != cases[i].want)
			fail_msg("%s on '%s'", cases[i].pattern, cases[i].cgroup);
	}
}

static void test_all_that_are_given(void **state)
{
	struct tenant_rule rule = rule_of(TENANT_SLICE, "machine.slice");
	struct tenant_identity identity = client(1000, 36, QEMU);

	(void)state;
	rule.match.n[TENANT_USER] = 2;
	rule.match.patterns[TENANT_USER][0] = "107";
	rule.match.patterns[TENANT_USER][1] = "64055";
	assert_false(tenant_match(&rule.match, &identity));
	identity.uid = 64055; /* one of several is enough */
	assert_true(tenant_match(&rule.match, &identity));
	rule.match.n[TENANT_GROUP] = 1;
	rule.match.patterns[TENANT_GROUP][0] = "78";
	assert_false(tenant_match(&rule.match, &identity));
	identity.groups[identity.n_groups++] = 78; /* a supplementary one */
	assert_true(tenant_match(&rule.match, &identity));
}

static void test_first_wins(void **state)
{
	const struct tenant_rule rules[] = {
		rule_of(TENANT_SLICE, "machine.slice"),
		rule_of(TENANT_USER, "1000"),
		{.name = "all"},
	};
	struct tenant_identity identity = client(1000, 36, QEMU);

	(void)state;
	assert_ptr_equal(tenant_rule_find(rules, 3, &identity), &rules[0]);
	identity = client(1000, 36, POD);
	assert_ptr_equal(tenant_rule_find(rules, 3, &identity), &rules[1]);
	identity.uid = 1001;
	assert_ptr_equal(tenant_rule_find(rules, 3, &identity), &rules[2]);
	assert_null(tenant_rule_find(rules, 2, &identity));
	assert_null(tenant_rule_find(NULL, 0, &identity));
}

static void assert_name(enum tenant_per per, const char *cgroup, const char *want)
{
	const struct tenant_rule rule = {.name = "vms", .per = per};
	struct tenant_identity identity = client(1000, 36, cgroup);
	char name[TENANT_NAME_MAX];

	tenant_rule_name(&rule, &identity, name);
	assert_string_equal(name, want);
}

static void test_names(void **state)
{
	(void)state;
	assert_name(TENANT_PER_RULE, QEMU, "vms");
	assert_name(TENANT_PER_USER, QEMU, "vms/1000");
	assert_name(TENANT_PER_UNIT, QEMU, "vms/machine-qemu\\x2d7\\x2dweb.scope");
	assert_name(TENANT_PER_SLICE, QEMU, "vms/machine.slice");
	assert_name(TENANT_PER_SLICE, POD, "vms/kubepods-burstable-pod12ab.slice"); /* innermost */
	assert_name(TENANT_PER_UNIT, "/user.slice", "vms");
	/* Nobody becomes another tenant, or many, by what is run below a unit. */
	assert_name(TENANT_PER_UNIT, USERS "/machine-a.scope", "vms/user@1000.service");
	assert_name(TENANT_PER_SLICE, USERS "/app.slice/a.scope", "vms/user-1000.slice");
}

/* Long names that differ only where they are cut are two tenants, and neither can be made to be the
 * other by choosing a name. */
static void test_long_names_differ(void **state)
{
	const struct tenant_rule rule = {.name = "a-rule-of-a-longish-na", .per = TENANT_PER_UNIT};
	char a[TENANT_NAME_MAX], b[TENANT_NAME_MAX], path[300];
	struct tenant_identity identity;

	(void)state;
	snprintf(path, sizeof(path), "/x.slice/%0*d-one.scope", 200, 1);
	identity = client(1, 1, path);
	tenant_rule_name(&rule, &identity, a);
	snprintf(path, sizeof(path), "/x.slice/%0*d-one.scope", 200, 2);
	identity = client(1, 1, path);
	tenant_rule_name(&rule, &identity, b);
	assert_string_not_equal(a, b);
	assert_true(strlen(a) < TENANT_NAME_MAX);
	path[9] = '\0';
	strcat(path, "1-one.scope");
	identity = client(1, 1, path);
	tenant_rule_name(&rule, &identity, b);
	assert_string_not_equal(a, b);
	assert_string_equal(b, "a-rule-of-a-longish-na/1-one.scope");
}

static void test_why(void **state)
{
	static const struct {
		enum tenant_property property;
		const char *pattern, *cgroup;
		unsigned int known;
		enum tenant_fit fit;
		const char *why;
	} cases[] = {
		{TENANT_USER, "1000", QEMU, TENANT_KNOWN_ALL, TENANT_FITS, "matches"},
		{TENANT_USER, "1002", QEMU, TENANT_KNOWN_ALL, TENANT_FITS_NOT,
		 "User= is 1002, the client is 1000"},
		{TENANT_GROUP, "9*", QEMU, TENANT_KNOWN_ALL, TENANT_FITS_NOT,
		 "Group= is 9*, the client is in 36 1000"},
		{TENANT_UNIT, "a.service", QEMU, TENANT_KNOWN_ALL, TENANT_FITS_NOT,
		 "Unit= is a.service, the client is in machine-qemu\\x2d7\\x2dweb.scope"},
		{TENANT_UNIT, "a.service", "/a.slice", TENANT_KNOWN_ALL, TENANT_FITS_NOT,
		 "Unit= is a.service, the client is in no unit"},
		{TENANT_SLICE, "a.slice", POD, TENANT_KNOWN_ALL, TENANT_FITS_NOT,
		 "Slice= is a.slice, the client is in kubepods.slice kubepods-burstable.slice "
		 "kubepods-burstable-pod12ab.slice"},
		{TENANT_CGROUP, "/a", USERS, TENANT_KNOWN_ALL, TENANT_FITS_NOT,
		 "CGroup= is /a, the client is in " USERS},
		{TENANT_SLICE, "machine.slice", QEMU, TENANT_KNOWN_ALL, TENANT_FITS, "matches"},
		{TENANT_SLICE, "machine.slice", "", 1u << TENANT_USER, TENANT_FIT_UNKNOWN,
		 "Slice= is machine.slice, which is not known here"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tenant_rule rule = rule_of(cases[i].property, cases[i].pattern);
		struct tenant_identity identity = client(1000, 36, cases[i].cgroup);
		char why[TENANT_WHY_MAX];

		identity.groups[identity.n_groups++] = 1000;
		assert_int_equal(tenant_match_explain(&rule.match, &identity, cases[i].known, why),
				 cases[i].fit);
		assert_string_equal(why, cases[i].why);
	}
}

/* What fails for certain is told before what is not known, and long lists are cut. */
static void test_why_of_several(void **state)
{
	struct tenant_rule rule = rule_of(TENANT_USER, "1");
	struct tenant_identity identity = client(1000, 36, "");
	char why[TENANT_WHY_MAX];

	(void)state;
	rule.match.n[TENANT_SLICE] = 1;
	rule.match.patterns[TENANT_SLICE][0] = "machine.slice";
	assert_int_equal(tenant_match_explain(&rule.match, &identity, 1u << TENANT_USER, why),
			 TENANT_FITS_NOT);
	assert_string_equal(why, "User= is 1, the client is 1000");
	rule.match.n[TENANT_USER] = TENANT_PATTERNS_MAX;
	for (size_t i = 0; i < TENANT_PATTERNS_MAX; i++)
		rule.match.patterns[TENANT_USER][i] = "4294967294";
	assert_int_equal(tenant_match_explain(&rule.match, &identity, TENANT_KNOWN_ALL, why),
			 TENANT_FITS_NOT);
	assert_non_null(strstr(why, "4294967294 ..., the client is 1000"));
}

/* In words or not, it is one answer. */
static void test_why_agrees(void **state)
{
	static const char *const patterns[] = {
		"*", "1000", "36", "machine*", "*.slice", "/*", "/machine.slice", "[!a]*"};
	static const char *const cgroups[] = {QEMU, POD, USERS, "/", ""};

	(void)state;
	for (size_t i = 0; i < TENANT_PROPERTIES * 8 * 5; i++) {
		struct tenant_rule rule =
			rule_of((enum tenant_property)(i / 40), patterns[i / 5 % 8]);
		struct tenant_identity identity = client(1000, 36, cgroups[i % 5]);
		char why[TENANT_WHY_MAX];

		assert_int_equal(tenant_match_explain(&rule.match, &identity, TENANT_KNOWN_ALL,
						      why) == TENANT_FITS,
				 tenant_match(&rule.match, &identity));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_property),     cmocka_unit_test(test_all_that_are_given),
		cmocka_unit_test(test_first_wins),        cmocka_unit_test(test_names),
		cmocka_unit_test(test_long_names_differ), cmocka_unit_test(test_why),
		cmocka_unit_test(test_why_of_several),    cmocka_unit_test(test_why_agrees),
	};

	return cmocka_run_group_tests_name("tenant_rule", tests, NULL, NULL);
}
