/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The descriptor store: names, the count before the manager's limit, and barriers. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "notify_manager.h"
#include "state/fd_store.h"
#include "util/fd.h"

#define THREADS   8
#define ROUNDS    100
#define FILES_MAX 64

static struct manager *manager;
static struct fd_store *store;
static int file, files[FILES_MAX], n_files;

static int setup(void **state)
{
	(void)state;
	manager = manager_start(4);
	file = memfd_create("something", MFD_CLOEXEC);
	return fd_store_new(&store, 4);
}

static int teardown(void **state)
{
	(void)state;
	store = fd_store_free(store);
	close(file);
	while (n_files)
		close(files[--n_files]);
	manager_stop(manager);
	return 0;
}

static struct fd_name memory(uint32_t guest, uint32_t index)
{
	return (struct fd_name){.guest = guest, .kind = FD_MEMORY, .index = index};
}

/* Each of these is of an open file of its own. */
static int file_new(void)
{
	assert_true(n_files < FILES_MAX);
	files[n_files] = memfd_create("of its own", MFD_CLOEXEC);
	assert_true(files[n_files] >= 0);
	return files[n_files++];
}

static int push(uint32_t guest, uint32_t index)
{
	const struct fd_name name = memory(guest, index);

	return fd_store_push(store, &name, file_new());
}

static void drop(uint32_t guest, uint32_t index)
{
	const struct fd_name name = memory(guest, index);

	fd_store_remove(store, &name);
}

static void barrier(void)
{
	assert_int_equal(fd_store_barrier(store), 0);
}

/* ── names ─────────────────────────────────────────────────────────────────────────────────── */

static void test_names(void **state)
{
	static const char kinds[] = "simdrb";
	static const uint32_t numbers[] = {0, 1, 9, 10, 35, 36, 37, 1295, 1296, 46655};

	(void)state;
	for (size_t i = 0; i < 10 * 10 * 6; i++) {
		const struct fd_name name = {
			.guest = numbers[i / 60],
			.kind = (enum fd_kind)kinds[i % 6],
			.index = numbers[i / 6 % 10],
		};
		char text[FD_NAME_BYTES];
		struct fd_name got;

		fd_name_format(&name, text);
		assert_true(strlen(text) < FD_NAME_BYTES);
		assert_true(fd_name_parse(text, &got));
		assert_int_equal(got.guest, name.guest);
		assert_int_equal(got.kind, name.kind);
		assert_int_equal(got.index, name.index);
	}
}

static void test_all_guests_have_names_of_their_own(void **state)
{
	char former[FD_NAME_BYTES] = "";

	(void)state;
	for (uint32_t i = 0; i < FD_NAME_GUESTS_MAX; i++) {
		const struct fd_name name = {.guest = i, .kind = FD_STATE};
		char text[FD_NAME_BYTES];
		struct fd_name got;

		fd_name_format(&name, text);
		/* longer, or as long and greater: they are in order, so no two are alike */
		assert_true(strlen(text) > strlen(former) || strcmp(text, former) > 0);
		assert_true(fd_name_parse(text, &got) && got.guest == i);
		strcpy(former, text);
	}
	assert_string_equal(former, "ZZZs0");
}

static void test_foreign_names(void **state)
{
	static const char *const names[] = {
		"",     "broker", "fd",     "admin",  "metrics",  "stored", "unknown",
		"0",    "s0",     "0s",     "00s0",   "0s00",     "01s0",   "0s01",
		"0S0",  "0x0",    "1000s0", "0s1000", "0s0 ",     " 0s0",   "0s0\n",
		"0s-1", "as0",    "0sa",    "0s0s0",  "ABCsABCD", "0ss0",   "0\xc3s0",
	};
	struct fd_name got = {.guest = 77};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (fd_name_parse(names[i], &got))
			fail_msg("'%s' is taken for one of ours", names[i]);
	assert_int_equal(got.guest, 77);
}

/* ── storing ───────────────────────────────────────────────────────────────────────────────── */

static void test_push_and_remove(void **state)
{
	int other = memfd_create("other", MFD_CLOEXEC);
	const struct fd_name name = {.guest = 36, .kind = FD_DEVICE, .index = 46655};

	(void)state;
	assert_true(fd_store_keeps(store));
	assert_int_equal(fd_store_max(store), 4);
	assert_int_equal(push(1, 0), 0);
	assert_int_equal(fd_store_push(store, &name, other), 0);
	assert_int_equal(fd_store_count(store), 2);
	barrier();
	assert_int_equal(manager_stored(manager), 2);
	assert_true(manager_has(manager, "1m0", files[0]));
	assert_true(manager_has(manager, "10dZZZ", other));
	drop(1, 0);
	assert_int_equal(fd_store_count(store), 1);
	barrier();
	assert_int_equal(manager_stored(manager), 1);
	assert_false(manager_knows(manager, "1m0"));
	close(other);
}

