/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The main job from a session's beginning to its end, judged by DMA; sessions; and what runs at the
 * same time. */
#include "broker_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker_invariant.h"

#define IOVA (DMA_BASE + 0x10000)
#define LAST (DMA_BASE + 256 * MIB - 1)

static int setup(void **state)
{
	static struct fixture f;
	struct broker_settings settings = settings_default();

	fixture_init_guest(&f, &settings);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_deinit(*state);
	return 0;
}

static uint64_t memory_word(struct fixture *f, uint64_t gpa)
{
	uint64_t word;

	memcpy(&word, f->memory + gpa, sizeof(word));
	return word;
}

static void test_main_job(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	uint64_t root = table_root(f), value = 0x1122334455667788, dropped;
	struct nested_created created;
	struct range_result result;

	table_map(f, root, IOVA, 0x3000, true);
	created = nested_make_s390(f, function.device, root, DMA_BASE, LAST, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.mapped, 1);
	assert_int_equal(emulated_dma_write(function.dma, IOVA, &value, 8, NULL), EMULATED_DMA_OK);
	assert_int_equal(memory_word(f, 0x3000), value);

	table_map(f, root, IOVA + PAGE, 0x5000, false);
	table_unmap(f, root, IOVA);
	result = refresh_one(f, created.nested, IOVA, 2 * PAGE);
	assert_int_equal(result.verdict, VERDICT_DONE);
	assert_int_equal(result.mapped, 1);
	assert_int_equal(result.unmapped, 1);
	assert_int_equal(emulated_dma_write(function.dma, IOVA, &value, 8, NULL),
			 EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(emulated_dma_write(function.dma, IOVA + PAGE, &value, 8, NULL),
			 EMULATED_DMA_READ_ONLY);

	assert_done(f,
		    nested_destroy(f->broker, f->session, created.nested, &dropped, &f->refusal));
	assert_int_equal(dropped, 1);
	assert_int_equal(emulated_dma_read(function.dma, IOVA + PAGE, &value, 8, NULL),
			 EMULATED_DMA_BLOCKED);
	assert_done(f, guest_destroy(f->broker, f->session, f->guest, &f->refusal));
	assert_ledger_empty(f);
	function_free(&function);
}

/* ── sessions ──────────────────────────────────────────────────────────────────────────────── */

static void test_session_is_found_by_its_secret(void **state)
{
	struct fixture *f = *state;
	struct session *found = NULL;
	uint8_t wrong[BROKER_SECRET_BYTES];

	assert_done(f, session_find(&found, f->broker, &f->peer, f->secret, BROKER_SECRET_BYTES,
				    &f->refusal));
	assert_ptr_equal(found, f->session);
	session_unref(found);
	for (int i = 0; i < BROKER_SECRET_BYTES; i++) {
		memcpy(wrong, f->secret, sizeof(wrong));
		wrong[i] ^= 1;
		assert_refused(f,
			       session_find(&found, f->broker, &f->peer, wrong, BROKER_SECRET_BYTES,
					    &f->refusal),
			       REFUSAL_UNAUTHENTICATED);
	}
	assert_refused(f,
		       session_find(&found, f->broker, &f->peer, f->secret, BROKER_SECRET_BYTES - 1,
				    &f->refusal),
		       REFUSAL_UNAUTHENTICATED);
	assert_refused(f, session_find(&found, f->broker, &f->peer, NULL, 0, &f->refusal),
		       REFUSAL_UNAUTHENTICATED);
}

/* Its number may be somebody else's by now, whom an older kernel's pidfd does not tell apart. */
static void test_session_of_a_dead_process(void **state)
{
	struct fixture *f = *state;
	struct peer peer = f->peer;
	uint8_t secret[BROKER_SECRET_BYTES];
	struct session *session, *found;
	pid_t child = fork();

	if (!child) {
		pause();
		_exit(0);
	}
	assert_true(child > 0);
	peer.pid = child;
	peer.pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	assert_done(f, session_new(&session, f->broker, &peer, "", secret, &f->refusal));
	assert_done(f, session_find(&found, f->broker, &peer, secret, BROKER_SECRET_BYTES,
				    &f->refusal));
	session_unref(found);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_refused(
		f, session_find(&found, f->broker, &peer, secret, BROKER_SECRET_BYTES, &f->refusal),
		REFUSAL_UNAUTHENTICATED);
	close(peer.pidfd);
	session_close(session, NULL, NULL);
	session_unref(session);
}

static bool pidfds_differ(int a, int b)
{
	struct stat x, y;

	assert_int_equal(fstat(a, &x) | fstat(b, &y), 0);
	return x.st_ino != y.st_ino;
}

/* The secret of another process opens nothing, in the same words. */
static void test_session_is_its_process(void **state)
{
	struct fixture *f = *state;
	struct peer other = f->peer;
	struct session *found;
	char words[sizeof(f->refusal.message)];
	pid_t child = fork();
	int pidfd;

	if (!child) {
		pause();
		_exit(0);
	}
	assert_true(child > 0);
	other.pid = child;
	other.pidfd = pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	assert_refused(f,
		       session_find(&found, f->broker, &other, f->secret, BROKER_SECRET_BYTES,
				    &f->refusal),
		       REFUSAL_UNAUTHENTICATED);
	memcpy(words, f->refusal.message, sizeof(words));
	/* Nor if it has got the same number since: from Linux 6.9 on that can be told. */
	other.pid = f->peer.pid;
	if (pidfds_differ(pidfd, f->peer.pidfd))
		assert_refused(f,
			       session_find(&found, f->broker, &other, f->secret,
					    BROKER_SECRET_BYTES, &f->refusal),
			       REFUSAL_UNAUTHENTICATED);
	other = f->peer;
	other.uid++;
	assert_refused(f,
		       session_find(&found, f->broker, &other, f->secret, BROKER_SECRET_BYTES,
				    &f->refusal),
		       REFUSAL_UNAUTHENTICATED);
	assert_refused(f,
		       session_find(&found, f->broker, &f->peer, (const uint8_t *)words,
				    BROKER_SECRET_BYTES, &f->refusal),
		       REFUSAL_UNAUTHENTICATED);
	assert_string_equal(f->refusal.message, words);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(pidfd);
}

static void on_closed(void *context)
{
	atomic_fetch_add((atomic_uint *)context, 1);
}

static void wait_for(atomic_uint *closed, unsigned int n)
{
	while (atomic_load(closed) < n)
		usleep(1000);
}

static void test_session_close(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	atomic_uint closed = 0;
	struct session *found;
	uint64_t guest;

	/* As often as there is a reason to; everybody is told, once. */
	for (unsigned int i = 0; i < 20; i++)
		session_close(f->session, on_closed, &closed);
	wait_for(&closed, 20);
	session_close(f->session, on_closed, &closed);
	assert_int_equal(closed, 21);
	assert_true(session_closed(f->session));
	assert_refused(f, guest_make(f, &guest), REFUSAL_CANCELLED);
	assert_refused(f,
		       session_find(&found, f->broker, &f->peer, f->secret, BROKER_SECRET_BYTES,
				    &f->refusal),
		       REFUSAL_UNAUTHENTICATED);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		assert_int_equal(host_usage(f, i).current, 0);
	assert_int_equal(emulated_dma_write(function.dma, IOVA, "x", 1, NULL),
			 EMULATED_DMA_DISABLED);
	function_free(&function);
}

/* A session without anything ends at once. */
static void test_empty_session_close(void **state)
{
	struct fixture *f = *state;
	struct session *other = session_make(f);
	atomic_uint closed = 0;

	session_close(other, on_closed, &closed);
	assert_int_equal(closed, 1);
	session_unref(other);
	assert_int_equal(host_usage(f, LEDGER_SESSIONS).current, 1);
}

/* ── at the same time ──────────────────────────────────────────────────────────────────────── */

struct binder {
	struct fixture *f;
	uint64_t device;
	struct operation operation;
	atomic_uint progress;
	atomic_bool go_on;
	int status;
	struct refusal refusal;
};

static void binder_progress(struct operation *operation, uint64_t done, uint64_t total)
{
	struct binder *b =
		(struct binder *)((char *)operation - offsetof(struct binder, operation));

	b->progress++;
	while (!b->go_on)
		usleep(1000);
}

static void *binder_run(void *argument)
{
	struct binder *b = argument;
	struct pool_lane *lane = broker_lane(b->f->broker, b->f->session, b->device);
	struct device_description description;

	pool_lane_enter(lane);
	b->status = device_bind(b->f->broker, b->f->session, b->device, NULL, &b->operation,
				&description, &b->refusal);
	pool_lane_leave(broker_pool(b->f->broker), lane);
	pool_lane_unref(lane);
	return NULL;
}

/* The end of a session stops a bind that is pinning, and nothing is left of either. */
static void test_session_ends_during_bind(void **state)
{
	struct fixture *f = *state;
	struct function function = function_open(f, 1);
	struct binder binder = {
		.f = f,
		.device = function.device,
		.operation = {.progress = binder_progress},
	};
	struct session *found;
	atomic_uint closed = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, binder_run, &binder), 0);
	while (!binder.progress)
		usleep(1000);
	session_close(f->session, on_closed, &closed);
	assert_int_equal(closed, 0); /* it waits for the lane */
	assert_refused(f,
		       session_find(&found, f->broker, &f->peer, f->secret, BROKER_SECRET_BYTES,
				    &f->refusal),
		       REFUSAL_UNAUTHENTICATED);
	binder.go_on = true;
	pthread_join(thread, NULL);
	wait_for(&closed, 1);
	assert_int_equal(binder.status, REFUSED);
	assert_int_equal(binder.refusal.kind, REFUSAL_CANCELLED);
	assert_true(binder.progress < MEMORY_BYTES / MIB);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		assert_int_equal(host_usage(f, i).current, 0);
	function_free(&function);
}

