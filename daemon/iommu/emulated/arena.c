/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Pages for translation tables, see arena.h.
 *
 * A page gets its memory by fallocate() before it is first written, so that want of memory is an
 * error code and not a SIGBUS. Some free pages keep their memory for the next table, the others
 * give it back.
 */

#include "iommu/emulated/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "iommu/emulated/layout.h"

#define BACKED_AT_ONCE_PAGES 16u
#define FREE_KEPT_PAGES      64u
#define PAGE_PUNCHED         (UINT32_C(1) << 31) /* in free_pages: has no memory */

int arena_init(struct arena *arena, int consume_fd, uint32_t first_page)
{
	void *map;
	int error;

	map = mmap(NULL, EMULATED_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		   consume_fd, 0);
	if (map == MAP_FAILED) {
		error = errno;
		close(consume_fd);
		return error;
	}
	*arena = (struct arena){
		.fd = consume_fd,
		.map = map,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.first_page = first_page,
		.next_page = first_page,
		.backed_page = first_page,
	};
	return 0;
}

void arena_deinit(struct arena *arena)
{
	if (arena->map)
		munmap(arena->map, EMULATED_FILE_BYTES);
	if (arena->fd >= 0)
		close(arena->fd);
	free(arena->free_pages);
	*arena = (struct arena){.fd = -1};
}

/* The end of what was ever written, in pages. */
static uint32_t file_end(int fd, uint32_t first_page)
{
	off_t data, hole = (off_t)(first_page * EMULATED_PAGE_BYTES);

	while ((data = lseek(fd, hole, SEEK_DATA)) >= 0)
		hole = lseek(fd, data, SEEK_HOLE);
	return (uint32_t)((uint64_t)hole / EMULATED_PAGE_BYTES);
}

static int arena_reserve(struct arena *arena, size_t n);

int arena_adopt(struct arena *arena, int consume_fd, uint32_t first_page)
{
	uint32_t end = file_end(consume_fd, first_page);
	int error = arena_init(arena, consume_fd, first_page);

	if (error)
		return error;
	arena->next_page = arena->backed_page = end;
	arena->n_used = end - first_page;
	return arena_reserve(arena, end - first_page);
}

static bool is_used(const uint8_t *used, uint32_t page)
{
	return used[page / 8] >> page % 8 & 1;
}

bool arena_claim(struct arena *arena, uint8_t *used, uint32_t page)
{
	if (page < arena->first_page || page >= arena->next_page || is_used(used, page))
		return false;
	used[page / 8] |= (uint8_t)(1u << page % 8);
	return true;
}

/* A stretch of pages at once: what a page costs would be paid again at each adoption. */
static void arena_free_stretch(struct arena *arena, uint32_t first, uint32_t end)
{
	uint32_t punched = 0;

	if (fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)((uint64_t)first * EMULATED_PAGE_BYTES),
		      (off_t)((uint64_t)(end - first) * EMULATED_PAGE_BYTES)) == 0)
		punched = PAGE_PUNCHED;
	/* The lowest is taken first, so that the file does not grow from one process to the next.
	 */
	for (uint32_t page = end; page-- > first;)
		arena->free_pages[arena->n_free++] = page | punched;
	arena->n_used -= end - first;
}

void arena_sweep(struct arena *arena, const uint8_t *used, uint32_t end)
{
	uint32_t last = end, first;

	if (arena->generation) {
		atomic_fetch_add_explicit(arena->generation, 1, memory_order_acq_rel);
		atomic_thread_fence(memory_order_seq_cst);
	}
	pthread_mutex_lock(&arena->lock);
	/* From the end, for the same reason. */
	for (; last > arena->first_page; last = first) {
		for (first = last; first > arena->first_page && !is_used(used, first - 1);)
			first--;
		if (first < last)
			arena_free_stretch(arena, first, last);
		for (; first > arena->first_page && is_used(used, first - 1);)
			first--;
	}
	pthread_mutex_unlock(&arena->lock);
}

