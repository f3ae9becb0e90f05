/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Rates of guests, tenants and of the host by a clock of the test's own: who waits for how long,
 * who is refused and what that says, and what is remembered.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "broker/rates.h"
#include "broker/tenant_rule.h"

#define SECOND UINT64_C(1000000000)
#define START  (1000 * SECOND)

static struct rates rates;
static struct rate_account one, other;
static uint64_t now_ns, wait_ns;
static struct refusal refusal;

static void rate_write(struct limit_set *set, enum rate_kind kind, uint64_t per_second,
		       const char *where)
{
	set->rate[kind].set = true;
	set->rate[kind].max = per_second;
	snprintf(set->rate[kind].where, sizeof(set->rate[kind].where), "%s", where);
}

/* Of both tenants and the host; 0: none. */
static void limits_set(enum rate_kind kind, uint64_t tenant, uint64_t host)
{
	struct limit_set of_tenant = {0}, of_host = {0};

	if (tenant)
		rate_write(&of_tenant, kind, tenant, "a.conf:7");
	if (host)
		rate_write(&of_host, kind, host, "main.conf:3");
	rates_set_limits(&rates, &rates.host, &of_host, NULL, now_ns);
	rates_set_limits(&rates, &one, &of_tenant, NULL, now_ns);
	rates_set_limits(&rates, &other, &of_tenant, NULL, now_ns);
}

static int setup(void **state)
{
	(void)state;
	now_ns = START;
	rates_init(&rates);
	rates_open(&rates, &one, "one", now_ns);
	rates_open(&rates, &other, "other", now_ns);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rates_deinit(&rates);
	return 0;
}

static int take(struct rate_account *account, enum rate_kind kind, uint64_t n)
{
	const struct rate_request request = {
		.kind = kind, .n = n, .now_ns = now_ns, .delay_max_ns = SECOND};

	wait_ns = 4711;
	return rates_take(&rates, NULL, account, &request, &wait_ns, &refusal);
}

static void take_all(struct rate_account *account, enum rate_kind kind, uint64_t n,
		     uint64_t want_ns)
{
	assert_int_equal(take(account, kind, n), 0);
	assert_int_equal(wait_ns, want_ns);
}

/* Ten at once, ten within a second, and no more: until a tenth of a second has passed. */
static void test_delay_then_refuse(void **state)
{
	struct rate_usage usage[RATES];

	(void)state;
	limits_set(RATE_REQUESTS, 10, 0);
	for (uint64_t i = 0; i < 10; i++)
		take_all(&one, RATE_REQUESTS, 1, 0);
	for (uint64_t i = 1; i <= 10; i++)
		take_all(&one, RATE_REQUESTS, 1, i * SECOND / 10);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(take(&one, RATE_REQUESTS, 1), REFUSED);
		assert_int_equal(refusal.kind, REFUSAL_RATE);
		assert_string_equal(refusal.reason, "RATE_EXCEEDED");
		assert_int_equal(refusal.retry_after_ms, 1100);
		assert_int_equal(refusal.limit, 10);
		assert_string_equal(refusal.resource, "requests");
		assert_string_equal(refusal.tenant, "one");
		assert_string_equal(refusal.rule, "a.conf:7");
	}
	take_all(&other, RATE_REQUESTS, 1, 0);
	take_all(&one, RATE_CONNECTIONS, 100, 0);
	rates_report(&rates, &one, usage);
	assert_int_equal(usage[RATE_REQUESTS].per_second, 10);
	assert_int_equal(usage[RATE_REQUESTS].burst, 10);
	assert_int_equal(usage[RATE_REQUESTS].delayed, 10);
	assert_int_equal(usage[RATE_REQUESTS].refused, 2);
	assert_string_equal(usage[RATE_REQUESTS].where, "a.conf:7");
	assert_int_equal(usage[RATE_CONNECTIONS].per_second, UINT64_MAX);
	now_ns += SECOND / 10;
	take_all(&one, RATE_REQUESTS, 1, SECOND);
	now_ns += 1100 * SECOND / 1000;
	take_all(&one, RATE_REQUESTS, 1, 0);
}

