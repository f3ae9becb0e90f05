/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The map of guest memory: what is refused, what is done, what stays in place. */
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
		assert_refused(&t->f, request_run(t), REFUSAL_INVALID);
		assert_string_equal(t->f.refusal.field, bad[i].field);
		assert_int_equal(pinned_bytes(t), MEMORY_BYTES);
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
		assert_refused(&t->f, request_run(t), REFUSAL_INVALID);
		assert_string_equal(t->f.refusal.field, bad[i].field);
		assert_int_equal(pinned_bytes(t), MEMORY_BYTES);
	}
}

static void test_too_many_ranges(void **state)
{
	struct test *t = *state;

	request_clear(t);
	t->request.n_map = BROKER_MAP_RANGES_MAX + 1;
	assert_refused(&t->f, request_run(t), REFUSAL_INVALID);
	assert_string_equal(t->f.refusal.field, "map");
	request_clear(t);
	t->request.n_unmap = BROKER_MAP_RANGES_MAX + 1;
	assert_refused(&t->f, request_run(t), REFUSAL_INVALID);
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
	assert_done(&t->f, request_run(t));
	assert_int_equal(region_count(t), 1 + BROKER_MAP_RANGES_MAX);
	t->request.n_map = 0;
	assert_done(&t->f, request_run(t));
	assert_int_equal(region_count(t), 1);
}

static void test_overlaps(void **state)
{
	struct test *t = *state;

	request_clear(t);
	request_map(t, t->file, 0, HIGH + PAGE, PAGE);
	request_map(t, t->file, 0, HIGH, 2 * PAGE);
	assert_refused(&t->f, request_run(t), REFUSAL_EXISTS);
	assert_string_equal(t->f.refusal.field, "map[0].gpa"); /* the one that comes later */
	request_clear(t);
	request_map(t, t->file, 0, HIGH, PAGE);
	request_map(t, t->file, 0, MEMORY_BYTES - PAGE, 2 * PAGE);
	assert_refused(&t->f, request_run(t), REFUSAL_EXISTS);
	assert_string_equal(t->f.refusal.field, "map[1].gpa");
	/* Neighbours do not overlap. */
	request_clear(t);
	request_map(t, t->file, 0, MEMORY_BYTES, PAGE);
	request_map(t, t->file, 0, MEMORY_BYTES + PAGE, PAGE);
	assert_done(&t->f, request_run(t));
}

static void test_read_only_file(void **state)
{
	struct test *t = *state;
	uint64_t file = file_add(&t->f, t->fd, false);
	uint8_t byte = 1;

	request_clear(t);
	request_map(t, file, 0, HIGH, PAGE);
	assert_refused(&t->f, request_run(t), REFUSAL_INVALID);
	assert_string_equal(t->f.refusal.field, "map[0].access");
	t->request.map[0].writable = false;
	assert_done(&t->f, request_run(t));
	memory_bind(t);
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
	assert_int_equal(memory_write(t, DMA_BASE, 1), EMULATED_DMA_READ_ONLY);
	assert_int_equal(emulated_dma_read(t->function.dma, DMA_BASE, &byte, 1, NULL),
			 EMULATED_DMA_OK);
}

/* ── done ──────────────────────────────────────────────────────────────────────────────────── */

static void test_pinned_only_with_a_device(void **state)
{
	struct test *t = *state;

	request_clear(t);
	request_map(t, t->file, 0, HIGH, PAGE);
	assert_done(&t->f, request_run(t));
	assert_false(t->updated.pinned);
	assert_int_equal(t->updated.region_bytes, MEMORY_BYTES + PAGE);
	memory_bind(t);
	request_clear(t);
	request_map(t, t->file, PAGE, HIGH + PAGE, PAGE);
	assert_done(&t->f, request_run(t));
	assert_true(t->updated.pinned);
	memory_show(t, DMA_BASE, HIGH, 2 * PAGE);
	assert_int_equal(memory_write(t, DMA_BASE + PAGE + 5, 77), EMULATED_DMA_OK);
	assert_int_equal(t->host[PAGE + 5], 77);
}

static void test_unmap_takes_what_shows_it(void **state)
{
	struct test *t = *state;

	memory_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 4 * PAGE);
	assert_done(&t->f, request_run(t));
	memory_show(t, DMA_BASE, HIGH, 4 * PAGE);
	memory_show(t, DMA_BASE + MIB, 0, PAGE);
	request_clear(t);
	request_unmap(t, HIGH, UINT64_MAX);
	assert_done(&t->f, request_run(t));
	assert_int_equal(t->updated.leaves_dropped, 4);
	assert_int_equal(memory_write(t, DMA_BASE, 1), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(memory_write(t, DMA_BASE + MIB, 1), EMULATED_DMA_OK); /* undisturbed */
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES);
	/* Nothing there is no error. */
	assert_done(&t->f, request_run(t));
	assert_int_equal(t->updated.leaves_dropped, 0);
}

static void test_replace_at_the_same_address(void **state)
{
	struct test *t = *state;

	memory_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, PAGE);
	assert_done(&t->f, request_run(t));
	memory_show(t, DMA_BASE, HIGH, PAGE);
	request_clear(t);
	request_unmap(t, HIGH, HIGH + PAGE - 1);
	request_map(t, t->file, 7 * PAGE, HIGH, PAGE);
	assert_done(&t->f, request_run(t));
	assert_int_equal(t->updated.leaves_dropped, 1);
	assert_int_equal(t->updated.leaves_restored, 1);
	assert_int_equal(memory_write(t, DMA_BASE, 9), EMULATED_DMA_OK);
	assert_int_equal(t->host[7 * PAGE], 9);
	assert_int_equal(t->host[0], 0);
}

