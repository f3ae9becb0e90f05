/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See tables.h. */

#include "tables.h"

#include <endian.h>
#include <stdatomic.h>

#include "check.h"

#define IOTA_REGION_THIRD 0x804u /* what Linux registers */
#define ENTRY_PROTECTED   UINT64_C(0x200)
#define REGION_NEXT       (~UINT64_C(0x3fff))
#define SEGMENT_NEXT      (~UINT64_C(0x7ff))

void tables_init(struct tables *tables, uint8_t *host, uint64_t gpa, uint64_t n_bytes)
{
	tables->zpci = (struct zpci_tables){.host = host, .gpa = gpa, .n_bytes = n_bytes};
	REQUIRE_EQUAL(zpci_tables_init(&tables->zpci, IOTA_REGION_THIRD), 0);
}

uint64_t tables_iota(const struct tables *tables)
{
	return zpci_tables_iota(&tables->zpci, IOTA_REGION_THIRD);
}

void tables_map(struct tables *tables, uint64_t iova, uint64_t gpa, uint64_t n_pages,
		unsigned int leaf)
{
	for (uint64_t i = 0; i < n_pages; i++)
		REQUIRE_EQUAL(zpci_tables_set(&tables->zpci, iova + i * ZPCI_PAGE_BYTES,
					      gpa + i * ZPCI_PAGE_BYTES, leaf),
			      0);
}

void tables_unmap(struct tables *tables, uint64_t iova, uint64_t n_pages)
{
	tables_map(tables, iova, 0, n_pages, ZPCI_LEAF_NONE);
}

static _Atomic uint64_t *entry_at(const struct tables *tables, uint64_t table, uint64_t index)
{
	return (_Atomic uint64_t *)(void *)(tables->zpci.host + (table - tables->zpci.gpa)) + index;
}

void tables_protect(struct tables *tables, enum tables_level level, uint64_t iova, bool on)
{
	_Atomic uint64_t *entry = entry_at(tables, tables->zpci.root, iova >> 31 & 0x7ff);
	uint64_t value = be64toh(atomic_load(entry));

	if (level < TABLES_REGION) {
		entry = entry_at(tables, value & REGION_NEXT, iova >> 20 & 0x7ff);
		value = be64toh(atomic_load(entry));
	}
	if (level < TABLES_SEGMENT) {
		entry = entry_at(tables, value & SEGMENT_NEXT, iova >> 12 & 0xff);
		value = be64toh(atomic_load(entry));
	}
	atomic_store(entry, htobe64(on ? value | ENTRY_PROTECTED : value & ~ENTRY_PROTECTED));
}
