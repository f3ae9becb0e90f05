/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The map of guest memory as a transaction: what is refused, what stays, what comes back. What a
 * device sees is judged by DMA through a managed nested domain. */
#include "broker_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HIGH  (1ull << 40) /* guest address of a second file */
#define OTHER (1 * MIB)    /* its length */

struct test {
	struct fixture f;
	int fd; /* of the second file */
	uint8_t *host;
	uint64_t file;
	struct function function;
	uint64_t nested;
	struct memory_update_request request;
	struct memory_updated updated;
};

static void test_init(struct test *t, const struct broker_settings *settings)
{
	memset(t, 0, sizeof(*t));
	fixture_init_guest(&t->f, settings);
	t->fd = memfd_filled(OTHER, &t->host);
	t->file = file_add(&t->f, t->fd, true);
	t->function.fd = -1;
}

static int setup(void **state)
{
	static struct test t;
	struct broker_settings settings = settings_default();

	test_init(&t, &settings);
	*state = &t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	function_free(&t->function);
	fixture_deinit(&t->f);
	munmap(t->host, OTHER);
	close(t->fd);
	return 0;
}

/* A managed domain in which IOVA DMA_BASE + x shows what is asked for. */
static void test_bind(struct test *t)
{
	struct nested_created created;

	t->function = function_bind(&t->f, 1);
	assert_int_equal(emulated_dma_add_memory(t->function.dma, t->fd), 0);
	created = nested_make_managed(&t->f, t->function.device, DMA_BASE, DMA_LAST, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	t->nested = created.nested;
}

static void test_show(struct test *t, uint64_t iova, uint64_t gpa, uint64_t length)
{
	const struct nested_entry entry = {iova, length, gpa, true, true};
	struct range_result result;
	size_t n;

	assert_done(&t->f, nested_update(t->f.broker, t->f.session, t->nested, &entry, 1, &result,
					 &n, &t->f.refusal));
	assert_int_equal(result.verdict, VERDICT_DONE);
	assert_int_equal(result.mapped, length / PAGE);
}

static enum emulated_dma_reason test_write(struct test *t, uint64_t iova, uint8_t value)
{
	return emulated_dma_write(t->function.dma, iova, &value, 1, NULL);
}

static void request_clear(struct test *t)
{
	memset(&t->request, 0, sizeof(t->request));
}

static struct memory_map_entry *request_map(struct test *t, uint64_t file, uint64_t offset,
					    uint64_t gpa, uint64_t length)
{
	struct memory_map_entry *map = &t->request.map[t->request.n_map++];

	*map = (struct memory_map_entry){file, offset, gpa, length, 0, true};
	return map;
}

static void request_unmap(struct test *t, uint64_t first, uint64_t last)
{
	t->request.unmap[t->request.n_unmap++] = (struct iommu_range){first, last};
}

static int update(struct test *t)
{
	return memory_update(t->f.broker, t->f.session, t->f.guest, &t->request, NULL, &t->updated,
			     &t->f.refusal);
}

static uint64_t pinned(struct test *t)
{
	return host_usage(&t->f, LEDGER_PINNED_BYTES).current;
}

static size_t region_count(struct test *t)
{
	struct guest_description *description;
	size_t n;

	assert_done(&t->f, guest_describe(t->f.broker, t->f.session, t->f.guest, &description,
					  &t->f.refusal));
	n = description->n_regions;
	assert_int_equal(description->summary.region_bytes, pinned(t));
	guest_description_free(description);
	return n;
}

/* ── refused ───────────────────────────────────────────────────────────────────────────────── */

struct bad_map {
	struct memory_map_entry map;
	const char *field;
};

static void test_bad_maps(void **state)
{
	struct test *t = *state;
	const struct bad_map bad[] = {
		{{t->file, 0, HIGH, 0, 0, true}, "map[1].length"},
		{{t->file, 0, HIGH, PAGE - 1, 0, true}, "map[1].length"},
		{{t->file, 0, HIGH + 1, PAGE, 0, true}, "map[1].gpa"},
		{{t->file, 1, HIGH, PAGE, 0, true}, "map[1].offset"},
		{{t->file, OTHER + PAGE, HIGH, PAGE, 0, true}, "map[1].offset"},
		{{t->file, OTHER, HIGH, PAGE, 0, true}, "map[1].length"},
		{{t->file, PAGE, HIGH, OTHER, 0, true}, "map[1].length"},
		{{t->file, PAGE, HIGH, ~(PAGE - 1), 0, true}, "map[1].length"},
		{{t->file, 0, -PAGE, PAGE, 0, true}, "map[1].length"},
		{{t->file, 0, -PAGE, 2 * PAGE, 0, true}, "map[1].length"},
		{{t->file, 0, HIGH, PAGE, 2048, true}, "map[1].granule"},
		{{t->file, 0, HIGH, PAGE, 3 * PAGE, true}, "map[1].granule"},
		{{t->file, 0, HIGH, PAGE, 2 * PAGE, true}, "map[1].granule"},
		{{t->file, PAGE, HIGH, 2 * PAGE, 2 * PAGE, true}, "map[1].granule"},
		{{t->file, 0, HIGH + PAGE, 2 * PAGE, 2 * PAGE, true}, "map[1].granule"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		request_clear(t);
		request_map(t, t->file, 0, HIGH + 64 * MIB, PAGE);
		t->request.map[t->request.n_map++] = bad[i].map;
		assert_refused(&t->f, update(t), REFUSAL_INVALID);
		assert_string_equal(t->f.refusal.field, bad[i].field);
		assert_int_equal(pinned(t), MEMORY_BYTES);
		assert_int_equal(region_count(t), 1);
	}
}

static void test_bad_unmaps(void **state)
{
	struct test *t = *state;
	static const struct {
		uint64_t first, last;
		const char *field;
	} bad[] = {
		{PAGE, 0, "unmap[0].last"},
		{1, PAGE - 1, "unmap[0].first"},
		{0, PAGE, "unmap[0].last"},
		{PAGE, UINT64_MAX, "unmap[0].first"}, /* the region is never cut */
		{0, MEMORY_BYTES / 2 - 1, "unmap[0].last"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		request_clear(t);
		request_unmap(t, bad[i].first, bad[i].last);
		assert_refused(&t->f, update(t), REFUSAL_INVALID);
		assert_string_equal(t->f.refusal.field, bad[i].field);
		assert_int_equal(pinned(t), MEMORY_BYTES);
	}
}

static void test_too_many_ranges(void **state)
{
	struct test *t = *state;

	request_clear(t);
	t->request.n_map = BROKER_MAP_RANGES_MAX + 1;
	assert_refused(&t->f, update(t), REFUSAL_INVALID);
	assert_string_equal(t->f.refusal.field, "map");
	request_clear(t);
	t->request.n_unmap = BROKER_MAP_RANGES_MAX + 1;
	assert_refused(&t->f, update(t), REFUSAL_INVALID);
	assert_string_equal(t->f.refusal.field, "unmap");
}

static void test_most_ranges(void **state)
{
	struct test *t = *state;

	request_clear(t);
	for (unsigned int i = 0; i < BROKER_MAP_RANGES_MAX; i++) {
		request_map(t, t->file, i % 256 * PAGE, HIGH + 2 * i * PAGE, PAGE);
		request_unmap(t, HIGH + 2 * i * PAGE, HIGH + 2 * i * PAGE + PAGE - 1);
	}
	assert_done(&t->f, update(t));
	assert_int_equal(region_count(t), 1 + BROKER_MAP_RANGES_MAX);
	t->request.n_map = 0;
	assert_done(&t->f, update(t));
	assert_int_equal(region_count(t), 1);
}

static void test_overlaps(void **state)
{
	struct test *t = *state;

	request_clear(t);
	request_map(t, t->file, 0, HIGH + PAGE, PAGE);
	request_map(t, t->file, 0, HIGH, 2 * PAGE);
	assert_refused(&t->f, update(t), REFUSAL_EXISTS);
	assert_string_equal(t->f.refusal.field, "map[0].gpa"); /* the one that comes later */
	request_clear(t);
	request_map(t, t->file, 0, HIGH, PAGE);
	request_map(t, t->file, 0, MEMORY_BYTES - PAGE, 2 * PAGE);
	assert_refused(&t->f, update(t), REFUSAL_EXISTS);
	assert_string_equal(t->f.refusal.field, "map[1].gpa");
	/* Neighbours do not overlap. */
	request_clear(t);
	request_map(t, t->file, 0, MEMORY_BYTES, PAGE);
	request_map(t, t->file, 0, MEMORY_BYTES + PAGE, PAGE);
	assert_done(&t->f, update(t));
}

static void test_read_only_file(void **state)
{
	struct test *t = *state;
	uint64_t file = file_add(&t->f, t->fd, false);
	uint8_t byte = 1;

	request_clear(t);
	request_map(t, file, 0, HIGH, PAGE);
	assert_refused(&t->f, update(t), REFUSAL_INVALID);
	assert_string_equal(t->f.refusal.field, "map[0].access");
	t->request.map[0].writable = false;
	assert_done(&t->f, update(t));
	test_bind(t);
	/* And neither a nested domain makes it writable. */
	{
		struct nested_entry entry = {DMA_BASE, PAGE, HIGH, true, true};
		struct range_result result;
		size_t n;

		assert_done(&t->f, nested_update(t->f.broker, t->f.session, t->nested, &entry, 1,
						 &result, &n, &t->f.refusal));
		assert_int_equal(result.verdict, VERDICT_OPERAND);
		entry.writable = false;
		assert_done(&t->f, nested_update(t->f.broker, t->f.session, t->nested, &entry, 1,
						 &result, &n, &t->f.refusal));
		assert_int_equal(result.verdict, VERDICT_DONE);
	}
	assert_int_equal(test_write(t, DMA_BASE, 1), EMULATED_DMA_READ_ONLY);
	assert_int_equal(emulated_dma_read(t->function.dma, DMA_BASE, &byte, 1, NULL),
			 EMULATED_DMA_OK);
}

/* ── done ──────────────────────────────────────────────────────────────────────────────────── */

static void test_pinned_only_with_a_device(void **state)
{
	struct test *t = *state;

	request_clear(t);
	request_map(t, t->file, 0, HIGH, PAGE);
	assert_done(&t->f, update(t));
	assert_false(t->updated.pinned);
	assert_int_equal(t->updated.region_bytes, MEMORY_BYTES + PAGE);
	test_bind(t);
	request_clear(t);
	request_map(t, t->file, PAGE, HIGH + PAGE, PAGE);
	assert_done(&t->f, update(t));
	assert_true(t->updated.pinned);
	test_show(t, DMA_BASE, HIGH, 2 * PAGE);
	assert_int_equal(test_write(t, DMA_BASE + PAGE + 5, 77), EMULATED_DMA_OK);
	assert_int_equal(t->host[PAGE + 5], 77);
}

static void test_unmap_takes_what_shows_it(void **state)
{
	struct test *t = *state;

	test_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 4 * PAGE);
	assert_done(&t->f, update(t));
	test_show(t, DMA_BASE, HIGH, 4 * PAGE);
	test_show(t, DMA_BASE + MIB, 0, PAGE);
	request_clear(t);
	request_unmap(t, HIGH, UINT64_MAX);
	assert_done(&t->f, update(t));
	assert_int_equal(t->updated.leaves_dropped, 4);
	assert_int_equal(test_write(t, DMA_BASE, 1), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(test_write(t, DMA_BASE + MIB, 1), EMULATED_DMA_OK); /* undisturbed */
	assert_int_equal(pinned(t), MEMORY_BYTES);
	/* Nothing there is no error. */
	assert_done(&t->f, update(t));
	assert_int_equal(t->updated.leaves_dropped, 0);
}

static void test_replace_at_the_same_address(void **state)
{
	struct test *t = *state;

	test_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, PAGE);
	assert_done(&t->f, update(t));
	test_show(t, DMA_BASE, HIGH, PAGE);
	request_clear(t);
	request_unmap(t, HIGH, HIGH + PAGE - 1);
	request_map(t, t->file, 7 * PAGE, HIGH, PAGE);
	assert_done(&t->f, update(t));
	assert_int_equal(t->updated.leaves_dropped, 1);
	assert_int_equal(t->updated.leaves_restored, 1);
	assert_int_equal(test_write(t, DMA_BASE, 9), EMULATED_DMA_OK);
	assert_int_equal(t->host[7 * PAGE], 9);
	assert_int_equal(t->host[0], 0);
}

/* Alike is alike in file, offset, address and access; it is not even touched. */
static void test_alike_stays_in_place(void **state)
{
	struct test *t = *state;

	test_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 4 * PAGE)->granule = PAGE;
	assert_done(&t->f, update(t));
	test_show(t, DMA_BASE, HIGH, 4 * PAGE);
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_MAP | IOMMU_EMULATED_UNMAP, EIO);
	request_clear(t);
	request_unmap(t, HIGH, HIGH + 4 * PAGE - 1);
	request_map(t, t->file, 0, HIGH, 4 * PAGE)->granule = 2 * PAGE;
	assert_done(&t->f, update(t));
	assert_int_equal(t->updated.leaves_dropped, 0);
	/* The same with a hole in the middle: only that goes. */
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_MAP, EIO);
	request_clear(t);
	request_unmap(t, 0, UINT64_MAX);
	request_map(t, t->f.memory_file, 0, 0, MEMORY_BYTES);
	request_map(t, t->file, 0, HIGH, 2 * PAGE);
	assert_done(&t->f, update(t));
	iommu_emulated_fail_every(t->f.backend, 0, 0);
	assert_int_equal(t->updated.leaves_dropped, 2);
	assert_int_equal(test_write(t, DMA_BASE + PAGE, 3), EMULATED_DMA_OK);
	assert_int_equal(test_write(t, DMA_BASE + 2 * PAGE, 3), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(pinned(t), MEMORY_BYTES + 2 * PAGE);
	/* Another access is not alike. */
	request_clear(t);
	request_unmap(t, HIGH, HIGH + 2 * PAGE - 1);
	request_map(t, t->file, 0, HIGH, 2 * PAGE)->writable = false;
	assert_done(&t->f, update(t));
	assert_int_equal(t->updated.leaves_dropped, 2);
	assert_int_equal(test_write(t, DMA_BASE + PAGE, 3), EMULATED_DMA_NOT_MAPPED);
}

