/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Charges at every level or none; and through the model: N fit, one more is refused by name, what
 * is given back can be had again, for every resource. */
#include "broker_fixture.h"

#include <string.h>
#include <unistd.h>

#include "broker/ledger.h"
#include "util/clock.h"

struct chain {
	struct ledger ledger;
	struct ledger_account host, tenant, guest;
	struct refusal refusal;
};

static void limit(struct ledger *ledger, struct ledger_account *account,
		  enum ledger_resource resource, uint64_t max, const char *rule)
{
	struct ledger_limits limits;

	ledger_limits_init(&limits);
	ledger_limits_tighten(&limits, resource, max, rule);
	ledger_account_set_limits(ledger, account, &limits);
}

static int chain_setup(void **state)
{
	static struct chain c;

	memset(&c, 0, sizeof(c));
	ledger_init(&c.ledger);
	ledger_account_init(&c.host, NULL, LIMIT_HOST, "host");
	ledger_account_init(&c.tenant, &c.host, LIMIT_TENANT, "uid:7");
	ledger_account_init(&c.guest, &c.tenant, LIMIT_GUEST, "uid:7");
	*state = &c;
	return 0;
}

static int chain_teardown(void **state)
{
	struct chain *c = *state;

	ledger_deinit(&c->ledger);
	return 0;
}

static uint64_t current(struct chain *c, struct ledger_account *account, enum ledger_resource r)
{
	struct usage usage[LEDGER_RESOURCES];

	ledger_usage(&c->ledger, account, usage);
	return usage[r].current;
}

static void test_charge_is_all_or_nothing(void **state)
{
	struct chain *c = *state;
	struct ledger_amounts amounts = {0};

	limit(&c->ledger, &c->host, LEDGER_MAPPINGS, 10, "host rule");
	amounts.amount[LEDGER_MAPPINGS] = 11;
	amounts.amount[LEDGER_NESTED] = 1;
	assert_int_equal(ledger_charge(&c->ledger, &c->guest, &amounts, &c->refusal), REFUSED);
	assert_int_equal(c->refusal.kind, REFUSAL_QUOTA);
	assert_int_equal(c->refusal.limit, 10);
	assert_int_equal(c->refusal.used, 0);
	assert_int_equal(c->refusal.requested, 11);
	assert_string_equal(c->refusal.resource, "mappings");
	assert_string_equal(c->refusal.rule, "host rule");
	assert_string_equal(c->refusal.tenant, "uid:7");
	assert_int_equal(current(c, &c->guest, LEDGER_NESTED), 0);
	assert_int_equal(current(c, &c->tenant, LEDGER_MAPPINGS), 0);
	amounts.amount[LEDGER_MAPPINGS] = 10;
	assert_int_equal(ledger_charge(&c->ledger, &c->guest, &amounts, &c->refusal), 0);
	assert_int_equal(current(c, &c->host, LEDGER_MAPPINGS), 10);
	assert_int_equal(current(c, &c->tenant, LEDGER_NESTED), 1);
	ledger_refund(&c->ledger, &c->guest, &amounts);
	assert_int_equal(current(c, &c->host, LEDGER_MAPPINGS), 0);
}

static void test_amounts_do_not_wrap(void **state)
{
	struct chain *c = *state;

	assert_int_equal(ledger_charge_one(&c->ledger, &c->guest, LEDGER_PINNED_BYTES, UINT64_MAX,
					   &c->refusal),
			 0);
	assert_int_equal(
		ledger_charge_one(&c->ledger, &c->guest, LEDGER_PINNED_BYTES, 1, &c->refusal),
		REFUSED);
	assert_int_equal(current(c, &c->host, LEDGER_PINNED_BYTES), UINT64_MAX);
	ledger_refund_one(&c->ledger, &c->guest, LEDGER_PINNED_BYTES, UINT64_MAX);
}

