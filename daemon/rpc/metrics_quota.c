/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/metrics_quota.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_MAX 16384 /* tenants that are looked at */
/* Of the text, for all tenants: the rest of it has a fixed bound far below what is left. */
#define TENANTS_BYTES_MAX (700u * 1024)
/* One sample of a tenant without its name: the longest metric, labels, resource and number. */
#define SAMPLE_BYTES 128
#define SAMPLES_MAX  6 /* of a resource */
#define RATE_SAMPLES 2 /* of a rate */

/* ── reading ──────────────────────────────────────────────────────────────────────────────── */

static uint64_t sum(uint64_t a, uint64_t b)
{
	return __builtin_add_overflow(a, b, &a) ? UINT64_MAX : a;
}

static void usage_add(struct usage *sum_of, const struct usage *more)
{
	sum_of->current = sum(sum_of->current, more->current);
	sum_of->peak = sum(sum_of->peak, more->peak);
	sum_of->max = sum(sum_of->max, more->max);
	sum_of->high = sum(sum_of->high, more->high);
	sum_of->events = sum(sum_of->events, more->events);
	sum_of->events_high = sum(sum_of->events_high, more->events_high);
}

static void rate_add(struct rate_usage *sum_of, const struct rate_usage *more)
{
	sum_of->delayed = sum(sum_of->delayed, more->delayed);
	sum_of->refused = sum(sum_of->refused, more->refused);
}

/* What a tenant takes of the text, at most. */
static size_t tenant_bytes(const struct usage_report *report)
{
	char name[METRICS_LABEL_BYTES];

	metrics_label_escape(name, sizeof(name), report->tenant);
	return (SAMPLE_BYTES + strlen(name)) *
	       (SAMPLES_MAX * LEDGER_RESOURCES + RATE_SAMPLES * RATES);
}

static size_t tenants_listed(const struct usage_report *tenants, size_t n)
{
	size_t listed = 0, bytes = 0;

	while (listed < n && listed < METRICS_TENANTS_MAX) {
		bytes += tenant_bytes(&tenants[listed]);
		if (bytes > TENANTS_BYTES_MAX)
			break;
		listed++;
	}
	return listed;
}

/* The tenants from listed on become one. */
static void others_sum(struct usage_report *tenants, size_t listed, size_t n)
{
	struct usage_report *other = &tenants[listed];

	for (size_t i = listed + 1; i < n; i++) {
		for (int resource = 0; resource < LEDGER_RESOURCES; resource++)
			usage_add(&other->usage[resource], &tenants[i].usage[resource]);
		for (int rate = 0; rate < RATES; rate++)
			rate_add(&other->rates[rate], &tenants[i].rates[rate]);
	}
}

void metrics_quota_bound(struct metrics_quota *quota, size_t n)
{
	quota->n_listed = tenants_listed(quota->reports + 1, n);
	quota->others = quota->n_listed < n;
	if (quota->others)
		others_sum(quota->reports + 1, quota->n_listed, n);
}

/* Of tenants that are forgotten: with the others, so that their sum never falls by it. */
static void past_add(struct metrics_quota *quota, const struct usage_past *past)
{
	struct usage_report *other = &quota->reports[1 + quota->n_listed];

	if (!past->n_tenants)
		return;
	if (!quota->others)
		*other = (struct usage_report){0};
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		if (!quota->others)
			other->usage[i].max = other->usage[i].high = UINT64_MAX;
		other->usage[i].events = sum(other->usage[i].events, past->usage[i].events);
		other->usage[i].events_high =
			sum(other->usage[i].events_high, past->usage[i].events_high);
	}
	for (int i = 0; i < RATES; i++) {
		other->rates[i].delayed = sum(other->rates[i].delayed, past->rates[i].delayed);
		other->rates[i].refused = sum(other->rates[i].refused, past->rates[i].refused);
	}
	quota->others = true;
}

