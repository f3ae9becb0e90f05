/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Anchors, views and the walk: each rule of address translation on tables made by hand.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "s390_guest.h"
#include "s390/scan.h"
#include "util/guest_read.h"

#define DMA_FIRST UINT64_C(0x100000000)
#define DMA_LAST  UINT64_C(0x1fffffffffffff)

static enum s390_anchor_fault check(struct s390_anchor *anchor, uint64_t iota, uint64_t pba,
				    uint64_t pal)
{
	return s390_anchor_check(anchor, iota, pba, pal, DMA_FIRST, DMA_LAST, S390_DESIGNATIONS_ALL,
				 false);
}

static void test_anchor(void **state)
{
	struct s390_anchor a = {.iota = 77};

	assert_int_equal(check(&a, 0x3014804, DMA_FIRST + 0xfff, DMA_FIRST + 0x1000), 0);
	assert_int_equal(a.pba, DMA_FIRST);
	assert_int_equal(a.pal, DMA_FIRST + 0x1fff);
	assert_int_equal(a.iota, 0x3014804);
	assert_int_equal(s390_anchor_origin(&a), 0x3014000);
	assert_int_equal(s390_anchor_level(&a), S390_LEVEL_REGION_THIRD);
	assert_false(s390_anchor_is_relaxed(&a));
	assert_int_equal(check(&a, 0x800, DMA_FIRST, DMA_LAST), S390_ANCHOR_OK);
	a = (struct s390_anchor){.iota = 77};
	assert_int_equal(check(&a, 0x804, DMA_FIRST + 0x1000, DMA_FIRST),
			 S390_ANCHOR_PBA_ABOVE_PAL);
	assert_int_equal(check(&a, 0x804, DMA_FIRST - 1, DMA_LAST), S390_ANCHOR_PBA_BELOW_START);
	assert_int_equal(check(&a, 0x804, DMA_FIRST, DMA_LAST + 1), S390_ANCHOR_PAL_ABOVE_END);
	for (unsigned int type = 4; type < 8; type++)
		assert_int_equal(check(&a, 0x800 | type << 2, DMA_FIRST, DMA_LAST),
				 S390_ANCHOR_DESIGNATION);
	assert_int_equal(check(&a, 0, DMA_FIRST, DMA_LAST), S390_ANCHOR_RELAXED);
	assert_int_equal(s390_anchor_check(&a, 0x808, 0, UINT64_MAX, 0, UINT64_MAX, 1 << 1, true),
			 S390_ANCHOR_DESIGNATION);
	assert_int_equal(a.iota, 77); /* written on success only */
	assert_int_equal(
		s390_anchor_check(&a, 0, DMA_FIRST, DMA_LAST, DMA_FIRST, DMA_LAST, 0, true),
		S390_ANCHOR_OK);
	assert_true(s390_anchor_is_relaxed(&a));
	for (int f = S390_ANCHOR_OK; f <= S390_ANCHOR_RELAXED; f++)
		assert_string_not_equal(s390_anchor_fault_text((enum s390_anchor_fault)f),
					"unknown");
}

static void test_view(void **state)
{
	struct guest guest;
	size_t hint = 99;

	guest_init(&guest);
	guest_add_region(&guest, 0x10000, 0x4000, true);
	guest_add_region(&guest, 0x14000, 0x2000, false);
	guest_add_region(&guest, 0x20000, 0x1000, true);
	guest_publish(&guest);
	assert_null(memory_view_find(guest.view, 0xffff, &hint));
	assert_int_equal(memory_view_find(guest.view, 0x10000, &hint)->gpa_first, 0x10000);
	assert_int_equal(memory_view_find(guest.view, 0x13fff, &hint)->gpa_first, 0x10000);
	assert_int_equal(memory_view_find(guest.view, 0x14000, &hint)->gpa_first, 0x14000);
	assert_int_equal(hint, 1);
	assert_null(memory_view_find(guest.view, 0x16000, &hint));
	assert_null(memory_view_find(guest.view, UINT64_MAX, &hint));
	assert_true(memory_view_covers(guest.view, 0x10000, 0x6000, false));
	assert_false(memory_view_covers(guest.view, 0x10000, 0x6000, true));
	assert_true(memory_view_covers(guest.view, 0x10000, 0x4000, true));
	assert_false(memory_view_covers(guest.view, 0x10000, 0x6001, false));
	assert_false(memory_view_covers(guest.view, 0x15000, 0xc000, false));
	assert_false(memory_view_covers(guest.view, UINT64_MAX - 0xfff, 0x2000, false));
	assert_true(memory_view_covers(guest.view, 0x99000, 0, true));
	guest_deinit(&guest);
	guest_publish(&guest); /* no regions at all */
	assert_null(memory_view_find(guest.view, 0, &hint));
	assert_false(memory_view_covers(guest.view, 0, 1, false));
	guest_deinit(&guest);
}

