/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What one refreshed leaf costs a VMM, over gRPC and over the native transport, against a bare
 * gRPC-core echo: refresh_bench RUNTIME_DIR ECHO_SOCKET.
 *
 * Each refresh is a real one: the guest's entry changed before it, by turns valid and invalid. All
 * kinds of call take turns in one process, some hundreds at a time, and the ratio is the median of
 * the ratios of neighbouring turns, so that a machine that slows down slows down both. Prints one
 * JSON object a line.
 */

#include <stdio.h>

#include "bench_guest.h"
#include "grpc_client.h"
#include "iommubroker/v1/domains.pb-c.h"

#define TURNS 40
#define CALLS 400

#define RING_ENTRIES 256
#define RING_BATCH   16 /* as many at once as a guest that unmaps in bulk has */

enum kind { KIND_ECHO, KIND_GRPC, KIND_NATIVE, KIND_RING, KIND_RING_BATCH, KINDS };

struct bench {
	struct bench_guest guest;
	struct iommubroker_ring *ring;
	struct grpc_client *broker, *echo;
	uint8_t request[64];
	size_t request_bytes;
	double turn_ns[KINDS][TURNS];
};

static void request_make(struct bench *bench)
{
	Iommubroker__V1__RefreshNestedRequest__Range range =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__RANGE__INIT;
	Iommubroker__V1__RefreshNestedRequest__Range *ranges = &range;
	Iommubroker__V1__RefreshNestedRequest request =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__INIT;

	range.start = BENCH_WINDOW_FIRST;
	range.length = 4096;
	request.nested = iommubroker_nested_handle(bench->guest.nested);
	request.n_ranges = 1;
	request.ranges = &ranges;
	bench->request_bytes = iommubroker__v1__refresh_nested_request__get_packed_size(&request);
	must(bench->request_bytes <= sizeof(bench->request), "request");
	iommubroker__v1__refresh_nested_request__pack(&request, bench->request);
}

static void call_echo(struct bench *bench)
{
	const struct client_request request = {
		.path = "/echo/Echo", .bytes = bench->request, .n_bytes = bench->request_bytes};
	struct client_answer answer;

	grpc_client_unary(bench->echo, &request, &answer);
	must(answer.code == 0, "echo");
	client_answer_clear(&answer);
}

static void call_grpc(struct bench *bench)
{
	const struct client_metadata metadata = {
		.key = "iommubroker-session-bin",
		.value = iommubroker_session_secret(bench->guest.session),
		.value_bytes = IOMMUBROKER_SECRET_BYTES,
	};
	const struct client_request request = {
		.path = "/iommubroker.v1.Domains/RefreshNested",
		.bytes = bench->request,
		.n_bytes = bench->request_bytes,
		.metadata = &metadata,
		.n_metadata = 1,
	};
	struct client_answer answer;

	bench_leaf_change(&bench->guest);
	grpc_client_unary(bench->broker, &request, &answer);
	must(answer.code == 0, "refresh over gRPC");
	/* One result with a verdict and one count: an answer that did nothing is shorter. */
	must(answer.n_bytes >= 6, "the refresh over gRPC did nothing");
	client_answer_clear(&answer);
}

static void call_native(struct bench *bench)
{
	bench_leaf_refresh(&bench->guest);
}

/* n entries of the same leaf, of which the first does something. */
static void ring_run(struct bench *bench, size_t n)
{
	struct iommubroker_ring_result results[RING_BATCH];
	struct iommubroker_ring_entry entries[RING_BATCH];

	for (size_t i = 0; i < n; i++)
		entries[i] = (struct iommubroker_ring_entry){
			.operation = IOMMUBROKER_RING_REFRESH,
			.nested_index = bench->guest.nested_index,
			.iova = BENCH_WINDOW_FIRST,
			.length = 4096,
		};
	bench_leaf_change(&bench->guest);
	must(iommubroker_ring_submit(bench->ring, 0, entries, n) == (int)n, "submit");
	for (size_t done = 0; done < n;) {
		must(!iommubroker_ring_wait(bench->ring, 0, UINT64_C(5000000000)), "wait");
		for (int r = iommubroker_ring_reap(bench->ring, 0, results, n), i = 0; i < r; i++) {
			must(results[i].result.verdict == IOMMUBROKER_VERDICT_DONE, "verdict");
			must(done++ || results[i].result.mapped + results[i].result.unmapped == 1,
			     "the refresh through the ring did nothing");
		}
	}
}