static void test_name_is_stored_once(void **state)
{
	(void)state;
	assert_int_equal(push(1, 0), 0);
	assert_int_equal(push(1, 0), -EEXIST);
	assert_int_equal(fd_store_count(store), 1);
	drop(1, 0);
	assert_int_equal(push(1, 0), 0);
	barrier();
	assert_int_equal(manager_stored(manager), 1);
}

/* The manager complains of what it never had: nothing is sent. */
static void test_removing_nothing(void **state)
{
	(void)state;
	drop(1, 0);
	assert_int_equal(fd_store_count(store), 0);
	barrier();
}

/* The manager would keep one of the two. A file that is opened twice is fine. */
static void test_open_file_is_stored_once(void **state)
{
	struct fd_name name = memory(1, 0), device = {.guest = 1, .kind = FD_DEVICE};
	int twice, again = fd_reopen(file);

	(void)state;
	assert_true(again >= 0);
	twice = fd_duplicate(file);
	assert_int_equal(fd_store_push(store, &name, file), 0);
	name.guest = 2;
	assert_int_equal(fd_store_push(store, &name, twice), -ENOTUNIQ);
	assert_int_equal(fd_store_count(store), 1);
	assert_int_equal(fd_store_push(store, &name, again), 0);
	name.guest = 3;
	assert_int_equal(fd_store_push(store, &name, again), -ENOTUNIQ);
	assert_int_equal(fd_store_push(store, &device, again), 0);
	name.guest = 1;
	fd_store_remove(store, &name);
	assert_int_equal(fd_store_push(store, &name, twice), 0);
	barrier();
	assert_int_equal(manager_stored(manager), 3);
	close(twice);
	close(again);
}

static void test_reopened_file_has_the_same_access(void **state)
{
	int read_only = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), again = fd_reopen(read_only);

	(void)state;
	assert_int_equal(fcntl(again, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_true(fcntl(again, F_GETFD) & FD_CLOEXEC);
	close(again);
	again = fd_reopen(file);
	assert_int_equal(fcntl(again, F_GETFL) & O_ACCMODE, O_RDWR);
	close(again);
	close(read_only);
	assert_int_equal(fd_reopen(-1), -EBADF);
}

static void test_full_store(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(push(1, i), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(push(1, 4), -ENOSPC);
		assert_int_equal(fd_store_count(store), 4);
	}
	barrier();
	assert_int_equal(manager_stored(manager), 4);
	assert_int_equal(manager_dropped(manager), 0);
	drop(1, 2);
	assert_int_equal(push(1, 4), 0);
	assert_int_equal(push(1, 5), -ENOSPC);
	barrier();
	assert_int_equal(manager_stored(manager), 4);
	assert_int_equal(manager_dropped(manager), 0);
	assert_true(manager_knows(manager, "1m4"));
	assert_false(manager_knows(manager, "1m2"));
}

static void test_adopted_ones_count(void **state)
{
	struct fd_name name = memory(1, 0);

	(void)state;
	assert_int_equal(fd_store_adopted(store, &name, file_new()), 0);
	assert_int_equal(fd_store_adopted(store, &name, file_new()), -EEXIST);
	assert_int_equal(push(1, 0), -EEXIST);
	for (name.index = 1; name.index < 6; name.index++)
		assert_int_equal(fd_store_adopted(store, &name, file_new()), 0);
	assert_int_equal(push(1, 6), -ENOSPC);
	assert_int_equal(fd_store_count(store), 6);
	barrier();
	assert_int_equal(manager_stored(manager), 0);
}

/* All names make one string of a limited length: long ones fill it before the maximum is reached.
 */
static void test_names_are_counted_by_length(void **state)
{
	const size_t bytes_max = 128 * 1024 - 1024;
	struct fd_name name = {.guest = FD_NAME_GUESTS_MAX - 1, .kind = FD_MEMORY};
	struct fd_store *large;
	size_t n = 0;

	(void)state;
	assert_int_equal(fd_store_new(&large, 32768), 0);
	for (name.index = FD_NAME_INDICES_MAX - 1; n < bytes_max / 8 - 1; name.index--, n++)
		assert_int_equal(fd_store_adopted(large, &name, -1), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fd_store_push(large, &name, file), 0);
		name.index--;
		assert_int_equal(fd_store_push(large, &name, file), -ENOSPC);
		name.index++;
		fd_store_remove(large, &name);
	}
	assert_int_equal(fd_store_count(large), n);
	fd_store_free(large);
}

