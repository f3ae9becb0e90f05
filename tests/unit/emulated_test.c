/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The emulated backend's own: injected failures, limits, tables given back, the state file,
 * threads. What all backends share is in conformance.c. */

#include "emulated_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "iommu/emulated/layout.h"

static void injected_failures(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t ioas = space_new(f, &a, true, NULL), id;
	uint64_t n;

	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_MAP | IOMMU_EMULATED_CUT, 2, ENOSPC);
	assert_int_equal(map(f, ioas, BASE, 0, 4), 0);
	assert_int_equal(f->ops->ioas_new(f->context, false, &id), 0);
	assert_int_equal(f->ops->cut(f->context, ioas, BASE, PAGE, &n), ENOSPC);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_OK);
	assert_int_equal(f->ops->cut(f->context, ioas, BASE, PAGE, &n), 0);
	iommu_emulated_fail_every(f->backend, IOMMU_EMULATED_ALL & ~IOMMU_EMULATED_UNMAP, EIO);
	assert_int_equal(map(f, ioas, BASE + 9 * PAGE, 0, 4), EIO);
	assert_int_equal(f->ops->copy(f->context, ioas, BASE, ioas, BASE + PAGE, PAGE, RW), EIO);
	assert_int_equal(f->ops->attach(a.device, 1), EIO);
	assert_int_equal(f->ops->detach(a.device), EIO);
	assert_int_equal(f->ops->device_stop(a.device), EIO);
	assert_int_equal(f->ops->destroy(f->context, id), EIO);
	assert_int_equal(f->ops->unmap(f->context, ioas, BASE + PAGE, 3 * PAGE, &n), 0);
	iommu_emulated_fail_every(f->backend, 0, 0);
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_ALL, 0, 0);
	assert_int_equal(f->ops->destroy(f->context, id), 0);
	assert_int_equal(counters_of(f).maps, 1);
	assert_int_equal(counters_of(f).copies, 0);
	assert_int_equal(counters_of(f).cuts, 1);
	assert_int_equal(counters_of(f).unmaps, 1);
	function_free(f, &a);
}

static void limit_of_pins(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t ioas = space_new(f, &a, false, NULL), shadow, lazy, table;
	uint64_t tables, n;

	assert_int_equal(f->ops->ioas_new(f->context, true, &shadow), 0);
	assert_int_equal(f->ops->ioas_new(f->context, false, &lazy), 0);
	iommu_emulated_limit_pins(f->context, 64);
	assert_int_equal(map(f, ioas, BASE, 0, 60), 0);
	tables = counters_of(f).table_pages;
	assert_int_equal(map(f, ioas, BASE + (UINT64_C(1) << 40), 60, 5), ENOMEM);
	assert_int_equal(counters_of(f).pinned_pages, 60);
	assert_int_equal(counters_of(f).table_pages, tables);
	assert_int_equal(dma_write(&a, BASE + (UINT64_C(1) << 40), 1), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(map(f, ioas, BASE + 60 * PAGE, 60, 4), 0);
	/* Copies stay free; what is not pinned is not limited until a page table comes. */
	assert_int_equal(f->ops->page_table_new(f->context, a.device, shadow, &table), 0);
	assert_int_equal(f->ops->copy(f->context, shadow, BASE, ioas, BASE, 64 * PAGE, RW), 0);
	assert_int_equal(map(f, lazy, BASE, 0, 2), 0);
	assert_int_equal(map(f, lazy, BASE + 4 * PAGE, 2, 100), 0);
	assert_int_equal(f->ops->page_table_new(f->context, a.device, lazy, &table), ENOMEM);
	assert_int_equal(counters_of(f).pinned_pages, 64);
	assert_int_equal(f->ops->destroy(f->context, lazy), 0);
	assert_int_equal(f->ops->unmap(f->context, ioas, BASE, 64 * PAGE, &n), 0);
	assert_int_equal(counters_of(f).pinned_pages, 64);
	assert_int_equal(f->ops->cut(f->context, shadow, BASE, 32 * PAGE, &n), 0);
	assert_int_equal(counters_of(f).pinned_pages, 32);
	function_free(f, &a);
}

static void tables_are_given_back(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t ioas = space_new(f, &a, true, NULL);
	uint64_t before = counters_of(f).table_pages, n;

	for (unsigned int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 200; i++)
			assert_int_equal(map(f, ioas, BASE + (i << 22), i % 100, 3), 0);
		assert_true(counters_of(f).table_pages >= before + 200);
		assert_int_equal(f->ops->cut(f->context, ioas, BASE, UINT64_C(1) << 45, &n), 0);
		assert_int_equal(n, 600 * PAGE);
		assert_int_equal(counters_of(f).table_pages, before);
	}
	assert_int_equal(map(f, ioas, BASE, 0, 1), 0);
	assert_int_equal(dma_write(&a, BASE, 4), EMULATED_DMA_OK);
	/* A reused table holds nothing of its former life. */
	assert_int_equal(dma_write(&a, BASE + PAGE, 4), EMULATED_DMA_NOT_MAPPED);
	function_free(f, &a);
}

