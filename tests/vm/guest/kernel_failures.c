/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Failures in the kernel: a guest's life is led with the first, the second, ... allocation failing
 * in the first, the second, ... call that the daemon makes of iommufd or VFIO (fail_nth.h). After
 * each of them the VMM was told what is documented, the step succeeds when it is tried again, the
 * device reaches no more than the guest's tables say, and in the end nothing is left: no charge, no
 * descriptor, no pinned page, no page table of the IOMMU; and the kernel warned of nothing.
 *
 *   kernel_failures sampled|every|refused...    parts of the names of cases
 *
 * With IB_VM_VERBOSE every failure is shown, and with IB_VM_CALL=77 only that call fails.
 * The cases "sampled_..." skip among the later allocations of a call, and among calls of a kind.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "fail_nth_control.h"
#include "failure_log.h"
#include "failure_memory.h"
#include "failure_player.h"
#include "iommu/iommufd/uapi.h"
#include "kept_function.h"

#define KINDS_MAX 40

struct kind {
	uint32_t request;
	unsigned int calls; /* of one life without a failure that were aimed at */
	unsigned int injected, refused, verdicts, unseen;
	unsigned int deepest; /* allocation that failed */
};

struct sweep {
	struct machine machine;
	struct fail_nth *control;
	struct player player;
	bool sampled;
	unsigned int lives;
	struct kind kinds[KINDS_MAX];
	size_t n_kinds;
	unsigned int by_slab, by_pages, by_iommufd, unnamed; /* who let the allocation fail */
	struct failure_log log;
};

static struct kind *kind_of(struct sweep *sweep, uint32_t request)
{
	for (size_t i = 0; i < sweep->n_kinds; i++)
		if (sweep->kinds[i].request == request)
			return &sweep->kinds[i];
	REQUIRE(sweep->n_kinds < KINDS_MAX);
	sweep->kinds[sweep->n_kinds].request = request;
	return &sweep->kinds[sweep->n_kinds++];
}

static void sweep_begin(struct sweep *sweep, bool sampled)
{
	struct machine_options options = {0};

	*sweep = (struct sweep){.sampled = sampled};
	fail_nth_prepare();
	kept_function_enable(machine_pci());
	sweep->control = fail_nth_new(options.environment);
	machine_start(&sweep->machine, &options);
	failure_log_open(&sweep->log);
	player_start(&sweep->player, &sweep->machine, sweep->control);
}

static void limit_pins(pid_t pid, uint64_t bytes)
{
	const struct rlimit limit = {bytes, bytes};

	REQUIRE(prlimit(pid, RLIMIT_MEMLOCK, &limit, NULL) == 0);
}

/* What the kernel has charged to the daemon's user is told nowhere. But a life that needs all that
 * the limit allows succeeds only if no page is left charged. */
static void check_charge(struct sweep *sweep)
{
	const uint64_t most = MAIN_BYTES + HIGH_BYTES + 2 * READ_ONLY_SIZE;
	const struct player_order order = {.n_steps = life_steps(), .on_failure = PLAYER_LEAVE};
	struct player_report report;

	fail_nth_arm(sweep->control, 0, 0, 0);
	limit_pins(sweep->machine.daemon, most);
	report = player_play(&sweep->player, &order);
	CHECK_EQUAL(report.failed, SIZE_MAX);
	limit_pins(sweep->machine.daemon, RLIM_INFINITY);
}

static void sweep_end(struct sweep *sweep)
{
	if (check_failures() == 0)
		check_charge(sweep);
	player_stop(&sweep->player);
	machine_stop(&sweep->machine);
	failure_log_close(&sweep->log);
	sweep->control = fail_nth_free(sweep->control);
	kept_function_release(machine_pci());
}

/* ── one failure ───────────────────────────────────────────────────────────────────────────── */

static void injector_add(struct sweep *sweep)
{
	if (strcmp(sweep->log.injector, "failslab") == 0)
		sweep->by_slab++;
	else if (strcmp(sweep->log.injector, "fail_page_alloc") == 0)
		sweep->by_pages++;
	else if (strcmp(sweep->log.injector, "fail_iommufd") == 0)
		sweep->by_iommufd++;
	else
		sweep->unnamed++; /* __GFP_NOWARN: its caller does without */
}

static void kind_add(struct sweep *sweep, const struct player_report *report)
{
	struct kind *kind = kind_of(sweep, sweep->control->last_request);

	kind->injected++;
	if (sweep->control->nth > kind->deepest)
		kind->deepest = sweep->control->nth;
	if (report->failed == SIZE_MAX)
		kind->unseen++;
	else if (report->outcome.result < 0)
		kind->refused++;
	else
		kind->verdicts++;
}