/* A part that stays keeps its counters and its areas, what is new beside it is mapped. */
static void test_alike_in_part(void **state)
{
	struct test *t = *state;

	test_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 4 * PAGE)->granule = PAGE;
	assert_done(&t->f, update(t));
	test_show(t, DMA_BASE, HIGH, 4 * PAGE);
	request_clear(t);
	request_unmap(t, HIGH, HIGH + 4 * PAGE - 1);
	request_map(t, t->file, 2 * PAGE, HIGH + 2 * PAGE, 4 * PAGE)->granule = PAGE;
	assert_done(&t->f, update(t));
	assert_int_equal(t->updated.leaves_dropped, 2);
	assert_int_equal(test_write(t, DMA_BASE + PAGE, 1), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(test_write(t, DMA_BASE + 3 * PAGE, 8), EMULATED_DMA_OK);
	assert_int_equal(t->host[3 * PAGE], 8);
	test_show(t, DMA_BASE + 4 * PAGE, HIGH + 4 * PAGE, 2 * PAGE);
	assert_int_equal(test_write(t, DMA_BASE + 5 * PAGE, 8), EMULATED_DMA_OK);
	assert_int_equal(pinned(t), MEMORY_BYTES + 4 * PAGE);
	request_clear(t);
	request_unmap(t, HIGH + 3 * PAGE, HIGH + 5 * PAGE - 1); /* across the seam */
	assert_done(&t->f, update(t));
	assert_int_equal(pinned(t), MEMORY_BYTES + 2 * PAGE);
	assert_int_equal(test_write(t, DMA_BASE + 2 * PAGE, 8), EMULATED_DMA_OK);
	assert_int_equal(test_write(t, DMA_BASE + 5 * PAGE, 8), EMULATED_DMA_OK);
}

