/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_ARENA_H
#define IB_IOMMU_EMULATED_ARENA_H

/*
 * Pages for translation tables, in a mapped file of fixed size.
 *
 * Which pages are in use is known to this process' heap only. Nothing here reads the file, so a
 * device file that a client made or scribbles on cannot lead us astray.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena {
	int fd;                       /* owned */
	uint8_t *map;                 /* EMULATED_FILE_BYTES, shared */
	_Atomic uint64_t *generation; /* raised when a page retires; NULL: nobody reads unlocked */

	pthread_mutex_t lock;           /* of what follows; a leaf in the lock order */
	uint32_t first_page, next_page; /* pages from next_page on were never used */
	uint32_t backed_page;           /* pages before it were given memory */
	uint32_t *free_pages;           /* stack; has room for every page below next_page */
	size_t n_free, free_capacity;
	size_t n_used;
};

/* Maps consume_fd, a file of EMULATED_FILE_BYTES; pages from first_page on are the arena's and must
 * be zero. 0 or an errno. */
int arena_init(struct arena *arena, int consume_fd, uint32_t first_page);
/* The same over a file that another process used: its pages are in use until arena_sweep(). */
int arena_adopt(struct arena *arena, int consume_fd, uint32_t first_page);
/* A page of the file that something reads from: false if it is none of the arena's, or is one
 * already. used: a bit for each page below next_page. */
bool arena_claim(struct arena *arena, uint8_t *used, uint32_t page);
/* Give back what was not claimed, of the pages before end; nothing leads to them any more. */
void arena_sweep(struct arena *arena, const uint8_t *used, uint32_t end);

/* Unmaps and closes. An arena of zero bytes with fd -1 is fine. */
void arena_deinit(struct arena *arena);

/* A page of zero words. 0, ENOMEM or ENOSPC. */
int arena_alloc(struct arena *arena, uint32_t *ret_page);
/* No word leads to the page any more. */
void arena_free(struct arena *arena, uint32_t page);

static inline void *arena_at(const struct arena *arena, uint32_t page)
{
	return arena->map + (uint64_t)page * 4096;
}

/* Zero bytes that take memory where they are written; malloc() would keep and clear them whole.
 * NULL: out of address space. */
void *sparse_new(size_t bytes);
/* NULL is fine. */
void sparse_free(void *sparse, size_t bytes);

#endif