/* A chain of tables down from the designation to one page table, all at index 1. */
struct chain {
	struct guest guest;
	struct s390_anchor anchor;
	uint64_t tables[4], pt;
	uint64_t iova;
};

static void chain_init(struct chain *c, enum s390_level top)
{
	guest_init(&c->guest);
	guest_add_region(&c->guest, 0, 0x40000, true);
	guest_add_region(&c->guest, 0x100000, 0x200000, true);
	guest_add_region(&c->guest, 0x10000000, 0x10000, false);
	guest_publish(&c->guest);
	/* A segment entry of a page table at 0 would be an entry of 0. */
	c->guest.table_next = 0x8000;
	c->pt = guest_page_table(&c->guest);
	c->iova = 0x5000;
	for (int level = 0; level <= (int)top; level++) {
		c->tables[level] = guest_upper_table(&c->guest);
		guest_put(
			&c->guest, c->tables[level], 1,
			region_entry((enum s390_level)level, level ? c->tables[level - 1] : c->pt));
		c->iova += UINT64_C(1) << s390_level_shift((enum s390_level)level);
	}
	guest_put(&c->guest, c->pt, 5, 0x3000);
	c->anchor = (struct s390_anchor){
		.iota = c->tables[top] | S390_IOTA_TABLES | (uint64_t)top << 2,
		.pal = UINT64_MAX,
	};
}

static struct s390_explanation explain(struct chain *c, uint64_t iova)
{
	struct s390_explanation e;

	s390_explain(&e, &c->anchor, c->guest.view, iova);
	return e;
}

/* The scan's first answer for the page at iova. */
static struct s390_found scan(struct chain *c, uint64_t iova)
{
	struct s390_scan s;
	struct s390_found found;

	s390_scan_begin(&s, &c->anchor, c->guest.view, iova, iova | 0xfff, UINT64_MAX);
	s390_scan_next(&s, &found);
	return found;
}

static void expect_fault(struct chain *c, enum s390_event_code code, enum s390_level level,
			 uint64_t entry, bool outside)
{
	struct s390_explanation e = explain(c, c->iova);
	struct s390_found found = scan(c, c->iova);

	assert_int_equal(e.fault.code, code);
	assert_int_equal(e.fault.level, level);
	assert_int_equal(e.fault.entry, entry);
	assert_int_equal(e.fault.outside_memory, outside);
	assert_int_equal(e.fault.iova, c->iova);
	assert_false(e.present);
	assert_int_equal(found.kind, S390_FOUND_FAULT);
	assert_int_equal(found.fault.code, code);
	assert_int_equal(found.fault.level, level);
	assert_int_equal(found.fault.entry, entry);
	assert_int_equal(found.fault.outside_memory, outside);
}

static void test_levels(void **state)
{
	for (int top = 0; top < 4; top++) {
		struct chain c;
		struct s390_explanation e;
		struct s390_found found;

		chain_init(&c, (enum s390_level)top);
		e = explain(&c, c.iova + 0x123);
		assert_true(e.present && e.writable && e.in_memory);
		assert_int_equal(e.gpa, 0x3000);
		assert_int_equal(e.frame_bytes, 4096);
		assert_int_equal(e.n_steps, top + 2);
		assert_int_equal(e.steps[0].level, top);
		assert_int_equal(e.steps[0].entry_gpa, c.tables[top] + 8);
		assert_int_equal(e.steps[top + 1].level, S390_LEVEL_PAGE);
		assert_int_equal(e.steps[top + 1].entry_gpa, c.pt + 40);
		found = scan(&c, c.iova);
		assert_int_equal(found.kind, S390_FOUND_PT);
		assert_int_equal(found.gpa, c.pt);
		assert_int_equal(found.first, c.iova & ~UINT64_C(0xfffff));
		assert_false(found.protect);
		guest_deinit(&c.guest);
	}
}

