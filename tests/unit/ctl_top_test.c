/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl top: frames of at most 80 columns, whatever clients call themselves; rates of what
 * grew; rows in order; no escape codes where there is no terminal. */

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include <cmocka.h>

#include "fake_admin.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__GetUsageResponse Usage;
typedef Iommubroker__V1__GetUsageResponse__Usage Resource;
typedef Iommubroker__V1__GetStatusResponse Status;
typedef Iommubroker__V1__GuestDescription Guest;
typedef Iommubroker__V1__GuestDescription__Nested Nested;

/* Four characters of two columns each. */
#define WIDE "\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97"
#define HOSTILE                                                                           \
	"\x1b[2J\xe2\x80\xae\xff\t\n\xe6\xbc\xa2\xe6\xbc\xa2\xf0\x9f\x92\xa9\xe6\xbc\xa2" \
	"very long name of a client that goes on and on"

static void lay_status(const char *second, uint64_t calls, uint64_t pinned, uint32_t from)
{
	Iommubroker__V1__GetInfoResponse info = IOMMUBROKER__V1__GET_INFO_RESPONSE__INIT;
	Status status = IOMMUBROKER__V1__GET_STATUS_RESPONSE__INIT;
	Resource resource = IOMMUBROKER__V1__GET_USAGE_RESPONSE__USAGE__INIT;
	Resource *resources[] = {&resource};
	Usage usages[3] = {IOMMUBROKER__V1__GET_USAGE_RESPONSE__INIT,
			   IOMMUBROKER__V1__GET_USAGE_RESPONSE__INIT,
			   IOMMUBROKER__V1__GET_USAGE_RESPONSE__INIT};
	Usage *all[] = {&usages[0], &usages[1], &usages[2]};
	const char *names[] = {"host", "prod", second};

	resource.resource = (char *)"pinned_bytes";
	resource.current = pinned;
	resource.max = UINT64_MAX;
	resource.events = 3;
	for (size_t i = 0; i < 3; i++) {
		usages[i].tenant = (char *)names[i];
		usages[i].n_usage = 1;
		usages[i].calls = i * calls;
		usages[i].usage = resources;
	}
	info.version = (char *)"0.1.0";
	info.backend = (char *)"iommufd";
	status.info = &info;
	status.calls = calls;
	status.refusals = 7;
	status.pinned_bytes = pinned;
	status.connections = status.sessions = status.guests = status.devices = UINT32_MAX;
	status.mappings_installed = UINT64_MAX;
	status.uptime_seconds = UINT64_MAX;
	status.n_usage = 3;
	status.usage = all;
	fake_admin_answer_from("GetStatus", from, &status.base);
}

static void lay_guest(uint64_t handle, const char *name, const char *tenant, uint64_t bytes,
		      uint64_t refreshes, uint32_t from)
{
	Iommubroker__V1__ShowGuestResponse response = IOMMUBROKER__V1__SHOW_GUEST_RESPONSE__INIT;
	Nested nested = IOMMUBROKER__V1__GUEST_DESCRIPTION__NESTED__INIT;
	Guest guest = IOMMUBROKER__V1__GUEST_DESCRIPTION__INIT;
	Nested *all[] = {&nested, &nested};

	nested.live_leaves = bytes / 8192;
	nested.refreshes = refreshes / 2;
	guest.guest = handle;
	guest.name = (char *)name;
	guest.tenant = (char *)tenant;
	guest.pinned = true;
	guest.region_bytes = bytes;
	guest.n_nested = 2;
	guest.nested = all;
	response.description = &guest;
	fake_admin_answer_from("ShowGuest", from, &response.base);
}

static int setup(void **state)
{
	fake_admin_reset();
	return 0;
}

