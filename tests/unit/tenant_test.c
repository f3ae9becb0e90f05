/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tenants by rules: who is charged, at which level what is refused, and who is turned away. */

#include "broker_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/root.h"
#include "broker/session.h"
#include "broker/tenant_rule.h"

#define VMS "/machine.slice/machine-a.scope"

static struct tenant_rule rules[2];

static struct broker_settings settings_with_rules(void)
{
	struct broker_settings settings = settings_default();

	memset(rules, 0, sizeof(rules));
	strcpy(rules[0].name, "vms");
	rules[0].match.n[TENANT_SLICE] = 1;
	rules[0].match.patterns[TENANT_SLICE][0] = "machine.slice";
	strcpy(rules[1].name, "users");
	rules[1].per = TENANT_PER_USER;
	rules[1].match.n[TENANT_GROUP] = 1;
	rules[1].match.patterns[TENANT_GROUP][0] = "77";
	settings.tenant_rules = rules;
	settings.n_tenant_rules = 2;
	return settings;
}

static void limit(struct limit_setting limits[LEDGER_RESOURCES], enum ledger_resource resource,
		  uint64_t max, const char *where)
{
	limits[resource].set = true;
	limits[resource].max = max;
	snprintf(limits[resource].where, sizeof(limits[resource].where), "%s", where);
}

/* As some other process of this test. */
static int session_of(struct fixture *f, uid_t uid, gid_t gid, const char *cgroup,
		      struct session **ret)
{
	struct tenant_identity identity = {.uid = uid, .n_groups = 1, .groups = {gid}};
	struct peer peer = f->peer;
	uint8_t secret[BROKER_SECRET_BYTES];

	snprintf(identity.cgroup, sizeof(identity.cgroup), "%s", cgroup);
	peer.uid = uid;
	peer.gid = gid;
	peer.identity = &identity;
	return session_new(ret, f->broker, &peer, "", secret, &f->refusal);
}

static void session_end(struct session *session)
{
	session_close(session, NULL, NULL);
	session_unref(session);
}

static void assert_tenant(struct fixture *f, uid_t uid, gid_t gid, const char *cgroup,
			  const char *want)
{
	struct session *session;

	assert_done(f, session_of(f, uid, gid, cgroup, &session));
	assert_string_equal(session_tenant(session), want);
	session_end(session);
}

static void test_who(void **state)
{
	const struct broker_settings settings = settings_with_rules();
	struct session *session;
	struct fixture f;

	(void)state;
	fixture_init_broker(&f, &settings);
	assert_tenant(&f, 1000, 1, VMS, "vms");
	assert_tenant(&f, 1000, 77, VMS, "vms"); /* the first */
	assert_tenant(&f, 1000, 77, "/user.slice", "users/1000");
	assert_tenant(&f, 1001, 77, "", "users/1001");
	assert_tenant(&f, 0, 0, "", "uid:0"); /* an operator who tries something */
	assert_refused(&f, session_of(&f, 1000, 1, "/user.slice", &session), REFUSAL_DENIED);
	assert_string_equal(f.refusal.reason, "NO_TENANT_RULE");
	fixture_deinit(&f);
}

static void test_unknown_peer_is_refused(void **state)
{
	struct broker_settings settings = settings_with_rules();
	uint8_t secret[BROKER_SECRET_BYTES];
	struct session *session;
	struct fixture f;

	(void)state;
	fixture_init_broker(&f, &settings);
	assert_refused(&f, session_new(&session, f.broker, &f.peer, "", secret, &f.refusal),
		       REFUSAL_DENIED);
	assert_string_equal(f.refusal.reason, "PEER_UNKNOWN");
	fixture_deinit(&f);
}

static int guest_of(struct fixture *f, struct session *session, uint64_t *ret)
{
	const struct guest_create_request request = {0};
	uint8_t secret[BROKER_SECRET_BYTES];

	return guest_create(f->broker, session, &request, ret, secret, &f->refusal);
}

static void assert_quota_of(struct fixture *f, int status, const char *tenant, const char *rule)
{
	assert_refused(f, status, REFUSAL_QUOTA);
	assert_string_equal(f->refusal.tenant, tenant);
	assert_string_equal(f->refusal.rule, rule);
}

