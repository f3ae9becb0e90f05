/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The DMA engine, see dma.h, and layout.h for how reading without locks works.
 *
 * Nothing in the device file is trusted: page numbers are bounded before they are followed, and a
 * walk has a fixed number of steps.
 */

#include "iommu/emulated/dma.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iommu/emulated/layout.h"

struct dma_memory {
	uint64_t dev, ino;
	uint8_t *map;
	uint64_t bytes;
	bool writable;
};

struct emulated_dma {
	const uint8_t *file; /* EMULATED_FILE_BYTES, read-only */
	const struct emulated_device_header *header;
	uint64_t dma_first, dma_last;
	pthread_mutex_t add_lock;
	_Atomic size_t n_memories; /* those before it never change */
	struct dma_memory memories[EMULATED_DMA_MEMORIES_MAX];
};

static int header_check(const struct emulated_device_header *header)
{
	if (header->magic != EMULATED_DEVICE_MAGIC || header->version != EMULATED_VERSION ||
	    !memchr(header->pci_address, 0, sizeof(header->pci_address)))
		return -EINVAL;
	return 0;
}

static int dma_map(struct emulated_dma *dma, int fd)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat st;
	void *map;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != EMULATED_FILE_BYTES ||
	    (fcntl(fd, F_GET_SEALS) & seals) != seals || fcntl(fd, F_GET_SEALS) < 0)
		return -EINVAL;
	map = mmap(NULL, EMULATED_FILE_BYTES, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	dma->file = map;
	dma->header = map;
	return header_check(dma->header);
}

int emulated_dma_open(struct emulated_dma **ret, int borrow_device_fd)
{
	struct emulated_dma *dma;
	int r;

	dma = calloc(1, sizeof(*dma));
	if (!dma)
		return -ENOMEM;
	pthread_mutex_init(&dma->add_lock, NULL);
	r = dma_map(dma, borrow_device_fd);
	if (r < 0) {
		emulated_dma_close(dma);
		return r;
	}
	dma->dma_first = dma->header->dma_first;
	dma->dma_last = dma->header->dma_last;
	*ret = dma;
	return 0;
}

struct emulated_dma *emulated_dma_close(struct emulated_dma *dma)
{
	if (!dma)
		return NULL;
	for (size_t i = 0; i < dma->n_memories; i++)
		munmap(dma->memories[i].map, dma->memories[i].bytes);
	if (dma->file)
		munmap((void *)dma->file, EMULATED_FILE_BYTES);
	pthread_mutex_destroy(&dma->add_lock);
	free(dma);
	return NULL;
}

static struct dma_memory *find_memory(struct emulated_dma *dma, uint64_t dev, uint64_t ino)
{
	size_t n = atomic_load_explicit(&dma->n_memories, memory_order_acquire);

	for (size_t i = 0; i < n; i++)
		if (dma->memories[i].ino == ino && dma->memories[i].dev == dev)
			return &dma->memories[i];
	return NULL;
}