/* Columns of the longest line; it fails on what no terminal should be given. */
static int longest(const char *text)
{
	wchar_t wide[512];
	int most = 0;

	/* Programs of another byte order than the system's have no locale that they can read. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		skip();
	while (*text != '\0') {
		size_t n = strcspn(text, "\n");
		char line[2048];
		int columns;

		assert_true(n < sizeof(line));
		memcpy(line, text, n);
		line[n] = '\0';
		assert_true(mbstowcs(wide, line, 512) < 512);
		columns = wcswidth(wide, 512);
		if (columns < 0)
			fail_msg("not to be printed: %s", line);
		most = columns > most ? columns : most;
		text += n + (text[n] != '\0');
	}
	return most;
}

/* What else prints names of clients, or rules, fits as well. */
static void test_quota_and_monitor_fit(void **state)
{
	Iommubroker__V1__ShowQuotaResponse account = IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__INIT;
	Iommubroker__V1__ShowQuotaResponse__Limit limit =
		IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__LIMIT__INIT;
	Iommubroker__V1__ShowQuotaResponse__Limit *limits[] = {&limit};
	Iommubroker__V1__ShowQuotaResponse__Rate rate =
		IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__RATE__INIT;
	Iommubroker__V1__ShowQuotaResponse__Rate *rates[] = {&rate};
	Iommubroker__V1__MonitorEvent event = IOMMUBROKER__V1__MONITOR_EVENT__INIT;

	limit.resource = rate.resource = (char *)"nested_domains";
	limit.current = limit.high = limit.max = limit.peak = UINT64_MAX - 1;
	limit.events = limit.events_high = UINT64_MAX;
	rate.per_second = rate.burst = rate.delayed = rate.refused = UINT64_MAX - 1;
	limit.over = true;
	limit.rule = rate.rule = (char *)"/etc/iommubroker/quota.d/" HOSTILE HOSTILE WIDE WIDE;
	account.level = (char *)"guest";
	account.guest = UINT64_MAX;
	account.name = account.tenant = account.rule = (char *)HOSTILE WIDE;
	account.stranger = true;
	account.n_limits = account.n_rates = 1;
	account.limits = limits;
	account.rates = rates;
	fake_admin_answer("ShowQuota", &account.base);
	event.kind = event.tenant = event.guest_name = event.text = (char *)HOSTILE HOSTILE WIDE;
	event.guest = event.pid = event.uid = UINT64_MAX;
	fake_admin_answer("Monitor", &event.base);
	assert_in_range(longest(fake_admin_run("quota").out), 60, 80);
	assert_in_range(longest(fake_admin_run("monitor").out), 60, 80);
}

static void test_hostile_names(void **state)
{
	struct run run;

	fake_admin_refuse("ShowQuota", 12, "not here", NULL);
	lay_status(HOSTILE, UINT64_MAX, UINT64_MAX - 1, 1);
	lay_guest(UINT64_MAX, HOSTILE, HOSTILE, UINT64_MAX, UINT64_MAX, 1);
	lay_guest(1, "", "prod", UINT64_MAX, 0, 1);
	lay_guest(2, WIDE WIDE WIDE WIDE, "prod", UINT64_MAX, 0, 1);
	run = fake_admin_run("top --interval 0.001 --count 2");
	assert_string_equal(run.err, "");
	assert_int_equal(run.status, 0);
	assert_true(longest(run.out) <= 80);
	/* The table is as wide as it is meant to be: columns are not lost either. */
	assert_true(longest(run.out) >= 78);
	assert_null(strchr(run.out, '\x1b'));
	assert_non_null(strstr(run.out, "\xe2\x80\xa6"));        /* something was cut */
	assert_non_null(strstr(run.out, "  0000000000000001 ")); /* no name: its handle */
	assert_non_null(strstr(run.out, "\n\niommubrokerd 0.1.0"));
}

static void test_rates_and_order(void **state)
{
	const char *quiet, *busy, *prod, *other;
	struct run run;

	fake_admin_refuse("ShowQuota", 5, "gone", NULL);
	lay_status("other", 1000, 4096, 1);
	lay_guest(1, "quiet", "prod", 1 << 20, 100, 1);
	lay_guest(2, "busy", "prod", 1 << 21, 100, 1);
	lay_guest(3, "alone", "other", 1 << 10, 0, 1);
	lay_status("other", 1000 + 1000000, 4096, 2);
	lay_guest(1, "quiet", "prod", 1 << 20, 100, 2);
	lay_guest(2, "busy", "prod", 1 << 21, 100 + 2000000, 2);
	lay_guest(3, "alone", "other", 1 << 10, 0, 2);
	run = fake_admin_run("top --interval 0.05 --sort refreshes");
	assert_int_equal(run.status, 0);
	prod = strstr(run.out, "\nprod ");
	other = strstr(run.out, "\nother ");
	busy = strstr(run.out, "\n  busy ");
	quiet = strstr(run.out, "\n  quiet ");
	assert_true(prod != NULL && other != NULL && busy != NULL && quiet != NULL);
	assert_true(prod < busy && busy < quiet && quiet < other);
	/* Two millions in at least 50 ms: millions a second, unless the machine is very slow. */
	assert_null(strstr(run.out, "calls 0/s"));
	assert_null(strstr(run.out, "calls -"));
	/* Each tenant's own calls. */
	run = fake_admin_run("top --json --interval 0.001");
	assert_non_null(strstr(run.out, "\"calls\":1001000,\"calls_per_second\":"));
	assert_non_null(strstr(run.out, "\"calls\":2002000,\"calls_per_second\":"));
	assert_null(strstr(run.out, "\"calls_per_second\":0.0"));
	assert_null(strstr(run.out, "\"calls_per_second\":null"));
	run = fake_admin_run("top --interval 0.001 --sort name");
	assert_true(strstr(run.out, "\nother ") < strstr(run.out, "\nprod "));
}

static void test_json(void **state)
{
	struct run run;

	fake_admin_refuse("ShowQuota", 5, "gone", NULL);
	lay_status("other", 1000, 4096, 1);
	lay_guest(1, "quiet", "prod", 1 << 20, 100, 1);
	run = fake_admin_run("top --json --interval 0.001");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.out, "\"calls_per_second\":0.0"));
	assert_non_null(strstr(run.out, "{\"level\":\"guest\",\"tenant\":\"prod\","
					"\"name\":\"quiet\",\"guest\":\"0x0000000000000001\","
					"\"pinned_bytes\":1048576,\"mappings\":256"));
	assert_null(strchr(strchr(run.out, '\n') + 1, '\n')); /* one frame, one line */
}