/* False: that call makes fewer allocations, or there is no such call. */
static bool fail_once(struct sweep *sweep, struct player_order *order, uint32_t call, uint32_t nth)
{
	struct fail_nth *control = sweep->control;
	struct player_report report;
	bool injected;

	fail_nth_arm(control, call, 0, nth);
	report = player_play(&sweep->player, order);
	sweep->lives++;
	injected = atomic_load(&control->injected) == 1;
	failure_log_read(&sweep->log);
	CHECK_EQUAL(sweep->log.trouble, 0);
	CHECK_EQUAL(atomic_load(&control->broken), 0);
	if (!injected) {
		CHECK_EQUAL(report.failed, SIZE_MAX);
		return false;
	}
	if (strcmp(sweep->log.injector, "fail_iommufd") != 0)
		CHECK(control->last_error == 0 || control->last_error == ENOMEM);
	kind_add(sweep, &report);
	injector_add(sweep);
	if (getenv("IB_VM_VERBOSE") != NULL)
		printf("  call %u %s, allocation %u (%s): errno %d; %s: %s %s verdict %u\n", call,
		       request_name(control->last_request), nth, sweep->log.injector,
		       control->last_error,
		       report.failed == SIZE_MAX ? "unseen" : life_step_name(report.failed),
		       report.outcome.reason, report.outcome.message, report.outcome.verdict);
	return true;
}

/* Every call has its first allocations fail; those that come late are much alike. */
static uint32_t nth_after(const struct sweep *sweep, uint32_t nth)
{
	if (!sweep->sampled || nth < 6)
		return nth + 1;
	return nth + nth / 2;
}

/* The device takes its time, so it judges only the first failures of a call. Of an attach it judges
 * all: how far the IOMMU's driver got decides what is attached then. */
static void fail_call(struct sweep *sweep, struct player_order order, uint32_t call, bool attaches)
{
	uint32_t nth = 1;

	while (fail_once(sweep, &order, call, nth)) {
		nth = nth_after(sweep, nth);
		order.dma = order.dma && (nth < 3 || attaches);
		if (sweep->sampled)
			order.on_failure = (call + nth) % 2 == 0 ? PLAYER_LEAVE : PLAYER_RETRY;
	}
}

/* ── all of them ───────────────────────────────────────────────────────────────────────────── */

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Calls of a life in which nothing fails, in order; the number of them. */
static uint32_t calls_count(struct sweep *sweep, const struct player_order *order,
			    uint32_t requests[FAIL_NTH_CALLS_MAX], uint32_t *ret_before_end)
{
	struct player_report report;
	uint32_t n;

	fail_nth_arm(sweep->control, 0, 0, 0);
	report = player_play(&sweep->player, order);
	n = atomic_load(&sweep->control->calls);
	REQUIRE_EQUAL(report.failed, SIZE_MAX);
	REQUIRE(n > 0 && n <= FAIL_NTH_CALLS_MAX);
	memcpy(requests, sweep->control->requests, n * sizeof(requests[0]));
	*ret_before_end = report.calls_before_end;
	return n;
}

/* Calls that change what the device reaches: it is asked. */
static bool device_judges(uint32_t request)
{
	return request == (uint32_t)UAPI_VFIO_IOMMU_UNMAP_DMA ||
	       request == (uint32_t)UAPI_IOMMU_IOAS_COPY ||
	       request == (uint32_t)UAPI_IOMMU_IOAS_MAP_FILE ||
	       request == (uint32_t)UAPI_IOMMU_IOAS_MAP ||
	       request == (uint32_t)UAPI_VFIO_DEVICE_ATTACH;
}

static void sweep_run(struct sweep *sweep, struct player_order order, bool only_end)
{
	uint32_t requests[FAIL_NTH_CALLS_MAX], n, first, done = 0;
	const char *only = getenv("IB_VM_CALL");
	double started = now_s();
	bool attaches;

	n = calls_count(sweep, &order, requests, &first);
	first = only_end ? first + 1 : 1;
	for (uint32_t call = first; call <= n; call++) {
		struct kind *kind = kind_of(sweep, requests[call - 1]);

		if (only != NULL && strtoul(only, NULL, 0) != call)
			continue;
		if (sweep->sampled && kind->calls >= 3 && call % 4 != 0)
			continue;
		attaches = requests[call - 1] == (uint32_t)UAPI_VFIO_DEVICE_ATTACH;
		/* The first attach replaces nothing. */
		order.dma = device_judges(requests[call - 1]) && order.on_failure == PLAYER_RETRY &&
			    (!sweep->sampled || kind->calls == (attaches ? 1 : 0));
		kind->calls++;
		done++;
		fail_call(sweep, order, call, attaches);
		if (check_failures() > 40)
			break;
	}
	printf("  %s: %u of %u calls, %u lives, %.1f s\n",
	       order.on_failure == PLAYER_RETRY ? "tried again" : "given up", done, n - first + 1,
	       sweep->lives, now_s() - started);
}

