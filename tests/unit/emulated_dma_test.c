/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The DMA engine: its faults, damaged tables, and reading while tables and records are used again
 * for something else. */

#include "emulated_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iommu/emulated/layout.h"

static void faults_say_where_and_why(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	struct emulated_dma_fault fault;
	uint32_t ioas = space_new(f, &a, false, NULL);
	uint8_t buffer[3 * 4096], seen[3 * 4096];

	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (uint8_t)(i * 7);
	assert_int_equal(map(f, ioas, BASE, 3, 2), 0);
	assert_int_equal(f->ops->map_file(f->context, ioas, &f->file, 0, PAGE, BASE + 3 * PAGE,
					  IOMMU_PROT_READ),
			 0);
	assert_int_equal(f->ops->map_file(f->context, ioas, &f->file, 0, PAGE, BASE + 4 * PAGE,
					  IOMMU_PROT_WRITE),
			 0);
	/* Odd addresses, over a page border, up to the fault. */
	assert_int_equal(emulated_dma_write(a.dma, BASE + 13, buffer, sizeof(buffer), &fault),
			 EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(fault.iova, BASE + 2 * PAGE);
	assert_int_equal(fault.reason, EMULATED_DMA_NOT_MAPPED);
	assert_memory_equal((uint8_t *)f->memory + 3 * PAGE + 13, buffer, 2 * PAGE - 13);
	assert_int_equal(emulated_dma_read(a.dma, BASE + 5, seen, 2 * PAGE - 5, &fault),
			 EMULATED_DMA_OK);
	assert_memory_equal(seen, (uint8_t *)f->memory + 3 * PAGE + 5, 2 * PAGE - 5);
	assert_int_equal(emulated_dma_write(a.dma, BASE + 3 * PAGE, buffer, 8, &fault),
			 EMULATED_DMA_READ_ONLY);
	assert_int_equal(emulated_dma_read(a.dma, BASE + 4 * PAGE, seen, 8, &fault),
			 EMULATED_DMA_WRITE_ONLY);
	assert_int_equal(emulated_dma_write(a.dma, BASE - 4, buffer, 8, &fault),
			 EMULATED_DMA_OUTSIDE_WINDOW);
	assert_int_equal(fault.iova, BASE - 4);
	assert_int_equal(emulated_dma_read(a.dma, UINT64_MAX - 3, seen, 8, &fault),
			 EMULATED_DMA_OUTSIDE_WINDOW);
	assert_int_equal(emulated_dma_read(a.dma, BASE, seen, 0, &fault), EMULATED_DMA_OK);
	function_free(f, &a);
}

static void memory_must_be_known(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	struct emulated_dma_target target;
	uint32_t ioas = space_new(f, &a, false, NULL);
	struct iommu_file other;
	uint64_t *memory;
	char path[32];
	int fd;

	memory_new(&other, &memory);
	assert_int_equal(f->ops->map_file(f->context, ioas, &other, 7 * PAGE, PAGE, BASE, RW), 0);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_UNKNOWN_MEMORY);
	assert_int_equal(emulated_dma_translate(a.dma, BASE + 9, &target), EMULATED_DMA_OK);
	assert_int_equal(target.offset, 7 * PAGE + 9);
	assert_true(target.readable && target.writable);
	/* Through a read-only descriptor it can be read. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", other.fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(emulated_dma_add_memory(a.dma, fd), 0);
	assert_int_equal(emulated_dma_add_memory(a.dma, other.fd), -EEXIST);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_READ_ONLY);
	memory[7 * PAGE / 8] = 99;
	assert_int_equal(emulated_dma_read(a.dma, BASE, &target.dev, 8, NULL), EMULATED_DMA_OK);
	assert_int_equal(target.dev, 99);
	close(fd);
	memory_free(&other);
	function_free(f, &a);
}

static void reasons_have_names(void **state)
{
	for (int i = EMULATED_DMA_OK; i <= EMULATED_DMA_BAD_TABLE; i++)
		assert_string_not_equal(emulated_dma_reason_name(i), "unknown");
	assert_string_equal(emulated_dma_reason_name(EMULATED_DMA_BAD_TABLE + 1), "unknown");
	assert_string_equal(emulated_dma_reason_name(-1), "unknown");
}

/* Every word of a client's device file, at the worst values: the engine answers, and does not read
 * outside the file. */
static void engine_trusts_no_table(void **state)
{
	static const uint64_t values[] = {
		1,
		EMULATED_DEVICE_TABLES_PAGE - 1,
		EMULATED_FILE_PAGES,
		EMULATED_FILE_PAGES - 1,
		EMULATED_DEVICE_TABLES_PAGE,
		UINT64_MAX,
		UINT64_C(1) << 63,
		UINT64_C(1) << 52,
	};
	const uint64_t tables = EMULATED_DEVICE_TABLES_PAGE;
	int fd = device_file_new(1, 0, 0xffffffffffff);
	struct emulated_device_header *header;
	struct emulated_dma_target target;
	struct emulated_dma *dma;
	uint8_t *file;

	file = mmap(NULL, EMULATED_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		    fd, 0);
	assert_true(file != MAP_FAILED);
	header = (void *)file;
	assert_int_equal(emulated_dma_open(&dma, fd), 0);
	header->enabled = 1;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		uint64_t *words = (uint64_t *)(file + tables * PAGE);

		header->root = values[i];
		assert_int_not_equal(emulated_dma_translate(dma, 0, &target), EMULATED_DMA_OK);
		header->root = tables;
		words[0] = values[i];
		if (values[i] != tables)
			assert_int_not_equal(emulated_dma_translate(dma, 0, &target),
					     EMULATED_DMA_OK);
		/* Tables that lead to themselves, and the value as a translation. */
		words[0] = tables;
		words[1] = values[i] | EMULATED_WORD_VALID;
		assert_int_equal(emulated_dma_translate(dma, PAGE, &target),
				 EMULATED_DMA_BAD_TABLE);
	}
	assert_null(emulated_dma_close(dma));
	munmap(file, EMULATED_FILE_BYTES);
	close(fd);
}

