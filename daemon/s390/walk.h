/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_S390_WALK_H
#define IB_S390_WALK_H

/*
 * s390 zPCI address translation: anchors, entries and the walk, as pure functions over a
 * memory_view. Sources: Linux arch/s390/include/asm/pci_dma.h, drivers/iommu/s390-iommu.c; QEMU
 * hw/s390x/s390-pci-inst.c. Entries are big-endian in guest memory and host-endian here.
 */

#include "s390/memory_view.h"

/* Programmable event codes: what the guest is told that went wrong. */
enum s390_event_code {
	S390_PEC_NONE = 0,
	S390_PEC_INVALAS = 0x1, /* no anchor registered */
	S390_PEC_OORANGE = 0x2, /* outside [PBA, PAL], or above what the designated table covers */
	S390_PEC_INVALTF = 0x3,
	S390_PEC_TPROTE = 0x4,
	S390_PEC_APROTE = 0x5,
	S390_PEC_KEYE = 0x6,
	S390_PEC_INVALTE = 0x7, /* entry 0 above the page table, or a table outside guest memory */
	S390_PEC_INVALTL = 0x8, /* region entry whose length is not 3 or offset not 0 */
	S390_PEC_TT = 0x9,      /* type differs from the level */
	S390_PEC_INVALMS = 0xa,
	S390_PEC_SERR = 0xb,
};

/* Which table an entry stands in. The values are those of the designation type in the IOTA, the
 * page table apart. */
enum s390_level {
	S390_LEVEL_SEGMENT = 0,
	S390_LEVEL_REGION_THIRD = 1,
	S390_LEVEL_REGION_SECOND = 2,
	S390_LEVEL_REGION_FIRST = 3,
	S390_LEVEL_PAGE = 8,
	S390_LEVEL_NONE = 15, /* the anchor itself */
};

/* A set of designations: bit (1 << enum s390_level). */
#define S390_DESIGNATIONS_ALL 0xfu

struct s390_anchor {
	uint64_t iota; /* as the guest gave it */
	uint64_t pba;  /* first IOVA, 4 KiB aligned */
	uint64_t pal;  /* last IOVA, inclusive, ends a 4 KiB page */
};

enum s390_anchor_fault {
	S390_ANCHOR_OK,
	S390_ANCHOR_PBA_ABOVE_PAL,
	S390_ANCHOR_PBA_BELOW_START, /* below start of DMA */
	S390_ANCHOR_PAL_ABOVE_END,   /* above end of DMA */
	S390_ANCHOR_DESIGNATION,     /* designation type not in the set of supported ones */
	S390_ANCHOR_RELAXED,         /* T = 0 and not granted */
};

/* Widen PBA and PAL to whole pages and check them and the designation. *ret is written only on
 * S390_ANCHOR_OK. A relaxed anchor (T = 0, also IOTA 0) is one if relaxed_granted. */
enum s390_anchor_fault s390_anchor_check(struct s390_anchor *ret, uint64_t iota, uint64_t pba,
					 uint64_t pal, uint64_t dma_first, uint64_t dma_last,
					 unsigned int designations, bool relaxed_granted);
const char *s390_anchor_fault_text(enum s390_anchor_fault fault);

bool s390_anchor_is_relaxed(const struct s390_anchor *anchor);
enum s390_level s390_anchor_level(const struct s390_anchor *anchor);
uint64_t s390_anchor_origin(const struct s390_anchor *anchor);

/* What stopped a walk. code == S390_PEC_NONE: nothing did. */
struct s390_fault {
	enum s390_event_code code;
	/* Table whose entry it is; S390_LEVEL_NONE: the anchor. Of a table outside guest memory:
	 * where the entry stands that names it. */
	enum s390_level level;
	uint64_t iova;       /* first IOVA that the entry translates, within the asked range */
	uint64_t entry;      /* as read, or the address of a table outside guest memory, or 0 */
	bool outside_memory; /* the table lies outside guest memory, or could not be read */
};

/* One step of an explanation. */
struct s390_step {
	enum s390_level level;
	uint64_t table_gpa;
	uint64_t entry_gpa;
	uint64_t entry;
	const char *note; /* static text: "valid", "invalid bit set", … */
};

struct s390_explanation {
	size_t n_steps;
	struct s390_step steps[5];
	struct s390_fault fault; /* code NONE if the walk ended at a leaf or at an absent entry */
	bool present;            /* a valid leaf was found */
	bool writable;
	bool in_memory;       /* its frame lies in guest memory with that permission */
	uint64_t gpa;         /* of the page that holds iova */
	uint64_t frame_bytes; /* 4096 or 1 MiB */
};

/* Walk for one IOVA and keep every step. Reads guest memory; installs nothing. anchor NULL: none
 * registered (INVALAS). A relaxed anchor has no tables: no steps, and no answer beyond the window's
 * (the guest address is the IOVA less the start of DMA, which an anchor does not hold). */
void s390_explain(struct s390_explanation *ret, const struct s390_anchor *anchor,
		  const struct memory_view *view, uint64_t iova);

const char *s390_level_name(enum s390_level level);
const char *s390_event_code_name(enum s390_event_code code);

#endif