static void kinds_show(const struct sweep *sweep)
{
	printf("  %-28s %5s %8s %8s %8s %8s %8s\n", "failed in", "calls", "injected", "refused",
	       "verdicts", "unseen", "deepest");
	for (size_t i = 0; i < sweep->n_kinds; i++) {
		const struct kind *kind = &sweep->kinds[i];

		printf("  %-28s %5u %8u %8u %8u %8u %8u\n", request_name(kind->request),
		       kind->calls, kind->injected, kind->refused, kind->verdicts, kind->unseen,
		       kind->deepest);
	}
}

/* A kernel that lets nothing fail would pass everything else. */
static void check_reached(struct sweep *sweep, const uint64_t *requests, size_t n)
{
	printf("  let fail: %u by failslab, %u by fail_page_alloc, %u by fail_iommufd, %u "
	       "unnamed\n",
	       sweep->by_slab, sweep->by_pages, sweep->by_iommufd, sweep->unnamed);
	if (getenv("IB_VM_CALL") != NULL)
		return;
	for (size_t i = 0; i < n; i++) {
		check_step("failures in %s", request_name((uint32_t)requests[i]));
		CHECK(kind_of(sweep, (uint32_t)requests[i])->injected > 0);
	}
}

/* ── cases ─────────────────────────────────────────────────────────────────────────────────── */

static void lives(bool sampled)
{
	static const uint64_t reached[] = {
		FAIL_NTH_OPEN,
		FAIL_NTH_MMAP,
		UAPI_IOMMU_IOAS_ALLOC,
		UAPI_IOMMU_HWPT_ALLOC,
		UAPI_IOMMU_IOAS_MAP_FILE,
		UAPI_IOMMU_IOAS_COPY,
		UAPI_VFIO_IOMMU_UNMAP_DMA,
		UAPI_VFIO_DEVICE_BIND,
		UAPI_VFIO_DEVICE_ATTACH,
	};
	struct player_order order = {.n_steps = life_steps()};
	struct sweep sweep;

	sweep_begin(&sweep, sampled);
	sweep_run(&sweep, order, false);
	if (!sampled) {
		order.on_failure = PLAYER_LEAVE;
		sweep_run(&sweep, order, false);
	}
	kinds_show(&sweep);
	check_reached(&sweep, reached, sizeof(reached) / sizeof(reached[0]));
	CHECK((sweep.by_slab > 0 && sweep.by_pages > 0) || getenv("IB_VM_CALL") != NULL);
	sweep_end(&sweep);
}

static void sampled_lives(void)
{
	lives(true);
}

static void every_life(void)
{
	lives(false);
}

/* The VMM is gone while all of it stands: nobody is there to be told of a failure. */
static void deaths(bool sampled)
{
	static const uint64_t reached[] = {UAPI_IOMMU_IOAS_UNMAP};
	struct player_order order = {.n_steps = life_step_find("refresh that changes") + 1};
	struct sweep sweep;

	sweep_begin(&sweep, sampled);
	sweep_run(&sweep, order, true);
	kinds_show(&sweep);
	check_reached(&sweep, reached, 1);
	sweep_end(&sweep);
}

static void sampled_deaths(void)
{
	deaths(true);
}

static void every_death(void)
{
	deaths(false);
}

/* ── what fails again and again ────────────────────────────────────────────────────────────── */

static size_t live_until(struct life *life, const char *name)
{
	size_t last = life_step_find(name);

	for (size_t step = 0; step < last; step++)
		REQUIRE(life_step(life, step).good);
	check_step("%s", name);
	return last;
}