#define HIGH (1ull << 40)

struct stress {
	struct fixture *f;
	struct function function;
	uint64_t nested, root, file;
	atomic_bool stop;
	atomic_uint refreshes, transfers;
};

/* A vCPU: refreshes what shows the memory that comes and goes. */
static void *stress_refresh(void *argument)
{
	struct stress *s = argument;

	while (!s->stop) {
		struct refresh refresh = {.nested = s->nested, .n_ranges = 2};

		refresh.ranges[0] = (struct refresh_range){IOVA, 16 * PAGE};
		refresh.ranges[1] = (struct refresh_range){DMA_BASE, LAST - DMA_BASE + 1};
		if (refresh_status(s->f, &refresh) == 0)
			s->refreshes++;
	}
	return NULL;
}

static void *stress_dma(void *argument)
{
	struct stress *s = argument;

	while (!s->stop)
		if (emulated_dma_write(s->function.dma, IOVA + 3 * PAGE, "x", 1, NULL) ==
		    EMULATED_DMA_OK)
			s->transfers++;
	return NULL;
}

/* An operator who looks. */
static void *stress_describe(void *argument)
{
	struct stress *s = argument;

	while (!s->stop) {
		struct guest_description *description;
		struct explanation explanation;
		struct broker_status status;
		struct refusal refusal;

		if (!guest_describe(s->f->broker, NULL, s->f->guest, &description, &refusal))
			guest_description_free(description);
		nested_explain(s->f->broker, NULL, s->nested, IOVA, &explanation, &refusal);
		broker_status(s->f->broker, &status);
		usleep(500);
	}
	return NULL;
}

