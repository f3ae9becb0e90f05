/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole life of a guest is played with the first, the second, … call failing: calls of the
 * backend with several errors, and allocations. Whichever it was, the ledger says what is held
 * afterwards, the end of the session leaves nothing, no descriptor is lost, and the same life
 * succeeds at once when nothing fails.
 */
#include "broker_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend_tap.h"
#include "broker_invariant.h"
#include "memory_fault.h"

#define IOVA       (DMA_BASE + 0x10000)
#define WINDOW     (DMA_BASE + 64 * MIB - 1)
#define HIGH       (1ull << 40)
#define SIDE_BYTES (1 * MIB)

/* ── the nth call fails ────────────────────────────────────────────────────────────────────── */

static struct {
	_Atomic unsigned int countdown; /* 0: none fails */
	int error;
} backend_fault;

static int backend_fails(const char *call, const void *object)
{
	bool now = atomic_load(&backend_fault.countdown) &&
		   atomic_fetch_sub(&backend_fault.countdown, 1) == 1;

	return now ? backend_fault.error : 0;
}

/* ── a guest's life ────────────────────────────────────────────────────────────────────────── */

struct life {
	struct fixture f; /* broker and memory; the session is this life's own */
	int side_fd;
	uint64_t root, other_root;

	struct session *session;
	uint64_t guest, file, side, device, relaxed_device, nested, managed;
	int device_fd, relaxed_fd, spare_fd;
	struct event_watch *watch;
	struct memory_update_request request;
	struct memory_updated updated;
	struct refresh refresh;
};

static int step_session(struct life *l)
{
	return session_new(&l->session, l->f.broker, &l->f.peer, "life", l->f.secret,
			   &l->f.refusal);
}

static int step_guest(struct life *l)
{
	const struct guest_create_request request = {.name = "guest"};
	uint8_t secret[BROKER_SECRET_BYTES];

	return guest_create(l->f.broker, l->session, &request, &l->guest, secret, &l->f.refusal);
}

static void on_wake(void *context)
{
}

static int step_watch(struct life *l)
{
	return event_watch_new(&l->watch, l->f.broker, l->session, l->guest, 0, on_wake, NULL,
			       &l->f.refusal);
}

static int add(struct life *l, int fd, uint64_t *ret)
{
	struct memory_file_added added;
	int status = memory_file_add(l->f.broker, l->session, l->guest,
				     fcntl(fd, F_DUPFD_CLOEXEC, 0), true, &added, &l->f.refusal);

	if (!status)
		*ret = added.memory_file;
	return status;
}

static int step_file(struct life *l)
{
	return add(l, l->f.memory_fd, &l->file);
}

static int step_side_file(struct life *l)
{
	return add(l, l->side_fd, &l->side);
}

static int update(struct life *l)
{
	return memory_update(l->f.broker, l->session, l->guest, &l->request, NULL, &l->updated,
			     &l->f.refusal);
}

static int step_map(struct life *l)
{
	l->request.n_unmap = 0;
	l->request.n_map = 2;
	l->request.map[0] = (struct memory_map_entry){l->file, 0, 0, MEMORY_BYTES, 0, true};
	l->request.map[1] = (struct memory_map_entry){l->side, 0, HIGH, 8 * PAGE, 2 * PAGE, true};
	return update(l);
}

static int open_function(struct life *l, uint32_t fid, uint64_t *ret, int *ret_fd)
{
	const struct device_open_request request = {
		.consume_fd = -1,
		.address = {.by_fid = true, .fid = fid},
	};

	return device_open(l->f.broker, l->session, l->guest, &request, ret, ret_fd, &l->f.refusal);
}

static int bind_function(struct life *l, uint64_t device)
{
	struct device_description description;

	return device_bind(l->f.broker, l->session, device, NULL, NULL, &description,
			   &l->f.refusal);
}

static int step_open(struct life *l)
{
	return open_function(l, 1, &l->device, &l->device_fd);
}

static int step_bind(struct life *l)
{
	return bind_function(l, l->device);
}

static int step_descriptor(struct life *l)
{
	return device_descriptor(l->f.broker, l->session, l->device, &l->spare_fd, &l->f.refusal);
}