static int memory_map(struct dma_memory *ret, int fd, const struct stat *st)
{
	int mode = fcntl(fd, F_GETFL);
	bool writable = mode >= 0 && (mode & O_ACCMODE) == O_RDWR;
	void *map;

	if (mode < 0)
		return -errno;
	map = mmap(NULL, (size_t)st->st_size, PROT_READ | (writable ? PROT_WRITE : 0),
		   MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*ret = (struct dma_memory){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.map = map,
		.bytes = (uint64_t)st->st_size,
		.writable = writable,
	};
	return 0;
}

int emulated_dma_add_memory(struct emulated_dma *dma, int borrow_fd)
{
	struct stat st;
	size_t n;
	int r;

	if (fstat(borrow_fd, &st) < 0)
		return -errno;
	pthread_mutex_lock(&dma->add_lock);
	n = dma->n_memories;
	if (find_memory(dma, st.st_dev, st.st_ino))
		r = -EEXIST;
	else if (n == EMULATED_DMA_MEMORIES_MAX)
		r = -ENOSPC;
	else
		r = memory_map(&dma->memories[n], borrow_fd, &st);
	if (r == 0)
		atomic_store_explicit(&dma->n_memories, n + 1, memory_order_release);
	pthread_mutex_unlock(&dma->add_lock);
	return r;
}

static bool table_is_bad(uint64_t page)
{
	return page < EMULATED_DEVICE_TABLES_PAGE || page >= EMULATED_FILE_PAGES;
}

static enum emulated_dma_reason walk_tables(const struct emulated_dma *dma, uint64_t iova,
					    uint64_t *ret_word)
{
	uint64_t word = atomic_load_explicit(&dma->header->root, memory_order_acquire);

	if (word == 0)
		return EMULATED_DMA_BLOCKED;
	for (unsigned int level = EMULATED_LEVELS; level-- > 0;) {
		const _Atomic uint64_t *table;

		if (table_is_bad(word))
			return EMULATED_DMA_BAD_TABLE;
		table = (const _Atomic uint64_t *)(dma->file + word * EMULATED_PAGE_BYTES);
		word = atomic_load_explicit(
			&table[emulated_index(iova >> EMULATED_PAGE_BITS, level)],
			memory_order_acquire);
		if (word == 0)
			return EMULATED_DMA_NOT_MAPPED;
	}
	if (!(word & EMULATED_WORD_VALID))
		return EMULATED_DMA_BAD_TABLE;
	*ret_word = word;
	return EMULATED_DMA_OK;
}

static enum emulated_dma_reason walk_record(const struct emulated_dma *dma, uint64_t iova,
					    uint64_t word, struct emulated_dma_target *ret)
{
	const struct emulated_memory_record *record =
		(const void *)(dma->file + EMULATED_DEVICE_RECORDS_PAGE * EMULATED_PAGE_BYTES);
	uint64_t page = emulated_word_page(word), first;

	record += emulated_word_memory(word);
	first = atomic_load_explicit(&record->first_page, memory_order_relaxed);
	if (page >= atomic_load_explicit(&record->n_pages, memory_order_relaxed) ||
	    page + first < first || page + first > EMULATED_LAST_PAGE)
		return EMULATED_DMA_BAD_TABLE;
	*ret = (struct emulated_dma_target){
		.dev = atomic_load_explicit(&record->dev, memory_order_relaxed),
		.ino = atomic_load_explicit(&record->ino, memory_order_relaxed),
		.offset =
			((page + first) << EMULATED_PAGE_BITS) + (iova & (EMULATED_PAGE_BYTES - 1)),
		.readable = word & EMULATED_WORD_READ,
		.writable = word & EMULATED_WORD_WRITE,
	};
	return EMULATED_DMA_OK;
}

static enum emulated_dma_reason walk(const struct emulated_dma *dma, uint64_t iova,
				     struct emulated_dma_target *ret)
{
	uint64_t word;
	enum emulated_dma_reason reason;

	if (!atomic_load_explicit(&dma->header->enabled, memory_order_acquire))
		return EMULATED_DMA_DISABLED;
	if (iova < dma->dma_first || iova > dma->dma_last)
		return EMULATED_DMA_OUTSIDE_WINDOW;
	reason = walk_tables(dma, iova, &word);
	if (reason == EMULATED_DMA_OK)
		reason = walk_record(dma, iova, word, ret);
	return reason;
}

enum emulated_dma_reason emulated_dma_translate(const struct emulated_dma *dma, uint64_t iova,
						struct emulated_dma_target *ret)
{
	const _Atomic uint64_t *generation = &dma->header->generation;
	struct emulated_dma_target target = {0};
	enum emulated_dma_reason reason;
	uint64_t before, after;

	after = atomic_load_explicit(generation, memory_order_acquire);
	do {
		before = after;
		reason = walk(dma, iova, &target);
		atomic_thread_fence(memory_order_acquire);
		after = atomic_load_explicit(generation, memory_order_acquire);
	} while (before != after);
	if (reason == EMULATED_DMA_OK)
		*ret = target;
	return reason;
}

/* The guest uses its memory meanwhile: whole words where both sides allow, and never memcpy(). */
static void copy_in(uint8_t *to, const uint8_t *shared, size_t length)
{
	for (; length && (uintptr_t)shared % 8; length--)
		*to++ = __atomic_load_n(shared++, __ATOMIC_RELAXED);
	for (; length >= 8; length -= 8, to += 8, shared += 8) {
		uint64_t word = __atomic_load_n((const uint64_t *)shared, __ATOMIC_RELAXED);

		memcpy(to, &word, 8);
	}
	for (; length; length--)
		*to++ = __atomic_load_n(shared++, __ATOMIC_RELAXED);
}

static void copy_out(uint8_t *shared, const uint8_t *from, size_t length)
{
	for (; length && (uintptr_t)shared % 8; length--)
		__atomic_store_n(shared++, *from++, __ATOMIC_RELAXED);
	for (; length >= 8; length -= 8, from += 8, shared += 8) {
		uint64_t word;

		memcpy(&word, from, 8);
		__atomic_store_n((uint64_t *)shared, word, __ATOMIC_RELAXED);
	}
	for (; length; length--)
		__atomic_store_n(shared++, *from++, __ATOMIC_RELAXED);
}

/* Host address of iova's byte, for an access within one page. */
static enum emulated_dma_reason locate(struct emulated_dma *dma, uint64_t iova, size_t length,
				       bool write, uint8_t **ret)
{
	struct emulated_dma_target target;
	enum emulated_dma_reason reason;
	struct dma_memory *memory;

	reason = emulated_dma_translate(dma, iova, &target);
	if (reason != EMULATED_DMA_OK)
		return reason;
	if (write && !target.writable)
		return EMULATED_DMA_READ_ONLY;
	if (!write && !target.readable)
		return EMULATED_DMA_WRITE_ONLY;
	memory = find_memory(dma, target.dev, target.ino);
	if (!memory || target.offset >= memory->bytes || length > memory->bytes - target.offset)
		return EMULATED_DMA_UNKNOWN_MEMORY;
	if (write && !memory->writable)
		return EMULATED_DMA_READ_ONLY;
	*ret = memory->map + target.offset;
	return EMULATED_DMA_OK;
}

static enum emulated_dma_reason fault(struct emulated_dma_fault *ret_fault, uint64_t iova,
				      enum emulated_dma_reason reason)
{
	if (ret_fault)
		*ret_fault = (struct emulated_dma_fault){.iova = iova, .reason = reason};
	return reason;
}

/* Bytes of an access that lie in the page of iova. */
static size_t in_page(uint64_t iova, size_t length)
{
	size_t room = EMULATED_PAGE_BYTES - (iova & (EMULATED_PAGE_BYTES - 1));

	return length < room ? length : room;
}

enum emulated_dma_reason emulated_dma_read(struct emulated_dma *dma, uint64_t iova, void *buffer,
					   size_t length, struct emulated_dma_fault *ret_fault)
{
	uint8_t *to = buffer, *host;

	while (length) {
		size_t n = in_page(iova, length);
		enum emulated_dma_reason reason = locate(dma, iova, n, false, &host);

		if (reason != EMULATED_DMA_OK)
			return fault(ret_fault, iova, reason);
		copy_in(to, host, n);
		to += n;
		iova += n;
		length -= n;
	}
	return EMULATED_DMA_OK;
}

enum emulated_dma_reason emulated_dma_write(struct emulated_dma *dma, uint64_t iova,
					    const void *buffer, size_t length,
					    struct emulated_dma_fault *ret_fault)
{
	const uint8_t *from = buffer;
	uint8_t *host;

	while (length) {
		size_t n = in_page(iova, length);
		enum emulated_dma_reason reason = locate(dma, iova, n, true, &host);

		if (reason != EMULATED_DMA_OK)
			return fault(ret_fault, iova, reason);
		copy_out(host, from, n);
		from += n;
		iova += n;
		length -= n;
	}
	return EMULATED_DMA_OK;
}

void emulated_dma_state(const struct emulated_dma *dma, struct emulated_dma_state *ret)
{
	*ret = (struct emulated_dma_state){
		.fid = dma->header->fid,
		.dma_first = dma->dma_first,
		.dma_last = dma->dma_last,
		.enabled = atomic_load(&dma->header->enabled),
		.attached = atomic_load(&dma->header->root),
		.resets = atomic_load(&dma->header->resets),
	};
	memcpy(ret->pci_address, dma->header->pci_address, sizeof(ret->pci_address));
	ret->pci_address[sizeof(ret->pci_address) - 1] = 0;
}

const char *emulated_dma_reason_name(enum emulated_dma_reason reason)
{
	static const char *const names[] = {
		[EMULATED_DMA_OK] = "ok",
		[EMULATED_DMA_DISABLED] = "disabled",
		[EMULATED_DMA_OUTSIDE_WINDOW] = "outside window",
		[EMULATED_DMA_BLOCKED] = "blocked",
		[EMULATED_DMA_NOT_MAPPED] = "not mapped",
		[EMULATED_DMA_READ_ONLY] = "read only",
		[EMULATED_DMA_WRITE_ONLY] = "write only",
		[EMULATED_DMA_UNKNOWN_MEMORY] = "unknown memory",
		[EMULATED_DMA_BAD_TABLE] = "bad table",
	};

	if ((size_t)reason >= sizeof(names) / sizeof(names[0]))
		return "unknown";
	return names[reason];
}