static int arena_back(struct arena *arena, uint32_t page, uint32_t n)
{
	int r;

	do
		r = fallocate(arena->fd, FALLOC_FL_KEEP_SIZE,
			      (off_t)((uint64_t)page * EMULATED_PAGE_BYTES),
			      (off_t)(n * EMULATED_PAGE_BYTES));
	while (r < 0 && errno == EINTR);
	return r < 0 ? errno : 0;
}

/* Room on the stack for every page, so that arena_free() cannot fail. */
static int arena_reserve(struct arena *arena, size_t n)
{
	uint32_t *p;

	if (n <= arena->free_capacity)
		return 0;
	n = n < 64 ? 64 : n * 2;
	p = reallocarray(arena->free_pages, n, sizeof(*p));
	if (!p)
		return ENOMEM;
	arena->free_pages = p;
	arena->free_capacity = n;
	return 0;
}

static int arena_reserve_free(struct arena *arena)
{
	return arena_reserve(arena, arena->next_page + 1 - arena->first_page);
}

static int arena_alloc_fresh(struct arena *arena, uint32_t *ret_page)
{
	uint32_t n = BACKED_AT_ONCE_PAGES;
	int error;

	if (arena->next_page == EMULATED_FILE_PAGES)
		return ENOMEM;
	error = arena_reserve_free(arena);
	if (error)
		return error;
	if (arena->next_page == arena->backed_page) {
		if (n > EMULATED_FILE_PAGES - arena->next_page)
			n = EMULATED_FILE_PAGES - arena->next_page;
		error = arena_back(arena, arena->next_page, n);
		if (error)
			return error;
		arena->backed_page += n;
	}
	*ret_page = arena->next_page++;
	return 0;
}

static int arena_alloc_freed(struct arena *arena, uint32_t *ret_page)
{
	uint32_t page = arena->free_pages[arena->n_free - 1];
	_Atomic uint64_t *words;
	int error;

	if (page & PAGE_PUNCHED) {
		page &= ~PAGE_PUNCHED;
		error = arena_back(arena, page, 1);
		if (error)
			return error;
	} else {
		words = arena_at(arena, page);
		for (unsigned int i = 0; i < EMULATED_TABLE_WORDS; i++)
			atomic_store_explicit(&words[i], 0, memory_order_relaxed);
	}
	arena->n_free--;
	*ret_page = page;
	return 0;
}

int arena_alloc(struct arena *arena, uint32_t *ret_page)
{
	int error;

	pthread_mutex_lock(&arena->lock);
	error = arena->n_free ? arena_alloc_freed(arena, ret_page)
			      : arena_alloc_fresh(arena, ret_page);
	if (!error) {
		arena->n_used++;
		/* Written once, it is data to file_end() of whoever adopts the file. */
		atomic_store_explicit((_Atomic uint64_t *)arena_at(arena, *ret_page), 0,
				      memory_order_relaxed);
	}
	pthread_mutex_unlock(&arena->lock);
	return error;
}

void arena_free(struct arena *arena, uint32_t page)
{
	/* Before the page changes: layout.h. The fence keeps later stores behind the raise. */
	if (arena->generation) {
		atomic_fetch_add_explicit(arena->generation, 1, memory_order_acq_rel);
		atomic_thread_fence(memory_order_seq_cst);
	}
	pthread_mutex_lock(&arena->lock);
	if (arena->n_free >= FREE_KEPT_PAGES &&
	    fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)((uint64_t)page * EMULATED_PAGE_BYTES), EMULATED_PAGE_BYTES) == 0)
		page |= PAGE_PUNCHED;
	arena->free_pages[arena->n_free++] = page;
	arena->n_used--;
	pthread_mutex_unlock(&arena->lock);
}

void *sparse_new(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

void sparse_free(void *sparse, size_t bytes)
{
	if (sparse)
		munmap(sparse, bytes);
}