/* N, N + 1, one back, N + 1; two sessions of a tenant share, another tenant does not mind. */
static void test_limit_of_a_tenant(void **state)
{
	struct broker_settings settings = settings_with_rules();
	struct session *one, *two, *other;
	uint64_t a, b, c, d;
	struct fixture f;

	(void)state;
	limit(rules[0].limits[LIMIT_TENANT].max, LEDGER_GUESTS, 2, "vms.conf:4");
	fixture_init_broker(&f, &settings);
	assert_done(&f, session_of(&f, 1000, 1, VMS, &one));
	assert_done(&f, session_of(&f, 1001, 1, VMS, &two));
	assert_done(&f, session_of(&f, 1000, 77, "", &other));
	assert_done(&f, guest_of(&f, one, &a));
	assert_done(&f, guest_of(&f, two, &b));
	assert_quota_of(&f, guest_of(&f, one, &c), "vms", "vms.conf:4");
	assert_int_equal(f.refusal.limit, 2);
	assert_int_equal(f.refusal.used, 2);
	assert_done(&f, guest_of(&f, other, &d));
	assert_done(&f, guest_destroy(f.broker, two, b, &f.refusal));
	assert_done(&f, guest_of(&f, one, &c));
	session_end(one);
	session_end(two);
	session_end(other);
	fixture_deinit(&f);
}

/* The lower one of setting and rule, and it is the one that is named; the dry run agrees. */
static void test_limit_of_a_guest(void **state)
{
	struct broker_settings settings = settings_with_rules();
	struct fit_missing missing[FIT_MISSING_MAX];
	struct fit_request fit = {0};
	struct session *session;
	struct fixture f;
	size_t n = 0;

	(void)state;
	limit_set(&settings, LIMIT_GUEST, LEDGER_DEVICES, 5);
	limit_set(&settings, LIMIT_GUEST, LEDGER_NESTED, 5);
	limit(rules[0].limits[LIMIT_GUEST].max, LEDGER_DEVICES, 3, "vms.conf:5");
	limit(rules[0].limits[LIMIT_GUEST].max, LEDGER_NESTED, 9, "vms.conf:6");
	fixture_init_broker(&f, &settings);
	assert_done(&f, session_of(&f, 1000, 1, VMS, &session));
	fit.devices = 4;
	fit.nested_domains = 6;
	assert_done(&f, check_fit(f.broker, session, &fit, missing, &n, &f.refusal));
	assert_int_equal(n, 2);
	assert_int_equal(missing[0].resource, LEDGER_DEVICES);
	assert_int_equal(missing[0].missing, 1);
	assert_string_equal(missing[0].rule, "vms.conf:5");
	assert_string_equal(missing[1].rule, limit_place(LIMIT_GUEST));
	session_end(session);
	fixture_deinit(&f);
}

/* ── another configuration while they live ─────────────────────────────────────────────────── */

static unsigned int released;

static void release(void *context)
{
	released += *(unsigned int *)context;
}

static void reload(struct fixture *f, const struct broker_settings *settings)
{
	static unsigned int one = 1;

	assert_int_equal(broker_set_settings(f->broker, settings, release, &one), 0);
}

static struct usage guests_used(struct fixture *f, struct session *session)
{
	struct usage_report report;

	assert_done(f, usage_report(f->broker, session, &report, &f->refusal));
	return report.usage[LEDGER_GUESTS];
}

/* What is above the lower limit stays, is to be seen, and gets nothing added; a guest's own limits
 * follow too. */
static void test_lowered_limits_revoke_nothing(void **state)
{
	struct broker_settings settings = settings_with_rules();
	struct session *session;
	uint64_t a, b, c;
	struct fixture f;

	(void)state;
	limit(rules[0].limits[LIMIT_TENANT].max, LEDGER_GUESTS, 2, "vms.conf:4");
	fixture_init_broker(&f, &settings);
	assert_done(&f, session_of(&f, 1000, 1, VMS, &session));
	assert_done(&f, guest_of(&f, session, &a));
	assert_done(&f, guest_of(&f, session, &b));
	limit(rules[0].limits[LIMIT_TENANT].max, LEDGER_GUESTS, 1, "vms.conf:40");
	reload(&f, &settings);
	assert_int_equal(guests_used(&f, session).current, 2);
	assert_int_equal(guests_used(&f, session).max, 1);
	assert_quota_of(&f, guest_of(&f, session, &c), "vms", "vms.conf:40");
	assert_done(&f, guest_destroy(f.broker, session, a, &f.refusal));
	assert_quota_of(&f, guest_of(&f, session, &c), "vms", "vms.conf:40");
	assert_done(&f, guest_destroy(f.broker, session, b, &f.refusal));
	assert_done(&f, guest_of(&f, session, &c));
	limit(rules[0].limits[LIMIT_TENANT].max, LEDGER_GUESTS, 3, "vms.conf:41");
	reload(&f, &settings);
	assert_done(&f, guest_of(&f, session, &a));
	session_end(session);
	fixture_deinit(&f);
}

