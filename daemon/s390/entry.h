/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_S390_ENTRY_H
#define IB_S390_ENTRY_H

/*
 * Table geometry and the decoding of single entries, host-endian. Sources: Linux
 * arch/s390/include/asm/pci_dma.h (masks, types), QEMU hw/s390x/s390-pci-inst.c (order of checks).
 */

#include <endian.h>

#include "s390/walk.h"

#define S390_PAGE_BYTES    UINT64_C(0x1000)
#define S390_SEGMENT_SHIFT 20
#define S390_SEGMENT_BYTES (UINT64_C(1) << S390_SEGMENT_SHIFT)
#define S390_PT_ENTRIES    256u
#define S390_PT_BYTES      UINT64_C(0x800)
#define S390_UPPER_ENTRIES 2048u /* of a segment or region table */
#define S390_UPPER_BYTES   UINT64_C(0x4000)

#define S390_IOTA_TABLES   UINT64_C(0x800) /* T: translate through tables */
#define S390_IOTA_PROTECT  UINT64_C(0x200)
#define S390_TABLE_ORIGIN  (~UINT64_C(0x3fff)) /* of segment and region tables */
#define S390_PT_ORIGIN     (~UINT64_C(0x7ff))
#define S390_PAGE_FRAME    (~UINT64_C(0xfff))
#define S390_SEGMENT_FRAME (~UINT64_C(0xfffff))

#define S390_UPPER_INVALID UINT64_C(0x20)
#define S390_PAGE_INVALID  UINT64_C(0x400)
#define S390_PROTECT       UINT64_C(0x200)
#define S390_TYPE_MASK     UINT64_C(0xc)
#define S390_LENGTH_MASK   UINT64_C(0x3)
#define S390_OFFSET_MASK   UINT64_C(0xc0)
#define S390_SEGMENT_LARGE UINT64_C(0x400) /* format control: a 1 MiB frame */

/* Bits of an IOVA below the index of a segment or region table. */
static inline unsigned int s390_level_shift(enum s390_level level)
{
	return 20 + 11 * (unsigned int)level;
}

/* Highest IOVA that a table at level covers when it stands at IOVA 0. */
static inline uint64_t s390_level_last(enum s390_level level)
{
	unsigned int bits = s390_level_shift(level) + 11;

	return bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
}

static inline unsigned int s390_level_index(enum s390_level level, uint64_t iova)
{
	return (iova >> s390_level_shift(level)) & (S390_UPPER_ENTRIES - 1);
}

enum s390_entry_kind {
	S390_ENTRY_ABSENT,
	S390_ENTRY_TABLE,
	S390_ENTRY_FRAME, /* 1 MiB, in a segment table */
	S390_ENTRY_BAD,
};

/* What an entry of a segment or region table is. *ret_code is written for S390_ENTRY_BAD only. */
static inline enum s390_entry_kind s390_upper_decode(enum s390_level level, uint64_t entry,
						     enum s390_event_code *ret_code)
{
	if (!entry) {
		*ret_code = S390_PEC_INVALTE;
		return S390_ENTRY_BAD;
	}
	if (entry & S390_UPPER_INVALID)
		return S390_ENTRY_ABSENT;
	if (level != S390_LEVEL_SEGMENT &&
	    ((entry & S390_LENGTH_MASK) != S390_LENGTH_MASK || (entry & S390_OFFSET_MASK))) {
		*ret_code = S390_PEC_INVALTL;
		return S390_ENTRY_BAD;
	}
	if ((entry & S390_TYPE_MASK) >> 2 != (uint64_t)level) {
		*ret_code = S390_PEC_TT;
		return S390_ENTRY_BAD;
	}
	if (level == S390_LEVEL_SEGMENT && (entry & S390_SEGMENT_LARGE))
		return S390_ENTRY_FRAME;
	return S390_ENTRY_TABLE;
}

/* Page-table entries, as they lie in memory. */
static inline bool s390_word_valid(uint64_t word)
{
	return !(word & htobe64(S390_PAGE_INVALID));
}

static inline uint64_t s390_word_frame(uint64_t word)
{
	return be64toh(word) & S390_PAGE_FRAME;
}

static inline bool s390_word_protected(uint64_t word)
{
	return word & htobe64(S390_PROTECT);
}

#endif
