/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_LAYOUT_H
#define IB_IOMMU_EMULATED_LAYOUT_H

/*
 * What lies in an emulated function's device file and in a context's state file: the only thing
 * that the backend (daemon) and the DMA engine (whoever holds the device descriptor) share.
 *
 * Both files are sealed, sparse memfds of fixed size, made of 4 KiB pages: a header, tables of
 * records at fixed places, and translation tables. A translation table is one page of 512 atomic
 * 64-bit words in host byte order; EMULATED_LEVELS tables translate the 52-bit page number of an
 * IOVA, as a radix tree. A word of an upper table is the file's page number of the next table, 0
 * if there is none; a word of the lowest is a translation, below.
 *
 * How a reader without locks gets either the old or the new translation, and never a mixture:
 * the writer publishes a table or record complete, then stores the word that leads to it (release).
 * To use a table or record again for something else it clears every word that leads to it, then
 * raises the generation, then changes it. A reader takes the generation before and after, and
 * starts again if it moved.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define EMULATED_PAGE_BYTES  4096ul
#define EMULATED_PAGE_BITS   12
#define EMULATED_TABLE_BITS  9
#define EMULATED_TABLE_WORDS (1u << EMULATED_TABLE_BITS)
#define EMULATED_LEVELS      6 /* 6 * 9 bits cover the 52 of a page number */
#define EMULATED_LAST_PAGE   ((UINT64_C(1) << 52) - 1)

/* A translation: flags, which record of memory, which page of it. */
#define EMULATED_WORD_VALID UINT64_C(1)
#define EMULATED_WORD_READ  UINT64_C(2)
#define EMULATED_WORD_WRITE UINT64_C(4)
/* State file only: the memory was mapped writable, whatever this area allows (a writable copy of a
 * read-only copy of it is legal), and the word begins an area. */
#define EMULATED_WORD_MEMORY_WRITE UINT64_C(8)
#define EMULATED_WORD_START        UINT64_C(16)

#define EMULATED_MEMORY_BITS      19
#define EMULATED_MEMORY_SHIFT     5
#define EMULATED_MEMORY_MAX       (1u << EMULATED_MEMORY_BITS)
#define EMULATED_OFFSET_SHIFT     (EMULATED_MEMORY_SHIFT + EMULATED_MEMORY_BITS)
#define EMULATED_OFFSET_PAGES_MAX (UINT64_C(1) << (64 - EMULATED_OFFSET_SHIFT))

static inline uint64_t emulated_word(uint64_t flags, uint32_t memory, uint64_t page)
{
	return flags | (uint64_t)memory << EMULATED_MEMORY_SHIFT | page << EMULATED_OFFSET_SHIFT;
}

static inline uint32_t emulated_word_memory(uint64_t word)
{
	return (word >> EMULATED_MEMORY_SHIFT) & (EMULATED_MEMORY_MAX - 1);
}

static inline uint64_t emulated_word_page(uint64_t word)
{
	return word >> EMULATED_OFFSET_SHIFT;
}

/* Index into the table of that level (0 is the lowest) for a page number. */
static inline unsigned int emulated_index(uint64_t page, unsigned int level)
{
	return (page >> (level * EMULATED_TABLE_BITS)) & (EMULATED_TABLE_WORDS - 1);
}

/* One mapped piece of a memory file: all zero if unused. */
struct emulated_memory_record {
	_Atomic uint64_t dev, ino;   /* of the file, as fstat() says */
	_Atomic uint64_t first_page; /* of the file: page 0 of the piece */
	_Atomic uint64_t n_pages;
};

/* 64 bits each, "ibemudev" and "ibemuctx" on a little-endian machine. */
#define EMULATED_DEVICE_MAGIC  UINT64_C(0x766564756d656269)
#define EMULATED_CONTEXT_MAGIC UINT64_C(0x787463756d656269)
#define EMULATED_VERSION       1

#define EMULATED_FILE_BYTES (UINT64_C(8) << 30)
#define EMULATED_FILE_PAGES (EMULATED_FILE_BYTES / EMULATED_PAGE_BYTES)
#define EMULATED_RECORDS_PAGES \
	(EMULATED_MEMORY_MAX * sizeof(struct emulated_memory_record) / EMULATED_PAGE_BYTES)

/* Device file: page 0 is this, then EMULATED_MEMORY_MAX records of memory, then tables. */
struct emulated_device_header {
	uint64_t magic;
	uint32_t version;
	uint32_t fid;
	char pci_address[16];
	uint64_t dma_first, dma_last; /* the window: DMA outside it reaches nothing */
	_Atomic uint64_t enabled;     /* bus master */
	_Atomic uint64_t resets;
	_Atomic uint64_t generation;
	_Atomic uint64_t root; /* page of the top table; 0: blocked */
};
#define EMULATED_DEVICE_RECORDS_PAGE 1u
#define EMULATED_DEVICE_TABLES_PAGE \
	(EMULATED_DEVICE_RECORDS_PAGE + (uint32_t)EMULATED_RECORDS_PAGES)

/* State file: page 0 is this, then object records, records of memory, tables. */
#define EMULATED_OBJECTS_MAX 65536u /* ids 1 .. EMULATED_OBJECTS_MAX - 1 */

enum emulated_object_kind {
	EMULATED_OBJECT_NONE,
	EMULATED_OBJECT_IOAS,
	EMULATED_OBJECT_PAGE_TABLE,
	EMULATED_OBJECT_DEVICE,
};

struct emulated_object_record {
	_Atomic uint32_t kind;     /* stored last */
	_Atomic uint32_t cuttable; /* IOAS */
	_Atomic uint32_t over;     /* page table: its IOAS; device: page table attached to, or 0 */
	_Atomic uint32_t root;     /* IOAS: page of its top table; device: its function id */
};

struct emulated_context_header {
	uint64_t magic;
	uint32_t version;
	uint32_t unused;
};
#define EMULATED_OBJECTS_PAGES \
	(EMULATED_OBJECTS_MAX * sizeof(struct emulated_object_record) / EMULATED_PAGE_BYTES)
#define EMULATED_CONTEXT_OBJECTS_PAGE 1u
#define EMULATED_CONTEXT_RECORDS_PAGE \
	(EMULATED_CONTEXT_OBJECTS_PAGE + (uint32_t)EMULATED_OBJECTS_PAGES)
#define EMULATED_CONTEXT_TABLES_PAGE \
	(EMULATED_CONTEXT_RECORDS_PAGE + (uint32_t)EMULATED_RECORDS_PAGES)

_Static_assert(sizeof(struct emulated_device_header) <= EMULATED_PAGE_BYTES, "one page");
_Static_assert(sizeof(struct emulated_memory_record) == 32, "fixed layout");
_Static_assert(sizeof(struct emulated_object_record) == 16, "fixed layout");
_Static_assert(sizeof(_Atomic uint64_t) == 8, "lock-free words");

#endif