static void test_limits_of_a_living_guest(void **state)
{
	struct broker_settings settings = settings_with_rules();
	struct guest_create_request request = {.pinned_bytes_max = 8 * MIB};
	uint8_t secret[BROKER_SECRET_BYTES];
	struct memory_file_added file;
	struct session *session;
	struct fixture f;
	uint64_t guest;

	(void)state;
	fixture_init_broker(&f, &settings);
	assert_done(&f, session_of(&f, 1000, 1, VMS, &session));
	assert_done(&f, guest_create(f.broker, session, &request, &guest, secret, &f.refusal));
	limit(rules[0].limits[LIMIT_GUEST].max, LEDGER_MEMORY_FILES, 0, "vms.conf:9");
	reload(&f, &settings);
	assert_quota_of(&f,
			memory_file_add(f.broker, session, guest, memfd_filled(MIB, NULL), true,
					&file, &f.refusal),
			"vms", "vms.conf:9");
	session_end(session);
	fixture_deinit(&f);
}

/* Its rule is gone: it keeps what it has, gets nothing, and comes back with the rule. */
static void test_rule_that_is_gone(void **state)
{
	struct broker_settings with = settings_with_rules(), without = with;
	struct session *session;
	uint64_t a, b;
	struct fixture f;

	(void)state;
	without.tenant_rules = &rules[1];
	without.n_tenant_rules = 1;
	fixture_init_broker(&f, &with);
	assert_done(&f, session_of(&f, 1000, 1, VMS, &session));
	assert_done(&f, guest_of(&f, session, &a));
	reload(&f, &without);
	assert_quota_of(&f, guest_of(&f, session, &b), "vms", "no rule of quota.d any more");
	assert_int_equal(guests_used(&f, session).current, 1);
	/* What it has it can give back, and its guest goes on: calls are not new things. */
	assert_done(&f, broker_charge(f.broker, session->tenant, LEDGER_CALLS, 1, &f.refusal));
	broker_refund(f.broker, session->tenant, LEDGER_CALLS, 1);
	assert_quota_of(&f,
			broker_charge(f.broker, session->tenant, LEDGER_CONNECTIONS, 1, &f.refusal),
			"vms", "no rule of quota.d any more");
	reload(&f, &with);
	assert_done(&f, guest_of(&f, session, &b));
	session_end(session);
	fixture_deinit(&f);
}

/* ── after the last client has left ────────────────────────────────────────────────────────── */

/* What quota --tenant shows; false: there is no such tenant. */
static bool look(struct fixture *f, const char *tenant, struct quota_report *ret)
{
	struct quota_report *reports;
	size_t n;

	if (quota_list(f->broker, tenant, &reports, &n, &f->refusal))
		return false;
	*ret = reports[0];
	free(reports);
	return true;
}

/* Refused once above two guests, and gone. */
static void come_and_go(struct fixture *f, uid_t uid, gid_t gid, const char *cgroup)
{
	struct session *session;
	uint64_t guest;

	assert_done(f, session_of(f, uid, gid, cgroup, &session));
	assert_refused(f, guest_of(f, session, &guest), REFUSAL_QUOTA);
	session_end(session);
}

