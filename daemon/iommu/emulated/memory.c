/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pieces of memory files and their pins, see memory.h. */

#include "iommu/emulated/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "iommu/emulated/arena.h"

static _Atomic uint64_t last_serial;

int emulated_memory_table_init(struct emulated_memory_table *table,
			       struct emulated_memory_record *records)
{
	struct emulated_memory **memories;

	memories = sparse_new(EMULATED_MEMORY_MAX * sizeof(*memories));
	if (!memories)
		return ENOMEM;
	*table = (struct emulated_memory_table){
		.records = records,
		.memories = memories,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.pinned_pages_max = UINT64_MAX,
	};
	return 0;
}

void emulated_memory_table_deinit(struct emulated_memory_table *table)
{
	sparse_free(table->memories, EMULATED_MEMORY_MAX * sizeof(*table->memories));
	*table = (struct emulated_memory_table){0};
}

static void memory_free(struct emulated_memory *memory)
{
	if (memory->fd >= 0)
		close(memory->fd);
	free((void *)memory->pins);
	free(memory);
}

static int memory_open(struct emulated_memory *memory, int borrow_fd)
{
	struct stat st;

	memory->fd = fcntl(borrow_fd, F_DUPFD_CLOEXEC, 3);
	if (memory->fd < 0 || fstat(memory->fd, &st) < 0)
		return errno;
	memory->dev = st.st_dev;
	memory->ino = st.st_ino;
	memory->pins = calloc(memory->n_pages, sizeof(*memory->pins));
	return memory->pins ? 0 : ENOMEM;
}

/* A record that is none is given up; so are then the translations that lead to it. */
static int memory_adopt(struct emulated_memory_table *table, uint32_t i)
{
	struct emulated_memory_record *record = &table->records[i];
	uint64_t n_pages = record->n_pages;
	struct emulated_memory *memory;

	if (!n_pages || n_pages > EMULATED_OFFSET_PAGES_MAX)
		return 0;
	memory = calloc(1, sizeof(*memory));
	if (memory)
		memory->pins = calloc(n_pages, sizeof(*memory->pins));
	if (!memory || !memory->pins) {
		free(memory);
		return ENOMEM;
	}
	memory->index = i;
	memory->serial = atomic_fetch_add(&last_serial, 1) + 1;
	memory->fd = -1;
	memory->dev = record->dev;
	memory->ino = record->ino;
	memory->first_page = record->first_page;
	memory->n_pages = n_pages;
	memory->refs = 1;
	table->memories[i] = memory;
	table->adopted_end = i + 1;
	return 0;
}

/* Only where something was ever written: the rest of the records has no memory. */
int emulated_memory_adopt(struct emulated_memory_table *table, int fd)
{
	const off_t first = (off_t)(EMULATED_CONTEXT_RECORDS_PAGE * EMULATED_PAGE_BYTES);
	const off_t end = first + (off_t)(EMULATED_MEMORY_MAX * sizeof(table->records[0]));
	off_t data, hole = first;
	int error = 0;

	while (!error && (data = lseek(fd, hole, SEEK_DATA)) >= 0 && data < end) {
		hole = lseek(fd, data, SEEK_HOLE);
		for (off_t at = data; !error && at < hole && at < end;
		     at += (off_t)sizeof(table->records[0]))
			error = memory_adopt(table, (uint32_t)((size_t)(at - first) /
							       sizeof(table->records[0])));
	}
	return error;
}

void emulated_memory_adopted(struct emulated_memory_table *table)
{
	for (uint32_t i = 0; i < table->adopted_end; i++)
		if (table->memories[i])
			emulated_memory_unref(table, table->memories[i]);
}

static int table_add(struct emulated_memory_table *table, struct emulated_memory *memory)
{
	struct emulated_memory_record *record;
	uint32_t i;

	pthread_mutex_lock(&table->lock);
	for (i = table->lowest_free; i < EMULATED_MEMORY_MAX && table->memories[i]; i++)
		;
	if (i < EMULATED_MEMORY_MAX) {
		memory->index = i;
		table->memories[i] = memory;
		table->lowest_free = i + 1;
		record = &table->records[i];
		atomic_store_explicit(&record->dev, memory->dev, memory_order_relaxed);
		atomic_store_explicit(&record->ino, memory->ino, memory_order_relaxed);
		atomic_store_explicit(&record->first_page, memory->first_page,
				      memory_order_relaxed);
		atomic_store_explicit(&record->n_pages, memory->n_pages, memory_order_release);
	}
	pthread_mutex_unlock(&table->lock);
	return i < EMULATED_MEMORY_MAX ? 0 : ENOMEM;
}

