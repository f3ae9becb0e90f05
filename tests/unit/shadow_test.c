/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The shadow, rule by rule: what a refresh answers, which calls it makes, what is kept.
 *
 *     shadow_test RECORDED.tables.gz
 */

#include <string.h>
#include <zlib.h>

#include "shadow_fixture.h"

static const char *recorded;

static void test_ranges(void **state)
{
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_expect_fault(fixture_refresh(&f, FIXTURE_BASE - 0x1000, 0x2000), S390_PEC_OORANGE,
			     S390_LEVEL_NONE, FIXTURE_BASE - 0x1000, 0);
	fixture_expect_fault(fixture_refresh(&f, FIXTURE_LAST - 0xfff, 0x1001), S390_PEC_OORANGE,
			     S390_LEVEL_NONE, FIXTURE_LAST + 1, 0);
	fixture_expect_fault(fixture_refresh(&f, FIXTURE_BASE, UINT64_MAX), S390_PEC_OORANGE,
			     S390_LEVEL_NONE, FIXTURE_LAST + 1, 0);
	fixture_expect_fault(fixture_refresh(&f, UINT64_MAX - 0xfff, 0x2000), S390_PEC_OORANGE,
			     S390_LEVEL_NONE, UINT64_MAX - 0xfff, 0);
	fixture_expect(&f, fixture_refresh(&f, 0, 0), SHADOW_DONE, 0, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	/* Widened to whole pages, on both sides. */
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 4, 4, 4);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 5) + 0xfff, 2), SHADOW_DONE, 2, 0);
	assert_true(fixture_shows(&f, 0, 5, 5, true) && fixture_shows(&f, 0, 6, 6, true));
	fixture_deinit(&f);
}

static void test_anchors(void **state)
{
	struct fixture f;
	struct s390_anchor relaxed = {.iota = 0, .pba = FIXTURE_BASE, .pal = FIXTURE_LAST};

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 0, 10, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 10, 0);
	assert_int_equal(shadow_anchor(f.shadow)->iota, f.anchor.iota);
	/* Losing the anchor leaves what is installed, until it is reconciled. */
	shadow_set_anchor(f.shadow, NULL);
	assert_null(shadow_anchor(f.shadow));
	fixture_expect_fault(fixture_refresh_all(&f), S390_PEC_INVALAS, S390_LEVEL_NONE,
			     FIXTURE_BASE, 0);
	fixture_expect(&f, fixture_refresh(&f, FIXTURE_BASE, 0), SHADOW_DONE, 0, 0);
	assert_int_equal(f.record.installed, 10);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_SWEEP, 0, 0), SHADOW_DONE, 0, 0);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 0, 10);
	/* Relaxed: every refresh is done, whatever it asks, and installs nothing. */
	shadow_set_anchor(f.shadow, &relaxed);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	fixture_expect(&f, fixture_refresh(&f, 0, UINT64_MAX), SHADOW_DONE, 0, 0);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 0, 0);
	fixture_deinit(&f);
}

static void test_runs_join(void **state)
{
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_link(&f, 1, 1);
	fixture_fill(&f, 0, 250, 6, 0); /* on over the edge of the table */
	fixture_fill(&f, 1, 0, 10, 6);
	guest_put(&f.guest, f.pt[1], 10, fixture_frame(16) | S390_PROTECT);
	fixture_leaf(&f, 1, 11, 17);
	fixture_leaf(&f, 1, 12, 19); /* not behind frame 17 */
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 19, 0);
	fixture_expect_calls(&f, 4, 0);
	assert_true(fixture_shows(&f, 1, 10, 16, false));
	/* Cuts reach over what is not installed, not over what stays. */
	for (unsigned int i = 0; i < 13; i += 2)
		guest_put(&f.guest, f.pt[1], i, S390_PAGE_INVALID | fixture_frame(i));
	guest_put(&f.guest, f.pt[0], 255, S390_PAGE_INVALID);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 8);
	fixture_expect_calls(&f, 4, 7);
	guest_put(&f.guest, f.st, 0, S390_UPPER_INVALID);
	guest_put(&f.guest, f.st, 1, S390_UPPER_INVALID);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 11);
	fixture_expect_calls(&f, 4, 8);
	assert_int_equal(f.record.installed, 0);
	fixture_deinit(&f);
}