/* What is none of ours is removed by its name, whatever that is. */
static void test_removing_what_is_foreign(void **state)
{
	const struct fd_name name = memory(1, 0);
	struct fd_store *other;

	(void)state;
	assert_int_equal(push(1, 0), 0);
	assert_int_equal(fd_store_new(&other, 0), 0);
	assert_int_equal(fd_store_adopted(other, &name, file), 0);
	fd_store_remove(other, &name);
	barrier();
	assert_true(manager_knows(manager, "1m0"));
	fd_store_remove_foreign("1m0");
	barrier();
	assert_int_equal(manager_stored(manager), 0);
	fd_store_free(other);
}

/* Without a manager, or with one that stores nothing, all succeeds. */
static void assert_nothing_kept(size_t max)
{
	const struct fd_name name = memory(1, 0);
	struct fd_store *none;

	assert_int_equal(fd_store_new(&none, max), 0);
	assert_false(fd_store_keeps(none));
	assert_int_equal(fd_store_push(none, &name, file), 0);
	assert_int_equal(fd_store_push(none, &name, file), 0);
	assert_int_equal(fd_store_adopted(none, &name, file), 0);
	assert_int_equal(fd_store_count(none), 0);
	fd_store_remove(none, &name);
	assert_int_equal(fd_store_barrier(none), 0);
	assert_null(fd_store_free(none));
}

static void test_nothing_kept(void **state)
{
	char *address = strdup(getenv("NOTIFY_SOCKET"));

	(void)state;
	assert_nothing_kept(0);
	unsetenv("NOTIFY_SOCKET");
	assert_nothing_kept(4);
	setenv("NOTIFY_SOCKET", address, 1);
	free(address);
	assert_int_equal(manager_stored(manager), 0);
	assert_int_equal(manager_barriers(manager), 0);
	assert_false(fd_store_keeps(NULL));
	assert_null(fd_store_free(NULL));
	assert_int_equal(fd_store_barrier(NULL), 0);
}

/* What was not sent is not counted; what cannot be removed still is. */
static void test_manager_that_is_gone(void **state)
{
	char *address = strdup(getenv("NOTIFY_SOCKET"));

	(void)state;
	assert_int_equal(push(1, 0), 0);
	setenv("NOTIFY_SOCKET", "@there is nobody at this address", 1);
	assert_int_equal(push(1, 1), -ECONNREFUSED);
	assert_int_equal(fd_store_count(store), 1);
	drop(1, 0);
	assert_int_equal(fd_store_count(store), 1);
	assert_int_equal(fd_store_barrier(store), -ECONNREFUSED);
	setenv("NOTIFY_SOCKET", address, 1);
	free(address);
	assert_int_equal(push(1, 1), 0);
	drop(1, 0);
	barrier();
	assert_int_equal(manager_stored(manager), 1);
}

/* ── barrier ───────────────────────────────────────────────────────────────────────────────── */

struct waiter {
	pthread_t thread;
	uint32_t guest;
	int status;
};

static atomic_int under_way, ended;

static void *barrier_run(void *context)
{
	struct waiter *waiter = context;

	atomic_fetch_add(&under_way, 1);
	waiter->status = fd_store_barrier(store);
	atomic_fetch_add(&ended, 1);
	return NULL;
}

