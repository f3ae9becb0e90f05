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

#include <endian.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "grpc_client.h"
#include "iommubroker.h"
#include "iommubroker/v1/domains.pb-c.h"

#define MEMORY_BYTES  (64u << 20)
#define REGION_TABLE  0x100000u
#define SEGMENT_TABLE 0x104000u
#define PAGE_TABLE    0x108000u
#define WINDOW_FIRST  UINT64_C(0x100000000)
#define WINDOW_LAST   UINT64_C(0x17fffffff)

#define TURNS 40
#define CALLS 400

enum kind { KIND_ECHO, KIND_GRPC, KIND_NATIVE, KINDS };

struct bench {
	uint8_t *memory;
	struct iommubroker_session *session;
	struct iommubroker_nested *nested;
	struct grpc_client *broker, *echo;
	uint8_t request[64];
	size_t request_bytes;
	bool mapped;
	double turn_ns[KINDS][TURNS];
};

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "refresh_bench: %s\n", what);
	exit(1);
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_double);
	return values[n / 2];
}

static void entry_write(struct bench *bench, uint64_t gpa, uint64_t entry)
{
	__atomic_store_n((uint64_t *)(void *)(bench->memory + gpa), htobe64(entry),
			 __ATOMIC_RELEASE);
}

static int memory_make(struct bench *bench)
{
	int fd = memfd_create("bench", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	must(fd >= 0 && !ftruncate(fd, MEMORY_BYTES) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK),
	     "memfd");
	bench->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(bench->memory != MAP_FAILED, "mmap");
	memset(bench->memory, 0, MEMORY_BYTES);
	for (uint64_t i = 0; i < 2048; i++) {
		entry_write(bench, REGION_TABLE + i * 8, 0x20);
		entry_write(bench, SEGMENT_TABLE + i * 8, 0x20);
	}
	for (uint64_t i = 0; i < 256; i++)
		entry_write(bench, PAGE_TABLE + i * 8, 0x400);
	entry_write(bench, REGION_TABLE + 2 * 8, SEGMENT_TABLE | 0x4 | 3);
	entry_write(bench, SEGMENT_TABLE, PAGE_TABLE);
	return fd;
}

static void guest_make(struct bench *bench, const char *runtime_dir)
{
	const struct iommubroker_guest_options options = {.struct_bytes = sizeof(options)};
	const struct iommubroker_anchor anchor = {
		.iota = REGION_TABLE | 0x804, .pba = WINDOW_FIRST, .pal = WINDOW_LAST};
	struct iommubroker_map map = {.length = MEMORY_BYTES,
				      .access = IOMMUBROKER_ACCESS_READ_WRITE};
	const struct iommubroker_memory_update update = {.n_map = 1, .map = &map};
	struct iommubroker_registration registration;
	struct iommubroker_device *device;
	struct iommubroker_guest *guest;
	char path[256];
	int device_fd;

	snprintf(path, sizeof(path), "%s/fd.sock", runtime_dir);
	must(!iommubroker_session_open(path, "bench", &bench->session, NULL), "session");
	must(!iommubroker_guest_create(bench->session, &options, &guest, NULL), "guest");
	must(!iommubroker_memory_file_add(guest, memory_make(bench), true, &map.file, NULL),
	     "memory file");
	must(!iommubroker_memory_update(guest, &update, NULL, NULL, NULL, NULL), "memory");
	must(!iommubroker_device_open_function(guest, 1, &device, &device_fd, NULL), "device");
	must(!iommubroker_device_bind(device, NULL, NULL, NULL, NULL), "bind");
	must(!iommubroker_nested_create_s390(device, &anchor, true, 0, &bench->nested,
					     &registration, NULL) &&
		     registration.verdict == IOMMUBROKER_VERDICT_DONE,
	     "anchor");
}

static void request_make(struct bench *bench)
{
	Iommubroker__V1__RefreshNestedRequest__Range range =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__RANGE__INIT;
	Iommubroker__V1__RefreshNestedRequest__Range *ranges = &range;
	Iommubroker__V1__RefreshNestedRequest request =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__INIT;

	range.start = WINDOW_FIRST;
	range.length = 4096;
	request.nested = iommubroker_nested_handle(bench->nested);
	request.n_ranges = 1;
	request.ranges = &ranges;
	bench->request_bytes = iommubroker__v1__refresh_nested_request__get_packed_size(&request);
	must(bench->request_bytes <= sizeof(bench->request), "request");
	iommubroker__v1__refresh_nested_request__pack(&request, bench->request);
}

static void leaf_change(struct bench *bench)
{
	bench->mapped = !bench->mapped;
	entry_write(bench, PAGE_TABLE, bench->mapped ? 0x200000 : 0x400);
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
		.value = iommubroker_session_secret(bench->session),
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

	leaf_change(bench);
	grpc_client_unary(bench->broker, &request, &answer);
	must(answer.code == 0, "refresh over gRPC");
	/* One result with a verdict and one count: an answer that did nothing is shorter. */
	must(answer.n_bytes >= 6, "the refresh over gRPC did nothing");
	client_answer_clear(&answer);
}

static void call_native(struct bench *bench)
{
	const struct iommubroker_range range = {.start = WINDOW_FIRST, .length = 4096};
	struct iommubroker_result result;

	leaf_change(bench);
	must(!iommubroker_refresh(bench->nested, &range, 1, UINT64_C(5000000000), &result) &&
		     result.verdict == IOMMUBROKER_VERDICT_DONE,
	     "refresh");
	must(result.mapped + result.unmapped == 1, "the refresh did nothing");
}

static void (*const calls[KINDS])(struct bench *) = {call_echo, call_grpc, call_native};

static void turns_run(struct bench *bench)
{
	double samples[CALLS];

	for (int turn = -2; turn < TURNS; turn++) { /* two to warm up */
		for (int kind = 0; kind < KINDS; kind++) {
			for (int i = 0; i < CALLS; i++) {
				double begin = now_ns();

				calls[kind](bench);
				samples[i] = now_ns() - begin;
			}
			if (turn >= 0)
				bench->turn_ns[kind][turn] = median(samples, CALLS);
		}
	}
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
	guest_make(&bench, argv[1]);
	request_make(&bench);
	bench.broker = grpc_client_new(path);
	bench.echo = grpc_client_new(argv[2]);
	must(bench.broker && bench.echo, "gRPC channel");
	turns_run(&bench);
	report(&bench, "refresh_one_leaf_grpc", KIND_GRPC);
	report(&bench, "refresh_one_leaf_native", KIND_NATIVE);
	report(&bench, "echo_bare_grpc", KIND_ECHO);
	grpc_client_free(bench.broker);
	grpc_client_free(bench.echo);
	iommubroker_session_free(bench.session);
	return 0;
}