/* A verdict that is none of success ends the life, like a refusal. */
static int step_nested(struct life *l)
{
	const struct nested_create_request request = {
		.device = l->device,
		.attach = true,
		.iota = anchor_of(l->root),
		.first = DMA_BASE,
		.last = WINDOW,
	};
	struct nested_created created;
	int status = nested_create(l->f.broker, l->session, &request, &created, &l->f.refusal);

	if (status)
		return status;
	l->nested = created.nested;
	return created.verdict == VERDICT_DONE && created.walk.verdict == VERDICT_DONE ? 0
										       : REFUSED;
}

static int step_refresh(struct life *l)
{
	l->f.session = l->session;
	table_map(&l->f, l->root, IOVA + 4 * PAGE, HIGH, true);
	table_map(&l->f, l->root, IOVA + 6 * PAGE, HIGH + 3 * PAGE, false);
	table_unmap(&l->f, l->root, IOVA);
	l->refresh = (struct refresh){.nested = l->nested, .n_ranges = 2};
	l->refresh.ranges[0] = (struct refresh_range){IOVA, 4 * PAGE};
	l->refresh.ranges[1] = (struct refresh_range){DMA_BASE, 64 * MIB};
	if (refresh_status(&l->f, &l->refresh))
		return REFUSED;
	for (int i = 0; i < 2; i++)
		if (l->refresh.results[i].verdict != VERDICT_DONE)
			return REFUSED;
	return 0;
}

/* Something stays, something is replaced, something is cut away, something new comes. */
static int step_change_memory(struct life *l)
{
	l->request.n_unmap = 2;
	l->request.unmap[0] = (struct iommu_range){HIGH, HIGH + 6 * PAGE - 1};
	l->request.unmap[1] = (struct iommu_range){HIGH + MIB, HIGH + 2 * MIB - 1};
	l->request.n_map = 3;
	l->request.map[0] = (struct memory_map_entry){l->side, 0, HIGH, 2 * PAGE, 2 * PAGE, true};
	l->request.map[1] = (struct memory_map_entry){l->side,  16 * PAGE, HIGH + 2 * PAGE,
						      2 * PAGE, 2 * PAGE,  true};
	l->request.map[2] =
		(struct memory_map_entry){l->side, 64 * PAGE, HIGH + MIB, 64 * PAGE, 0, true};
	return update(l);
}

static int replace(struct life *l, uint64_t iota)
{
	struct nested_created created;
	int status = nested_replace(l->f.broker, l->session, l->nested, iota, DMA_BASE, WINDOW,
				    &created, &l->f.refusal);

	if (status)
		return status;
	return created.verdict == VERDICT_DONE ? 0 : REFUSED;
}

static int step_replace(struct life *l)
{
	return replace(l, anchor_of(l->other_root));
}

static int step_replace_relaxed(struct life *l)
{
	return replace(l, 0);
}

static int step_replace_back(struct life *l)
{
	return replace(l, anchor_of(l->root));
}

static int step_open_relaxed(struct life *l)
{
	return open_function(l, 2, &l->relaxed_device, &l->relaxed_fd);
}

static int step_bind_relaxed(struct life *l)
{
	return bind_function(l, l->relaxed_device);
}

static int attach(struct life *l, uint64_t device, enum attachment to, uint64_t nested)
{
	struct range_result walk;
	int status =
		device_attach(l->f.broker, l->session, device, to, nested, &walk, &l->f.refusal);

	return !status && walk.verdict != VERDICT_DONE ? REFUSED : status;
}

static int step_attach_relaxed(struct life *l)
{
	return attach(l, l->relaxed_device, ATTACHMENT_RELAXED, 0);
}

/* The relaxed mapping follows. */
static int step_grow_memory(struct life *l)
{
	l->request.n_unmap = 1;
	l->request.unmap[0] = (struct iommu_range){HIGH + MIB, HIGH + 2 * MIB - 1};
	l->request.n_map = 2;
	l->request.map[0] =
		(struct memory_map_entry){l->side, 32 * PAGE, HIGH + MIB, 16 * PAGE, 0, true};
	l->request.map[1] = (struct memory_map_entry){l->file, 0, HIGH + 4 * MIB, 4 * MIB, 0, true};
	return update(l);
}

static int step_managed(struct life *l)
{
	const struct nested_create_request request = {
		.device = l->relaxed_device,
		.format = NESTED_MANAGED,
		.first = DMA_BASE,
		.last = WINDOW,
	};
	struct nested_created created;
	int status = nested_create(l->f.broker, l->session, &request, &created, &l->f.refusal);

	if (status)
		return status;
	l->managed = created.nested;
	return created.verdict == VERDICT_DONE ? 0 : REFUSED;
}

