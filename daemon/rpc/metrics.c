/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/method_table.h"

struct metrics *metrics_new(void)
{
	struct metrics *metrics = aligned_alloc(64, (sizeof(*metrics) + 63) / 64 * 64);
	size_t bytes;

	if (!metrics)
		return NULL;
	memset(metrics, 0, sizeof(*metrics));
	metrics->table = method_table(&metrics->n_methods);
	bytes = metrics->n_methods * sizeof(metrics->methods[0]);
	metrics->methods = aligned_alloc(64, bytes);
	if (!metrics->methods) {
		free(metrics);
		return NULL;
	}
	memset(metrics->methods, 0, bytes);
	snprintf(metrics->reasons[METRICS_REASONS_MAX].name, sizeof(metrics->reasons[0].name),
		 "OTHER");
	pthread_mutex_init(&metrics->reasons_lock, NULL);
	return metrics;
}

struct metrics *metrics_free(struct metrics *metrics)
{
	if (!metrics)
		return NULL;
	pthread_mutex_destroy(&metrics->reasons_lock);
	free(metrics->methods);
	free(metrics);
	return NULL;
}

/* The smallest i with ns <= 2^(SHIFT + i), or the last. */
static unsigned int bucket_of(uint64_t ns)
{
	unsigned int bits = ns > 1 ? 64 - (unsigned int)__builtin_clzll(ns - 1) : 0;
	unsigned int i = bits > METRICS_BUCKET_SHIFT ? bits - METRICS_BUCKET_SHIFT : 0;

	return i < METRICS_BUCKETS ? i : METRICS_BUCKETS - 1;
}

void metrics_observe(struct metrics_histogram *histogram, uint64_t duration_ns)
{
	metrics_add(&histogram->buckets[bucket_of(duration_ns)], 1);
	metrics_add(&histogram->sum_ns, duration_ns);
}

void metrics_call(struct metrics *metrics, const struct method *method, int code,
		  uint64_t duration_ns)
{
	struct metrics_method *counted = &metrics->methods[method - metrics->table];

	metrics_observe(&counted->duration, duration_ns);
	metrics_add(&counted->codes[code >= 0 && code < METRICS_CODES ? code : 2], 1);
}

/* ── refusals ─────────────────────────────────────────────────────────────────────────────── */

static struct metrics_reason *reason_among(struct metrics *metrics, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(metrics->reasons[i].name, name))
			return &metrics->reasons[i];
	return NULL;
}

/* Reasons are names in the code, of which there are few: the bound only holds a mistake. */
static struct metrics_reason *reason_add(struct metrics *metrics, const char *name)
{
	struct metrics_reason *reason;
	size_t n;

	pthread_mutex_lock(&metrics->reasons_lock);
	n = atomic_load_explicit(&metrics->n_reasons, memory_order_relaxed);
	reason = reason_among(metrics, n, name);
	if (!reason && n < METRICS_REASONS_MAX) {
		reason = &metrics->reasons[n];
		snprintf(reason->name, sizeof(reason->name), "%s", name);
		atomic_store_explicit(&metrics->n_reasons, n + 1, memory_order_release);
	}
	pthread_mutex_unlock(&metrics->reasons_lock);
	return reason ? reason : &metrics->reasons[METRICS_REASONS_MAX];
}

void metrics_refusal(struct metrics *metrics, const struct refusal *refusal)
{
	const char *name = refusal->reason;
	size_t n = atomic_load_explicit(&metrics->n_reasons, memory_order_acquire);
	struct metrics_reason *reason = reason_among(metrics, n, name);

	if (!reason)
		reason = reason_add(metrics, name);
	metrics_add(&reason->count, 1);
}

/* ── refreshes ────────────────────────────────────────────────────────────────────────────── */

void metrics_refresh(struct metrics *metrics, const struct range_result *results, size_t n)
{
	uint64_t verdicts[METRICS_VERDICTS] = {0}, mapped = 0, unmapped = 0;

	for (size_t i = 0; i < n; i++) {
		verdicts[results[i].verdict]++;
		mapped += results[i].mapped;
		unmapped += results[i].unmapped;
	}
	for (size_t i = 0; i < METRICS_VERDICTS; i++)
		if (verdicts[i])
			metrics_add(&metrics->verdicts[i], verdicts[i]);
	if (mapped)
		metrics_add(&metrics->leaves_mapped, mapped);
	if (unmapped)
		metrics_add(&metrics->leaves_unmapped, unmapped);
}
