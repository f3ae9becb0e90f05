/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_MEMORY_H
#define IB_IOMMU_EMULATED_MEMORY_H

/*
 * Pieces of memory files, as map calls brought them in: what the kernel calls iopt_pages.
 *
 * A piece lives as long as a translation of any address space of its context shows a page of it,
 * and keeps its file open as long. A page of it is pinned while an address space that has a page
 * table shows it; shown twice it is pinned once, which is why copies of pinned memory are free.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "iommu/emulated/layout.h"

struct emulated_memory {
	uint32_t index;  /* in its table and in translations */
	uint64_t serial; /* never used twice in a process */
	int fd;          /* our own */
	uint64_t dev, ino;
	uint64_t first_page, n_pages; /* of the file */
	bool writable;
	_Atomic uint64_t refs;  /* translations that show it, and map calls that fill it */
	_Atomic uint32_t *pins; /* for each page: translations that keep it pinned */
};

struct emulated_memory_table {
	struct emulated_memory_record *records; /* in the state file, written and never read */
	struct emulated_memory **memories;
	pthread_mutex_t lock; /* of memories and lowest_free; a leaf in the lock order */
	uint32_t lowest_free;
	uint32_t adopted_end; /* behind the last one that emulated_memory_adopt() found */
	_Atomic uint64_t pinned_pages;
	_Atomic uint64_t pinned_pages_max; /* the locked-memory limit that the test sets */
};

/* 0 or ENOMEM. records: EMULATED_MEMORY_MAX of them, borrowed. */
int emulated_memory_table_init(struct emulated_memory_table *table,
			       struct emulated_memory_record *records);
void emulated_memory_table_deinit(struct emulated_memory_table *table);

/* A piece with one reference. offset and length are whole pages, length > 0, no overflow. 0, EBADF,
 * EOVERFLOW, EINVAL (longer than a piece can be), ENOMEM, EMFILE. */
int emulated_memory_new(struct emulated_memory_table *table, int borrow_fd, uint64_t offset,
			uint64_t length, bool writable, struct emulated_memory **ret);
/* Pieces that another process mapped, from the records that it wrote: with one reference each,
 * which emulated_memory_adopted() gives back once every translation has its own. Their files are
 * not open: what is pinned of them stays, and that is all of it. 0 or ENOMEM. fd: of the state
 * file. */
int emulated_memory_adopt(struct emulated_memory_table *table, int fd);
void emulated_memory_adopted(struct emulated_memory_table *table);

static inline void emulated_memory_ref(struct emulated_memory *memory)
{
	atomic_fetch_add_explicit(&memory->refs, 1, memory_order_relaxed);
}
void emulated_memory_unref(struct emulated_memory_table *table, struct emulated_memory *memory);

/* The piece that a translation shows; the caller knows that the translation stays. */
static inline struct emulated_memory *emulated_memory_of(const struct emulated_memory_table *table,
							 uint64_t word)
{
	return table->memories[emulated_word_memory(word)];
}

/* What pinning found out about the file of the piece that it looked at last. */
struct emulated_memory_look {
	const struct emulated_memory *memory;
	uint64_t pinnable;
};

/* look: all zero at first, the same for all pages of a call. 0; EINVAL if the file is neither shmem
 * nor hugetlbfs or ends before the page; ENOMEM at the limit. */
int emulated_memory_pin(struct emulated_memory_table *table, struct emulated_memory *memory,
			uint64_t page, struct emulated_memory_look *look);
void emulated_memory_unpin(struct emulated_memory_table *table, struct emulated_memory *memory,
			   uint64_t page);

#endif