static void test_peak_events_and_room(void **state)
{
	struct chain *c = *state;
	struct usage usage[LEDGER_RESOURCES];

	limit(&c->ledger, &c->tenant, LEDGER_DEVICES, 5, "tenant rule");
	limit(&c->ledger, &c->guest, LEDGER_DEVICES, 8, "guest rule");
	assert_int_equal(ledger_charge_one(&c->ledger, &c->guest, LEDGER_DEVICES, 4, &c->refusal),
			 0);
	assert_int_equal(ledger_room(&c->ledger, &c->guest, LEDGER_DEVICES), 1);
	assert_int_equal(ledger_charge_one(&c->ledger, &c->guest, LEDGER_DEVICES, 2, &c->refusal),
			 REFUSED);
	ledger_refund_one(&c->ledger, &c->guest, LEDGER_DEVICES, 3);
	ledger_usage(&c->ledger, &c->tenant, usage);
	assert_int_equal(usage[LEDGER_DEVICES].current, 1);
	assert_int_equal(usage[LEDGER_DEVICES].peak, 4);
	assert_int_equal(usage[LEDGER_DEVICES].events, 1);
	assert_int_equal(usage[LEDGER_DEVICES].max, 5);
	ledger_usage(&c->ledger, &c->guest, usage);
	assert_int_equal(usage[LEDGER_DEVICES].events, 0); /* it was the tenant's limit */
	limit(&c->ledger, &c->tenant, LEDGER_DEVICES, 0, "lowered");
	assert_int_equal(ledger_room(&c->ledger, &c->guest, LEDGER_DEVICES), 0);
}

/* ── through the model ─────────────────────────────────────────────────────────────────────── */

static void assert_quota(struct fixture *f, int status, const char *resource, uint64_t limit,
			 uint64_t requested, const char *rule)
{
	assert_refused(f, status, REFUSAL_QUOTA);
	assert_string_equal(f->refusal.resource, resource);
	assert_string_equal(f->refusal.rule, rule);
	assert_int_equal(f->refusal.limit, limit);
	assert_int_equal(f->refusal.requested, requested);
	assert_memory_equal(f->refusal.tenant, "uid:", 4);
}

struct heard {
	unsigned int told, logged;
};

static void on_high(void *context, struct ledger_account *account, const struct quota_high *high)
{
	struct heard *heard = context;

	assert_int_equal(account->level, LIMIT_GUEST);
	heard->told++;
	heard->logged += high->log;
}

/* Guests that come and go, each of which rises above its own mark. */
static void test_highs_are_logged_by_tenant(void **state)
{
	enum { GUESTS = 1000 };
	struct chain *c = *state;
	struct ledger_limits limits;
	struct heard heard = {0};
	uint64_t began_ns = clock_monotonic_ns(), seconds;

	c->ledger.tell_high = on_high;
	c->ledger.context = &heard;
	ledger_limits_init(&limits);
	ledger_limits_tighten_high(&limits, LEDGER_PINNED_BYTES, 10, "x:1");
	for (int i = 0; i < GUESTS; i++) {
		ledger_account_init(&c->guest, &c->tenant, LIMIT_GUEST, "uid:7");
		ledger_account_set_limits(&c->ledger, &c->guest, &limits);
		assert_int_equal(ledger_charge_one(&c->ledger, &c->guest, LEDGER_PINNED_BYTES, 11,
						   &c->refusal),
				 0);
		ledger_refund_one(&c->ledger, &c->guest, LEDGER_PINNED_BYTES, 11);
	}
	seconds = (clock_monotonic_ns() - began_ns) / LOG_RATE_INTERVAL_NS;
	assert_int_equal(heard.told, GUESTS);
	assert_in_range(heard.logged, LOG_RATE_BURST, LOG_RATE_BURST + seconds + 1);
}

static void test_sessions(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();
	struct session *second, *third;
	uint8_t secret[BROKER_SECRET_BYTES];

	limit_set(&settings, LIMIT_TENANT, LEDGER_SESSIONS, 2);
	fixture_init(&f, &settings);
	second = session_make(&f);
	assert_quota(&f, session_new(&third, f.broker, &f.peer, "", secret, &f.refusal), "sessions",
		     2, 1, limit_place(LIMIT_TENANT));
	session_close(second, NULL, NULL);
	session_unref(second);
	third = session_make(&f);
	session_unref(third);
	fixture_deinit(&f);

	settings = settings_default();
	limit_set(&settings, LIMIT_HOST, LEDGER_SESSIONS, 1);
	fixture_init(&f, &settings);
	assert_quota(&f, session_new(&third, f.broker, &f.peer, "", secret, &f.refusal), "sessions",
		     1, 1, limit_place(LIMIT_HOST));
	fixture_deinit(&f);
}