static void test_protection(void **state)
{
	for (int at = -1; at < 4; at++) {
		struct chain c;

		chain_init(&c, S390_LEVEL_REGION_FIRST);
		if (at < 0)
			c.anchor.iota |= S390_IOTA_PROTECT;
		else
			guest_put(&c.guest, c.tables[at], 1,
				  guest_get(&c.guest, c.tables[at], 1) | S390_PROTECT);
		assert_true(explain(&c, c.iova).present);
		assert_false(explain(&c, c.iova).writable);
		assert_true(scan(&c, c.iova).protect);
		guest_deinit(&c.guest);
	}
}

static void test_entries(void **state)
{
	for (int level = 0; level < 4; level++) {
		enum s390_level at = (enum s390_level)level;
		struct chain c;
		uint64_t good;

		chain_init(&c, S390_LEVEL_REGION_FIRST);
		good = guest_get(&c.guest, c.tables[at], 1);
		guest_put(&c.guest, c.tables[at], 1, 0);
		expect_fault(&c, S390_PEC_INVALTE, at, 0, false);
		guest_put(&c.guest, c.tables[at], 1, good ^ 0x8);
		expect_fault(&c, S390_PEC_TT, at, good ^ 0x8, false);
		if (level) {
			/* Length and offset come before the type. */
			guest_put(&c.guest, c.tables[at], 1, (good ^ 0x8) & ~UINT64_C(1));
			expect_fault(&c, S390_PEC_INVALTL, at, (good ^ 0x8) & ~UINT64_C(1), false);
			guest_put(&c.guest, c.tables[at], 1, good | 0x40);
			expect_fault(&c, S390_PEC_INVALTL, at, good | 0x40, false);
			guest_put(&c.guest, c.tables[at], 1, good | 0x80);
			expect_fault(&c, S390_PEC_INVALTL, at, good | 0x80, false);
		}
		/* Invalid comes before all that. */
		guest_put(&c.guest, c.tables[at], 1, (good ^ 0x8) | S390_UPPER_INVALID);
		assert_int_equal(explain(&c, c.iova).fault.code, S390_PEC_NONE);
		assert_false(explain(&c, c.iova).present);
		assert_int_equal(scan(&c, c.iova).kind, S390_FOUND_END);
		guest_deinit(&c.guest);
	}
}

static void test_outside_memory(void **state)
{
	struct chain c;

	chain_init(&c, S390_LEVEL_REGION_SECOND);
	guest_put(&c.guest, c.tables[0], 1, 0x7fff0000);
	expect_fault(&c, S390_PEC_INVALTE, S390_LEVEL_SEGMENT, 0x7fff0000, true);
	/* A table that begins in memory and ends outside. */
	guest_put(&c.guest, c.tables[1], 1, region_entry(S390_LEVEL_REGION_THIRD, 0x2fc000));
	assert_int_equal(scan(&c, c.iova).kind, S390_FOUND_FAULT);
	guest_put(&c.guest, c.tables[1], 1, region_entry(S390_LEVEL_REGION_THIRD, 0x300000));
	expect_fault(&c, S390_PEC_INVALTE, S390_LEVEL_REGION_THIRD, 0x300000, true);
	c.anchor.iota = 0x7fffc000 | 0x808;
	expect_fault(&c, S390_PEC_INVALTE, S390_LEVEL_NONE, 0x7fffc000, true);
	guest_deinit(&c.guest);
}

static void test_above_coverage(void **state)
{
	for (int top = 0; top < 3; top++) {
		struct chain c;
		uint64_t covered;

		chain_init(&c, (enum s390_level)top);
		covered = s390_level_last((enum s390_level)top);
		assert_int_equal(explain(&c, covered).fault.code, S390_PEC_NONE);
		c.iova = (covered + 1);
		expect_fault(&c, S390_PEC_OORANGE, S390_LEVEL_NONE, 0, false);
		guest_deinit(&c.guest);
	}
}

