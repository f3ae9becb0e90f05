/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METRICS_TABLE_H
#define IB_RPC_METRICS_TABLE_H

/*
 * Every family of metrics: what the text that is scraped says of it, and docs/OBSERVABILITY.md.
 *
 * id, name without "iommubroker_", type, unit, labels, help. The samples of a counter have
 * "_total", those of an info "_info" after the name. No label is a guest, a uuid or a process:
 * what clients can make grow is bounded.
 */

/* clang-format off */
#define METRICS_TABLE(X) \
	X(BUILD, "build", "info", "", "version, backend", \
	  "What runs.") \
	X(CALLS, "calls", "counter", "", "method, code", \
	  "Calls that were answered, by gRPC's status code, over both transports.") \
	X(CALL_DURATION, "call_duration_seconds", "histogram", "seconds", "method", \
	  "From the arrival of a call to its answer; of a stream, its life.") \
	X(REFUSALS, "refusals", "counter", "", "reason", \
	  "Calls that were refused, by the reason that their clients were told (INVALID_FIELD: a mistake in the request).") \
	X(REQUEST_BYTES, "request_bytes", "counter", "bytes", "transport", \
	  "Of requests' messages.") \
	X(ANSWER_BYTES, "answer_bytes", "counter", "bytes", "transport", \
	  "Of answers' messages.") \
	X(CALLS_IN_FLIGHT, "calls_in_flight", "gauge", "", "", \
	  "Calls that have no answer yet, streams included.") \
	X(CONNECTIONS, "connections", "gauge", "", "", \
	  "Connections of clients, on both transports.") \
	X(CONNECTIONS_DROPPED, "connections_dropped", "counter", "", "", \
	  "Connections that were not served, or ended for what the client did.") \
	X(SESSIONS, "sessions", "gauge", "", "", \
	  "Open sessions.") \
	X(GUESTS, "guests", "gauge", "", "", \
	  "Guests.") \
	X(DEVICES, "devices", "gauge", "", "", \
	  "Open devices.") \
	X(NESTED_DOMAINS, "nested_domains", "gauge", "", "", \
	  "Nested domains.") \
	X(PINNED_BYTES, "pinned_bytes", "gauge", "bytes", "", \
	  "Guest memory that is charged as pinned.") \
	X(PINNED_DIFFERENCE, "pinned_difference_bytes", "gauge", "bytes", "", \
	  "How far what the kernel counted as pinned was from the ledger, after guests had been taken over: 0, or something is wrong. 0 also where the kernel cannot tell.") \
	X(MAPPINGS_INSTALLED, "mappings_installed", "gauge", "", "", \
	  "Leaves of 4 KiB that nested domains show their devices now.") \
	X(MAPPINGS_RESERVED, "mappings_reserved", "gauge", "", "", \
	  "Leaves that nested domains may grow to.") \
	X(STORED_FDS, "stored_fds", "gauge", "", "", \
	  "Descriptors that lie with the service manager for a successor.") \
	X(STORED_FDS_MAX, "stored_fds_max", "gauge", "", "", \
	  "Descriptors that may lie there; 0: nothing outlives the daemon.") \
	X(TAKEN_OVER_GUESTS, "taken_over_guests", "gauge", "", "outcome", \
	  "Guests of the process before that live on, and those that had to be released.") \
	X(TAKEOVER_DURATION, "takeover_duration_seconds", "gauge", "seconds", "", \
	  "How long it took to take them over, before anything was served.") \
	X(TENANTS, "tenants", "gauge", "", "", \
	  "Tenants that have a client now.") \
	X(QUOTA_USED, "quota_used", "gauge", "", "level, tenant, resource", \
	  "What is charged. level is host or tenant; tenants beyond the first 256, or fewer with long names, are summed as level other.") \
	X(QUOTA_HIGH, "quota_high", "gauge", "", "level, tenant, resource", \
	  "Where it is told that much is used; only where one is set.") \
	X(QUOTA_LIMIT, "quota_limit", "gauge", "", "level, tenant, resource", \
	  "What may be charged; only where there is a limit.") \
	X(QUOTA_PEAK, "quota_peak", "gauge", "", "level, tenant, resource", \
	  "The most that was ever charged.") \
	X(QUOTA_REFUSALS, "quota_refusals", "counter", "", "level, tenant, resource", \
	  "Charges that were refused for want of room there. Level other, of all counters, also has what tenants counted that left so long ago that they are shown no more.") \
	X(QUOTA_HIGHS, "quota_highs", "counter", "", "level, tenant, resource", \
	  "How often use rose above quota_high.") \
	X(RATE_DELAYED, "rate_delayed", "counter", "", "level, tenant, rate", \
	  "Calls that waited because that rate was exceeded there: requests, refreshes, connections.") \
	X(RATE_REFUSED, "rate_refused", "counter", "", "level, tenant, rate", \
	  "Calls that were refused because they would have had to wait too long.") \
	X(REFRESHED_RANGES, "refreshed_ranges", "counter", "", "verdict", \
	  "Ranges of RefreshNested, by what their guest is told.") \
	X(REFRESHED_LEAVES, "refreshed_leaves", "counter", "", "change", \
	  "Leaves that RefreshNested mapped and unmapped.") \
	X(BACKEND_CALLS, "backend_calls", "counter", "", "call", \
	  "Calls of the kernel, or of the emulated backend in its place.") \
	X(BACKEND_CALL_ERRORS, "backend_call_errors", "counter", "", "call", \
	  "Those that failed; some do in good order, as the first try of a buffer's size.") \
	X(POOL_THREADS, "pool_threads", "gauge", "", "state", \
	  "Worker threads there are, busy and idle.") \
	X(POOL_THREADS_MAX, "pool_threads_max", "gauge", "", "", \
	  "Worker threads there may be.") \
	X(POOL_QUEUED, "pool_queued", "gauge", "", "", \
	  "Jobs that wait for a worker.") \
	X(POOL_OUTSTANDING, "pool_outstanding", "gauge", "", "", \
	  "Jobs that have not ended: running, queued, or waiting for their guest's lane.") \
	X(LOOP_LAG, "loop_lag_seconds", "histogram", "seconds", "", \
	  "How late the event loop came to a timer of one second.") \
	X(MONITORS, "monitors", "gauge", "", "", \
	  "Operators who watch events.") \
	X(PROCESS_RESIDENT, "process_resident_memory_bytes", "gauge", "bytes", "", \
	  "Resident memory, guests' files that are mapped included.") \
	X(PROCESS_ANONYMOUS, "process_anonymous_memory_bytes", "gauge", "bytes", "", \
	  "Resident memory of the daemon's own.") \
	X(PROCESS_PINNED, "process_pinned_memory_bytes", "gauge", "bytes", "", \
	  "Memory that the kernel counts as pinned by this process.") \
	X(PROCESS_FDS, "process_open_fds", "gauge", "", "", \
	  "Open descriptors.") \
	X(PROCESS_FDS_MAX, "process_max_fds", "gauge", "", "", \
	  "Descriptors that may be open.") \
	X(PROCESS_THREADS, "process_threads", "gauge", "", "", \
	  "Threads.") \
	X(PROCESS_CPU, "process_cpu_seconds", "counter", "seconds", "mode", \
	  "Time on a processor, user and system.") \
	X(PROCESS_START, "process_start_time_seconds", "gauge", "seconds", "", \
	  "When the daemon began to serve, since 1970.")
/* clang-format on */

enum metric {
#define X(id, name, type, unit, labels, help) METRIC_##id,
	METRICS_TABLE(X)
#undef X
		METRICS
};

#endif