static void test_guests(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();
	uint64_t first, second, third;

	limit_set(&settings, LIMIT_SESSION, LEDGER_GUESTS, 2);
	fixture_init(&f, &settings);
	assert_done(&f, guest_make(&f, &first));
	assert_done(&f, guest_make(&f, &second));
	assert_quota(&f, guest_make(&f, &third), "guests", 2, 1, limit_place(LIMIT_SESSION));
	assert_done(&f, guest_destroy(f.broker, f.session, first, &f.refusal));
	assert_done(&f, guest_make(&f, &third));
	assert_int_equal(host_usage(&f, LEDGER_GUESTS).current, 2);
	assert_int_equal(host_usage(&f, LEDGER_GUESTS).peak, 2);
	fixture_deinit(&f);
}

static void check_pinned(struct broker_settings *settings, const char *rule)
{
	struct fixture f;

	fixture_init_guest(&f, settings); /* MEMORY_BYTES of 4 pages more */
	assert_done(&f, memory_map_one(&f, f.memory_file, 0, 1ull << 40, 4 * PAGE, true));
	assert_quota(&f, memory_map_one(&f, f.memory_file, 0, 1ull << 41, PAGE, true),
		     "pinned_bytes", MEMORY_BYTES + 4 * PAGE, PAGE, rule);
	assert_int_equal(f.refusal.used, MEMORY_BYTES + 4 * PAGE);
	assert_done(&f, memory_unmap_one(&f, 1ull << 40, (1ull << 40) + 4 * PAGE - 1));
	assert_done(&f, memory_map_one(&f, f.memory_file, 0, 1ull << 41, 4 * PAGE, true));
	assert_int_equal(host_usage(&f, LEDGER_PINNED_BYTES).current, MEMORY_BYTES + 4 * PAGE);
	fixture_deinit(&f);
}

static void test_pinned_bytes(void **state)
{
	struct broker_settings settings = settings_default();

	limit_set(&settings, LIMIT_GUEST, LEDGER_PINNED_BYTES, MEMORY_BYTES + 4 * PAGE);
	check_pinned(&settings, limit_place(LIMIT_GUEST));
	settings = settings_default();
	limit_set(&settings, LIMIT_HOST, LEDGER_PINNED_BYTES, MEMORY_BYTES + 4 * PAGE);
	check_pinned(&settings, limit_place(LIMIT_HOST));
}

static void test_limits_of_the_guest(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();
	const struct guest_create_request request = {.pinned_bytes_max = 2 * PAGE};
	uint8_t secret[BROKER_SECRET_BYTES];
	uint64_t file;

	fixture_init_guest(&f, &settings);
	assert_done(&f, guest_create(f.broker, f.session, &request, &f.guest, secret, &f.refusal));
	file = file_add(&f, f.memory_fd, true);
	assert_quota(&f, memory_map_one(&f, file, 0, 0, 3 * PAGE, true), "pinned_bytes", 2 * PAGE,
		     3 * PAGE, "limit given at CreateGuest");
	assert_done(&f, memory_map_one(&f, file, 0, 0, 2 * PAGE, true));
	fixture_deinit(&f);
}

/* A region counts once, with a granule once for each granule. */
static void test_regions(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();

	limit_set(&settings, LIMIT_GUEST, LEDGER_REGIONS, 5);
	fixture_init_guest(&f, &settings);
	assert_done(&f, memory_map_granule(&f, f.memory_file, 0, 1ull << 40, 4 * PAGE, PAGE));
	assert_int_equal(host_usage(&f, LEDGER_REGIONS).current, 5);
	assert_quota(&f, memory_map_one(&f, f.memory_file, 0, 1ull << 41, PAGE, true), "regions", 5,
		     1, limit_place(LIMIT_GUEST));
	assert_done(&f, memory_unmap_one(&f, (1ull << 40) + PAGE, (1ull << 40) + 2 * PAGE - 1));
	assert_int_equal(host_usage(&f, LEDGER_REGIONS).current, 4);
	assert_done(&f, memory_map_one(&f, f.memory_file, 0, 1ull << 41, PAGE, true));
	fixture_deinit(&f);
}