static void test_unchanged(void **state)
{
	struct shadow_stats stats;
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_link(&f, 3, 1); /* stays empty */
	fixture_fill(&f, 0, 0, 256, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 256, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 3), 4096), SHADOW_DONE, 0, 0);
	fixture_expect_calls(&f, 1, 0);
	shadow_stats(f.shadow, &stats);
	assert_int_equal(stats.tables_kept, 1);
	assert_int_equal(stats.refreshes, 3);
	/* The same bytes, but the answer changed: P above, at each level. */
	guest_put(&f.guest, f.st, 0, f.pt[0] | S390_PROTECT);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 256, 0);
	assert_true(fixture_shows(&f, 0, 9, 9, false));
	guest_put(&f.guest, f.st, 0, f.pt[0]);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 9), 4096), SHADOW_DONE, 1, 0);
	assert_true(fixture_shows(&f, 0, 9, 9, true) && fixture_shows(&f, 0, 8, 8, false));
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 255, 0);
	f.anchor.iota |= S390_IOTA_PROTECT;
	shadow_set_anchor(f.shadow, &f.anchor);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 256, 0);
	assert_true(fixture_shows(&f, 0, 0, 0, false));
	/* Empty tables keep nothing, even if what is invalid in them is not the usual word. */
	for (unsigned int i = 0; i < 256; i++)
		guest_put(&f.guest, f.pt[0], i, fixture_frame(i) | S390_PAGE_INVALID);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 256);
	shadow_stats(f.shadow, &stats);
	assert_int_equal(stats.tables_kept, 0);
	fixture_deinit(&f);
}

static void test_change(void **state)
{
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 0, 8, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 8, 0);
	fixture_leaf(&f, 0, 3, 77);
	guest_put(&f.guest, f.pt[0], 4, fixture_frame(4) | S390_PROTECT);
	guest_put(&f.guest, f.pt[0], 5, fixture_frame(5) | 0x801); /* bits without a meaning */
	guest_put(&f.guest, f.pt[0], 6, S390_PAGE_INVALID);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 3), 4096), SHADOW_DONE, 1, 0);
	fixture_expect_calls(&f, 2, 1);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 1);
	fixture_expect_calls(&f, 3, 3);
	assert_true(fixture_shows(&f, 0, 3, 77, true) && fixture_shows(&f, 0, 4, 4, false));
	assert_true(fixture_shows(&f, 0, 5, 5, true) && !fixture_shows(&f, 0, 6, 6, true));
	/* Only what was asked for. */
	guest_put(&f.guest, f.pt[0], 0, S390_PAGE_INVALID);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 1), 0x3000), SHADOW_DONE, 0, 0);
	assert_true(fixture_shows(&f, 0, 0, 0, true));
	fixture_deinit(&f);
}

static void test_frame_forms(void **state)
{
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 0, 256, 256);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 256, 0);
	/* A frame with the same frames is no change, nor is the way back. */
	guest_put(&f.guest, f.st, 0, fixture_frame(256) | S390_SEGMENT_LARGE);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	fixture_expect_calls(&f, 1, 0);
	guest_put(&f.guest, f.st, 0, fixture_frame(512) | S390_SEGMENT_LARGE | S390_PROTECT);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 256, 0);
	assert_true(fixture_shows(&f, 0, 255, 767, false));
	/* A frame that ends outside memory counts as a whole, and is one event. */
	guest_put(&f.guest, f.st, 0, (FIXTURE_FRAMES + (4u << 20)) | S390_SEGMENT_LARGE);
	guest_put(&f.guest, f.st, 1, FIXTURE_ROM | S390_SEGMENT_LARGE | S390_PROTECT);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 256);
	assert_int_equal(f.record.refusals, 2);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	assert_int_equal(f.record.refusals, 2);
	/* Part of a frame, then the rest. */
	guest_put(&f.guest, f.st, 1, S390_UPPER_INVALID);
	guest_put(&f.guest, f.st, 0, FIXTURE_FRAMES | S390_SEGMENT_LARGE);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 7), 4096), SHADOW_DONE, 1, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 255, 0);
	/* One page of it is dropped while the segment is absent, then the same frame is back. */
	guest_put(&f.guest, f.st, 0, S390_UPPER_INVALID);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 7), 4096), SHADOW_DONE, 0, 1);
	guest_put(&f.guest, f.st, 0, FIXTURE_FRAMES | S390_SEGMENT_LARGE);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 0);
	fixture_deinit(&f);
}

