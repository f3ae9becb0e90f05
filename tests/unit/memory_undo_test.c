/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The map of guest memory as a transaction: what fails half way, or is cancelled, was never begun.
 */
#include "memory_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker_invariant.h"

/* ── put back ──────────────────────────────────────────────────────────────────────────────── */

static void replace_fails(struct test *t)
{
	request_clear(t);
	request_unmap(t, HIGH, HIGH + 2 * PAGE - 1);
	request_map(t, t->file, 8 * PAGE, HIGH, PAGE);
	request_map(t, t->file, 9 * PAGE, HIGH + PAGE, 4 * PAGE);
}

static void replace_prepare(struct test *t)
{
	memory_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 2 * PAGE);
	assert_done(&t->f, request_run(t));
	memory_show(t, DMA_BASE, HIGH, 2 * PAGE);
}

static void test_failed_replace_is_undone(void **state)
{
	struct test *t = *state;

	replace_prepare(t);
	for (unsigned int n = 1; n <= 2; n++) {
		replace_fails(t);
		iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_MAP, n, EIO);
		assert_refused(&t->f, request_run(t), REFUSAL_HOST);
		assert_int_equal(t->f.refusal.host_errno, EIO);
		assert_int_equal(pinned_bytes(t), MEMORY_BYTES + 2 * PAGE);
		assert_int_equal(region_count(t), 2);
		t->host[PAGE] = 0;
		assert_int_equal(memory_write(t, DMA_BASE + PAGE, 6), EMULATED_DMA_OK);
		assert_int_equal(t->host[PAGE], 6);
	}
	replace_fails(t);
	assert_done(&t->f, request_run(t));
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES + 5 * PAGE);
}

static void on_wake(void *context)
{
	++*(unsigned int *)context;
}

static void test_lost_when_it_cannot_be_put_back(void **state)
{
	struct test *t = *state;
	struct event_watch *watch;
	struct event event;
	unsigned int wakes = 0;

	replace_prepare(t);
	assert_done(&t->f, event_watch_new(&watch, t->f.broker, t->f.session, t->f.guest, 0,
					   on_wake, &wakes, &t->f.refusal));
	replace_fails(t);
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_MAP, EIO);
	assert_refused(&t->f, request_run(t), REFUSAL_HOST);
	iommu_emulated_fail_every(t->f.backend, 0, 0);
	assert_non_null(strstr(t->f.refusal.message, "8192 bytes of guest memory"));
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES);
	assert_int_equal(region_count(t), 1);
	assert_int_equal(memory_write(t, DMA_BASE, 6), EMULATED_DMA_NOT_MAPPED);
	assert_true(wakes > 0);
	assert_int_equal(event_watch_next(watch, &event), 1);
	assert_int_equal(event.kind, EVENT_MEMORY_LOST);
	assert_int_equal(event.gpa, HIGH);
	event_watch_free(watch);
	/* What was lost can be had again. */
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 2 * PAGE);
	assert_done(&t->f, request_run(t));
	assert_int_equal(memory_write(t, DMA_BASE, 6), EMULATED_DMA_OK);
}

struct cancelling {
	struct operation operation;
	unsigned int calls;
	uint64_t done, total;
	bool cancel;
};

static void on_progress(struct operation *operation, uint64_t done_bytes, uint64_t total_bytes)
{
	struct cancelling *c = (struct cancelling *)operation;

	assert_true(done_bytes > c->done);
	c->calls++;
	c->done = done_bytes;
	c->total = total_bytes;
	operation->cancelled = c->cancel;
}

static void test_cancel_between_slices(void **state)
{
	struct test *t = *state;
	struct cancelling cancelling = {.operation = {.progress = on_progress}, .cancel = true};

	memory_bind(t);
	request_clear(t);
	request_map(t, t->f.memory_file, 0, HIGH, 8 * MIB);
	assert_refused(&t->f,
		       memory_update(t->f.broker, t->f.session, t->f.guest, &t->request,
				     &cancelling.operation, &t->updated, &t->f.refusal),
		       REFUSAL_CANCELLED);
	assert_int_equal(cancelling.calls, 1);
	assert_int_equal(cancelling.done, 1 * MIB); /* a slice */
	assert_int_equal(cancelling.total, 8 * MIB);
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES);
	/* Nothing of it is left: it maps as if it had never been. */
	cancelling = (struct cancelling){.operation = {.progress = on_progress}};
	assert_done(&t->f, memory_update(t->f.broker, t->f.session, t->f.guest, &t->request,
					 &cancelling.operation, &t->updated, &t->f.refusal));
	assert_int_equal(cancelling.calls, 8);
	assert_int_equal(cancelling.done, cancelling.total);
}

