/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See zpci.h. */

#include "replay/zpci.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

#define IOTA_FLAGS             UINT64_C(0x3fff)
#define IOTA_TRANSLATE         0x800u
#define IOTA_PROTECTED         0x200u
#define IOTA_DESIGNATION(iota) (((iota) >> 2) & 7)

#define TABLE_ENTRIES     2048u /* region and segment tables */
#define TABLE_BYTES       0x4000u
#define TABLE_INVALID     0x20u
#define TABLE_PROTECTED   0x200u
#define TABLE_LENGTH      3u
#define REGION_NEXT       (~UINT64_C(0x3fff))
#define SEGMENT_NEXT      (~UINT64_C(0x7ff))
#define SEGMENT_FRAME     0x400u /* 1 MiB frame */
#define SEGMENT_FRAME_GPA (~UINT64_C(0xfffff))
#define PAGE_ENTRIES      256u
#define PAGE_TABLE_BYTES  0x800u
#define PAGE_INVALID      0x400u
#define PAGE_PROTECTED    0x200u
#define PAGE_FRAME        (~UINT64_C(0xfff))

#define SEGMENT_SHIFT 20
#define REGION_SHIFT  31 /* of a region-third table; each one above 11 more */
#define LEVEL_BITS    11

/* level: 0 segment table, 1 to 3 region-third to -first. */
static unsigned int level_shift(unsigned int level)
{
	return level == 0 ? SEGMENT_SHIFT : REGION_SHIFT + LEVEL_BITS * (level - 1);
}

static unsigned int level_index(unsigned int level, uint64_t iova)
{
	return (iova >> level_shift(level)) & (TABLE_ENTRIES - 1);
}

static bool covers(unsigned int designation, uint64_t iova)
{
	unsigned int bits = level_shift(designation) + LEVEL_BITS;

	return bits >= 64 || iova >> bits == 0;
}

static _Atomic uint64_t *entry_at(const struct zpci_tables *tables, uint64_t gpa)
{
	return (_Atomic uint64_t *)(void *)(tables->host + (gpa - tables->gpa));
}

static uint64_t load(const struct zpci_tables *tables, uint64_t gpa)
{
	return be64toh(atomic_load_explicit(entry_at(tables, gpa), memory_order_relaxed));
}

/* Release: a table is filled before it can be reached. */
static void store(const struct zpci_tables *tables, uint64_t gpa, uint64_t entry)
{
	atomic_store_explicit(entry_at(tables, gpa), htobe64(entry), memory_order_release);
}

static int table_new(struct zpci_tables *tables, uint64_t n_bytes, uint64_t empty,
		     uint64_t *ret_gpa)
{
	uint64_t start = (tables->n_used + n_bytes - 1) & ~(n_bytes - 1);

	if (start + n_bytes > tables->n_bytes)
		return -ENOSPC;
	for (uint64_t at = start; at < start + n_bytes; at += sizeof(uint64_t))
		store(tables, tables->gpa + at, empty);
	tables->n_used = start + n_bytes;
	*ret_gpa = tables->gpa + start;
	return 0;
}

int zpci_tables_init(struct zpci_tables *tables, uint64_t iota)
{
	if (!(iota & IOTA_TRANSLATE) || IOTA_DESIGNATION(iota) > 3)
		return -EINVAL;
	tables->designation = IOTA_DESIGNATION(iota);
	tables->n_used = 0;
	return table_new(tables, TABLE_BYTES, TABLE_INVALID, &tables->root);
}

uint64_t zpci_tables_iota(const struct zpci_tables *tables, uint64_t iota)
{
	return tables->root | (iota & IOTA_FLAGS);
}

/* The table under an entry, made if there is none. */
static int descend(struct zpci_tables *tables, unsigned int level, uint64_t entry_gpa,
		   uint64_t *ret_table)
{
	uint64_t entry = load(tables, entry_gpa);
	uint64_t table;
	int r;

	if (!(entry & TABLE_INVALID)) {
		*ret_table = entry & (level == 0 ? SEGMENT_NEXT : REGION_NEXT);
		return 0;
	}
	if (level == 0)
		r = table_new(tables, PAGE_TABLE_BYTES, PAGE_INVALID, &table);
	else
		r = table_new(tables, TABLE_BYTES, TABLE_INVALID, &table);
	if (r < 0)
		return r;
	store(tables, entry_gpa, level == 0 ? table : table | level << 2 | TABLE_LENGTH);
	*ret_table = table;
	return 0;
}

