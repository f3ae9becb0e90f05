/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What one tenant feels of another: fairness_bench RUNTIME_DIR, as root.
 *
 * A child that became another user, and so another tenant, misbehaves in one of the ways below over
 * several sessions, while this process measures refreshes of one leaf and calls that only ask. All
 * ways take turns, and each figure is set against the same in the turn's quiet spell. The child has
 * the lowest priority, since it is the daemon's fairness that is measured and not the scheduler's;
 * FAIR_SPIN, whose threads only count, tells what it takes from us even so. Prints one JSON object
 * a line.
 */

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench_guest.h"
#include "grpc_client.h"

#define OTHER_USER 65534
#define RATED_USER 65533 /* has rates, far above what is asked of it here */
#define SESSIONS   3
#define IN_FLIGHT  16
#define TURNS      9
#define REFRESHES  500
#define ASKED      200

/* What is full: so many page tables, twice, of frames that are nowhere neighbours. */
#define FULL_TABLES   64u
#define FULL_LEAVES   (FULL_TABLES * 256u)
#define FULL_FIRST    0x200000u
#define FULL_SET      (FULL_TABLES * 0x800u)
#define FRAMES_FIRST  0x1000000u
#define FRAMES_STRIDE 3u
#define FRAMES        ((BENCH_MEMORY_BYTES - FRAMES_FIRST) / 4096u)

#define PINNED_GPA   UINT64_C(0x40000000)
#define PINNED_BYTES (32u << 20)

enum way { FAIR_ALONE, FAIR_SPIN, FAIR_WALKS, FAIR_PINS, FAIR_TEARDOWNS, FAIR_CALLS, WAYS };

static const char *const way_names[WAYS] = {
	[FAIR_ALONE] = "alone", [FAIR_SPIN] = "spin",           [FAIR_WALKS] = "walks",
	[FAIR_PINS] = "pins",   [FAIR_TEARDOWNS] = "teardowns", [FAIR_CALLS] = "calls",
};

/* ── the one that misbehaves ───────────────────────────────────────────────────────────────── */

struct other {
	struct bench_guest guest;
	const char *runtime_dir;
	uint32_t function;
	unsigned int in_flight;
	uint64_t done;
	bool second; /* which of the two sets its tables show */
};

static _Atomic int way_now = FAIR_ALONE;
static pthread_barrier_t begun, ended;

static void full_tables_make(struct bench_guest *guest)
{
	for (uint32_t set = 0; set < 2; set++)
		for (uint32_t i = 0; i < FULL_LEAVES; i++)
			bench_entry_write(guest, FULL_FIRST + set * FULL_SET + i * 8,
					  FRAMES_FIRST +
						  (uint64_t)((i * FRAMES_STRIDE + set) % FRAMES) *
							  4096);
}

static void full_tables_show(struct other *other)
{
	uint64_t first = FULL_FIRST + other->second * FULL_SET;

	other->second = !other->second;
	for (uint32_t i = 0; i < FULL_TABLES; i++)
		bench_entry_write(&other->guest, BENCH_SEGMENT_TABLE + (1 + i) * 8,
				  first + i * 0x800);
}

static void on_refreshed(void *user_data, int result, const struct iommubroker_result *results,
			 size_t n)
{
	struct other *other = user_data;

	(void)results;
	(void)n;
	must(!result, "the other's refresh");
	other->in_flight--;
	other->done++;
}

static void refreshes_keep(struct other *other, const struct iommubroker_range *range)
{
	while (other->in_flight < IN_FLIGHT) {
		must(!iommubroker_refresh_submit(other->guest.nested, range, 1, on_refreshed, other,
						 NULL),
		     "the other's submit");
		other->in_flight++;
	}
	must(iommubroker_process(other->guest.session) >= 0, "the other's answers");
}

static void refreshes_end(struct other *other)
{
	while (other->in_flight)
		must(iommubroker_process(other->guest.session) >= 0, "the other's answers");
}

static void misbehave_walks(struct other *other)
{
	const struct iommubroker_range whole = {
		.start = BENCH_WINDOW_FIRST, .length = BENCH_WINDOW_LAST - BENCH_WINDOW_FIRST + 1};

	full_tables_show(other);
	refreshes_keep(other, &whole);
}

static void misbehave_calls(struct other *other)
{
	const struct iommubroker_range one = {.start = BENCH_WINDOW_FIRST, .length = 4096};

	refreshes_keep(other, &one);
}