static void stress_update(struct stress *s, const struct memory_update_request *request)
{
	struct fixture *f = s->f;
	struct pool_lane *lane = broker_lane(f->broker, f->session, f->guest);
	struct memory_updated updated;
	struct refusal refusal;

	pool_lane_enter(lane);
	if (memory_update(f->broker, f->session, f->guest, request, NULL, &updated, &refusal))
		fail_msg("%s", refusal.message);
	pool_lane_leave(broker_pool(f->broker), lane);
	pool_lane_unref(lane);
}

/* Refreshes, DMA and operators go on while memory comes and goes; at the end all agree. */
static void test_refresh_beside_memory_updates(void **state)
{
	struct fixture *f = *state;
	struct stress s = {.f = f};
	struct memory_update_request *request = calloc(1, sizeof(*request));
	int fd = memfd_filled(MIB, NULL);
	pthread_t threads[4];

	s.function = function_bind(f, 1);
	assert_int_equal(emulated_dma_add_memory(s.function.dma, fd), 0);
	s.file = file_add(f, fd, true);
	s.root = table_root(f);
	for (uint64_t i = 0; i < 16; i++)
		table_map(f, s.root, IOVA + i * PAGE, HIGH + i * PAGE, true);
	s.nested = nested_make_s390(f, s.function.device, s.root, DMA_BASE, LAST, true).nested;
	pthread_create(&threads[0], NULL, stress_refresh, &s);
	pthread_create(&threads[1], NULL, stress_refresh, &s);
	pthread_create(&threads[2], NULL, stress_dma, &s);
	pthread_create(&threads[3], NULL, stress_describe, &s);
	for (unsigned int i = 0; i < 200; i++) {
		request->n_unmap = 1;
		request->unmap[0] = (struct iommu_range){HIGH, HIGH + MIB - 1};
		request->n_map = i % 2;
		request->map[0] = (struct memory_map_entry){s.file, 0, HIGH, MIB, 0, true};
		stress_update(&s, request);
	}
	while (!s.refreshes || !s.transfers)
		usleep(1000);
	s.stop = true;
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_ledger_is_held(f->broker);
	assert_int_equal(emulated_dma_write(s.function.dma, IOVA, "x", 1, NULL), EMULATED_DMA_OK);
	free(request);
	close(fd);
	function_free(&s.function);
}

/* A guest that goes under its refreshes: they end, with a verdict or NOT_FOUND. */
static void test_guest_goes_under_refreshes(void **state)
{
	struct fixture *f = *state;
	struct stress s = {.f = f};
	pthread_t threads[3];
	atomic_uint closed = 0;

	s.function = function_bind(f, 1);
	s.root = table_root(f);
	table_map(f, s.root, IOVA, PAGE, true);
	s.nested = nested_make_s390(f, s.function.device, s.root, DMA_BASE, LAST, true).nested;
	pthread_create(&threads[0], NULL, stress_refresh, &s);
	pthread_create(&threads[1], NULL, stress_refresh, &s);
	pthread_create(&threads[2], NULL, stress_describe, &s);
	while (s.refreshes < 100)
		usleep(100);
	session_close(f->session, on_closed, &closed);
	wait_for(&closed, 1);
	s.stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		assert_int_equal(host_usage(f, i).current, 0);
	function_free(&s.function);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_main_job),
		TEST(test_session_is_found_by_its_secret),
		TEST(test_session_is_its_process),
		TEST(test_session_of_a_dead_process),
		TEST(test_session_close),
		TEST(test_empty_session_close),
		TEST(test_session_ends_during_bind),
		TEST(test_refresh_beside_memory_updates),
		TEST(test_guest_goes_under_refreshes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