/* The host's rate is named as such, and what is refused there is not taken from the tenant. */
static void test_host(void **state)
{
	struct rate_usage usage[RATES];

	(void)state;
	limits_set(RATE_CONNECTIONS, 10, 4);
	for (int i = 0; i < 8; i++)
		assert_int_equal(take(i % 2 ? &one : &other, RATE_CONNECTIONS, 1), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(take(&one, RATE_CONNECTIONS, 1), REFUSED);
	assert_int_equal(refusal.limit, 4);
	assert_string_equal(refusal.rule, "main.conf:3");
	assert_string_equal(refusal.tenant, "one");
	rates_report(&rates, &rates.host, usage);
	assert_int_equal(usage[RATE_CONNECTIONS].refused, 20);
	assert_int_equal(usage[RATE_CONNECTIONS].delayed, 4);
	rates_report(&rates, &one, usage);
	assert_int_equal(usage[RATE_CONNECTIONS].refused, 0);
	assert_int_equal(one.of[RATE_CONNECTIONS].bucket.paid_ns, START + 4 * SECOND / 10);
}

static void test_which_are_limited(void **state)
{
	(void)state;
	limits_set(RATE_REQUESTS, 0, 0);
	assert_int_equal(one.limited, 0);
	limits_set(RATE_REQUESTS, 5, 0);
	assert_int_equal(one.limited, 1 << RATE_REQUESTS);
	limits_set(RATE_REFRESHES, 0, 5);
	assert_int_equal(one.limited, 1 << RATE_REFRESHES);
	limits_set(RATE_REFRESHES, UINT64_MAX, UINT64_MAX);
	assert_int_equal(one.limited, 0);
}

/* Of settings and rule the lower one. */
static void test_rule(void **state)
{
	struct limit_set settings = {0}, rule = {0};
	struct rate_usage usage[RATES];

	(void)state;
	rate_write(&settings, RATE_REQUESTS, 50, "setting");
	rate_write(&rule, RATE_REQUESTS, 100, "rule");
	rate_write(&rule, RATE_REFRESHES, 300, "rule");
	rates_set_limits(&rates, &one, &settings, &rule, now_ns);
	rates_report(&rates, &one, usage);
	assert_int_equal(usage[RATE_REQUESTS].per_second, 50);
	assert_string_equal(usage[RATE_REQUESTS].where, "setting");
	assert_int_equal(usage[RATE_REFRESHES].per_second, 300);
	rate_write(&rule, RATE_REQUESTS, 49, "rule");
	rates_set_limits(&rates, &one, &settings, &rule, now_ns);
	rates_report(&rates, &one, usage);
	assert_int_equal(usage[RATE_REQUESTS].per_second, 49);
	assert_string_equal(usage[RATE_REQUESTS].where, "rule");
}

/* However low the rate, the longest call can be made, once it has been waited for. */
static void test_longest_refresh(void **state)
{
	(void)state;
	limits_set(RATE_REFRESHES, 1, 0);
	take_all(&one, RATE_REFRESHES, BROKER_REFRESH_RANGES_MAX, 0);
	take_all(&one, RATE_REFRESHES, 1, SECOND);
	assert_int_equal(take(&one, RATE_REFRESHES, 1), REFUSED);
	now_ns += 257 * SECOND;
	take_all(&one, RATE_REFRESHES, BROKER_REFRESH_RANGES_MAX, 0);
}

/* It waits as long as anybody may, and is neither refused nor paid for. */
static void test_gives_back(void **state)
{
	struct rate_request request = {
		.kind = RATE_REQUESTS, .n = 1, .now_ns = now_ns, .delay_max_ns = SECOND};

	(void)state;
	limits_set(RATE_REQUESTS, 10, 0);
	while (!take(&one, RATE_REQUESTS, 1))
		;
	request.gives_back = true;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(rates_take(&rates, NULL, &one, &request, &wait_ns, &refusal), 0);
		assert_int_equal(wait_ns, SECOND);
	}
	assert_int_equal(take(&one, RATE_REQUESTS, 1), REFUSED);
	assert_int_equal(refusal.retry_after_ms, 1100);
}

/* What is owed is owed in tokens, whatever one costs after a reload. */
static void test_reload(void **state)
{
	(void)state;
	limits_set(RATE_REFRESHES, 1, 0);
	take_all(&one, RATE_REFRESHES, 256, 0);
	assert_int_equal(take(&one, RATE_REFRESHES, 256), REFUSED);
	limits_set(RATE_REFRESHES, 512, 0);
	take_all(&one, RATE_REFRESHES, 256, 0);
	take_all(&one, RATE_REFRESHES, 256, SECOND / 2);
	limits_set(RATE_REFRESHES, 0, 0);
	take_all(&one, RATE_REFRESHES, 256, 0);
	limits_set(RATE_REFRESHES, 512, 0);
	take_all(&one, RATE_REFRESHES, 256, 0);
}