/* The context's descriptor shows objects and translations to whoever adopts it. */
static void state_file(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 7);
	uint32_t table, ioas = space_new(f, &a, true, &table);
	const struct emulated_object_record *objects;
	const struct emulated_memory_record *memories;
	const uint64_t *words;
	const uint8_t *file;
	uint64_t word;

	assert_int_equal(map(f, ioas, BASE, 5, 3), 0);
	file = mmap(NULL, EMULATED_FILE_BYTES, PROT_READ, MAP_SHARED | MAP_NORESERVE,
		    f->ops->context_fd(f->context), 0);
	assert_true(file != MAP_FAILED);
	assert_int_equal(((const struct emulated_context_header *)file)->magic,
			 EMULATED_CONTEXT_MAGIC);
	objects = (const void *)(file + EMULATED_CONTEXT_OBJECTS_PAGE * PAGE);
	memories = (const void *)(file + EMULATED_CONTEXT_RECORDS_PAGE * PAGE);
	assert_int_equal(objects[a.id].kind, EMULATED_OBJECT_DEVICE);
	assert_int_equal(objects[a.id].root, 7);
	assert_int_equal(objects[a.id].over, table);
	assert_int_equal(objects[table].kind, EMULATED_OBJECT_PAGE_TABLE);
	assert_int_equal(objects[table].over, ioas);
	assert_int_equal(objects[ioas].kind, EMULATED_OBJECT_IOAS);
	assert_int_equal(objects[ioas].cuttable, 1);
	word = objects[ioas].root;
	for (unsigned int level = EMULATED_LEVELS; level-- > 0;) {
		words = (const uint64_t *)(file + word * PAGE);
		word = words[emulated_index((BASE >> EMULATED_PAGE_BITS) + 1, level)];
	}
	assert_int_equal(emulated_word_page(word), 1);
	assert_int_equal(word & 31, EMULATED_WORD_VALID | EMULATED_WORD_READ | EMULATED_WORD_WRITE |
					    EMULATED_WORD_MEMORY_WRITE);
	assert_int_equal(memories[emulated_word_memory(word)].first_page, 5);
	assert_int_equal(memories[emulated_word_memory(word)].n_pages, 3);
	assert_int_equal(f->ops->detach(a.device), 0);
	assert_int_equal(objects[a.id].over, 0);
	assert_int_equal(f->ops->destroy(f->context, table), 0);
	assert_int_equal(f->ops->destroy(f->context, ioas), 0);
	assert_int_equal(objects[ioas].kind, EMULATED_OBJECT_NONE);
	assert_int_equal(memories[emulated_word_memory(word)].n_pages, 0);
	/* Its place is used again. */
	ioas = space_new(f, &a, true, &table);
	assert_int_equal(map(f, ioas, BASE, 11, 2), 0);
	assert_int_equal(memories[emulated_word_memory(word)].first_page, 11);
	assert_int_equal(memories[emulated_word_memory(word)].n_pages, 2);
	munmap((void *)file, EMULATED_FILE_BYTES);
	function_free(f, &a);
}