struct scribbler {
	uint8_t *file;
	_Atomic bool stop;
	_Atomic uint64_t rounds;
};

static void *scribble(void *context)
{
	struct scribbler *s = context;
	uint64_t random = 88172645463325252u;

	for (; !s->stop; s->rounds++) {
		uint64_t page;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		page = random % 8 == 0 ? 0 : EMULATED_DEVICE_TABLES_PAGE + random / 8 % 64;
		__atomic_store_n((uint64_t *)(s->file + page * PAGE) + random / 512 % 512, random,
				 __ATOMIC_RELAXED);
	}
	return NULL;
}

/* A client that writes into its own device file all the time harms its own DMA alone. */
static void scribbling_harms_no_daemon(void **state)
{
	struct fixture *f = *state;
	int fd = device_file_new(0x900, BASE, 0x1fffffffffffff);
	struct scribbler s = {0};
	struct iommu_device *device;
	uint32_t tables[2], spaces[2];
	struct function b = function_new(f, 2);
	struct emulated_dma_target target;
	pthread_t thread;
	uint64_t n;

	s.file = mmap(NULL, EMULATED_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		      fd, 0);
	assert_true(s.file != MAP_FAILED);
	assert_int_equal(f->ops->device_open_fd(f->backend, fd, &device), 0);
	assert_int_equal(f->ops->device_bind(device, f->context, NULL, &(uint32_t){0}), 0);
	for (unsigned int i = 0; i < 2; i++)
		spaces[i] = space_new(f, &b, true, &tables[i]);
	assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
	for (unsigned int i = 0; i < 300 || s.rounds < 10000; i++) {
		uint32_t ioas = spaces[i % 2];

		assert_int_equal(f->ops->attach(device, tables[i % 2]), 0);
		assert_int_equal(map(f, ioas, BASE + (i % 7) * 500 * PAGE, i % 8, 100), 0);
		assert_int_equal(f->ops->cut(f->context, ioas, BASE + 20 * PAGE, 3000 * PAGE, &n),
				 0);
		assert_int_equal(f->ops->cut(f->context, ioas, BASE, 4000 * PAGE, &n), 0);
	}
	s.stop = true;
	pthread_join(thread, NULL);
	/* The other device's tables are whole. */
	assert_int_equal(map(f, spaces[1], BASE, 0, 1), 0);
	assert_int_equal(emulated_dma_translate(b.dma, BASE, &target), EMULATED_DMA_OK);
	assert_null(f->ops->device_close(device));
	munmap(s.file, EMULATED_FILE_BYTES);
	function_free(f, &b);
}