/* Going away and coming back is no way around a rate. */
static void test_debts(void **state)
{
	char name[BROKER_NAME_MAX];

	(void)state;
	limits_set(RATE_CONNECTIONS, 10, 0);
	while (!take(&one, RATE_CONNECTIONS, 1))
		;
	rates_close(&rates, &one, now_ns);
	rates_open(&rates, &one, "one", now_ns);
	limits_set(RATE_CONNECTIONS, 10, 0);
	assert_int_equal(take(&one, RATE_CONNECTIONS, 1), REFUSED);
	assert_int_equal(rates.n_debts, 0);
	rates_close(&rates, &one, now_ns);
	assert_int_equal(rates.n_debts, 1);
	for (int i = 0; i < 2 * RATE_DEBTS_MAX; i++) {
		snprintf(name, sizeof(name), "small-%d", i);
		rates_open(&rates, &other, name, now_ns);
		limits_set(RATE_CONNECTIONS, 10, 0);
		take_all(&other, RATE_CONNECTIONS, 1, 0);
		rates_close(&rates, &other, now_ns);
	}
	assert_int_equal(rates.n_debts, RATE_DEBTS_MAX);
	rates_open(&rates, &one, "one", now_ns);
	limits_set(RATE_CONNECTIONS, 10, 0);
	assert_int_equal(take(&one, RATE_CONNECTIONS, 1), REFUSED);
	rates_close(&rates, &one, now_ns);
	now_ns += 3 * SECOND;
	rates_close(&rates, &other, now_ns);
	assert_int_equal(rates.n_debts, 0);
}

/* A guest pays along with its tenant, at all levels or at none; it can pay alone, and then its
 * tenant pays nothing. */
static void test_guest(void **state)
{
	struct rate_request request = {
		.kind = RATE_REFRESHES, .n = 256, .now_ns = now_ns, .delay_max_ns = SECOND};
	struct limit_set of_guest = {0};
	struct rate_usage usage[RATES];
	struct rate_account guest, sister;

	(void)state;
	rates_open_guest(&guest, "one");
	rates_open_guest(&sister, "one");
	rate_write(&of_guest, RATE_REFRESHES, 100, "b.conf:9");
	rates_set_limits(&rates, &guest, &of_guest, NULL, now_ns);
	rates_set_limits(&rates, &sister, &of_guest, NULL, now_ns);
	limits_set(RATE_REFRESHES, 1000, 0);
	assert_int_equal(rates_take(&rates, &guest, &one, &request, &wait_ns, &refusal), 0);
	assert_int_equal(wait_ns, 0);
	assert_int_equal(rates_take(&rates, &guest, &one, &request, &wait_ns, &refusal), REFUSED);
	assert_int_equal(refusal.limit, 100);
	assert_string_equal(refusal.rule, "b.conf:9");
	assert_string_equal(refusal.tenant, "one");
	assert_non_null(strstr(refusal.message, "of one guest"));
	assert_int_equal(one.of[RATE_REFRESHES].bucket.paid_ns, START + 256 * SECOND / 1000);
	assert_int_equal(rates_take(&rates, &sister, &one, &request, &wait_ns, &refusal), 0);
	assert_int_equal(wait_ns, 0);
	request.n = 50;
	assert_int_equal(rates_take(&rates, &guest, NULL, &request, &wait_ns, &refusal), 0);
	assert_int_equal(wait_ns, SECOND / 2);
	assert_int_equal(one.of[RATE_REFRESHES].bucket.paid_ns, START + 512 * SECOND / 1000);
	rates_report(&rates, &guest, usage);
	assert_int_equal(usage[RATE_REFRESHES].refused, 1);
	assert_int_equal(usage[RATE_REFRESHES].delayed, 1);
	assert_int_equal(usage[RATE_REQUESTS].per_second, UINT64_MAX);
}

/* Nobody looks for a call's guest unless some guest can be limited. */
static void test_guests_are_noted(void **state)
{
	struct tenant_rule rules[2] = {0};
	struct broker_settings settings = {.tenant_rules = rules, .n_tenant_rules = 2};
	struct limit_set *of_guest = &settings.limits[LIMIT_GUEST];

	(void)state;
	rate_write(of_guest, RATE_REQUESTS, UINT64_MAX, "infinity");
	rates_note_guests(&rates, &settings);
	assert_int_equal(rates.guests_limited, 0);
	rate_write(&rules[1].limits[LIMIT_GUEST], RATE_REFRESHES, 5, "rule");
	rates_note_guests(&rates, &settings);
	assert_int_equal(rates.guests_limited, 1 << RATE_REFRESHES);
	rate_write(of_guest, RATE_REQUESTS, 5, "setting");
	rates_note_guests(&rates, &settings);
	assert_int_equal(rates.guests_limited, 1 << RATE_REFRESHES | 1 << RATE_REQUESTS);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_delay_then_refuse),
		T(test_host),
		T(test_which_are_limited),
		T(test_rule),
		T(test_gives_back),
		T(test_longest_refresh),
		T(test_reload),
		T(test_debts),
		T(test_guest),
		T(test_guests_are_noted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