int metrics_quota_read(struct broker *broker, struct metrics_quota *ret)
{
	struct metrics_quota quota = {0};
	struct usage_past past;
	struct refusal refusal;
	size_t room, n;

	usage_list(broker, NULL, 0, &room, &refusal);
	room = room < READ_MAX ? room : READ_MAX;
	quota.reports = calloc(room + 2, sizeof(quota.reports[0])); /* host and others */
	if (!quota.reports || usage_report(broker, NULL, &quota.reports[0], &refusal) ||
	    usage_list(broker, quota.reports + 1, room, &n, &refusal)) {
		free(quota.reports);
		return -ENOMEM;
	}
	usage_past(broker, &past);
	n = n < room ? n : room;
	for (size_t i = 0; i < n; i++)
		quota.n_tenants += !quota.reports[1 + i].idle;
	metrics_quota_bound(&quota, n);
	past_add(&quota, &past);
	*ret = quota;
	return 0;
}

void metrics_quota_free(struct metrics_quota *quota)
{
	free(quota->reports);
	quota->reports = NULL;
}

/* ── writing ──────────────────────────────────────────────────────────────────────────────── */

static uint64_t value_of(const struct usage *usage, enum metric metric)
{
	switch (metric) {
	case METRIC_QUOTA_USED:
		return usage->current;
	case METRIC_QUOTA_HIGH:
		return usage->high;
	case METRIC_QUOTA_LIMIT:
		return usage->max;
	case METRIC_QUOTA_PEAK:
		return usage->peak;
	case METRIC_QUOTA_REFUSALS:
		return usage->events;
	default:
		return usage->events_high;
	}
}

/* level: one that needs no tenant's name, or "tenant". */
static void report_write(struct metrics_text *text, const struct usage_report *report,
			 const char *level, const char *suffix)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		uint64_t value = value_of(&report->usage[i], text->metric);

		if (value == UINT64_MAX) /* there is none */
			continue;
		metrics_text_begin(text, suffix);
		metrics_text_label(text, "level", level);
		if (!strcmp(level, "tenant"))
			metrics_text_label(text, "tenant", report->tenant);
		metrics_text_label(text, "resource", ledger_resource_name(i));
		metrics_text_number(text, value);
	}
}

static void rates_write(struct metrics_text *text, const struct usage_report *report,
			const char *level, const char *suffix)
{
	for (int i = 0; i < RATES; i++) {
		metrics_text_begin(text, suffix);
		metrics_text_label(text, "level", level);
		if (!strcmp(level, "tenant"))
			metrics_text_label(text, "tenant", report->tenant);
		metrics_text_label(text, "rate", rate_kind_name(i));
		metrics_text_number(text, text->metric == METRIC_RATE_DELAYED
						  ? report->rates[i].delayed
						  : report->rates[i].refused);
	}
}

static void family_write(struct metrics_text *text, const struct metrics_quota *quota,
			 enum metric metric, const char *suffix,
			 void (*write)(struct metrics_text *text, const struct usage_report *report,
				       const char *level, const char *suffix))
{
	metrics_text_family(text, metric);
	write(text, &quota->reports[0], "host", suffix);
	for (size_t i = 0; i < quota->n_listed; i++)
		write(text, &quota->reports[1 + i], "tenant", suffix);
	if (quota->others)
		write(text, &quota->reports[1 + quota->n_listed], "other", suffix);
}

static void quota_family(struct metrics_text *text, const struct metrics_quota *quota,
			 enum metric metric, const char *suffix)
{
	family_write(text, quota, metric, suffix, report_write);
}

void metrics_quota_write(struct metrics_text *text, const struct metrics_quota *quota)
{
	quota_family(text, quota, METRIC_QUOTA_USED, "");
	quota_family(text, quota, METRIC_QUOTA_HIGH, "");
	quota_family(text, quota, METRIC_QUOTA_LIMIT, "");
	quota_family(text, quota, METRIC_QUOTA_PEAK, "");
	quota_family(text, quota, METRIC_QUOTA_REFUSALS, "_total");
	quota_family(text, quota, METRIC_QUOTA_HIGHS, "_total");
	family_write(text, quota, METRIC_RATE_DELAYED, "_total", rates_write);
	family_write(text, quota, METRIC_RATE_REFUSED, "_total", rates_write);
}