/* An operator who comes too late sees what happened; who comes back goes on counting. */
static void test_counters_outlive_clients(void **state)
{
	struct broker_settings settings = settings_with_rules();
	struct usage_report list[2];
	struct quota_report report;
	struct session *session;
	struct fixture f;
	size_t n;

	(void)state;
	limit(rules[0].limits[LIMIT_TENANT].max, LEDGER_GUESTS, 0, "vms.conf:4");
	fixture_init_broker(&f, &settings);
	come_and_go(&f, 1000, 1, VMS);
	assert_true(look(&f, "vms", &report));
	assert_true(report.idle);
	assert_int_equal(report.usage[LEDGER_GUESTS].events, 1);
	assert_int_equal(report.usage[LEDGER_SESSIONS].peak, 1);
	assert_int_equal(report.usage[LEDGER_SESSIONS].current, 0);
	/* Limits follow a reload as any other's; the rule of one that comes back is the one of
	 * then. */
	limit(rules[0].limits[LIMIT_TENANT].max, LEDGER_GUESTS, 0, "vms.conf:40");
	reload(&f, &settings);
	assert_true(look(&f, "vms", &report));
	assert_string_equal(report.where[LEDGER_GUESTS], "vms.conf:40");
	assert_done(&f, session_of(&f, 1000, 1, VMS, &session));
	assert_true(look(&f, "vms", &report));
	assert_false(report.idle);
	session_end(session);
	come_and_go(&f, 1000, 1, VMS);
	assert_true(look(&f, "vms", &report));
	assert_int_equal(report.usage[LEDGER_GUESTS].events, 2);
	/* Those that are there come first. */
	assert_done(&f, session_of(&f, 1001, 77, "", &session));
	assert_done(&f, usage_list(f.broker, list, 2, &n, &f.refusal));
	assert_int_equal(n, 2);
	assert_string_equal(list[0].tenant, "users/1001");
	assert_true(!list[0].idle && list[1].idle);
	session_end(session);
	fixture_deinit(&f);
}

/* Page by page, by names, each tenant once, whatever order they came in. */
static void test_pages_of_tenants(void **state)
{
	enum { MANY = 37, ROOM = 5 };
	struct broker_settings settings = settings_with_rules();
	struct session *sessions[MANY];
	struct usage_report page[ROOM];
	char last[BROKER_NAME_MAX] = "";
	struct fixture f;
	size_t n, all = 0;
	bool more = true;

	(void)state;
	fixture_init_broker(&f, &settings);
	for (size_t i = 0; i < MANY; i++)
		assert_done(&f,
			    session_of(&f, (uid_t)(1000 + i * 17 % MANY), 77, "", &sessions[i]));
	broker_charge(f.broker, sessions[0]->tenant, LEDGER_CALLS, 1, &f.refusal);
	broker_refund(f.broker, sessions[0]->tenant, LEDGER_CALLS, 1);
	while (more) {
		assert_done(&f, usage_page(f.broker, last, page, ROOM, &n, &more, &f.refusal));
		assert_int_equal(n, more ? ROOM : MANY % ROOM);
		for (size_t i = 0; i < n; i++) {
			assert_true(strcmp(page[i].tenant, last) > 0);
			assert_int_equal(page[i].calls, !strcmp(page[i].tenant, "users/1000"));
			strcpy(last, page[i].tenant);
		}
		all += n;
	}
	assert_int_equal(all, MANY);
	assert_done(&f, usage_page(f.broker, last, page, ROOM, &n, &more, &f.refusal));
	assert_true(!n && !more);
	for (size_t i = 0; i < MANY; i++)
		session_end(sessions[i]);
	fixture_deinit(&f);
}

/* Of a process that no rule is for, or that has not dropped its user yet. */
static void test_on_behalf_of(void **state)
{
	struct broker_settings settings = settings_with_rules();
	struct tenant_identity identity = {.uid = 1001, .n_groups = 1, .groups = {5}};
	struct guest_create_request request = {0};
	uint8_t secret[BROKER_SECRET_BYTES];
	struct quota_report report;
	struct session *manager;
	struct peer peer;
	struct fixture f;
	uint64_t guest;

	(void)state;
	rules[0].manager = true;
	fixture_init_broker(&f, &settings);
	assert_done(&f, session_of(&f, 1000, 1, VMS, &manager));
	peer = f.peer;
	peer.uid = identity.uid;
	peer.gid = identity.groups[0];
	peer.identity = &identity;
	request.on_behalf_of = &peer;
	assert_refused(&f, guest_create(f.broker, manager, &request, &guest, secret, &f.refusal),
		       REFUSAL_DENIED);
	assert_string_equal(f.refusal.reason, "NO_TENANT_RULE");
	assert_non_null(strstr(f.refusal.message, "on behalf of process "));
	assert_non_null(strstr(f.refusal.message, "user 1001"));
	peer.uid = identity.uid = 0;
	assert_done(&f, guest_create(f.broker, manager, &request, &guest, secret, &f.refusal));
	assert_true(look(&f, "uid:0", &report));
	assert_int_equal(report.usage[LEDGER_GUESTS].current, 1);
	session_end(manager);
	fixture_deinit(&f);
}