/* Small areas: progress comes once a slice all the same. */
static void test_progress_with_a_small_granule(void **state)
{
	struct test *t = *state;
	struct cancelling cancelling = {.operation = {.progress = on_progress}};

	memory_bind(t);
	request_clear(t);
	request_map(t, t->f.memory_file, 0, HIGH, 4 * MIB)->granule = 64 * KIB;
	assert_done(&t->f, memory_update(t->f.broker, t->f.session, t->f.guest, &t->request,
					 &cancelling.operation, &t->updated, &t->f.refusal));
	assert_int_equal(cancelling.calls, 4);
}

/* ENOMEM of the kernel can be either; which one is told apart. */
static void test_memlock_or_memory(void **state)
{
	struct test *t = *state;
	struct rlimit before, low;

	memory_bind(t);
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, PAGE);
	low = (struct rlimit){64 * KIB, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &low), 0);
	iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_MAP, 1, ENOMEM);
	assert_refused(&t->f, request_run(t), REFUSAL_HOST_MEMLOCK);
	low.rlim_cur = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &low), 0);
	if (low.rlim_cur > MEMORY_BYTES + PAGE) {
		iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_MAP, 1, ENOMEM);
		assert_refused(&t->f, request_run(t), REFUSAL_HOST_RESOURCES);
	}
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES);
}

/* ── what a look at a file costs ───────────────────────────────────────────────────────────── */

static unsigned int looks, touches;
static struct operation *cancel_at_touch;

/* In place of the C library's, for the broker too. */
off_t lseek(int fd, off_t offset, int whence)
{
	looks += whence == SEEK_HOLE;
	return syscall(SYS_lseek, fd, offset, whence);
}

int madvise(void *address, size_t bytes, int advice)
{
	touches++;
	if (cancel_at_touch)
		cancel_at_touch->cancelled = true;
	return (int)syscall(SYS_madvise, address, bytes, advice);
}

/* The kernel looks for a hole up to the end of the file, whatever was asked: once for all regions
 * of a file then, before it is pinned and after, in whatever order a client names them. */
static void test_a_file_is_looked_at_once(void **state)
{
	struct test *t = *state;

	request_clear(t);
	for (uint64_t i = 0; i < 64; i++)
		request_map(t, t->file, (63 - i) * PAGE, HIGH + 2 * i * PAGE, PAGE);
	looks = 0;
	assert_done(&t->f, request_run(t));
	assert_int_equal(looks, 1);
	looks = 0;
	t->function = function_bind(&t->f, 1);
	assert_int_equal(looks, 2 * 2);
	request_clear(t);
	for (uint64_t i = 0; i < 64; i++)
		request_map(t, i % 2 ? t->file : t->f.memory_file, (127 - i) * PAGE,
			    2 * HIGH + 2 * i * PAGE, PAGE);
	looks = 0;
	assert_done(&t->f, request_run(t));
	assert_int_equal(looks, 2 * 2);
}

/* Allocated and never written: clearing it is work that a client can make long. */
static void test_cancel_while_populating(void **state)
{
	struct test *t = *state;
	struct operation operation = {.cancelled = false};
	int fd = memfd_create("allocated", MFD_CLOEXEC);
	uint64_t file;

	assert_true(fd >= 0);
	assert_int_equal(posix_fallocate(fd, 0, 4 * MIB), 0);
	file = file_add(&t->f, fd, true);
	close(fd);
	request_clear(t);
	request_map(t, file, 0, HIGH, 4 * MIB);
	cancel_at_touch = &operation;
	touches = 0;
	assert_refused(&t->f,
		       memory_update(t->f.broker, t->f.session, t->f.guest, &t->request, &operation,
				     &t->updated, &t->f.refusal),
		       REFUSAL_CANCELLED);
	cancel_at_touch = NULL;
	assert_int_equal(touches, 1); /* a slice is 1 MiB */
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES);
	assert_done(&t->f, request_run(t));
	assert_int_equal(touches, 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, memory_setup, memory_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_failed_replace_is_undone), TEST(test_lost_when_it_cannot_be_put_back),
		TEST(test_cancel_between_slices),    TEST(test_progress_with_a_small_granule),
		TEST(test_memlock_or_memory),        TEST(test_a_file_is_looked_at_once),
		TEST(test_cancel_while_populating),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
