/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/metrics_gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iommu/call_count.h"
#include "rpc/dispatcher.h"
#include "rpc/metrics_process.h"
#include "rpc/metrics_quota.h"
#include "rpc/status.h"
#include "util/clock.h"

static void single(struct metrics_text *text, enum metric metric, uint64_t value)
{
	metrics_text_family(text, metric);
	metrics_text_begin(text, "");
	metrics_text_number(text, value);
}

static void labelled(struct metrics_text *text, const char *suffix, const char *label,
		     const char *value_of_label, uint64_t value)
{
	metrics_text_begin(text, suffix);
	metrics_text_label(text, label, value_of_label);
	metrics_text_number(text, value);
}

static void build_write(struct metrics_text *text, struct broker *broker)
{
	metrics_text_family(text, METRIC_BUILD);
	metrics_text_begin(text, "_info");
	metrics_text_label(text, "version", IB_VERSION);
	metrics_text_label(text, "backend", broker_backend_name(broker));
	metrics_text_number(text, 1);
}

/* ── calls ────────────────────────────────────────────────────────────────────────────────── */

/* "iommubroker.v1.Host/GetInfo"; those without a path are known by their request. */
static void method_name(char *ret, size_t ret_bytes, const struct method *method)
{
	if (method->path)
		snprintf(ret, ret_bytes, "%s", method->path + 1);
	else
		snprintf(ret, ret_bytes, "native/%.*s",
			 (int)(strlen(method->request->short_name) - strlen("Request")),
			 method->request->short_name);
}

static bool method_called(const struct metrics_method *method)
{
	for (size_t i = 0; i < METRICS_BUCKETS; i++)
		if (metrics_get(&method->duration.buckets[i]))
			return true;
	return false;
}

static void codes_write(struct metrics_text *text, const struct metrics_method *method,
			const char *name)
{
	for (int code = 0; code < METRICS_CODES; code++) {
		uint64_t calls = metrics_get(&method->codes[code]);

		if (!calls)
			continue;
		metrics_text_begin(text, "_total");
		metrics_text_label(text, "method", name);
		metrics_text_label(text, "code", rpc_code_name(code));
		metrics_text_number(text, calls);
	}
}

/* A method is told of once it was called. */
static void calls_write(struct metrics_text *text, const struct metrics *metrics)
{
	char name[96];

	metrics_text_family(text, METRIC_CALLS);
	for (size_t i = 0; i < metrics->n_methods; i++) {
		method_name(name, sizeof(name), &metrics->table[i]);
		codes_write(text, &metrics->methods[i], name);
	}
	metrics_text_family(text, METRIC_CALL_DURATION);
	for (size_t i = 0; i < metrics->n_methods; i++) {
		if (!method_called(&metrics->methods[i]))
			continue;
		method_name(name, sizeof(name), &metrics->table[i]);
		metrics_text_histogram(text, &metrics->methods[i].duration, "method", name);
	}
}

static void refusals_write(struct metrics_text *text, const struct metrics *metrics)
{
	size_t n = atomic_load_explicit(&metrics->n_reasons, memory_order_acquire);
	const struct metrics_reason *other = &metrics->reasons[METRICS_REASONS_MAX];

	metrics_text_family(text, METRIC_REFUSALS);
	for (size_t i = 0; i < n; i++)
		labelled(text, "_total", "reason", metrics->reasons[i].name,
			 metrics_get(&metrics->reasons[i].count));
	if (metrics_get(&other->count))
		labelled(text, "_total", "reason", other->name, metrics_get(&other->count));
}

static void bytes_write(struct metrics_text *text, enum metric metric,
			const _Atomic uint64_t bytes[2])
{
	metrics_text_family(text, metric);
	labelled(text, "_total", "transport", "grpc", metrics_get(&bytes[false]));
	labelled(text, "_total", "transport", "native", metrics_get(&bytes[true]));
}