static int step_managed_update(struct life *l)
{
	const struct nested_entry entries[] = {
		{IOVA, 8 * PAGE, HIGH + MIB, true, true},
		{IOVA + 2 * PAGE, PAGE, 0, true, false},
		{IOVA + 5 * PAGE, PAGE, 0, false, false},
	};
	struct range_result results[3];
	size_t n;
	int status = nested_update(l->f.broker, l->session, l->managed, entries, 3, results, &n,
				   &l->f.refusal);

	return !status && (n != 3 || results[2].verdict != VERDICT_DONE) ? REFUSED : status;
}

static int step_attach_managed(struct life *l)
{
	return attach(l, l->relaxed_device, ATTACHMENT_NESTED, l->managed);
}

static int step_block(struct life *l)
{
	return attach(l, l->device, ATTACHMENT_BLOCKED, 0);
}

static int step_attach_again(struct life *l)
{
	return attach(l, l->device, ATTACHMENT_NESTED, l->nested);
}

static int step_explain(struct life *l)
{
	struct explanation explanation;

	return nested_explain(l->f.broker, l->session, l->nested, IOVA, &explanation,
			      &l->f.refusal);
}

static int step_describe(struct life *l)
{
	struct guest_description *description;
	int status = guest_describe(l->f.broker, l->session, l->guest, &description, &l->f.refusal);

	if (!status)
		guest_description_free(description);
	return status;
}

static int step_destroy_nested(struct life *l)
{
	uint64_t dropped;

	return nested_destroy(l->f.broker, l->session, l->nested, &dropped, &l->f.refusal);
}

static int step_shrink_memory(struct life *l)
{
	l->request.n_map = 0;
	l->request.n_unmap = 1;
	l->request.unmap[0] = (struct iommu_range){HIGH, UINT64_MAX};
	return update(l);
}

static int step_remove_file(struct life *l)
{
	return memory_file_remove(l->f.broker, l->session, l->guest, l->side, &l->f.refusal);
}

static int step_close_device(struct life *l)
{
	bool held;

	return device_close(l->f.broker, l->session, l->device, &held, &l->f.refusal);
}

static int step_reset(struct life *l)
{
	uint32_t destroyed;

	return guest_reset(l->f.broker, l->session, l->guest, &destroyed, &l->f.refusal);
}

static int step_destroy(struct life *l)
{
	return guest_destroy(l->f.broker, l->session, l->guest, &l->f.refusal);
}

static int (*const steps[])(struct life *) = {
	step_session,         step_guest,        step_watch,          step_file,
	step_side_file,       step_map,          step_open,           step_bind,
	step_descriptor,      step_nested,       step_refresh,        step_change_memory,
	step_replace,         step_open_relaxed, step_bind_relaxed,   step_attach_relaxed,
	step_grow_memory,     step_managed,      step_managed_update, step_attach_managed,
	step_replace_relaxed, step_replace_back, step_block,          step_attach_again,
	step_explain,         step_describe,     step_destroy_nested, step_shrink_memory,
	step_remove_file,     step_close_device, step_reset,          step_destroy,
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

static void life_begin(struct life *l)
{
	l->session = NULL;
	l->watch = NULL;
	l->device_fd = l->relaxed_fd = l->spare_fd = -1;
	l->f.table_next = TABLES_GPA;
	l->root = table_root(&l->f);
	l->other_root = table_root(&l->f);
	table_map(&l->f, l->root, IOVA, PAGE, true);
	table_map(&l->f, l->root, IOVA + PAGE, 2 * PAGE, true);
	table_map(&l->f, l->root, IOVA + MIB, HIGH, true);
	table_map(&l->f, l->other_root, IOVA + PAGE, 2 * PAGE, true);
	table_map(&l->f, l->other_root, IOVA + 2 * MIB, HIGH + MIB, true);
}

/* The number of steps that were done. */
static size_t life_live(struct life *l)
{
	for (size_t i = 0; i < STEPS; i++) {
		int status;

		l->f.refusal = (struct refusal){0};
		status = steps[i](l);
		if (status < 0)
			fail_msg("step %zu: %d: the daemon is broken", i, status);
		if (status)
			return i;
	}
	return STEPS;
}

static void on_closed(void *context)
{
	atomic_store((atomic_bool *)context, true);
}

static void life_end(struct life *l)
{
	atomic_bool closed = false;

	event_watch_free(l->watch);
	l->f.session = NULL; /* the refresh's; it was borrowed */
	if (l->device_fd >= 0)
		close(l->device_fd);
	if (l->relaxed_fd >= 0)
		close(l->relaxed_fd);
	if (l->spare_fd >= 0)
		close(l->spare_fd);
	if (!l->session)
		return;
	session_close(l->session, on_closed, &closed);
	while (!closed)
		usleep(100);
	session_unref(l->session);
}

static void assert_nothing_left(struct life *l)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		if (host_usage(&l->f, i).current)
			fail_msg("%s: %llu left", ledger_resource_name(i),
				 (unsigned long long)host_usage(&l->f, i).current);
}