int zpci_tables_set(struct zpci_tables *tables, uint64_t iova, uint64_t gpa, unsigned int leaf)
{
	uint64_t table = tables->root;
	uint64_t entry = PAGE_INVALID;

	if (!covers(tables->designation, iova))
		return -EINVAL;
	for (unsigned int level = tables->designation + 1; level-- > 0;) {
		uint64_t at = table + level_index(level, iova) * sizeof(uint64_t);
		int r = descend(tables, level, at, &table);

		if (r < 0)
			return r;
	}
	if (leaf != ZPCI_LEAF_NONE)
		entry = (gpa & PAGE_FRAME) | (leaf == ZPCI_LEAF_READ ? PAGE_PROTECTED : 0);
	store(tables, table + (iova >> 12 & (PAGE_ENTRIES - 1)) * sizeof(uint64_t), entry);
	return 0;
}

struct walk {
	const uint8_t *host;
	uint64_t n_bytes;
	uint64_t first, last;
	zpci_visit_fn visit;
	void *user_data;
};

static int fetch(const struct walk *walk, uint64_t gpa, uint64_t *ret)
{
	if (gpa > walk->n_bytes - sizeof(uint64_t) || walk->n_bytes < sizeof(uint64_t))
		return -EFAULT;
	*ret = be64toh(*(const uint64_t *)(const void *)(walk->host + gpa));
	return 0;
}

static int visit_page(const struct walk *walk, uint64_t iova, uint64_t gpa, bool protected)
{
	if (iova < walk->first || iova > walk->last)
		return 0;
	return walk->visit(walk->user_data, iova, gpa,
			   protected ? ZPCI_LEAF_READ : ZPCI_LEAF_READ_WRITE);
}

static int walk_pages(const struct walk *walk, uint64_t table, uint64_t iova, bool protected)
{
	uint64_t entry;
	int r = 0;

	for (unsigned int i = 0; i < PAGE_ENTRIES && r == 0; i++) {
		r = fetch(walk, table + i * sizeof(entry), &entry);
		if (r == 0 && !(entry & PAGE_INVALID))
			r = visit_page(walk, iova + i * ZPCI_PAGE_BYTES, entry & PAGE_FRAME,
				       protected || (entry & PAGE_PROTECTED));
	}
	return r;
}

static int walk_frame(const struct walk *walk, uint64_t gpa, uint64_t iova, bool protected)
{
	int r = 0;

	for (uint64_t at = 0; at < 1u << SEGMENT_SHIFT && r == 0; at += ZPCI_PAGE_BYTES)
		r = visit_page(walk, iova + at, gpa + at, protected);
	return r;
}

static int walk_table(const struct walk *walk, unsigned int level, uint64_t table, uint64_t iova,
		      bool protected);

static int walk_entry(const struct walk *walk, unsigned int level, uint64_t entry, uint64_t iova,
		      bool protected)
{
	if (entry == 0)
		return -EBADMSG;
	if (entry & TABLE_INVALID)
		return 0;
	protected |= (entry & TABLE_PROTECTED) != 0;
	if ((entry >> 2 & 3) != level)
		return -EBADMSG;
	if (level > 0)
		return walk_table(walk, level - 1, entry & REGION_NEXT, iova, protected);
	if (entry & SEGMENT_FRAME)
		return walk_frame(walk, entry & SEGMENT_FRAME_GPA, iova, protected);
	return walk_pages(walk, entry & SEGMENT_NEXT, iova, protected);
}

static int walk_table(const struct walk *walk, unsigned int level, uint64_t table, uint64_t iova,
		      bool protected)
{
	uint64_t span = UINT64_C(1) << level_shift(level);
	uint64_t entry;
	int r = 0;

	for (unsigned int i = 0; i < TABLE_ENTRIES && r == 0; i++) {
		uint64_t start = iova + i * span;

		if (start > walk->last || start + (span - 1) < walk->first)
			continue;
		r = fetch(walk, table + i * sizeof(entry), &entry);
		if (r == 0)
			r = walk_entry(walk, level, entry, start, protected);
	}
	return r;
}

int zpci_walk(const uint8_t *host, uint64_t n_bytes, uint64_t iota, uint64_t first, uint64_t last,
	      zpci_visit_fn visit, void *user_data)
{
	const struct walk walk = {host, n_bytes, first, last, visit, user_data};

	if (!(iota & IOTA_TRANSLATE) || IOTA_DESIGNATION(iota) > 3)
		return -EINVAL;
	return walk_table(&walk, IOTA_DESIGNATION(iota), iota & ZPCI_IOTA_ORIGIN, 0,
			  (iota & IOTA_PROTECTED) != 0);
}