/* By calls, and through update rings. */
static struct refresh_counts refreshes_count(const struct dispatcher *dispatcher)
{
	const struct metrics *metrics = dispatcher->metrics;
	struct refresh_counts counts = {0};

	if (dispatcher->ring_ops)
		dispatcher->ring_ops->count(dispatcher->ring_context, &counts);
	for (int i = VERDICT_DONE; i < METRICS_VERDICTS; i++)
		counts.verdicts[i] += metrics_get(&metrics->verdicts[i]);
	counts.mapped += metrics_get(&metrics->leaves_mapped);
	counts.unmapped += metrics_get(&metrics->leaves_unmapped);
	return counts;
}

static void refreshes_write(struct metrics_text *text, const struct dispatcher *dispatcher)
{
	static const char *const names[METRICS_VERDICTS] = {
		[VERDICT_DONE] = "done",         [VERDICT_OPERAND] = "operand",
		[VERDICT_SEQUENCE] = "sequence", [VERDICT_RESOURCES] = "resources",
		[VERDICT_ERROR] = "error",       [VERDICT_BUSY] = "busy",
		[VERDICT_GONE] = "gone",
	};
	const struct refresh_counts counts = refreshes_count(dispatcher);

	metrics_text_family(text, METRIC_REFRESHED_RANGES);
	for (int i = VERDICT_DONE; i < METRICS_VERDICTS; i++)
		labelled(text, "_total", "verdict", names[i], counts.verdicts[i]);
	metrics_text_family(text, METRIC_REFRESHED_LEAVES);
	labelled(text, "_total", "change", "mapped", counts.mapped);
	labelled(text, "_total", "change", "unmapped", counts.unmapped);
}

/* ── the daemon ───────────────────────────────────────────────────────────────────────────── */

static void objects_write(struct metrics_text *text, struct dispatcher *dispatcher)
{
	struct broker_status status;
	size_t in_flight;
	uint32_t connections;

	broker_status(dispatcher->broker, &status);
	pthread_mutex_lock(&dispatcher->lock);
	in_flight = dispatcher->in_flight;
	connections = dispatcher->connections;
	pthread_mutex_unlock(&dispatcher->lock);
	single(text, METRIC_CALLS_IN_FLIGHT, in_flight);
	single(text, METRIC_CONNECTIONS, connections);
	single(text, METRIC_SESSIONS, status.sessions);
	single(text, METRIC_GUESTS, status.guests);
	single(text, METRIC_DEVICES, status.devices);
	single(text, METRIC_NESTED_DOMAINS, status.nested_domains);
	single(text, METRIC_PINNED_BYTES, status.pinned_bytes);
	single(text, METRIC_MAPPINGS_INSTALLED, status.mappings_installed);
	single(text, METRIC_MAPPINGS_RESERVED, status.mappings_reserved);
}

static void store_write(struct metrics_text *text, struct broker *broker)
{
	struct store_report report;
	uint64_t kernel, ledger;

	broker_store_report(broker, &report);
	kernel = report.restored.kernel_pinned_bytes;
	ledger = report.restored.ledger_pinned_bytes;
	single(text, METRIC_PINNED_DIFFERENCE, kernel > ledger ? kernel - ledger : ledger - kernel);
	single(text, METRIC_STORED_FDS, report.descriptors);
	single(text, METRIC_STORED_FDS_MAX, report.descriptors_max);
	metrics_text_family(text, METRIC_TAKEN_OVER_GUESTS);
	labelled(text, "", "outcome", "kept", report.restored.guests);
	labelled(text, "", "outcome", "released", report.restored.released);
	metrics_text_family(text, METRIC_TAKEOVER_DURATION);
	metrics_text_begin(text, "");
	metrics_text_seconds(text, report.restored.ns);
}

