/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Events: what is told, in order, bounded, to whom it belongs, to its end. */
#include "broker_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/guest.h"
#include "util/guest_read.h"

#define IOVA (DMA_BASE + 0x10000)
#define LAST (DMA_BASE + 256 * MIB - 1)

static atomic_uint wakes;

static void on_wake(void *context)
{
	assert_ptr_equal(context, &wakes);
	wakes++;
}

static int setup(void **state)
{
	static struct fixture f;
	struct broker_settings settings = settings_default();

	wakes = 0;
	fixture_init_guest(&f, &settings);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_deinit(*state);
	return 0;
}

static struct event_watch *watch_since(struct fixture *f, uint64_t since)
{
	struct event_watch *watch;

	assert_done(f, event_watch_new(&watch, f->broker, f->session, f->guest, since, on_wake,
				       &wakes, &f->refusal));
	return watch;
}

static struct event next(struct event_watch *watch)
{
	struct event event = {0};

	assert_int_equal(event_watch_next(watch, &event), 1);
	return event;
}

static void assert_no_more(struct event_watch *watch)
{
	struct event event;

	assert_int_equal(event_watch_next(watch, &event), 0);
}

/* A leaf whose frame is no memory of the guest. */
static void test_leaf_refused(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	uint64_t root = table_root(f);
	struct event_watch *watch = watch_since(f, 0);
	struct nested_created created;
	struct event event;

	table_map(f, root, IOVA, 1ull << 40, true);
	created = nested_make_s390(f, function.device, root, DMA_BASE, LAST, true);
	assert_int_equal(created.walk.verdict, VERDICT_DONE); /* it kills nothing */
	assert_int_equal(wakes, 1);
	event = next(watch);
	assert_int_equal(event.sequence, 1);
	assert_int_equal(event.kind, EVENT_LEAF_REFUSED);
	assert_int_equal(event.guest, f->guest);
	assert_int_equal(event.device, function.device);
	assert_int_equal(event.nested, created.nested);
	assert_int_equal(event.iova, IOVA);
	assert_int_equal(event.gpa, 1ull << 40);
	assert_true(event.time_ns > 0);
	assert_no_more(watch);
	/* When its memory comes it is installed without being asked for. */
	assert_done(f, memory_map_one(f, f->memory_file, 0, 1ull << 40, PAGE, true));
	assert_int_equal(emulated_dma_write(function.dma, IOVA, "x", 1, NULL), EMULATED_DMA_OK);
	assert_no_more(watch);
	event_watch_free(watch);
	function_free(&function);
}

static void test_walk_error_at_registration(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	uint64_t root = table_root(f);
	struct event_watch *watch = watch_since(f, 0);
	struct nested_created created;
	struct event event;

	table_break(f, root, DMA_BASE);
	created = nested_make_s390(f, function.device, root, DMA_BASE, LAST, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	event = next(watch);
	assert_int_equal(event.kind, EVENT_TRANSLATION_ERROR);
	assert_int_equal(event.fault.code, S390_PEC_INVALTE);
	assert_int_equal(event.fault.iova, DMA_BASE);
	assert_int_equal(event.nested, created.nested);
	assert_no_more(watch);
	/* A refresh answers its error to the guest itself: no event. */
	assert_int_equal(refresh_one(f, created.nested, IOVA, PAGE).verdict, VERDICT_ERROR);
	assert_no_more(watch);
	event_watch_free(watch);
	function_free(&function);
}

/* A table in memory that was shrunk away. */
static void test_memory_lost(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	struct event_watch *watch = watch_since(f, 0);
	int fd = memfd_filled(MIB, NULL);
	uint64_t file = file_add(f, fd, true);
	struct nested_created created;
	struct event event;

	/* Again: cmocka has handlers of its own while a test runs. */
	assert_int_equal(guest_read_init(), 0);
	assert_done(f, memory_map_one(f, file, 0, 1ull << 40, MIB, true));
	assert_int_equal(ftruncate(fd, 0), 0);
	created = nested_make_s390(f, function.device, 1ull << 40, DMA_BASE, LAST, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.verdict, VERDICT_ERROR);
	assert_true(created.walk.fault.outside_memory);
	event = next(watch);
	assert_int_equal(event.kind, EVENT_TRANSLATION_ERROR);
	event = next(watch);
	assert_int_equal(event.kind, EVENT_MEMORY_LOST);
	assert_int_equal(event.gpa, 1ull << 40);
	assert_no_more(watch);
	event_watch_free(watch);
	function_free(&function);
	close(fd);
}

static void test_end(void **state)
{
	struct fixture *f = *state;
	struct event_watch *early = watch_since(f, 0), *other;
	struct guest *guest = guest_find(f->broker, f->session, f->guest, &f->refusal);
	struct event_ring *ring = event_ring_ref(guest->events);
	struct event event;

	guest_unref(guest);
	assert_no_more(early);
	other = watch_since(f, 0);
	event_watch_free(other);
	assert_done(f, guest_destroy(f->broker, f->session, f->guest, &f->refusal));
	assert_int_equal(wakes, 1); /* the freed one is not woken */
	event = next(early);
	assert_int_equal(event.kind, EVENT_GUEST_GONE);
	assert_int_equal(event.guest, f->guest);
	assert_int_equal(event_watch_next(early, &event), -1);
	event_post(ring, &event); /* what came too late is told to nobody */
	assert_int_equal(event_watch_next(early, &event), -1);
	event_watch_free(early);
	event_ring_unref(ring);
	assert_refused(f,
		       event_watch_new(&other, f->broker, f->session, f->guest, 0, on_wake, &wakes,
				       &f->refusal),
		       REFUSAL_NOT_FOUND);
}

static void test_watch_outlives_session(void **state)
{
	struct fixture *f = *state;
	struct event_watch *watch = watch_since(f, 0);
	struct event event = {0};

	session_close(f->session, NULL, NULL);
	while (event_watch_next(watch, &event) == 0)
		usleep(1000);
	assert_int_equal(event.kind, EVENT_GUEST_GONE);
	event_watch_free(watch);
}

static void test_others_may_not_watch(void **state)
{
	struct fixture *f = *state;
	struct session *other = session_make(f);
	struct event_watch *watch;

	assert_refused(f,
		       event_watch_new(&watch, f->broker, other, f->guest, 0, on_wake, &wakes,
				       &f->refusal),
		       REFUSAL_NOT_FOUND);
	session_unref(other);
}

/* ── the ring: a guest cannot make it grow ─────────────────────────────────────────────────── */

static void flood(struct fixture *f, uint64_t nested, uint64_t root, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		table_map(f, root, IOVA, (1ull << 40) + i * PAGE, true);
		refresh_one(f, nested, IOVA, PAGE);
	}
}