static void waiters_start(struct waiter *waiters, int n)
{
	atomic_store(&under_way, 0);
	atomic_store(&ended, 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(pthread_create(&waiters[i].thread, NULL, barrier_run, &waiters[i]),
				 0);
	while (atomic_load(&under_way) < n)
		usleep(1000);
}

static void waiters_join(struct waiter *waiters, int n, int status)
{
	for (int i = 0; i < n; i++) {
		pthread_join(waiters[i].thread, NULL);
		assert_int_equal(waiters[i].status, status);
	}
}

static void test_barrier_waits_for_the_manager(void **state)
{
	struct waiter waiter;

	(void)state;
	manager_pause(manager);
	assert_int_equal(push(1, 0), 0);
	waiters_start(&waiter, 1);
	usleep(20000);
	assert_int_equal(atomic_load(&ended), 0);
	manager_go_on(manager);
	waiters_join(&waiter, 1, 0);
	assert_true(manager_knows(manager, "1m0"));
}

/* One is under way; all others wait for the next one together. How many make it before the first
 * ends is the scheduler's affair: in some round they do. */
static void test_barriers_are_shared(void **state)
{
	struct waiter waiters[THREADS];
	bool shared = false;

	(void)state;
	for (int round = 0; round < ROUNDS && !shared; round++) {
		const size_t before = manager_barriers(manager);
		size_t n;

		manager_hold_barriers(manager, true);
		waiters_start(waiters, THREADS);
		usleep(1000u * (unsigned int)round);
		/* the first one's waiter cannot be back before it is released */
		assert_int_equal(atomic_load(&ended), 0);
		manager_hold_barriers(manager, false);
		waiters_join(waiters, THREADS, 0);
		n = manager_barriers(manager) - before;
		assert_in_range(n, 1, THREADS);
		shared = n == 2;
	}
	assert_true(shared);
}

/* Who comes while a barrier is under way is not content with that one. */
static void test_late_caller_gets_another_barrier(void **state)
{
	struct waiter first, second;

	(void)state;
	manager_hold_barriers(manager, true);
	waiters_start(&first, 1);
	manager_wait_for_barriers(manager, 1);
	waiters_start(&second, 1);
	usleep(20000);
	assert_int_equal(manager_barriers(manager), 1);
	manager_hold_barriers(manager, false);
	waiters_join(&first, 1, 0);
	waiters_join(&second, 1, 0);
	assert_int_equal(manager_barriers(manager), 2);
}

static void *push_run(void *context)
{
	struct waiter *waiter = context;
	const struct fd_name name = memory(waiter->guest, 0);
	int own = memfd_create("own", MFD_CLOEXEC);
	char text[FD_NAME_BYTES];

	fd_name_format(&name, text);
	for (int round = 0; round < ROUNDS; round++) {
		waiter->status |= fd_store_push(store, &name, own);
		waiter->status |= fd_store_barrier(store);
		waiter->status |= !manager_knows(manager, text);
		fd_store_remove(store, &name);
		waiter->status |= fd_store_barrier(store);
		waiter->status |= manager_knows(manager, text);
	}
	close(own);
	return NULL;
}

/* As many threads as there is room: none is ever refused, and the manager drops nothing. */
static void test_threads(void **state)
{
	struct waiter waiters[4] = {{0}, {.guest = 1}, {.guest = 2}, {.guest = 3}};

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&waiters[i].thread, NULL, push_run, &waiters[i]),
				 0);
	waiters_join(waiters, 4, 0);
	assert_int_equal(manager_dropped(manager), 0);
	assert_int_equal(manager_stored(manager), 0);
	assert_int_equal(fd_store_count(store), 0);
}

static void *crowd_run(void *context)
{
	struct waiter *waiter = context;
	const struct fd_name name = memory(waiter->guest, 0);
	int own = memfd_create("own", MFD_CLOEXEC), status;
	char text[FD_NAME_BYTES];

	fd_name_format(&name, text);
	for (int round = 0; round < ROUNDS; round++) {
		while ((status = fd_store_push(store, &name, own)) == -ENOSPC)
			usleep(50);
		waiter->status |= status;
		if (round % 8 == 0) {
			waiter->status |= fd_store_barrier(store);
			waiter->status |= !manager_knows(manager, text);
		}
		fd_store_remove(store, &name);
	}
	close(own);
	return NULL;
}

/* More threads than there is room: what is removed makes room here only when the manager has been
 * told, so that it never gets one too many. */
static void test_threads_at_the_limit(void **state)
{
	struct waiter waiters[THREADS] = {0};

	(void)state;
	for (uint32_t i = 0; i < THREADS; i++) {
		waiters[i].guest = i;
		assert_int_equal(pthread_create(&waiters[i].thread, NULL, crowd_run, &waiters[i]),
				 0);
	}
	waiters_join(waiters, THREADS, 0);
	barrier();
	assert_int_equal(manager_dropped(manager), 0);
	assert_int_equal(manager_stored(manager), 0);
	assert_int_equal(fd_store_count(store), 0);
}

/* A manager that hangs is told apart from one that has done it; later it may have. */
static void test_manager_that_hangs(void **state)
{
	struct waiter waiters[2];

	(void)state;
	manager_hold_barriers(manager, true);
	waiters_start(waiters, 2);
	waiters_join(waiters, 2, -ETIMEDOUT);
	manager_hold_barriers(manager, false);
	barrier();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_names),
		TEST(test_all_guests_have_names_of_their_own),
		TEST(test_foreign_names),
		TEST(test_push_and_remove),
		TEST(test_name_is_stored_once),
		TEST(test_removing_nothing),
		TEST(test_open_file_is_stored_once),
		TEST(test_reopened_file_has_the_same_access),
		TEST(test_full_store),
		TEST(test_adopted_ones_count),
		TEST(test_names_are_counted_by_length),
		TEST(test_removing_what_is_foreign),
		TEST(test_nothing_kept),
		TEST(test_manager_that_is_gone),
		TEST(test_barrier_waits_for_the_manager),
		TEST(test_barriers_are_shared),
		TEST(test_late_caller_gets_another_barrier),
		TEST(test_threads),
		TEST(test_threads_at_the_limit),
		TEST(test_manager_that_hangs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