struct reader {
	struct emulated_dma *dma;
	uint64_t ino, other_ino;
	_Atomic bool stop;
	_Atomic uint64_t rounds, wrong;
};

#define FLIP (BASE + 50 * PAGE)

/* Page 100 * i of the stable range always shows page i of the same file; the page that flips shows
 * page 5 of that file, page 9 of the other, or nothing. */
static void *read_stable(void *context)
{
	struct reader *r = context;
	struct emulated_dma_target t;

	for (; !r->stop; r->rounds++) {
		for (uint64_t i = 0; i < 64; i++)
			if (emulated_dma_translate(r->dma, BASE + i * 100 * PAGE, &t) !=
				    EMULATED_DMA_OK ||
			    t.ino != r->ino || t.offset != i * PAGE)
				r->wrong++;
		for (uint64_t i = 0; i < 64; i++)
			if (emulated_dma_translate(r->dma, FLIP, &t) == EMULATED_DMA_OK &&
			    !(t.ino == r->ino && t.offset == 5 * PAGE) &&
			    !(t.ino == r->other_ino && t.offset == 9 * PAGE))
				r->wrong++;
	}
	return NULL;
}

static void flip(struct fixture *f, uint32_t ioas, const struct iommu_file *file, uint64_t page)
{
	uint64_t n;

	assert_int_equal(f->ops->map_file(f->context, ioas, file, page * PAGE, PAGE, FLIP, RW), 0);
	assert_int_equal(f->ops->unmap(f->context, ioas, FLIP, PAGE, &n), 0);
}

/*
 * Tables and records are freed and used again for other addresses and files all the time, below
 * and above the stable pages and in the tree that takes their place: nobody sees it.
 */
static void readers_see_old_or_new(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t tables[2], spaces[2];
	struct iommu_file other;
	struct emulated_dma_target t;
	struct reader r = {.dma = a.dma};
	uint64_t n, *memory;
	pthread_t thread;
	struct stat st;

	memory_new(&other, &memory);
	for (unsigned int i = 0; i < 2; i++) {
		spaces[i] = space_new(f, &a, true, &tables[i]);
		for (uint64_t p = 0; p < 64; p++)
			assert_int_equal(map(f, spaces[i], BASE + p * 100 * PAGE, p, 1), 0);
	}
	assert_int_equal(emulated_dma_translate(a.dma, BASE, &t), EMULATED_DMA_OK);
	r.ino = t.ino;
	assert_int_equal(fstat(other.fd, &st), 0);
	r.other_ino = st.st_ino;
	assert_int_equal(pthread_create(&thread, NULL, read_stable, &r), 0);
	for (unsigned int i = 0; i < 400 || r.rounds < 200; i++) {
		uint64_t far = BASE + ((uint64_t)(1 + i % 50) << 30);

		assert_int_equal(f->ops->attach(a.device, tables[i % 2]), 0);
		assert_int_equal(
			f->ops->map_file(f->context, spaces[i % 2], &other, 0, 64 * PAGE, far, RW),
			0);
		assert_int_equal(f->ops->unmap(f->context, spaces[i % 2], far, 64 * PAGE, &n), 0);
		flip(f, spaces[i % 2], &f->file, 5);
		flip(f, spaces[i % 2], &other, 9);
	}
	r.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(r.wrong, 0);
	memory_free(&other);
	function_free(f, &a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(faults_say_where_and_why),   TEST(memory_must_be_known),
		TEST(reasons_have_names),         TEST(engine_trusts_no_table),
		TEST(scribbling_harms_no_daemon), TEST(readers_see_old_or_new),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