static int device_try(struct fixture *f, uint32_t fid, uint64_t *ret, int *ret_fd)
{
	const struct device_open_request request = {
		.consume_fd = -1,
		.address = {.by_fid = true, .fid = fid},
	};

	return device_open(f->broker, f->session, f->guest, &request, ret, ret_fd, &f->refusal);
}

static void test_devices(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();
	struct function one, two;
	uint64_t device;
	bool held;
	int fd = -1;

	limit_set(&settings, LIMIT_GUEST, LEDGER_DEVICES, 2);
	fixture_init_guest(&f, &settings);
	one = function_open(&f, 1);
	two = function_open(&f, 2);
	assert_quota(&f, device_try(&f, 3, &device, &fd), "devices", 2, 1,
		     limit_place(LIMIT_GUEST));
	assert_int_equal(fd, -1);
	assert_done(&f, device_close(f.broker, f.session, one.device, &held, &f.refusal));
	assert_done(&f, device_try(&f, 3, &device, &fd));
	close(fd);
	function_free(&one);
	function_free(&two);
	fixture_deinit(&f);
}

/* Want of quota is a verdict here: the guest is told. */
static void test_nested_domains(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();
	struct function function;
	struct nested_created first, more;
	uint64_t dropped;

	limit_set(&settings, LIMIT_GUEST, LEDGER_NESTED, 2);
	fixture_init_guest(&f, &settings);
	function = function_bind(&f, 1);
	first = nested_make_managed(&f, function.device, DMA_BASE, DMA_BASE + MIB - 1, false);
	assert_int_equal(first.verdict, VERDICT_DONE);
	more = nested_make_managed(&f, function.device, DMA_BASE, DMA_BASE + MIB - 1, false);
	assert_int_equal(more.verdict, VERDICT_DONE);
	more = nested_make_managed(&f, function.device, DMA_BASE, DMA_BASE + MIB - 1, false);
	assert_int_equal(more.verdict, VERDICT_RESOURCES);
	assert_int_equal(more.nested, 0);
	assert_int_equal(host_usage(&f, LEDGER_NESTED).current, 2);
	assert_done(&f, nested_destroy(f.broker, f.session, first.nested, &dropped, &f.refusal));
	more = nested_make_managed(&f, function.device, DMA_BASE, DMA_BASE + MIB - 1, false);
	assert_int_equal(more.verdict, VERDICT_DONE);
	function_free(&function);
	fixture_deinit(&f);
}

static struct nested_created managed_with(struct fixture *f, uint64_t device, uint64_t mappings)
{
	const struct nested_create_request request = {
		.device = device,
		.format = NESTED_MANAGED,
		.first = DMA_BASE,
		.last = DMA_LAST,
		.mappings_max = mappings,
	};
	struct nested_created created = {0};

	assert_done(f, nested_create(f->broker, f->session, &request, &created, &f->refusal));
	return created;
}

static void test_mappings(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();
	struct function function;
	struct nested_created created;
	uint64_t dropped;

	limit_set(&settings, LIMIT_GUEST, LEDGER_MAPPINGS, 1000);
	fixture_init_guest(&f, &settings);
	function = function_bind(&f, 1);
	assert_int_equal(managed_with(&f, function.device, 1001).verdict, VERDICT_RESOURCES);
	created = managed_with(&f, function.device, 1000);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(host_usage(&f, LEDGER_MAPPINGS).current, 1000);
	assert_true(host_usage(&f, LEDGER_TABLE_BYTES).current > 0);
	assert_int_equal(managed_with(&f, function.device, 1).verdict, VERDICT_RESOURCES);
	assert_done(&f, nested_destroy(f.broker, f.session, created.nested, &dropped, &f.refusal));
	assert_int_equal(host_usage(&f, LEDGER_MAPPINGS).current, 0);
	assert_int_equal(host_usage(&f, LEDGER_TABLE_BYTES).current, 0);
	assert_int_equal(managed_with(&f, function.device, 1000).verdict, VERDICT_DONE);
	function_free(&function);
	fixture_deinit(&f);
}