static void misbehave_pins(struct other *other)
{
	const struct iommubroker_map map = {.file = other->guest.file,
					    .gpa = PINNED_GPA,
					    .length = PINNED_BYTES,
					    .access = IOMMUBROKER_ACCESS_READ_WRITE};
	const struct iommubroker_address_range range = {.first = PINNED_GPA,
							.last = PINNED_GPA + PINNED_BYTES - 1};
	const struct iommubroker_memory_update pin = {.n_map = 1, .map = &map};
	const struct iommubroker_memory_update unpin = {.n_unmap = 1, .unmap = &range};

	must(!iommubroker_memory_update(other->guest.guest, &pin, NULL, NULL, NULL, NULL),
	     "the other's pin");
	must(!iommubroker_memory_update(other->guest.guest, &unpin, NULL, NULL, NULL, NULL),
	     "the other's unpin");
	other->done++;
}

static void misbehave_teardowns(struct other *other)
{
	bench_guest_end(&other->guest);
	bench_guest_make(&other->guest, other->runtime_dir, other->function);
	other->done++;
}

static void misbehave(struct other *other, enum way way)
{
	if (way == FAIR_WALKS)
		misbehave_walks(other);
	else if (way == FAIR_PINS)
		misbehave_pins(other);
	else if (way == FAIR_TEARDOWNS)
		misbehave_teardowns(other);
	else if (way == FAIR_CALLS)
		misbehave_calls(other);
	else
		other->done++;
}

static void *other_run(void *context)
{
	struct other *other = context;

	for (;;) {
		enum way way;

		pthread_barrier_wait(&begun);
		way = way_now;
		while (way != FAIR_ALONE && way_now == (int)way)
			misbehave(other, way);
		refreshes_end(other);
		pthread_barrier_wait(&ended);
	}
	return NULL;
}

/* Each byte that comes is a way until the next; each is answered when the one before has ended. */
static void other_serve(int commands, int answers)
{
	uint8_t way;

	must(write(answers, "", 1) == 1, "pipe");
	while (read(commands, &way, 1) == 1) {
		way_now = way;
		pthread_barrier_wait(&begun);
		must(write(answers, "", 1) == 1 && read(commands, &way, 1) == 1, "pipe");
		way_now = FAIR_ALONE;
		pthread_barrier_wait(&ended);
		must(write(answers, "", 1) == 1, "pipe");
	}
	_exit(0);
}

static void other_main(const char *runtime_dir, int commands, int answers)
{
	static struct other others[SESSIONS];
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	must(nice(19) == 19, "nice");
	must(!setgid(OTHER_USER) && !setuid(OTHER_USER), "another user needs root");
	pthread_barrier_init(&begun, NULL, SESSIONS + 1);
	pthread_barrier_init(&ended, NULL, SESSIONS + 1);
	for (uint32_t i = 0; i < SESSIONS; i++) {
		others[i].runtime_dir = runtime_dir;
		others[i].function = 2 + i;
		bench_memory_make(&others[i].guest);
		full_tables_make(&others[i].guest);
		full_tables_show(&others[i]);
		bench_guest_make(&others[i].guest, runtime_dir, others[i].function);
		must(!pthread_create(&thread, NULL, other_run, &others[i]), "thread");
	}
	other_serve(commands, answers);
}

/* ── the one that suffers ──────────────────────────────────────────────────────────────────── */

struct figures {
	double refresh_p50[TURNS], refresh_p99[TURNS], ask_p50[TURNS], ask_p99[TURNS];
	double grpc_p50[TURNS], grpc_p99[TURNS];
};

static struct figures figures[WAYS];
static int command_fd, answer_fd;
static struct grpc_client *grpc; /* the victim's connection of the other kind */

static void other_tell(enum way way)
{
	uint8_t byte = (uint8_t)way;

	must(write(command_fd, &byte, 1) == 1 && read(answer_fd, &byte, 1) == 1,
	     "the other tenant has failed");
}

static void measure(struct bench_guest *guest, struct figures *ret, int turn)
{
	double samples[REFRESHES], begin;

	for (int i = 0; i < REFRESHES; i++) {
		begin = now_ns();
		bench_leaf_refresh(guest);
		samples[i] = now_ns() - begin;
	}
	ret->refresh_p50[turn] = percentile(samples, REFRESHES, 0.5);
	ret->refresh_p99[turn] = percentile(samples, REFRESHES, 0.99);
	for (int i = 0; i < ASKED; i++) {
		struct iommubroker_usage *usage;

		begin = now_ns();
		must(!iommubroker_usage(guest->session, &usage, NULL), "usage");
		samples[i] = now_ns() - begin;
		iommubroker_usage_free(usage);
	}
	ret->ask_p50[turn] = percentile(samples, ASKED, 0.5);
	ret->ask_p99[turn] = percentile(samples, ASKED, 0.99);
}

