/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How much of the log a tenant may fill: by a clock of the test's own.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "rpc/log_share.h"

#define SECOND UINT64_C(1000000000)

static struct log_shares shares;
static uint64_t now_ns;
static uint32_t suppressed;

static int setup(void **state)
{
	(void)state;
	memset(&shares, 0, sizeof(shares));
	now_ns = 1000 * SECOND;
	return 0;
}

static bool allow(const char *name, enum log_kind kind)
{
	suppressed = 0;
	return log_share_allow(&shares, name, kind, now_ns, &suppressed);
}

static unsigned int lines(const char *name, enum log_kind kind, unsigned int tries)
{
	unsigned int n = 0;

	while (tries--)
		n += allow(name, kind);
	return n;
}

/* One that storms is silenced, in that kind only, and nobody else is; its next line tells. */
static void test_each_its_own(void **state)
{
	(void)state;
	assert_int_equal(lines("storm", LOG_KIND_RATE, 1000), LOG_RATE_BURST);
	assert_int_equal(lines("storm", LOG_KIND_REFUSAL, 1000), LOG_RATE_BURST);
	assert_int_equal(lines("storm", LOG_KIND_CONNECTION, 1), 1);
	for (int kind = 0; kind < LOG_KINDS; kind++)
		assert_true(allow("quiet", kind));
	now_ns += SECOND;
	assert_true(allow("storm", LOG_KIND_RATE));
	assert_int_equal(suppressed, 1000 - LOG_RATE_BURST);
	assert_false(allow("storm", LOG_KIND_RATE));
}

/* All guests of a host that start at once are in the log; not a storm of them. */
static void test_life(void **state)
{
	unsigned int n = lines("host", LOG_KIND_LIFE, 5000);

	(void)state;
	assert_in_range(n, 100, 300);
	now_ns += SECOND;
	assert_in_range(lines("host", LOG_KIND_LIFE, 5000), 10, 30);
}

/* However many names there are: those without a place share one, and hide nobody's who has one. */
static void test_bound(void **state)
{
	char name[LOG_SHARE_NAME_MAX];
	unsigned int n = 0;

	(void)state;
	for (int i = 0; i < 100 * LOG_SHARES_MAX; i++) {
		snprintf(name, sizeof(name), "uid:%d", i);
		n += allow(name, LOG_KIND_REFUSAL);
	}
	assert_int_equal(shares.n, LOG_SHARES_MAX);
	assert_int_equal(n, LOG_SHARES_MAX + LOG_RATE_BURST);
	assert_true(allow("uid:5", LOG_KIND_REFUSAL));
	assert_false(allow("somebody", LOG_KIND_REFUSAL));
}

/* A place is used anew once whoever had it was silent for long enough, and not before; what was
 * not shown of him is told by the others' next line. */
static void test_places_are_used_again(void **state)
{
	char name[LOG_SHARE_NAME_MAX];

	(void)state;
	assert_int_equal(lines("first", LOG_KIND_RATE, 110), LOG_RATE_BURST);
	for (int i = 1; i < LOG_SHARES_MAX; i++) {
		snprintf(name, sizeof(name), "uid:%d", i);
		now_ns += 1000;
		assert_true(allow(name, LOG_KIND_RATE));
	}
	now_ns += LOG_RATE_BURST * LOG_RATE_INTERVAL_NS - 1000 * LOG_SHARES_MAX;
	assert_true(allow("late", LOG_KIND_RATE));
	assert_non_null(strstr(shares.shares[0].name, "first"));
	now_ns += 1000 * LOG_SHARES_MAX;
	assert_int_equal(lines("later", LOG_KIND_RATE, 100), LOG_RATE_BURST);
	assert_string_equal(shares.shares[0].name, "later");
	assert_int_equal(shares.others.rates[LOG_KIND_RATE].suppressed, 100);
}

#define T(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_each_its_own),
		T(test_life),
		T(test_bound),
		T(test_places_are_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