static void test_refusals_of_guests(void **state)
{
	Iommubroker__V1__ShowQuotaResponse account = IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__INIT;
	Iommubroker__V1__ShowQuotaResponse__Limit limit =
		IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__LIMIT__INIT;
	Iommubroker__V1__ShowQuotaResponse__Rate rate =
		IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__RATE__INIT;
	Iommubroker__V1__ShowQuotaResponse__Limit *limits[] = {&limit};
	Iommubroker__V1__ShowQuotaResponse__Rate *rates[] = {&rate};
	struct run run;

	lay_status("other", 0, 0, 1);
	lay_guest(9, "nine", "prod", 4096, 0, 1);
	limit.events = 40;
	rate.refused = 2;
	account.level = (char *)"guest";
	account.tenant = (char *)"prod";
	account.guest = 9;
	account.n_limits = 1;
	account.limits = limits;
	account.n_rates = 1;
	account.rates = rates;
	fake_admin_answer("ShowQuota", &account.base);
	run = fake_admin_run("--json top --interval 0.001");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.out, "\"name\":\"nine\""));
	assert_non_null(strstr(run.out, "\"refused\":42"));
	assert_non_null(strstr(run.requests, "ShowQuota {\"tenant\":\"prod\"}"));
}

static void test_usage(void **state)
{
	assert_int_equal(fake_admin_run("top --sort size").status, 2);
	assert_int_equal(fake_admin_run("top --interval 0").status, 2);
	assert_int_equal(fake_admin_run("top --interval x").status, 2);
	assert_int_equal(fake_admin_run("top").status, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_hostile_names, setup),
		cmocka_unit_test_setup(test_quota_and_monitor_fit, setup),
		cmocka_unit_test_setup(test_rates_and_order, setup),
		cmocka_unit_test_setup(test_json, setup),
		cmocka_unit_test_setup(test_refusals_of_guests, setup),
		cmocka_unit_test_setup(test_usage, setup),
	};

	return cmocka_run_group_tests_name("ctl_top", tests, NULL, NULL);
}