static void test_overtaken(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	uint64_t root = table_root(f), nested;
	struct event_watch *watch = watch_since(f, 0), *late;
	struct event event;

	nested = nested_make_s390(f, function.device, root, DMA_BASE, LAST, true).nested;
	flood(f, nested, root, 10);
	for (uint64_t i = 1; i <= 4; i++)
		assert_int_equal(next(watch).sequence, i);
	flood(f, nested, root, BROKER_EVENTS_DEFAULT);
	event = next(watch); /* 5 to 10 are gone */
	assert_int_equal(event.kind, EVENT_LOST);
	assert_int_equal(event.lost, 6);
	assert_int_equal(event.sequence, 10);
	for (uint64_t i = 0; i < BROKER_EVENTS_DEFAULT; i++)
		assert_int_equal(next(watch).sequence, 11 + i);
	assert_no_more(watch);
	event_watch_free(watch);

	late = watch_since(f, 0); /* from the oldest that is kept: nothing is lost to it */
	assert_int_equal(next(late).sequence, 11);
	event_watch_free(late);
	late = watch_since(f, 1000);
	assert_int_equal(next(late).sequence, 1001);
	event_watch_free(late);
	late = watch_since(f, 3); /* was away too long */
	event = next(late);
	assert_int_equal(event.kind, EVENT_LOST);
	assert_int_equal(event.lost, 7);
	event_watch_free(late);
	late = watch_since(f, UINT64_MAX);
	assert_no_more(late);
	flood(f, nested, root, 1);
	assert_int_equal(next(late).sequence, 11 + BROKER_EVENTS_DEFAULT);
	event_watch_free(late);
	function_free(&function);
}

/* ── woken from other threads ──────────────────────────────────────────────────────────────── */

struct poster {
	struct event_ring *ring;
	atomic_bool stop;
};

static void *poster_run(void *argument)
{
	struct poster *poster = argument;
	const struct event event = {.kind = EVENT_DEVICE_FAULT};

	while (!poster->stop)
		event_post(poster->ring, &event);
	return NULL;
}

static void on_wake_alive(void *context)
{
	/* After event_watch_free() this is somebody else's memory. */
	assert_int_equal(atomic_load((atomic_int *)context), 1);
}

static void test_not_woken_after_free(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	uint64_t root = table_root(f), nested;
	atomic_int alive;

	nested = nested_make_s390(f, function.device, root, DMA_BASE, LAST, true).nested;
	for (unsigned int i = 0; i < 200; i++) {
		struct event_watch *watch;

		alive = 1;
		assert_done(f, event_watch_new(&watch, f->broker, f->session, f->guest, 0,
					       on_wake_alive, &alive, &f->refusal));
		flood(f, nested, root, 2);
		event_watch_free(watch);
		alive = 0;
	}
	function_free(&function);
}

static void test_ring_with_threads(void **state)
{
	struct poster poster = {.ring = event_ring_new(BROKER_EVENTS_DEFAULT)};
	pthread_t threads[2];

	assert_non_null(poster.ring);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, poster_run, &poster), 0);
	usleep(20000);
	event_ring_end(poster.ring, 5);
	poster.stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	event_ring_unref(poster.ring);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_leaf_refused),
		TEST(test_walk_error_at_registration),
		TEST(test_memory_lost),
		TEST(test_end),
		TEST(test_watch_outlives_session),
		TEST(test_others_may_not_watch),
		TEST(test_overtaken),
		TEST(test_not_woken_after_free),
		cmocka_unit_test(test_ring_with_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
