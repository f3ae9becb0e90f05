/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The DMA engine: its faults, damaged tables, and reading while tables and records are used again
 * for something else. */

#include "emulated_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
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
	for (size_t n = 1; n < 20; n++) {
		uint8_t *at = (uint8_t *)f->memory + 4 * PAGE + 8 * n;

		memset(seen, 0, 2 * n);
		assert_int_equal(emulated_dma_write(a.dma, BASE + PAGE + 8 * n, buffer, n, NULL),
				 EMULATED_DMA_OK);
		assert_memory_equal(at, buffer, n);
		assert_int_equal(emulated_dma_read(a.dma, BASE + PAGE + 8 * n, seen, n, NULL),
				 EMULATED_DMA_OK);
		assert_memory_equal(seen, buffer, n);
		assert_int_equal(seen[n], 0);
	}
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

/* A file that grew after the engine mapped it. */
static void memory_ends_where_it_was_added(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t ioas = space_new(f, &a, false, NULL);
	struct iommu_file file = {.fd = memfd_create("grows", MFD_CLOEXEC), .bytes = 3 * PAGE};

	assert_int_equal(ftruncate(file.fd, PAGE + 100), 0);
	assert_int_equal(emulated_dma_add_memory(a.dma, file.fd), 0);
	assert_int_equal(ftruncate(file.fd, 3 * PAGE), 0);
	assert_int_equal(f->ops->map_file(f->context, ioas, &file, 0, 3 * PAGE, BASE, RW), 0);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_OK);
	assert_int_equal(dma_write(&a, BASE + PAGE + 92, 1), EMULATED_DMA_OK);
	assert_int_equal(dma_write(&a, BASE + PAGE + 93, 1), EMULATED_DMA_UNKNOWN_MEMORY);
	assert_int_equal(dma_write(&a, BASE + 2 * PAGE, 1), EMULATED_DMA_UNKNOWN_MEMORY);
	close(file.fd);
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
	uint64_t *records;
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
	/* The records are no table, even if they make sense as one. */
	records = (uint64_t *)(file + EMULATED_DEVICE_RECORDS_PAGE * PAGE);
	records[0] = EMULATED_DEVICE_RECORDS_PAGE;
	records[3] = 10;
	header->root = EMULATED_DEVICE_RECORDS_PAGE;
	assert_int_equal(emulated_dma_translate(dma, 0, &target), EMULATED_DMA_BAD_TABLE);
	assert_null(emulated_dma_close(dma));
	munmap(file, EMULATED_FILE_BYTES);
	close(fd);
}

/* The writer's side of layout.h, in a tight loop: one translation that shows two files in turn. */
struct turns {
	struct emulated_device_header *header;
	struct emulated_memory_record *record;
	_Atomic uint64_t *word;
	_Atomic bool stop;
	_Atomic uint64_t rounds;
};

static void *take_turns(void *context)
{
	struct turns *t = context;

	for (uint64_t i = 1; !t->stop; i = 3 - i, t->rounds++) {
		atomic_store_explicit(t->word, 0, memory_order_release);
		atomic_fetch_add(&t->header->generation, 1);
		atomic_thread_fence(memory_order_seq_cst);
		atomic_store_explicit(&t->record->dev, i, memory_order_relaxed);
		atomic_store_explicit(&t->record->ino, i, memory_order_relaxed);
		atomic_store_explicit(&t->record->first_page, i, memory_order_relaxed);
		atomic_store_explicit(&t->record->n_pages, 1, memory_order_release);
		atomic_store_explicit(t->word, emulated_word(EMULATED_WORD_VALID, 0, 0),
				      memory_order_release);
	}
	return NULL;
}

/* A device file with one translation, of page 0. */
static uint8_t *one_translation(int fd, struct turns *ret)
{
	uint8_t *file = mmap(NULL, EMULATED_FILE_BYTES, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_NORESERVE, fd, 0);
	uint64_t page = EMULATED_DEVICE_TABLES_PAGE;

	assert_true(file != MAP_FAILED);
	ret->header = (void *)file;
	ret->record = (void *)(file + EMULATED_DEVICE_RECORDS_PAGE * PAGE);
	ret->header->enabled = 1;
	ret->header->root = page;
	for (unsigned int level = EMULATED_LEVELS - 1; level > 0; level--, page++)
		*(uint64_t *)(file + page * PAGE) = page + 1;
	ret->word = (void *)(file + page * PAGE);
	return file;
}