/* ── sweeps ────────────────────────────────────────────────────────────────────────────────── */

static struct life life;

static int setup(void **state)
{
	struct broker_settings settings = settings_default();
	struct life *l = &life;

	memset(l, 0, sizeof(*l));
	settings.nested_mappings_default = 1024;
	fixture_init(&l->f, &settings);
	backend_tap(l->f.backend, backend_fails);
	l->f.session = session_unref(l->f.session);
	l->f.memory_fd = memfd_filled(MEMORY_BYTES, &l->f.memory);
	l->side_fd = memfd_filled(SIDE_BYTES, NULL);
	return 0;
}

static int teardown(void **state)
{
	fixture_deinit(&life.f);
	close(life.side_fd);
	return 0;
}

/* Sessions that are not referenced any more live on in the broker until they are closed: setup's
 * first one is. */
static void close_setup_session(struct life *l)
{
	struct session *session;
	atomic_bool closed = false;

	if (session_find(&session, l->f.broker, &l->f.peer, l->f.secret, BROKER_SECRET_BYTES,
			 &l->f.refusal))
		return;
	session_close(session, on_closed, &closed);
	while (!closed)
		usleep(100);
	session_unref(session);
}

static void live_well(struct life *l)
{
	size_t done;

	life_begin(l);
	done = life_live(l);
	if (done != STEPS)
		fail_msg("step %zu: %s", done, l->f.refusal.message);
	assert_ledger_is_held(l->f.broker);
	life_end(l);
	assert_nothing_left(l);
}

static void sweep_backend(int error)
{
	struct life *l = &life;
	size_t descriptors;
	unsigned int n = 0, ended_early = 0;

	close_setup_session(l);
	live_well(l);
	descriptors = descriptors_open();
	do {
		life_begin(l);
		backend_fault.error = error;
		backend_fault.countdown = ++n;
		ended_early += life_live(l) != STEPS;
		assert_ledger_is_held(l->f.broker);
		life_end(l);
		assert_nothing_left(l);
		assert_int_equal(descriptors_open(), descriptors);
		/* Still armed: there are no more calls than n - 1. */
	} while (!backend_fault.countdown);
	backend_fault.countdown = 0;
	live_well(l);
	assert_int_equal(descriptors_open(), descriptors);
	assert_true(n > 60);
	assert_true(ended_early > 30);
}

static void test_backend_eio(void **state)
{
	sweep_backend(EIO);
}

static void test_backend_enomem(void **state)
{
	sweep_backend(ENOMEM);
}

static void test_backend_ebusy(void **state)
{
	sweep_backend(EBUSY);
}

static void test_memory(void **state)
{
	struct life *l = &life;
	size_t descriptors;
	unsigned int n = 0, ended_early = 0;

	close_setup_session(l);
	live_well(l);
	descriptors = descriptors_open();
	do {
		life_begin(l);
		memory_fault_countdown = ++n;
		ended_early += life_live(l) != STEPS;
		memory_fault_countdown = memory_fault_countdown ? UINT32_MAX / 2 : 0;
		assert_ledger_is_held(l->f.broker);
		life_end(l);
		assert_nothing_left(l);
		assert_int_equal(descriptors_open(), descriptors);
	} while (!memory_fault_countdown);
	memory_fault_countdown = 0;
	live_well(l);
	assert_true(n > 60);
	assert_true(ended_early > 40);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_backend_eio),
		TEST(test_backend_enomem),
		TEST(test_backend_ebusy),
		TEST(test_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