/* A cut that cannot be made: tried again, in halves too, then the device is blocked. */
static void play_refused_cuts(struct life *life, struct fail_nth *control)
{
	size_t step = live_until(life, "refresh that cuts");
	struct outcome outcome;

	CHECK(life_device_reaches(life, 20));
	CHECK(life_device_reaches(life, 80));
	fail_nth_arm(control, 0, UAPI_VFIO_IOMMU_UNMAP_DMA, 1);
	outcome = life_step(life, step);
	fail_nth_disarm(control);
	CHECK_EQUAL(outcome.verdict, IOMMUBROKER_VERDICT_GONE);
	CHECK(atomic_load(&control->injected) >= 2);
	CHECK_EQUAL(life_events(life, IOMMUBROKER_EVENT_DEVICE_BLOCKED), 1);
	CHECK(!life_device_reaches(life, 19));
	CHECK(!life_device_reaches(life, 20));
	CHECK_EQUAL(life_leaves(life), 0);
	outcome = life_step(life, step);
	CHECK_EQUAL(outcome.verdict, IOMMUBROKER_VERDICT_GONE);
	outcome = life_register_again(life);
	CHECK(outcome.good);
	CHECK(life_device_reaches(life, 19));
	CHECK(!life_device_reaches(life, 80));
}

/* Nothing can be mapped: what the guest took out is gone all the same, and what it asks for comes
 * when it asks again. */
static void play_refused_copies(struct life *life, struct fail_nth *control)
{
	size_t step = live_until(life, "refresh that changes");
	struct outcome outcome;

	CHECK(life_device_reaches(life, 25));
	CHECK(life_device_reaches(life, 66));
	fail_nth_arm(control, 0, UAPI_IOMMU_IOAS_COPY, 2);
	outcome = life_step(life, step);
	fail_nth_disarm(control);
	CHECK_EQUAL(outcome.verdict, IOMMUBROKER_VERDICT_RESOURCES);
	CHECK(atomic_load(&control->injected) >= 2);
	CHECK(life_device_reaches(life, 19));
	CHECK(!life_device_reaches(life, 20));
	CHECK(!life_device_reaches(life, 25));
	CHECK(!life_device_reaches(life, 66));
	outcome = life_step(life, step);
	CHECK(outcome.good);
	life_check(life, step, &outcome, true);
	CHECK(life_device_reaches(life, 25));
}

/* How the daemon has memory pinned here: kernels before 6.13 have no MAP_FILE. A player may not
 * ask, the device node is not its. */
static uint32_t pin_request;

static void pin_request_find(void)
{
	struct uapi_ioas_map_file map = {.size = sizeof(map)};
	int fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	bool missing;

	REQUIRE(fd >= 0);
	missing = ioctl(fd, UAPI_IOMMU_IOAS_MAP_FILE, &map) < 0 && errno == ENOTTY;
	close(fd);
	pin_request = missing ? UAPI_IOMMU_IOAS_MAP : UAPI_IOMMU_IOAS_MAP_FILE;
}

/* What came cannot be pinned, and what went cannot be pinned again: it is lost, and said so. */
static void play_refused_pins(struct life *life, struct fail_nth *control)
{
	size_t step = live_until(life, "region changes"), next;
	uint64_t leaves = life_leaves(life);
	struct outcome outcome;

	fail_nth_arm(control, 0, pin_request, 2);
	outcome = life_step(life, step);
	fail_nth_disarm(control);
	CHECK_EQUAL(outcome.result, -ENOMEM);
	CHECK(strcmp(outcome.reason, "HOST_RESOURCES") == 0);
	CHECK(strstr(outcome.message, "could not be put back") != NULL);
	CHECK(life_events(life, IOMMUBROKER_EVENT_MEMORY_LOST) >= 1);
	CHECK_EQUAL(life_leaves(life), leaves - 6);
	CHECK(life_device_reaches(life, 19));
	next = life_step_find("region returns");
	outcome = life_step(life, next);
	CHECK(outcome.good);
	life_check(life, next, &outcome, true);
}

static void refused(void (*play)(struct life *life, struct fail_nth *control))
{
	const struct player_order order = {.dma = true, .play = play};
	struct sweep sweep;

	sweep_begin(&sweep, false);
	player_play(&sweep.player, &order);
	failure_log_read(&sweep.log);
	CHECK_EQUAL(sweep.log.trouble, 0);
	sweep_end(&sweep);
}

static void refused_cuts(void)
{
	refused(play_refused_cuts);
}

static void refused_copies(void)
{
	refused(play_refused_copies);
}

static void refused_pins(void)
{
	pin_request_find();
	refused(play_refused_pins);
}

static const struct test_case cases[] = {
	{"sampled_lives", sampled_lives, 600}, {"sampled_deaths", sampled_deaths, 300},
	{"every_life", every_life, 3600},      {"every_death", every_death, 600},
	{"refused_cuts", refused_cuts, 120},   {"refused_copies", refused_copies, 120},
	{"refused_pins", refused_pins, 120},
};

int main(int argc, char **argv)
{
	return cases_main(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
