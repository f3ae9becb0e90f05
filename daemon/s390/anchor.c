/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The anchor that a guest registers (MPCIFC): what is accepted, and its fields.
 */

#include "s390/entry.h"

#define IOTA_DESIGNATION(iota) (((iota) >> 2) & 7)

static bool designation_supported(uint64_t iota, unsigned int designations)
{
	unsigned int type = IOTA_DESIGNATION(iota);

	return type <= S390_LEVEL_REGION_FIRST && (designations >> type & 1);
}

enum s390_anchor_fault s390_anchor_check(struct s390_anchor *ret, uint64_t iota, uint64_t pba,
					 uint64_t pal, uint64_t dma_first, uint64_t dma_last,
					 unsigned int designations, bool relaxed_granted)
{
	pba &= S390_PAGE_FRAME;
	pal |= ~S390_PAGE_FRAME;
	if (pba > pal)
		return S390_ANCHOR_PBA_ABOVE_PAL;
	if (pba < dma_first)
		return S390_ANCHOR_PBA_BELOW_START;
	if (pal > dma_last)
		return S390_ANCHOR_PAL_ABOVE_END;
	if (!(iota & S390_IOTA_TABLES)) {
		if (!relaxed_granted)
			return S390_ANCHOR_RELAXED;
	} else if (!designation_supported(iota, designations)) {
		return S390_ANCHOR_DESIGNATION;
	}
	*ret = (struct s390_anchor){.iota = iota, .pba = pba, .pal = pal};
	return S390_ANCHOR_OK;
}

const char *s390_anchor_fault_text(enum s390_anchor_fault fault)
{
	switch (fault) {
	case S390_ANCHOR_OK:
		return "valid";
	case S390_ANCHOR_PBA_ABOVE_PAL:
		return "PBA lies above PAL";
	case S390_ANCHOR_PBA_BELOW_START:
		return "PBA lies below the start of DMA";
	case S390_ANCHOR_PAL_ABOVE_END:
		return "PAL lies above the end of DMA";
	case S390_ANCHOR_DESIGNATION:
		return "designation type is not supported";
	case S390_ANCHOR_RELAXED:
		return "relaxed translation (T = 0) is not granted for this device";
	}
	return "unknown";
}

bool s390_anchor_is_relaxed(const struct s390_anchor *anchor)
{
	return !(anchor->iota & S390_IOTA_TABLES);
}

enum s390_level s390_anchor_level(const struct s390_anchor *anchor)
{
	return (enum s390_level)(IOTA_DESIGNATION(anchor->iota) & 3);
}

uint64_t s390_anchor_origin(const struct s390_anchor *anchor)
{
	return anchor->iota & S390_TABLE_ORIGIN;
}

const char *s390_level_name(enum s390_level level)
{
	switch (level) {
	case S390_LEVEL_SEGMENT:
		return "segment table";
	case S390_LEVEL_REGION_THIRD:
		return "region-third table";
	case S390_LEVEL_REGION_SECOND:
		return "region-second table";
	case S390_LEVEL_REGION_FIRST:
		return "region-first table";
	case S390_LEVEL_PAGE:
		return "page table";
	case S390_LEVEL_NONE:
		return "anchor";
	}
	return "unknown";
}

const char *s390_event_code_name(enum s390_event_code code)
{
	switch (code) {
	case S390_PEC_NONE:
		return "none";
	case S390_PEC_INVALAS:
		return "INVALAS";
	case S390_PEC_OORANGE:
		return "OORANGE";
	case S390_PEC_INVALTF:
		return "INVALTF";
	case S390_PEC_TPROTE:
		return "TPROTE";
	case S390_PEC_APROTE:
		return "APROTE";
	case S390_PEC_KEYE:
		return "KEYE";
	case S390_PEC_INVALTE:
		return "INVALTE";
	case S390_PEC_INVALTL:
		return "INVALTL";
	case S390_PEC_TT:
		return "TT";
	case S390_PEC_INVALMS:
		return "INVALMS";
	case S390_PEC_SERR:
		return "SERR";
	}
	return "unknown";
}