static void engine_starts_again(void **state)
{
	int fd = device_file_new(1, 0, 0xffff);
	struct turns t = {0};
	uint8_t *file = one_translation(fd, &t);
	struct emulated_dma_target target;
	uint64_t seen[3] = {0}, mixed = 0;
	struct emulated_dma *dma;
	pthread_t thread;

	assert_int_equal(emulated_dma_open(&dma, fd), 0);
	assert_int_equal(pthread_create(&thread, NULL, take_turns, &t), 0);
	for (unsigned int i = 0; i < 200000 || t.rounds < 200000; i++) {
		if (emulated_dma_translate(dma, 0, &target) != EMULATED_DMA_OK) {
			seen[0]++;
			continue;
		}
		if (target.dev != target.ino || target.offset != target.ino * PAGE)
			mixed++;
		else
			seen[target.ino]++;
	}
	t.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(mixed, 0);
	assert_true(seen[0] + seen[1] + seen[2] > 0);
	assert_null(emulated_dma_close(dma));
	munmap(file, EMULATED_FILE_BYTES);
	close(fd);
}

static uint64_t generation_of(struct fixture *f, struct function *a)
{
	struct emulated_device_header header;

	assert_int_equal(pread(f->ops->device_fd(a->device), &header, sizeof(header), 0),
			 sizeof(header));
	return header.generation;
}

/* What a reader may still be looking at is not used again silently. */
static void backend_raises_the_generation(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	uint32_t table, ioas = space_new(f, &a, true, &table);
	uint64_t far = BASE + (UINT64_C(1) << 40), before, n;

	assert_int_equal(map(f, ioas, BASE, 0, 2), 0);
	assert_int_equal(map(f, ioas, BASE + 2 * PAGE, 2, 1), 0);
	assert_int_equal(map(f, ioas, far, 8, 1), 0);
	/* Neither a table nor a record is free after this. */
	before = generation_of(f, &a);
	assert_int_equal(f->ops->cut(f->context, ioas, BASE, PAGE, &n), 0);
	assert_int_equal(generation_of(f, &a), before);
	/* A record that another piece of memory gets. */
	assert_int_equal(f->ops->cut(f->context, ioas, BASE + PAGE, PAGE, &n), 0);
	assert_int_equal(map(f, ioas, BASE, 100, 1), 0);
	assert_true(generation_of(f, &a) > before);
	/* A table that went. */
	before = generation_of(f, &a);
	assert_int_equal(f->ops->unmap(f->context, ioas, far, PAGE, &n), 0);
	assert_true(generation_of(f, &a) > before);
	/* A tree that was replaced. */
	before = generation_of(f, &a);
	assert_int_equal(f->ops->attach(a.device, table), 0);
	assert_true(generation_of(f, &a) > before);
	function_free(f, &a);
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

#define STABLE_PAGES 200u
#define STABLE(i)    (BASE + (i)*512 * PAGE)
#define FLIP         (BASE + 50 * PAGE)

/* Stable page i, in a table of its own, always shows page i of the same file; the page that flips
 * shows page 5 of that file, page 9 of the other, or nothing. */
static void *read_stable(void *context)
{
	struct reader *r = context;
	struct emulated_dma_target t;

	for (; !r->stop; r->rounds++) {
		for (uint64_t i = 0; i < STABLE_PAGES; i++)
			if (emulated_dma_translate(r->dma, STABLE(i), &t) != EMULATED_DMA_OK ||
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
		for (uint64_t p = 0; p < STABLE_PAGES; p++)
			assert_int_equal(map(f, spaces[i], STABLE(p), p, 1), 0);
	}
	assert_int_equal(emulated_dma_translate(a.dma, BASE, &t), EMULATED_DMA_OK);
	r.ino = t.ino;
	assert_int_equal(fstat(other.fd, &st), 0);
	r.other_ino = st.st_ino;
	assert_int_equal(pthread_create(&thread, NULL, read_stable, &r), 0);
	for (unsigned int i = 0; i < 200 || r.rounds < 200; i++) {
		uint64_t far = BASE + ((uint64_t)(1 + i % 50) << 32);

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
		TEST(faults_say_where_and_why),       TEST(memory_must_be_known),
		TEST(memory_ends_where_it_was_added), TEST(reasons_have_names),
		TEST(engine_trusts_no_table),         TEST(engine_starts_again),
		TEST(backend_raises_the_generation),  TEST(scribbling_harms_no_daemon),
		TEST(readers_see_old_or_new),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