/* Alike is alike in file, offset, address and access; it is not even touched. */
static void test_alike_stays_in_place(void **state)
{
	struct test *t = *state;

	memory_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 4 * PAGE)->granule = PAGE;
	assert_done(&t->f, request_run(t));
	memory_show(t, DMA_BASE, HIGH, 4 * PAGE);
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_MAP | IOMMU_EMULATED_UNMAP, EIO);
	request_clear(t);
	request_unmap(t, HIGH, HIGH + 4 * PAGE - 1);
	request_map(t, t->file, 0, HIGH, 4 * PAGE)->granule = 2 * PAGE;
	assert_done(&t->f, request_run(t));
	assert_int_equal(t->updated.leaves_dropped, 0);
	/* The same with a hole in the middle: only that goes. */
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_MAP, EIO);
	request_clear(t);
	request_unmap(t, 0, UINT64_MAX);
	request_map(t, t->f.memory_file, 0, 0, MEMORY_BYTES);
	request_map(t, t->file, 0, HIGH, 2 * PAGE);
	assert_done(&t->f, request_run(t));
	iommu_emulated_fail_every(t->f.backend, 0, 0);
	assert_int_equal(t->updated.leaves_dropped, 2);
	assert_int_equal(memory_write(t, DMA_BASE + PAGE, 3), EMULATED_DMA_OK);
	assert_int_equal(memory_write(t, DMA_BASE + 2 * PAGE, 3), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES + 2 * PAGE);
	/* Another access is not alike. */
	request_clear(t);
	request_unmap(t, HIGH, HIGH + 2 * PAGE - 1);
	request_map(t, t->file, 0, HIGH, 2 * PAGE)->writable = false;
	assert_done(&t->f, request_run(t));
	assert_int_equal(t->updated.leaves_dropped, 2);
	assert_int_equal(memory_write(t, DMA_BASE + PAGE, 3), EMULATED_DMA_NOT_MAPPED);
}

/* A part that stays keeps its counters and its areas, what is new beside it is mapped. */
static void test_alike_in_part(void **state)
{
	struct test *t = *state;

	memory_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 4 * PAGE)->granule = PAGE;
	assert_done(&t->f, request_run(t));
	memory_show(t, DMA_BASE, HIGH, 4 * PAGE);
	request_clear(t);
	request_unmap(t, HIGH, HIGH + 4 * PAGE - 1);
	request_map(t, t->file, 2 * PAGE, HIGH + 2 * PAGE, 4 * PAGE)->granule = PAGE;
	assert_done(&t->f, request_run(t));
	assert_int_equal(t->updated.leaves_dropped, 2);
	assert_int_equal(memory_write(t, DMA_BASE + PAGE, 1), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(memory_write(t, DMA_BASE + 3 * PAGE, 8), EMULATED_DMA_OK);
	assert_int_equal(t->host[3 * PAGE], 8);
	memory_show(t, DMA_BASE + 4 * PAGE, HIGH + 4 * PAGE, 2 * PAGE);
	assert_int_equal(memory_write(t, DMA_BASE + 5 * PAGE, 8), EMULATED_DMA_OK);
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES + 4 * PAGE);
	request_clear(t);
	request_unmap(t, HIGH + 3 * PAGE, HIGH + 5 * PAGE - 1); /* across the seam */
	assert_done(&t->f, request_run(t));
	assert_int_equal(pinned_bytes(t), MEMORY_BYTES + 2 * PAGE);
	assert_int_equal(memory_write(t, DMA_BASE + 2 * PAGE, 8), EMULATED_DMA_OK);
	assert_int_equal(memory_write(t, DMA_BASE + 5 * PAGE, 8), EMULATED_DMA_OK);
}

static void test_cut_on_the_granule(void **state)
{
	struct test *t = *state;

	memory_bind(t);
	request_clear(t);
	request_map(t, t->file, 0, HIGH, 8 * PAGE)->granule = 2 * PAGE;
	assert_done(&t->f, request_run(t));
	memory_show(t, DMA_BASE, HIGH, 8 * PAGE);
	request_clear(t);
	request_unmap(t, HIGH + PAGE, HIGH + 4 * PAGE - 1);
	assert_refused(&t->f, request_run(t), REFUSAL_INVALID);
	request_clear(t);
	request_unmap(t, HIGH + 2 * PAGE, HIGH + 4 * PAGE - 1);
	assert_done(&t->f, request_run(t));
	assert_int_equal(t->updated.leaves_dropped, 2);
	assert_int_equal(region_count(t), 3);
	assert_int_equal(memory_write(t, DMA_BASE + PAGE, 4), EMULATED_DMA_OK);
	assert_int_equal(memory_write(t, DMA_BASE + 2 * PAGE, 4), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(memory_write(t, DMA_BASE + 4 * PAGE, 4), EMULATED_DMA_OK);
	assert_int_equal(t->host[4 * PAGE], 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, memory_setup, memory_teardown)

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