static void test_window(void **state)
{
	struct fixture f;

	fixture_init(&f, 0, 0);
	for (unsigned int i = 0; i < 4; i++) {
		fixture_link(&f, i, i);
		fixture_fill(&f, i, 0, 256, 256 * i);
	}
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1024, 0);
	f.anchor.pba = fixture_iova(1, 10);
	f.anchor.pal = fixture_iova(2, 100) + 0xfff;
	shadow_set_anchor(f.shadow, &f.anchor);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 0,
		       1024 - 246 - 101);
	assert_true(fixture_shows(&f, 1, 10, 266, true) && !fixture_shows(&f, 1, 9, 265, true));
	assert_true(fixture_shows(&f, 2, 100, 612, true) && !fixture_shows(&f, 2, 101, 613, true));
	fixture_expect_calls(&f, 1, 2);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	f.anchor.pal = fixture_iova(3, 255) + 0xfff;
	shadow_set_anchor(f.shadow, &f.anchor);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 155 + 256, 0);
	fixture_deinit(&f);
}

static void test_sweep(void **state)
{
	struct fixture f;

	fixture_init(&f, 0, 0);
	for (unsigned int i = 0; i < 3; i++) {
		fixture_link(&f, i, i);
		fixture_fill(&f, i, 0, 256, 256 * i);
	}
	/* Lazy: the first tables are emptied again without a refresh. */
	for (unsigned int i = 0; i < 511; i++)
		fixture_refresh(&f, fixture_iova(i / 256, i % 256), 4096);
	assert_false(shadow_sweep_due(f.shadow));
	fixture_refresh(&f, fixture_iova(1, 255), 4096);
	assert_true(shadow_sweep_due(f.shadow));
	guest_put(&f.guest, f.st, 0, S390_UPPER_INVALID);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_SWEEP, 0, 0), SHADOW_DONE, 0, 256);
	assert_false(shadow_sweep_due(f.shadow));
	assert_false(fixture_shows(&f, 2, 0, 512, true)); /* sweeps map nothing */
	/* A refresh of the whole window counts as one, and its own maps do not. */
	fixture_refresh(&f, fixture_iova(2, 0), 1 << 20);
	fixture_link(&f, 0, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 256, 0);
	assert_false(shadow_sweep_due(f.shadow));
	fixture_deinit(&f);
}

static void test_drop_and_forget(void **state)
{
	struct shadow_stats stats;
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_link(&f, 2047, 1);
	fixture_fill(&f, 0, 0, 100, 0);
	fixture_fill(&f, 1, 0, 100, 100);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 200, 0);
	fixture_expect(
		&f,
		fixture_op(&f, SHADOW_OP_DROP, fixture_iova(0, 50), fixture_iova(2047, 49) + 0xfff),
		SHADOW_DONE, 0, 100);
	fixture_expect_calls(&f, 2, 1);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_DROP, 0, UINT64_MAX), SHADOW_DONE, 0, 100);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 200, 0);
	/* The caller emptied the address space itself. */
	record_deinit(&f.record);
	f.record.installed = 0;
	shadow_forget(f.shadow, f.guest.view);
	assert_true(record_aliases_match(&f.record));
	shadow_stats(f.shadow, &stats);
	assert_int_equal(stats.leaves_installed, 0);
	assert_int_equal(stats.tables_kept, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 200, 0);
	fixture_deinit(&f);
	assert_null(shadow_free(NULL, NULL));
}

/* Whatever is not in the memory that stays, in one pass over what is kept. */
static void test_drop_outside(void **state)
{
	struct memory_view *kept;
	struct fixture f;
	size_t bytes;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 0, 8, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 8, 0);
	/* Pages 2 to 5 of the frames stay, and all of the other regions. */
	bytes = sizeof(*kept) + f.guest.view->n_regions * sizeof(kept->regions[0]);
	kept = test_malloc(bytes);
	memcpy(kept, f.guest.view, bytes);
	for (size_t i = 0; i < kept->n_regions; i++) {
		if (kept->regions[i].gpa_first != FIXTURE_FRAMES)
			continue;
		kept->regions[i].gpa_first = fixture_frame(2);
		kept->regions[i].gpa_last = fixture_frame(6) - 1;
	}
	assert_int_equal(shadow_drop_outside(f.shadow, f.guest.view, kept), 0);
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(fixture_shows(&f, 0, i, i, true), i >= 2 && i <= 5);
	assert_true(record_aliases_match(&f.record));
	test_free(kept);
	fixture_deinit(&f);
}