static void backend_write(struct metrics_text *text)
{
	struct iommu_call_count counts[IOMMU_CALLS];

	iommu_call_counts(counts);
	metrics_text_family(text, METRIC_BACKEND_CALLS);
	for (int i = 0; i < IOMMU_CALLS; i++)
		labelled(text, "_total", "call", iommu_call_name(i), counts[i].calls);
	metrics_text_family(text, METRIC_BACKEND_CALL_ERRORS);
	for (int i = 0; i < IOMMU_CALLS; i++)
		labelled(text, "_total", "call", iommu_call_name(i), counts[i].errors);
}

static void pool_write(struct metrics_text *text, struct pool *pool)
{
	struct pool_load load;

	pool_load(pool, &load);
	metrics_text_family(text, METRIC_POOL_THREADS);
	labelled(text, "", "state", "busy", load.busy);
	labelled(text, "", "state", "idle", load.threads - load.busy);
	single(text, METRIC_POOL_THREADS_MAX, load.threads_max);
	single(text, METRIC_POOL_QUEUED, load.queued);
	single(text, METRIC_POOL_OUTSTANDING, load.outstanding);
}

static void process_write(struct metrics_text *text, const struct dispatcher *dispatcher)
{
	struct metrics_process process;

	metrics_process_read(&process);
	single(text, METRIC_PROCESS_RESIDENT, process.resident_bytes);
	single(text, METRIC_PROCESS_ANONYMOUS, process.anonymous_bytes);
	single(text, METRIC_PROCESS_PINNED, process.pinned_bytes);
	single(text, METRIC_PROCESS_FDS, process.fds);
	single(text, METRIC_PROCESS_FDS_MAX, process.fds_max);
	single(text, METRIC_PROCESS_THREADS, process.threads);
	metrics_text_family(text, METRIC_PROCESS_CPU);
	metrics_text_begin(text, "_total");
	metrics_text_label(text, "mode", "user");
	metrics_text_seconds(text, process.user_ns);
	metrics_text_begin(text, "_total");
	metrics_text_label(text, "mode", "system");
	metrics_text_seconds(text, process.system_ns);
	metrics_text_family(text, METRIC_PROCESS_START);
	metrics_text_begin(text, "");
	metrics_text_seconds(text, dispatcher->started_realtime_ns);
}

static void all_write(struct metrics_text *text, struct dispatcher *dispatcher,
		      const struct metrics_quota *quota)
{
	const struct metrics *metrics = dispatcher->metrics;

	build_write(text, dispatcher->broker);
	calls_write(text, metrics);
	refusals_write(text, metrics);
	bytes_write(text, METRIC_REQUEST_BYTES, metrics->request_bytes);
	bytes_write(text, METRIC_ANSWER_BYTES, metrics->answer_bytes);
	metrics_text_family(text, METRIC_CONNECTIONS_DROPPED);
	metrics_text_begin(text, "_total");
	metrics_text_number(text, metrics_get(&metrics->connections_dropped));
	objects_write(text, dispatcher);
	store_write(text, dispatcher->broker);
	single(text, METRIC_TENANTS, quota->n_tenants);
	metrics_quota_write(text, quota);
	refreshes_write(text, dispatcher);
	backend_write(text);
	pool_write(text, broker_pool(dispatcher->broker));
	metrics_text_family(text, METRIC_LOOP_LAG);
	metrics_text_histogram(text, &metrics->loop_lag, NULL, NULL);
	single(text, METRIC_MONITORS, monitor_watchers(&dispatcher->monitor));
	process_write(text, dispatcher);
	metrics_text_end(text);
}

int metrics_gather(struct dispatcher *dispatcher, char **ret, size_t *ret_n)
{
	struct metrics_text text = {0};
	struct metrics_quota quota;
	int status = metrics_quota_read(dispatcher->broker, &quota);

	if (status)
		return status;
	all_write(&text, dispatcher, &quota);
	metrics_quota_free(&quota);
	if (text.failed) {
		free(text.bytes);
		return -ENOMEM;
	}
	*ret = text.bytes;
	*ret_n = text.n;
	return 0;
}