static void test_cut_on_the_granule(void **state)
{
	struct test *t = *state;

	test_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 8 * PAGE)->granule = 2 * PAGE;
	assert_done(&t->f, update(t));
	test_show(t, DMA_BASE, HIGH, 8 * PAGE);
	request_clear(t);
	request_unmap(t, HIGH + PAGE, HIGH + 4 * PAGE - 1);
	assert_refused(&t->f, update(t), REFUSAL_INVALID);
	request_clear(t);
	request_unmap(t, HIGH + 2 * PAGE, HIGH + 4 * PAGE - 1);
	assert_done(&t->f, update(t));
	assert_int_equal(t->updated.leaves_dropped, 2);
	assert_int_equal(region_count(t), 3);
	assert_int_equal(test_write(t, DMA_BASE + PAGE, 4), EMULATED_DMA_OK);
	assert_int_equal(test_write(t, DMA_BASE + 2 * PAGE, 4), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(test_write(t, DMA_BASE + 4 * PAGE, 4), EMULATED_DMA_OK);
	assert_int_equal(t->host[4 * PAGE], 4);
}

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
	test_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 2 * PAGE);
	assert_done(&t->f, update(t));
	test_show(t, DMA_BASE, HIGH, 2 * PAGE);
}

static void test_failed_replace_is_undone(void **state)
{
	struct test *t = *state;

	replace_prepare(t);
	for (unsigned int n = 1; n <= 2; n++) {
		replace_fails(t);
		iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_MAP, n, EIO);
		assert_refused(&t->f, update(t), REFUSAL_HOST);
		assert_int_equal(t->f.refusal.host_errno, EIO);
		assert_int_equal(pinned(t), MEMORY_BYTES + 2 * PAGE);
		assert_int_equal(region_count(t), 2);
		t->host[PAGE] = 0;
		assert_int_equal(test_write(t, DMA_BASE + PAGE, 6), EMULATED_DMA_OK);
		assert_int_equal(t->host[PAGE], 6);
	}
	replace_fails(t);
	assert_done(&t->f, update(t));
	assert_int_equal(pinned(t), MEMORY_BYTES + 5 * PAGE);
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
	assert_refused(&t->f, update(t), REFUSAL_HOST);
	iommu_emulated_fail_every(t->f.backend, 0, 0);
	assert_non_null(strstr(t->f.refusal.message, "8192 bytes of guest memory"));
	assert_int_equal(pinned(t), MEMORY_BYTES);
	assert_int_equal(region_count(t), 1);
	assert_int_equal(test_write(t, DMA_BASE, 6), EMULATED_DMA_NOT_MAPPED);
	assert_true(wakes > 0);
	assert_int_equal(event_watch_next(watch, &event), 1);
	assert_int_equal(event.kind, EVENT_MEMORY_LOST);
	assert_int_equal(event.gpa, HIGH);
	event_watch_free(watch);
	/* What was lost can be had again. */
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 2 * PAGE);
	assert_done(&t->f, update(t));
	assert_int_equal(test_write(t, DMA_BASE, 6), EMULATED_DMA_OK);
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

	test_bind(t);
	request_clear(t);
	request_map(t, t->f.memory_file, 0, HIGH, 8 * MIB);
	assert_refused(&t->f,
		       memory_update(t->f.broker, t->f.session, t->f.guest, &t->request,
				     &cancelling.operation, &t->updated, &t->f.refusal),
		       REFUSAL_CANCELLED);
	assert_int_equal(cancelling.calls, 1);
	assert_int_equal(cancelling.done, 1 * MIB); /* a slice */
	assert_int_equal(cancelling.total, 8 * MIB);
	assert_int_equal(pinned(t), MEMORY_BYTES);
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

	test_bind(t);
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

	test_bind(t);
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, PAGE);
	low = (struct rlimit){64 * KIB, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &low), 0);
	iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_MAP, 1, ENOMEM);
	assert_refused(&t->f, update(t), REFUSAL_HOST_MEMLOCK);
	low.rlim_cur = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &low), 0);
	if (low.rlim_cur > MEMORY_BYTES + PAGE) {
		iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_MAP, 1, ENOMEM);
		assert_refused(&t->f, update(t), REFUSAL_HOST_RESOURCES);
	}
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
	assert_int_equal(pinned(t), MEMORY_BYTES);
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
	assert_done(&t->f, update(t));
	assert_int_equal(looks, 1);
	looks = 0;
	t->function = function_bind(&t->f, 1);
	assert_int_equal(looks, 2 * 2);
	request_clear(t);
	for (uint64_t i = 0; i < 64; i++)
		request_map(t, i % 2 ? t->file : t->f.memory_file, (127 - i) * PAGE,
			    2 * HIGH + 2 * i * PAGE, PAGE);
	looks = 0;
	assert_done(&t->f, update(t));
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
	assert_int_equal(pinned(t), MEMORY_BYTES);
	assert_done(&t->f, update(t));
	assert_int_equal(touches, 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bad_maps),
		TEST(test_bad_unmaps),
		TEST(test_too_many_ranges),
		TEST(test_most_ranges),
		TEST(test_overlaps),
		TEST(test_read_only_file),
		TEST(test_pinned_only_with_a_device),
		TEST(test_unmap_takes_what_shows_it),
		TEST(test_replace_at_the_same_address),
		TEST(test_alike_stays_in_place),
		TEST(test_alike_in_part),
		TEST(test_cut_on_the_granule),
		TEST(test_failed_replace_is_undone),
		TEST(test_lost_when_it_cannot_be_put_back),
		TEST(test_cancel_between_slices),
		TEST(test_progress_with_a_small_granule),
		TEST(test_memlock_or_memory),
		TEST(test_a_file_is_looked_at_once),
		TEST(test_cancel_while_populating),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