static void test_lookup(void **state)
{
	struct shadow_run runs[8];
	struct fixture f;
	uint64_t gpa = 1;
	bool writable = false;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_link(&f, 1, 1);
	fixture_fill(&f, 0, 200, 56, 0);
	fixture_fill(&f, 1, 0, 10, 56);
	guest_put(&f.guest, f.pt[1], 10, fixture_frame(66) | S390_PROTECT);
	fixture_leaf(&f, 1, 20, 3);
	fixture_refresh_all(&f);
	assert_true(shadow_lookup(f.shadow, fixture_iova(0, 201) + 5, &gpa, &writable));
	assert_int_equal(gpa, fixture_frame(1) + 5);
	assert_true(writable);
	assert_false(shadow_lookup(f.shadow, fixture_iova(0, 199), &gpa, &writable));
	assert_false(shadow_lookup(f.shadow, 0, &gpa, &writable));
	assert_int_equal(shadow_runs(f.shadow, 0, runs, 8), 3);
	assert_int_equal(runs[0].iova, fixture_iova(0, 200));
	assert_int_equal(runs[0].length, 66 * 4096);
	assert_false(runs[1].writable);
	assert_int_equal(runs[2].gpa, fixture_frame(3));
	assert_int_equal(shadow_runs(f.shadow, 0, runs, 1), 1);
	assert_int_equal(runs[0].length, 66 * 4096);
	assert_int_equal(shadow_runs(f.shadow, fixture_iova(1, 9), runs, 8), 3);
	assert_int_equal(runs[0].length, 4096);
	assert_int_equal(shadow_runs(f.shadow, fixture_iova(1, 21), runs, 8), 0);
	fixture_deinit(&f);
}

static void recorded_load(struct guest *guest)
{
	gzFile file = gzopen(recorded, "rb");
	uint8_t record[8 + 4096];
	uint64_t gpa;

	assert_non_null(file);
	while (gzread(file, record, sizeof(record)) == (int)sizeof(record)) {
		memcpy(&gpa, record, sizeof(gpa));
		gpa = le64toh(gpa);
		assert_true(gpa < guest->regions[0].bytes);
		memcpy(guest_word(guest, gpa), record + 8, 4096);
	}
	gzclose(file);
}

/* The tables of a real guest: 24 leaves of the disk, 133 of the network card. */
static void test_recorded(void **state)
{
	static const struct {
		uint64_t iota, leaves;
	} functions[] = {{0x3014804, 24}, {0x3010804, 133}};

	for (unsigned int i = 0; i < 2; i++) {
		struct shadow_stats stats;
		struct fixture f;

		fixture_init(&f, 0, 0);
		guest_deinit(&f.guest);
		guest_add_region(&f.guest, 0, 384u << 20, true);
		guest_publish(&f.guest);
		recorded_load(&f.guest);
		f.anchor.iota = functions[i].iota;
		f.anchor.pal = UINT64_C(0x117ffffff);
		shadow_set_anchor(f.shadow, &f.anchor);
		fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE,
			       functions[i].leaves, 0);
		fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
		shadow_stats(f.shadow, &stats);
		assert_in_range(stats.tables_kept, 1, 8); /* most of 120 are empty */
		assert_int_equal(f.record.refusals, 0);
		fixture_deinit(&f);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges),          cmocka_unit_test(test_anchors),
		cmocka_unit_test(test_runs_join),       cmocka_unit_test(test_unchanged),
		cmocka_unit_test(test_change),          cmocka_unit_test(test_frame_forms),
		cmocka_unit_test(test_window),          cmocka_unit_test(test_sweep),
		cmocka_unit_test(test_drop_and_forget), cmocka_unit_test(test_lookup),
		cmocka_unit_test(test_drop_outside),    cmocka_unit_test(test_recorded),
	};

	if (argc != 2)
		return 2;
	recorded = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