static void measure_grpc(struct figures *ret, int turn)
{
	double samples[ASKED], begin;

	for (int i = 0; i < ASKED; i++) {
		const struct client_request request = {.path = "/iommubroker.v1.Host/GetInfo",
						       .bytes = (const uint8_t *)""};
		struct client_answer answer;

		begin = now_ns();
		grpc_client_unary(grpc, &request, &answer);
		samples[i] = now_ns() - begin;
		must(!answer.code, "GetInfo over gRPC");
		client_answer_clear(&answer);
	}
	ret->grpc_p50[turn] = percentile(samples, ASKED, 0.5);
	ret->grpc_p99[turn] = percentile(samples, ASKED, 0.99);
}

static void report(enum way way, const char *what, const double *values, const double *alone)
{
	double sorted[TURNS], ratios[TURNS];

	for (int i = 0; i < TURNS; i++) {
		sorted[i] = values[i];
		ratios[i] = values[i] / alone[i];
	}
	printf("{\"name\": \"fairness_%s_%s\", \"value\": %.3f, \"unit\": \"us\", \"ratio\": ",
	       way_names[way], what, median(sorted, TURNS) / 1e3);
	if (way == FAIR_ALONE)
		printf("null, \"against\": null}\n");
	else
		printf("%.3f, \"against\": \"alone\"}\n", median(ratios, TURNS));
}

static void report_all(void)
{
	const struct figures *alone = &figures[FAIR_ALONE];

	for (enum way way = 0; way < WAYS; way++) {
		const struct figures *now = &figures[way];

		report(way, "refresh_p50", now->refresh_p50, alone->refresh_p50);
		report(way, "refresh_p99", now->refresh_p99, alone->refresh_p99);
		report(way, "ask_p50", now->ask_p50, alone->ask_p50);
		report(way, "ask_p99", now->ask_p99, alone->ask_p99);
		report(way, "ask_grpc_p50", now->grpc_p50, alone->grpc_p50);
		report(way, "ask_grpc_p99", now->grpc_p99, alone->grpc_p99);
	}
}

/* ── what rates cost ───────────────────────────────────────────────────────────────────────── */

static double refreshes_median(struct bench_guest *guest)
{
	double samples[REFRESHES], begin;

	for (int i = 0; i < REFRESHES; i++) {
		begin = now_ns();
		bench_leaf_refresh(guest);
		samples[i] = now_ns() - begin;
	}
	return percentile(samples, REFRESHES, 0.5);
}

/* One refresh of a tenant that has rates and never meets them, against one of a tenant that has
 * none, by turns. */
static void report_rates(struct bench_guest *plain, const char *runtime_dir)
{
	struct bench_guest rated = {0};
	double with[TURNS], ratios[TURNS];

	bench_memory_make(&rated);
	must(!seteuid(RATED_USER), "another user needs root");
	bench_guest_make(&rated, runtime_dir, 5);
	must(!seteuid(0), "root again");
	refreshes_median(&rated);
	for (int turn = 0; turn < TURNS; turn++) {
		double without = refreshes_median(plain);

		with[turn] = refreshes_median(&rated);
		ratios[turn] = with[turn] / without;
	}
	printf("{\"name\": \"fairness_rates_refresh_p50\", \"value\": %.3f, \"unit\": \"us\", "
	       "\"ratio\": %.3f, \"against\": \"a tenant without rates\"}\n",
	       median(with, TURNS) / 1e3, median(ratios, TURNS));
	bench_guest_end(&rated);
}

static pid_t other_start(const char *runtime_dir)
{
	int commands[2], answers[2];
	uint8_t byte;
	pid_t pid;

	must(!pipe(commands) && !pipe(answers), "pipe");
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		close(commands[1]);
		close(answers[0]);
		other_main(runtime_dir, commands[0], answers[1]);
	}
	close(commands[0]);
	close(answers[1]);
	command_fd = commands[1];
	answer_fd = answers[0];
	must(read(answer_fd, &byte, 1) == 1, "the other tenant did not begin");
	return pid;
}

int main(int argc, char **argv)
{
	struct bench_guest guest = {0};
	char path[256];
	pid_t pid;

	if (argc != 2) {
		fprintf(stderr, "usage: fairness_bench RUNTIME_DIR\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	pid = other_start(argv[1]);
	bench_memory_make(&guest);
	bench_guest_make(&guest, argv[1], 1);
	snprintf(path, sizeof(path), "%s/broker.sock", argv[1]);
	grpc = grpc_client_new(path);
	measure(&guest, &figures[FAIR_ALONE], 0); /* to warm up */
	measure_grpc(&figures[FAIR_ALONE], 0);
	for (int turn = 0; turn < TURNS; turn++) {
		for (enum way way = 0; way < WAYS; way++) {
			other_tell(way);
			measure(&guest, &figures[way], turn);
			measure_grpc(&figures[way], turn);
			other_tell(FAIR_ALONE);
		}
	}
	report_all();
	report_rates(&guest, argv[1]);
	grpc_client_free(grpc);
	bench_guest_end(&guest);
	close(command_fd);
	waitpid(pid, NULL, 0);
	return 0;
}
