/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METRICS_H
#define IB_RPC_METRICS_H

/*
 * What is counted while calls are served. Counters are relaxed atomics: every one is right by
 * itself, two that are read together need not be of one moment. Any thread, and no lock but for
 * the first refusal of a reason.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/broker.h"

/* Bucket i holds what took at most 2^(10 + i) ns: 1.024 us to 68.7 s; the last holds the rest. */
#define METRICS_BUCKET_SHIFT 10
#define METRICS_BUCKETS      28
#define METRICS_CODES        17 /* gRPC's status codes */
#define METRICS_REASONS_MAX  96 /* there are some 50; what is beyond counts as OTHER */
#define METRICS_VERDICTS     (VERDICT_GONE + 1)

struct metrics_histogram {
	_Alignas(64) _Atomic uint64_t sum_ns;
	_Atomic uint64_t buckets[METRICS_BUCKETS];
};

struct metrics_method {
	struct metrics_histogram duration;
	_Atomic uint64_t codes[METRICS_CODES];
};

struct metrics_reason {
	char name[48];
	_Atomic uint64_t count;
};

struct method;

struct metrics {
	struct metrics_method *methods; /* in the order of method_table() */
	const struct method *table;
	size_t n_methods;
	struct metrics_histogram loop_lag;
	_Alignas(64) _Atomic uint64_t request_bytes[2]; /* [native] */
	_Atomic uint64_t answer_bytes[2];
	_Alignas(64) _Atomic uint64_t verdicts[METRICS_VERDICTS];
	_Atomic uint64_t leaves_mapped, leaves_unmapped;
	_Atomic uint64_t connections_dropped;
	pthread_mutex_t reasons_lock;                           /* to add one */
	_Atomic size_t n_reasons;                               /* those before it are complete */
	struct metrics_reason reasons[METRICS_REASONS_MAX + 1]; /* the last: OTHER */
};

struct metrics *metrics_new(void); /* NULL: no memory */
struct metrics *metrics_free(struct metrics *metrics);

/* A call has its answer. code: gRPC's. */
void metrics_call(struct metrics *metrics, const struct method *method, int code,
		  uint64_t duration_ns);
void metrics_refusal(struct metrics *metrics, const struct refusal *refusal);
/* The results of one RefreshNested. */
void metrics_refresh(struct metrics *metrics, const struct range_result *results, size_t n);
void metrics_observe(struct metrics_histogram *histogram, uint64_t duration_ns);

static inline void metrics_add(_Atomic uint64_t *counter, uint64_t amount)
{
	atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static inline uint64_t metrics_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