int emulated_memory_new(struct emulated_memory_table *table, int borrow_fd, uint64_t offset,
			uint64_t length, bool writable, struct emulated_memory **ret)
{
	struct emulated_memory *memory;
	int error;

	if (length / EMULATED_PAGE_BYTES > EMULATED_OFFSET_PAGES_MAX)
		return EINVAL;
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return ENOMEM;
	memory->first_page = offset / EMULATED_PAGE_BYTES;
	memory->n_pages = length / EMULATED_PAGE_BYTES;
	memory->writable = writable;
	memory->refs = 1;
	memory->serial = atomic_fetch_add(&last_serial, 1) + 1;
	error = memory_open(memory, borrow_fd);
	if (!error)
		error = table_add(table, memory);
	if (error) {
		memory_free(memory);
		return error;
	}
	*ret = memory;
	return 0;
}

void emulated_memory_unref(struct emulated_memory_table *table, struct emulated_memory *memory)
{
	if (atomic_fetch_sub_explicit(&memory->refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_lock(&table->lock);
	atomic_store_explicit(&table->records[memory->index].n_pages, 0, memory_order_release);
	table->memories[memory->index] = NULL;
	if (memory->index < table->lowest_free)
		table->lowest_free = memory->index;
	pthread_mutex_unlock(&table->lock);
	memory_free(memory);
}

/* Pages that can be pinned from the piece's first on: 0 if the file is neither shmem nor hugetlbfs,
 * fewer than all if it is shorter. */
static uint64_t memory_pinnable(const struct emulated_memory *memory)
{
	struct statfs fs;
	struct stat st;
	uint64_t pages;

	if (memory->fd < 0)
		return memory->n_pages;
	if (fstat(memory->fd, &st) < 0 || !S_ISREG(st.st_mode) || fstatfs(memory->fd, &fs) < 0)
		return 0;
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC)
		return 0;
	pages = (uint64_t)st.st_size / EMULATED_PAGE_BYTES;
	if (pages <= memory->first_page)
		return 0;
	pages -= memory->first_page;
	return pages < memory->n_pages ? pages : memory->n_pages;
}

/* Once more, if it is pinned: the case of every copy out of a parent. */
static bool pin_again(_Atomic uint32_t *pins)
{
	uint32_t n = atomic_load_explicit(pins, memory_order_relaxed);

	while (n > 0)
		if (atomic_compare_exchange_weak_explicit(pins, &n, n + 1, memory_order_relaxed,
							  memory_order_relaxed))
			return true;
	return false;
}

int emulated_memory_pin(struct emulated_memory_table *table, struct emulated_memory *memory,
			uint64_t page, struct emulated_memory_look *look)
{
	uint64_t pinned;

	if (pin_again(&memory->pins[page]))
		return 0;
	if (look->memory != memory) {
		look->memory = memory;
		look->pinnable = memory_pinnable(memory);
	}
	if (page >= look->pinnable)
		return EINVAL;
	if (atomic_fetch_add_explicit(&memory->pins[page], 1, memory_order_relaxed))
		return 0;
	pinned = atomic_fetch_add_explicit(&table->pinned_pages, 1, memory_order_relaxed);
	if (pinned < atomic_load_explicit(&table->pinned_pages_max, memory_order_relaxed))
		return 0;
	emulated_memory_unpin(table, memory, page);
	return ENOMEM;
}

void emulated_memory_unpin(struct emulated_memory_table *table, struct emulated_memory *memory,
			   uint64_t page)
{
	if (atomic_fetch_sub_explicit(&memory->pins[page], 1, memory_order_relaxed) == 1)
		atomic_fetch_sub_explicit(&table->pinned_pages, 1, memory_order_relaxed);
}