static void call_ring(struct bench *bench)
{
	ring_run(bench, 1);
}

static void call_ring_batch(struct bench *bench)
{
	ring_run(bench, RING_BATCH);
}

static void (*const calls[KINDS])(struct bench *) = {call_echo, call_grpc, call_native, call_ring,
						     call_ring_batch};
static const double per_call[KINDS] = {1, 1, 1, 1, RING_BATCH};

static void turns_run(struct bench *bench)
{
	double samples[CALLS];

	for (int turn = -2; turn < TURNS; turn++) { /* two to warm up */
		for (int kind = 0; kind < KINDS; kind++) {
			for (int i = 0; i < CALLS; i++) {
				double begin = now_ns();

				calls[kind](bench);
				samples[i] = (now_ns() - begin) / per_call[kind];
			}
			if (turn >= 0)
				bench->turn_ns[kind][turn] = median(samples, CALLS);
		}
	}
}

/* How many a second, and how that is to the native call's. */
static void report_rate(struct bench *bench, const char *name, enum kind kind)
{
	double ratios[TURNS], values[TURNS];

	for (int i = 0; i < TURNS; i++) {
		ratios[i] = bench->turn_ns[KIND_NATIVE][i] / bench->turn_ns[kind][i];
		values[i] = 1e9 / bench->turn_ns[kind][i];
	}
	printf("{\"name\": \"%s\", \"value\": %.0f, \"unit\": \"refreshes/s\", \"ratio\": %.3f, "
	       "\"against\": \"native call\"}\n",
	       name, median(values, TURNS), median(ratios, TURNS));
}

static void report(struct bench *bench, const char *name, enum kind kind)
{
	double ratios[TURNS], values[TURNS];

	for (int i = 0; i < TURNS; i++) {
		ratios[i] = bench->turn_ns[kind][i] / bench->turn_ns[KIND_ECHO][i];
		values[i] = bench->turn_ns[kind][i];
	}
	printf("{\"name\": \"%s\", \"value\": %.3f, \"unit\": \"us\", \"ratio\": %.3f, "
	       "\"against\": \"bare gRPC-core echo\"}\n",
	       name, median(values, TURNS) / 1e3, median(ratios, TURNS));
}

int main(int argc, char **argv)
{
	static struct bench bench;
	char path[256];

	if (argc != 3) {
		fprintf(stderr, "usage: refresh_bench RUNTIME_DIR ECHO_SOCKET\n");
		return 2;
	}
	snprintf(path, sizeof(path), "%s/broker.sock", argv[1]);
	bench_memory_make(&bench.guest);
	bench_guest_make(&bench.guest, argv[1], 1);
	request_make(&bench);
	bench.broker = grpc_client_new(path);
	bench.echo = grpc_client_new(argv[2]);
	must(bench.broker && bench.echo, "gRPC channel");
	must(!iommubroker_ring_create(bench.guest.guest, 1, RING_ENTRIES, &bench.ring, NULL),
	     "update ring");
	turns_run(&bench);
	report(&bench, "refresh_one_leaf_grpc", KIND_GRPC);
	report(&bench, "refresh_one_leaf_native", KIND_NATIVE);
	report_rate(&bench, "refresh_ring_one_by_one", KIND_RING);
	report_rate(&bench, "refresh_ring_batches_of_16", KIND_RING_BATCH);
	report(&bench, "echo_bare_grpc", KIND_ECHO);
	iommubroker_ring_free(bench.ring);
	grpc_client_free(bench.broker);
	grpc_client_free(bench.echo);
	bench_guest_end(&bench.guest);
	return 0;
}