/* Its rule has gone meanwhile, and then comes back: it is a stranger no more. */
static void test_idle_while_the_rule_is_gone(void **state)
{
	struct broker_settings with = settings_with_rules(), without = with;
	struct quota_report report;
	struct session *session;
	struct fixture f;
	uint64_t guest;

	(void)state;
	without.tenant_rules = &rules[1];
	without.n_tenant_rules = 1;
	fixture_init_broker(&f, &with);
	assert_done(&f, session_of(&f, 1000, 1, VMS, &session));
	session_end(session);
	reload(&f, &without);
	assert_true(look(&f, "vms", &report));
	assert_true(report.stranger);
	assert_refused(&f, session_of(&f, 1000, 1, VMS, &session), REFUSAL_DENIED);
	reload(&f, &with);
	assert_done(&f, session_of(&f, 1000, 1, VMS, &session));
	assert_done(&f, guest_of(&f, session, &guest));
	session_end(session);
	fixture_deinit(&f);
}

/* As many as are kept, and one more; a rule under which many names come does not push out another
 * rule's, and what is forgotten is still in the sum. */
static void test_idle_tenants_are_bounded(void **state)
{
	struct broker_settings settings = settings_with_rules();
	struct quota_report report;
	struct usage_past past;
	struct fixture f;
	uid_t uid = 1000;
	size_t n;

	(void)state;
	limit(rules[0].limits[LIMIT_TENANT].max, LEDGER_GUESTS, 0, "vms.conf:4");
	limit(rules[1].limits[LIMIT_TENANT].max, LEDGER_GUESTS, 0, "users.conf:4");
	fixture_init_broker(&f, &settings);
	come_and_go(&f, 1000, 1, VMS);
	for (; uid < 1000 + TENANTS_IDLE_MAX - 1; uid++)
		come_and_go(&f, uid, 77, "");
	assert_done(&f, usage_list(f.broker, NULL, 0, &n, &f.refusal));
	assert_int_equal(n, TENANTS_IDLE_MAX);
	usage_past(f.broker, &past);
	assert_int_equal(past.n_tenants, 0);
	assert_true(look(&f, "users/1000", &report));
	come_and_go(&f, uid++, 77, "");
	assert_false(look(&f, "users/1000", &report)); /* the one that left first */
	assert_true(look(&f, "users/1001", &report));
	assert_true(look(&f, "vms", &report));
	for (size_t i = 0; i < 2 * TENANTS_IDLE_MAX; i++)
		come_and_go(&f, uid++, 77, "");
	assert_done(&f, usage_list(f.broker, NULL, 0, &n, &f.refusal));
	assert_int_equal(n, TENANTS_IDLE_MAX);
	assert_true(look(&f, "vms", &report));
	usage_past(f.broker, &past);
	assert_int_equal(past.n_tenants, 2 * TENANTS_IDLE_MAX + 1);
	assert_int_equal(past.usage[LEDGER_GUESTS].events, 2 * TENANTS_IDLE_MAX + 1);
	fixture_deinit(&f);
}

/* Each is released once, and the last one with the broker. */
static void test_settings_are_released(void **state)
{
	struct broker_settings settings = settings_with_rules();
	struct fixture f;

	(void)state;
	released = 0;
	fixture_init_broker(&f, &settings);
	reload(&f, &settings);
	assert_int_equal(released, 0);
	reload(&f, &settings);
	assert_int_equal(released, 1);
	fixture_deinit(&f);
	assert_int_equal(released, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who),
		cmocka_unit_test(test_unknown_peer_is_refused),
		cmocka_unit_test(test_limit_of_a_tenant),
		cmocka_unit_test(test_limit_of_a_guest),
		cmocka_unit_test(test_lowered_limits_revoke_nothing),
		cmocka_unit_test(test_limits_of_a_living_guest),
		cmocka_unit_test(test_rule_that_is_gone),
		cmocka_unit_test(test_counters_outlive_clients),
		cmocka_unit_test(test_pages_of_tenants),
		cmocka_unit_test(test_on_behalf_of),
		cmocka_unit_test(test_idle_while_the_rule_is_gone),
		cmocka_unit_test(test_idle_tenants_are_bounded),
		cmocka_unit_test(test_settings_are_released),
	};

	return cmocka_run_group_tests_name("tenant", tests, NULL, NULL);
}
