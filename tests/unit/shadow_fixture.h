/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_SHADOW_FIXTURE_H
#define IB_TESTS_SHADOW_FIXTURE_H

/*
 * A guest with one region-third table, two segment tables and four page tables, and its shadow.
 * The window is [FIXTURE_BASE, FIXTURE_LAST]; segments 0 to 3 of it have the page tables, if the
 * test links them; segment 2048 on belongs to the second segment table.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "s390_guest.h"

#define FIXTURE_BASE   UINT64_C(0x100000000)
#define FIXTURE_LAST   UINT64_C(0x1ffffffff)
#define FIXTURE_FRAMES UINT64_C(0x20000000) /* of writable memory, 4 MiB */
#define FIXTURE_ROM    UINT64_C(0x10000000) /* read only, 64 pages */

struct fixture {
	struct guest guest;
	struct record record;
	struct shadow *shadow;
	struct shadow_limits limits;
	void *storage;
	struct s390_anchor anchor;
	uint64_t rt, st, st2, pt[4];
};

/* limits: 0 for generous ones */
void fixture_init(struct fixture *f, uint64_t leaves_max, uint32_t tables_max);
/* Frees the shadow too; every alias must be given back then. */
void fixture_deinit(struct fixture *f);
void fixture_link(struct fixture *f, unsigned int segment, unsigned int pt);
/* Leaf i of page table pt shows page n of FIXTURE_FRAMES. */
void fixture_leaf(struct fixture *f, unsigned int pt, unsigned int i, unsigned int n);
void fixture_fill(struct fixture *f, unsigned int pt, unsigned int first, unsigned int count,
		  unsigned int n);

static inline uint64_t fixture_iova(unsigned int segment, unsigned int i)
{
	return FIXTURE_BASE + ((uint64_t)segment << 20) + ((uint64_t)i << 12);
}

static inline uint64_t fixture_frame(unsigned int n)
{
	return FIXTURE_FRAMES + ((uint64_t)n << 12);
}

struct shadow_result fixture_refresh(struct fixture *f, uint64_t first, uint64_t length);
struct shadow_result fixture_refresh_all(struct fixture *f);
struct shadow_result fixture_op(struct fixture *f, enum shadow_op_kind kind, uint64_t first,
				uint64_t last);
/* verdict, mapped, unmapped, and that record, statistics and aliases agree. */
void fixture_expect(struct fixture *f, struct shadow_result result, enum shadow_verdict verdict,
		    uint64_t mapped, uint64_t unmapped);
void fixture_expect_fault(struct shadow_result result, enum s390_event_code code,
			  enum s390_level level, uint64_t iova, uint64_t entry);
/* The nth map from now and n - 1 after it fail with error. */
void fixture_fail_maps(struct fixture *f, unsigned int nth, unsigned int n, int error);
void fixture_expect_calls(struct fixture *f, unsigned int maps, unsigned int cuts);
void fixture_expect_kept(struct fixture *f, uint64_t tables);
bool fixture_shows(struct fixture *f, unsigned int segment, unsigned int i, unsigned int n,
		   bool writable);

#endif