static void test_window(void **state)
{
	struct s390_explanation e;
	struct chain c;

	chain_init(&c, S390_LEVEL_SEGMENT);
	c.anchor.pba = 0x100000;
	c.anchor.pal = 0x1fffff;
	assert_true(explain(&c, c.iova).present);
	assert_int_equal(explain(&c, 0xfffff).fault.code, S390_PEC_OORANGE);
	assert_int_equal(explain(&c, 0x200000).fault.code, S390_PEC_OORANGE);
	s390_explain(&e, NULL, c.guest.view, 0);
	assert_int_equal(e.fault.code, S390_PEC_INVALAS);
	guest_deinit(&c.guest);
}

static void test_frames(void **state)
{
	struct s390_explanation e;
	struct chain c;

	chain_init(&c, S390_LEVEL_REGION_THIRD);
	guest_put(&c.guest, c.tables[0], 1, 0x100000 | S390_SEGMENT_LARGE);
	e = explain(&c, c.iova);
	assert_true(e.present && e.writable && e.in_memory);
	assert_int_equal(e.gpa, 0x105000);
	assert_int_equal(e.frame_bytes, 1 << 20);
	assert_int_equal(scan(&c, c.iova).kind, S390_FOUND_FRAME);
	assert_int_equal(scan(&c, c.iova).gpa, 0x100000);
	guest_put(&c.guest, c.tables[0], 1, 0x200000 | S390_SEGMENT_LARGE | S390_PROTECT);
	assert_false(explain(&c, c.iova).writable);
	guest_put(&c.guest, c.tables[0], 1, 0x300000 | S390_SEGMENT_LARGE);
	assert_true(explain(&c, c.iova).present);
	assert_false(explain(&c, c.iova).in_memory);
	/* Frame 0 is legal; a writable page over read-only memory is not in memory so. */
	guest_put(&c.guest, c.tables[0], 1, c.pt);
	guest_put(&c.guest, c.pt, 5, 0);
	assert_true(explain(&c, c.iova).in_memory);
	guest_put(&c.guest, c.pt, 5, 0x10000000);
	assert_false(explain(&c, c.iova).in_memory);
	guest_put(&c.guest, c.pt, 5, 0x10000000 | S390_PROTECT);
	assert_true(explain(&c, c.iova).in_memory);
	guest_put(&c.guest, c.pt, 5, 0x3000 | S390_PAGE_INVALID);
	assert_false(explain(&c, c.iova).present);
	assert_string_equal(explain(&c, c.iova).steps[2].note, "invalid bit set");
	guest_deinit(&c.guest);
}

/* All four levels pointing to one table that is the same at every entry: reading costs what was
 * allowed, not 2048^4. */
static void test_self_reference(void **state)
{
	struct s390_scan s;
	struct s390_found found;
	struct chain c;
	uint64_t rt;

	chain_init(&c, S390_LEVEL_REGION_FIRST);
	rt = guest_upper_table(&c.guest);
	for (unsigned int i = 0; i < S390_UPPER_ENTRIES; i++) {
		guest_put(&c.guest, c.tables[3], i,
			  region_entry(S390_LEVEL_REGION_FIRST, c.tables[2]));
		guest_put(&c.guest, c.tables[2], i, region_entry(S390_LEVEL_REGION_SECOND, rt));
	}
	s390_scan_begin(&s, &c.anchor, c.guest.view, 0, UINT64_MAX, 1000);
	s390_scan_next(&s, &found);
	assert_int_equal(found.kind, S390_FOUND_PAUSE);
	assert_in_range(s.cost, 1000, 1000 + 4 * S390_SCAN_TABLE_COST);
	assert_in_range(found.first, UINT64_C(100) << 42 >> 11, UINT64_C(200) << 42);
	/* A table that names itself is of the wrong type one level below. */
	guest_put(&c.guest, c.tables[3], 0, region_entry(S390_LEVEL_REGION_FIRST, c.tables[3]));
	s390_scan_begin(&s, &c.anchor, c.guest.view, 0, 0xfff, 1000);
	s390_scan_next(&s, &found);
	assert_int_equal(found.kind, S390_FOUND_FAULT);
	assert_int_equal(found.fault.code, S390_PEC_TT);
	assert_int_equal(found.fault.level, S390_LEVEL_REGION_SECOND);
	guest_deinit(&c.guest);
}