static void what_the_kernel_on_s390_refuses(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t table, n;
	struct iommu_features features;

	space_new(f, &a, false, &table);
	assert_int_equal(f->ops->probe(f->backend, &features), 0);
	assert_true(features.map_file && features.cut);
	assert_false(features.nest_parent || features.dirty_tracking || features.change_process);
	assert_int_equal(f->ops->page_table_new_nested(f->context, a.device, table, NULL, &n),
			 EOPNOTSUPP);
	assert_int_equal(f->ops->invalidate(f->context, table, 0, NULL, 0, 0, &n), EINVAL);
	assert_int_equal(f->ops->dirty_tracking(f->context, table, true), EOPNOTSUPP);
	assert_int_equal(f->ops->dirty_read(f->context, table, 0, PAGE, PAGE, NULL), EOPNOTSUPP);
	function_free(f, &a);
}

/* A cut into an address space that was not made for it must not pass unnoticed. */
static void cut_needs_a_cuttable_space(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t ioas = space_new(f, &a, false, NULL);
	uint64_t n;

	assert_int_equal(map(f, ioas, BASE, 0, 4), 0);
	assert_int_equal(f->ops->cut(f->context, ioas, BASE, 3 * PAGE, &n), ENOENT);
	assert_int_equal(n, 0);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_OK);
	function_free(f, &a);
}

struct copier {
	struct fixture *f;
	uint32_t parent, ioas;
	_Atomic unsigned int failed;
};

static void *copy_and_cut(void *context)
{
	struct copier *c = context;
	uint64_t n;

	for (unsigned int i = 0; i < 300; i++) {
		if (c->f->ops->copy(c->f->context, c->ioas, BASE + (i % 50 << 20), c->parent,
				    BASE + i % 100 * PAGE, 16 * PAGE, RW) ||
		    c->f->ops->cut(c->f->context, c->ioas, BASE + (i % 50 << 20) + 3 * PAGE,
				   64 * PAGE, &n) ||
		    n != 13 * PAGE ||
		    c->f->ops->unmap(c->f->context, c->ioas, BASE + (i % 50 << 20), 3 * PAGE, &n))
			c->failed++;
	}
	return NULL;
}

/* Address spaces of one context, out of one parent, while objects come and go. */
static void copies_side_by_side(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t parent = space_new(f, &a, false, NULL), id;
	struct copier copiers[4];
	pthread_t threads[4];

	assert_int_equal(map(f, parent, BASE, 0, 128), 0);
	for (unsigned int i = 0; i < 4; i++) {
		copiers[i] = (struct copier){.f = f, .parent = parent};
		copiers[i].ioas = space_new(f, &a, true, NULL);
		assert_int_equal(pthread_create(&threads[i], NULL, copy_and_cut, &copiers[i]), 0);
	}
	for (unsigned int i = 0; i < 100; i++) {
		assert_int_equal(f->ops->ioas_new(f->context, false, &id), 0);
		assert_int_equal(map(f, id, BASE, 0, 4), 0);
		assert_int_equal(f->ops->destroy(f->context, id), 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(copiers[i].failed, 0);
	}
	assert_int_equal(counters_of(f).pinned_pages, 128);
	assert_int_equal(counters_of(f).copies, 1200);
	function_free(f, &a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(injected_failures),
		TEST(limit_of_pins),
		TEST(tables_are_given_back),
		TEST(state_file),
		TEST(what_the_kernel_on_s390_refuses),
		TEST(cut_needs_a_cuttable_space),
		TEST(copies_side_by_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