static void test_check_fit(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();
	struct fit_request request = {0};
	struct fit_missing missing[FIT_MISSING_MAX];
	size_t n;

	limit_set(&settings, LIMIT_GUEST, LEDGER_PINNED_BYTES, 64 * MIB);
	limit_set(&settings, LIMIT_HOST, LEDGER_PINNED_BYTES, 80 * MIB);
	fixture_init_guest(&f, &settings); /* uses 32 MiB */
	request.guests = 1;
	request.pinned_bytes = 48 * MIB;
	request.devices = 8;
	assert_done(&f, check_fit(f.broker, f.session, &request, missing, &n, &f.refusal));
	assert_int_equal(n, 0);
	request.pinned_bytes = 56 * MIB;
	assert_done(&f, check_fit(f.broker, f.session, &request, missing, &n, &f.refusal));
	assert_int_equal(n, 1);
	assert_int_equal(missing[0].resource, LEDGER_PINNED_BYTES);
	assert_int_equal(missing[0].limit, 80 * MIB);
	assert_int_equal(missing[0].used, 32 * MIB);
	assert_int_equal(missing[0].missing, 8 * MIB);
	assert_string_equal(missing[0].rule, limit_place(LIMIT_HOST));
	request.pinned_bytes = 65 * MIB; /* the guest's limit and the host's */
	request.devices = 9;
	assert_done(&f, check_fit(f.broker, f.session, &request, missing, &n, &f.refusal));
	assert_int_equal(n, 3);
	assert_int_equal(missing[0].level, LIMIT_GUEST);
	assert_int_equal(missing[0].missing, 1 * MIB);
	assert_int_equal(missing[1].level, LIMIT_HOST);
	assert_int_equal(missing[1].missing, 17 * MIB);
	assert_int_equal(missing[2].resource, LEDGER_DEVICES);
	assert_int_equal(missing[2].missing, 1);
	/* Two guests may have twice what one may, but the host has no more. */
	request.guests = 2;
	request.pinned_bytes = 0;
	request.devices = 16;
	assert_done(&f, check_fit(f.broker, f.session, &request, missing, &n, &f.refusal));
	assert_int_equal(n, 0);
	assert_int_equal(host_usage(&f, LEDGER_PINNED_BYTES).current, 32 * MIB);
	assert_int_equal(host_usage(&f, LEDGER_PINNED_BYTES).events, 0);
	fixture_deinit(&f);
}

static void test_reports(void **state)
{
	struct fixture f;
	struct broker_settings settings = settings_default();
	struct usage_report report, list[3];
	size_t n;

	fixture_init_guest(&f, &settings);
	assert_done(&f, usage_report(f.broker, f.session, &report, &f.refusal));
	assert_string_equal(report.tenant, session_tenant(f.session));
	assert_int_equal(report.usage[LEDGER_PINNED_BYTES].current, MEMORY_BYTES);
	assert_int_equal(report.usage[LEDGER_SESSIONS].max,
			 settings.limits[LIMIT_TENANT].max[LEDGER_SESSIONS].max);
	assert_done(&f, usage_list(f.broker, list, 0, &n, &f.refusal));
	assert_int_equal(n, 1);
	assert_done(&f, usage_list(f.broker, list, 3, &n, &f.refusal));
	assert_int_equal(n, 1);
	assert_string_equal(list[0].tenant, session_tenant(f.session));
	assert_done(&f, usage_report(f.broker, NULL, &report, &f.refusal));
	assert_string_equal(report.tenant, "host");
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_charge_is_all_or_nothing, chain_setup,
						chain_teardown),
		cmocka_unit_test_setup_teardown(test_amounts_do_not_wrap, chain_setup,
						chain_teardown),
		cmocka_unit_test_setup_teardown(test_peak_events_and_room, chain_setup,
						chain_teardown),
		cmocka_unit_test_setup_teardown(test_highs_are_logged_by_tenant, chain_setup,
						chain_teardown),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_guests),
		cmocka_unit_test(test_pinned_bytes),
		cmocka_unit_test(test_limits_of_the_guest),
		cmocka_unit_test(test_regions),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_nested_domains),
		cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_check_fit),
		cmocka_unit_test(test_reports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