/* Present segments far apart, in order, whatever lies between; from the middle of one to the
 * middle of another. */
static void test_scan_order(void **state)
{
	static const unsigned int at[] = {0, 63, 64, 511, 512, 1535, 2047};
	struct s390_scan s;
	struct s390_found found;
	struct chain c;

	chain_init(&c, S390_LEVEL_REGION_THIRD);
	guest_put(&c.guest, c.tables[0], 1, S390_UPPER_INVALID);
	for (size_t i = 0; i < 7; i++)
		guest_put(&c.guest, c.tables[0], at[i], c.pt);
	guest_put(&c.guest, c.tables[1], 2047, region_entry(S390_LEVEL_REGION_THIRD, c.tables[0]));
	s390_scan_begin(&s, &c.anchor, c.guest.view, 0, s390_level_last(S390_LEVEL_REGION_THIRD),
			UINT64_MAX);
	for (size_t i = 0; i < 14; i++) {
		uint64_t base = i < 7 ? UINT64_C(1) << 31 : UINT64_C(2047) << 31;

		s390_scan_next(&s, &found);
		assert_int_equal(found.kind, S390_FOUND_PT);
		assert_int_equal(found.first, base + ((uint64_t)at[i % 7] << 20));
		assert_int_equal(found.last, found.first + 0xfffff);
	}
	s390_scan_next(&s, &found);
	assert_int_equal(found.kind, S390_FOUND_END);
	s390_scan_begin(&s, &c.anchor, c.guest.view, (UINT64_C(1) << 31) + 0x3f80000,
			(UINT64_C(1) << 31) + 0x4000fff, UINT64_MAX);
	s390_scan_next(&s, &found);
	assert_int_equal(found.first, (UINT64_C(1) << 31) + 0x3f00000);
	s390_scan_next(&s, &found);
	assert_int_equal(found.first, (UINT64_C(1) << 31) + 0x4000000);
	s390_scan_next(&s, &found);
	assert_int_equal(found.kind, S390_FOUND_END);
	guest_deinit(&c.guest);
}

/* A table of 16 KiB over two regions that touch. */
static void test_split_table(void **state)
{
	struct chain c;
	uint64_t st = 0x8000;

	guest_init(&c.guest);
	guest_add_region(&c.guest, 0, 0xa000, true);
	guest_add_region(&c.guest, 0xa000, 0x8000, true);
	guest_publish(&c.guest);
	for (unsigned int i = 0; i < S390_UPPER_ENTRIES; i++)
		guest_put(&c.guest, st, i, S390_UPPER_INVALID);
	guest_put(&c.guest, st, 2000, 0xf000);
	c.anchor = (struct s390_anchor){.iota = st | 0x800, .pal = UINT64_MAX};
	assert_int_equal(scan(&c, UINT64_C(2000) << 20).kind, S390_FOUND_PT);
	assert_int_equal(explain(&c, UINT64_C(2000) << 20).n_steps, 2);
	/* Without the second half it is no table at all, not even its first half. */
	c.guest.regions[1].present = false;
	guest_publish(&c.guest);
	c.iova = 0;
	expect_fault(&c, S390_PEC_INVALTE, S390_LEVEL_NONE, st, true);
	guest_deinit(&c.guest);
}

static void test_names(void **state)
{
	assert_string_equal(s390_event_code_name(S390_PEC_INVALTE), "INVALTE");
	assert_string_equal(s390_event_code_name((enum s390_event_code)99), "unknown");
	assert_string_equal(s390_level_name(S390_LEVEL_REGION_THIRD), "region-third table");
}

static int setup(void **state)
{
	return guest_read_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_anchor),         cmocka_unit_test(test_view),
		cmocka_unit_test(test_levels),         cmocka_unit_test(test_protection),
		cmocka_unit_test(test_entries),        cmocka_unit_test(test_outside_memory),
		cmocka_unit_test(test_above_coverage), cmocka_unit_test(test_window),
		cmocka_unit_test(test_frames),         cmocka_unit_test(test_self_reference),
		cmocka_unit_test(test_scan_order),     cmocka_unit_test(test_split_table),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
