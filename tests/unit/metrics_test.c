/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The text of the metrics at its bounds: hostile names, as many tenants as there can be, no room.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/metrics_quota.h"
#include "rpc/metrics_text.h"
#include "rpc_fixture.h"

/* No sample's line is broken by what stands in a label, whatever that is. */
static void test_labels_are_escaped(void **state)
{
	static const struct {
		const char *value, *escaped;
	} cases[] = {
		{"plain", "plain"},        {"a\"b", "a\\\"b"},
		{"a\\b", "a\\\\b"},        {"a\nb", "a\\\\x0ab"},
		{"\x1b[2J", "\\\\x1b[2J"}, {"\xff\xfe", "\\\\xff\\\\xfe"},
		{"\xc3\xa4", "\xc3\xa4"},  {"} 1\n# EOF\n", "} 1\\\\x0a# EOF\\\\x0a"},
	};
	char escaped[METRICS_LABEL_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		metrics_label_escape(escaped, sizeof(escaped), cases[i].value);
		assert_string_equal(escaped, cases[i].escaped);
	}
}

/* Cut anywhere, no escape is left open: a backslash at the end would take the quote with it. */
static void test_an_escape_is_not_cut(void **state)
{
	char escaped[METRICS_LABEL_BYTES];

	(void)state;
	for (size_t room = 1; room < 40; room++) {
		size_t backslashes = 0, n;

		metrics_label_escape(escaped, room, "\\\\\\\"\"\"\\\\\\\"\"\"\\\\");
		n = strlen(escaped);
		assert_true(n < room);
		while (n && escaped[n - 1] == '\\')
			backslashes++, n--;
		assert_true(backslashes % 2 == 0);
	}
}

static void test_buckets(void **state)
{
	static const uint64_t ns[] = {0, 1, 1024, 1025, 2048, UINT64_C(1) << 36, UINT64_MAX};
	static const size_t bucket[] = {0, 0, 0, 1, 1, 26, 27};
	struct metrics_histogram histogram;

	(void)state;
	for (size_t i = 0; i < sizeof(ns) / sizeof(ns[0]); i++) {
		memset(&histogram, 0, sizeof(histogram));
		metrics_observe(&histogram, ns[i]);
		assert_int_equal(metrics_get(&histogram.buckets[bucket[i]]), 1);
	}
}

/* More reasons than there is room for are one; those that are known stay themselves. */
static void test_reasons_are_bounded(void **state)
{
	struct metrics *metrics = metrics_new();
	struct refusal refusal = {0};

	(void)state;
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < METRICS_REASONS_MAX + 10; i++) {
			snprintf(refusal.reason, sizeof(refusal.reason), "REASON_%d", i);
			metrics_refusal(metrics, &refusal);
		}
	assert_int_equal(metrics_get(&metrics->reasons[0].count), 2);
	assert_int_equal(metrics_get(&metrics->reasons[METRICS_REASONS_MAX].count), 20);
	metrics_free(metrics);
}

#define TENANTS 4096
#define VALUE   (UINT64_MAX / TENANTS / 2) /* so that the sum is a number still */

static void report_fill(struct usage_report *report, size_t i, char letter)
{
	memset(report->tenant, letter, sizeof(report->tenant) - 1);
	report->tenant[sizeof(report->tenant) - 1] = '\0';
	snprintf(report->tenant, 8, "%06zu", i);
	report->tenant[6] = letter;
	for (int r = 0; r < LEDGER_RESOURCES; r++)
		report->usage[r] = (struct usage){
			.current = VALUE,
			.max = VALUE,
			.high = VALUE,
			.peak = VALUE,
			.events = VALUE,
			.events_high = VALUE,
		};
}

/* Far more tenants than fit, with the longest names and numbers: the text is whole, within its
 * bound, and the rest is one sum. */
static void assert_bounded(char letter)
{
	struct metrics_quota quota = {0};
	struct metrics_text text = {0};
	size_t n = TENANTS;
	char sum[96];

	quota.reports = calloc(n + 1, sizeof(quota.reports[0]));
	for (size_t i = 0; i <= n; i++)
		report_fill(&quota.reports[i], i, letter);
	quota.n_tenants = n;
	metrics_quota_bound(&quota, n);
	assert_true(quota.others && quota.n_listed > 20 && quota.n_listed <= METRICS_TENANTS_MAX);
	metrics_quota_write(&text, &quota);
	assert_false(text.failed);
	assert_true(text.n < METRICS_TEXT_BYTES_MAX - 256 * 1024);
	metrics_text_end(&text);
	snprintf(sum, sizeof(sum), "quota_used{level=\"other\",resource=\"pinned_bytes\"} %llu\n",
		 (unsigned long long)((n - quota.n_listed) * VALUE));
	assert_non_null(strstr(text.bytes, sum));
	free(text.bytes);
	metrics_quota_free(&quota);
}

static void test_many_tenants(void **state)
{
	(void)state;
	assert_bounded('a');
	assert_bounded('"');
	assert_bounded('\x01');
}

/* Nothing is given out in half. */
static void test_too_much_fails(void **state)
{
	struct metrics_text text = {0};

	(void)state;
	metrics_text_family(&text, METRIC_QUOTA_USED);
	for (size_t i = 0; i < METRICS_TEXT_BYTES_MAX / 32; i++) {
		metrics_text_begin(&text, "");
		metrics_text_label(&text, "tenant", "some name that takes its room");
		metrics_text_number(&text, i);
	}
	assert_true(text.failed);
	assert_true(text.n <= METRICS_TEXT_BYTES_MAX);
	free(text.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_labels_are_escaped),
		cmocka_unit_test(test_an_escape_is_not_cut),
		cmocka_unit_test(test_buckets),
		cmocka_unit_test(test_reasons_are_bounded),
		cmocka_unit_test(test_many_tenants),
		cmocka_unit_test(test_too_much_fails),
	};

	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
