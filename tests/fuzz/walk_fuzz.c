/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Any tables in front of the walk: it ends, reads guest memory only, costs what was allowed, and
 * the scan of a range agrees with the explanation of each address in it.
 *
 * Input: a byte (0x3 designation, 0x4 write protection), 2 bytes of origin in 16 KiB, 8 bytes of
 * IOVA, then records of 10 bytes: index of a word of guest memory, and the word, little-endian.
 */

#include <stdlib.h>
#include <string.h>

#include "s390/scan.h"
#include "s390_guest.h"
#include "util/guest_read.h"

#define MEMORY_BYTES 0x20000u
#define COST_MAX     400
#define ANSWERS_MAX  4096
#define SPAN         (UINT64_C(1) << 32)
#define HEADER_BYTES 11
#define RECORD_BYTES 10
#define INVALID_WORD (S390_PAGE_INVALID | S390_UPPER_INVALID)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t little(const uint8_t *bytes, size_t n)
{
	uint64_t value = 0;

	for (size_t i = n; i-- > 0;)
		value = value << 8 | bytes[i];
	return value;
}

/* The memory stays from run to run, what is in it does not. */
static void guest_build(struct guest *guest, const uint8_t *records, size_t size)
{
	static uint64_t invalid[MEMORY_BYTES / 2 / sizeof(uint64_t)];

	if (!guest->view) {
		guest_add_region(guest, 0, MEMORY_BYTES / 2, true);
		guest_add_region(guest, MEMORY_BYTES / 2, MEMORY_BYTES / 2, false);
		guest_publish(guest);
		for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++)
			invalid[i] = htobe64(INVALID_WORD);
	}
	memcpy(guest->regions[0].host, invalid, sizeof(invalid));
	memcpy(guest->regions[1].host, invalid, sizeof(invalid));
	for (; size >= RECORD_BYTES; size -= RECORD_BYTES, records += RECORD_BYTES)
		guest_put(guest, little(records, 2) * 8 % MEMORY_BYTES, 0, little(records + 2, 8));
}

static void agree_fault(const struct s390_found *found, const struct s390_explanation *e)
{
	if (e->present || e->fault.code != found->fault.code ||
	    e->fault.level != found->fault.level || e->fault.entry != found->fault.entry ||
	    e->fault.outside_memory != found->fault.outside_memory)
		abort();
}

static void agree(const struct s390_found *found, const struct s390_explanation *e)
{
	switch (found->kind) {
	case S390_FOUND_FAULT:
		agree_fault(found, e);
		break;
	case S390_FOUND_FRAME:
		if (!e->present || e->frame_bytes != S390_SEGMENT_BYTES ||
		    e->writable == found->protect || (e->gpa & S390_SEGMENT_FRAME) != found->gpa)
			abort();
		break;
	case S390_FOUND_PT:
		if (e->fault.code || e->steps[e->n_steps - 1].level != S390_LEVEL_PAGE ||
		    e->steps[e->n_steps - 1].table_gpa != found->gpa ||
		    (e->present && e->writable && found->protect))
			abort();
		break;
	default:
		abort();
	}
}

/* Nothing lies between two answers. */
static void agree_absent(const struct s390_anchor *anchor, const struct memory_view *view,
			 uint64_t first, uint64_t stop)
{
	struct s390_explanation e;

	if (first >= stop)
		return;
	s390_explain(&e, anchor, view, first);
	if (e.present || e.fault.code)
		abort();
	s390_explain(&e, anchor, view, stop - 1);
	if (e.present || e.fault.code)
		abort();
}

static void scan_all(const struct s390_anchor *anchor, const struct memory_view *view,
		     uint64_t first, uint64_t last)
{
	struct s390_scan scan;
	struct s390_found found;
	struct s390_explanation e;
	uint64_t next = first;

	s390_scan_begin(&scan, anchor, view, first, last, COST_MAX);
	for (unsigned int i = 0; i < ANSWERS_MAX; i++) {
		s390_scan_next(&scan, &found);
		if (scan.cost > COST_MAX + 4 * S390_SCAN_TABLE_COST)
			abort();
		if (found.kind == S390_FOUND_END)
			return;
		agree_absent(anchor, view, next, found.first);
		if (found.kind == S390_FOUND_PAUSE)
			return;
		next = found.first < first ? first : found.first;
		s390_explain(&e, anchor, view, next);
		agree(&found, &e);
		if (found.last >= last)
			return;
		next = found.last + 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guest guest;
	struct s390_anchor anchor = {.pal = UINT64_MAX};
	uint64_t first, last;

	if (size < HEADER_BYTES || guest_read_init() < 0)
		return 0;
	anchor.iota = S390_IOTA_TABLES | (data[0] & 3u) << 2 | little(data + 1, 2) << 14;
	if (data[0] & 4)
		anchor.iota |= S390_IOTA_PROTECT;
	first = little(data + 3, 8) & S390_PAGE_FRAME;
	last = first > UINT64_MAX - SPAN ? UINT64_MAX : first + SPAN - 1;
	guest_build(&guest, data + HEADER_BYTES, size - HEADER_BYTES);
	scan_all(&anchor, guest.view, first, last);
	return 0;
}
