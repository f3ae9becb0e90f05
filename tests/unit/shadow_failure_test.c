/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The shadow when something is refused: leaves that are not memory, regions that go, limits, and
 * calls of map and cut that fail.
 */

#include <errno.h>

#include "shadow_fixture.h"

static void test_leaf_refused(void **state)
{
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_leaf(&f, 0, 0, 0);
	guest_put(&f.guest, f.pt[0], 1, 0x7fff0000);
	fixture_leaf(&f, 0, 2, 2);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 2, 0);
	assert_int_equal(f.record.refusals, 1);
	assert_int_equal(f.record.refused_iova, fixture_iova(0, 1));
	assert_int_equal(f.record.refused_gpa, 0x7fff0000);
	assert_int_equal(f.record.refusal, SHADOW_LEAF_OUTSIDE_MEMORY);
	/* Once, however often and in whatever range it is refreshed, beside changes too. */
	fixture_leaf(&f, 0, 3, 3);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 0);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 1), 4096), SHADOW_DONE, 0, 0);
	assert_int_equal(f.record.refusals, 1);
	/* Again when the guest's memory changed, and no more when it is there. */
	guest_publish(&f.guest);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	assert_int_equal(f.record.refusals, 2);
	guest_put(&f.guest, f.pt[0], 1, FIXTURE_ROM);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	assert_int_equal(f.record.refusals, 3);
	assert_int_equal(f.record.refusal, SHADOW_LEAF_READ_ONLY_MEMORY);
	guest_put(&f.guest, f.st, 0, f.pt[0] | S390_PROTECT);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 4, 0);
	assert_true(record_shows(&f.record, fixture_iova(0, 1), FIXTURE_ROM, false));
	/* Frame 0 is a frame like any other. */
	guest_put(&f.guest, f.pt[0], 9, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 0);
	assert_true(record_shows(&f.record, fixture_iova(0, 9), 0, false));
	fixture_deinit(&f);
}

static void test_regions(void **state)
{
	struct guest_region *frames;
	struct fixture f;

	fixture_init(&f, 0, 0);
	frames = &f.guest.regions[2];
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 0, 4, 0);
	guest_put(&f.guest, f.pt[0], 4, 0x3000);
	fixture_fill(&f, 0, 5, 3, 5);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 8, 0);
	assert_int_equal(shadow_drop_frames(f.shadow, f.guest.view, frames->gpa,
					    frames->gpa + frames->bytes - 1),
			 0);
	assert_int_equal(f.record.installed, 1);
	assert_int_equal(f.record.cuts, 2);
	frames->present = false;
	guest_publish(&f.guest);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	assert_int_equal(f.record.refusals, 7);
	frames->present = true;
	guest_publish(&f.guest);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 7, 0);
	/* Writable memory turned read only, and memory that went, under leaves that are installed:
	 * the tables are the same, the answer is not. */
	frames->writable = false;
	guest_publish(&f.guest);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 0), 4096), SHADOW_DONE, 0, 1);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 6);
	assert_int_equal(f.record.installed, 1);
	fixture_deinit(&f);
}

static void test_limits(void **state)
{
	struct shadow_result result;
	struct fixture f;

	fixture_init(&f, 10, 2);
	for (unsigned int i = 0; i < 3; i++)
		fixture_link(&f, i, i);
	fixture_fill(&f, 0, 0, 10, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 10, 0);
	fixture_leaf(&f, 0, 10, 10);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_RESOURCES, 0, 0);
	/* Every unmap of the range took effect, and what they freed is used. */
	guest_put(&f.guest, f.pt[0], 0, S390_PAGE_INVALID);
	fixture_leaf(&f, 1, 0, 20);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_RESOURCES, 1, 1);
	guest_put(&f.guest, f.pt[1], 0, S390_PAGE_INVALID);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	/* Two tables are accepted, the third is not; what fits into the two still does. */
	for (unsigned int i = 2; i < 11; i++)
		guest_put(&f.guest, f.pt[0], i, S390_PAGE_INVALID);
	fixture_leaf(&f, 1, 0, 20);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 9);
	fixture_leaf(&f, 2, 0, 30);
	fixture_leaf(&f, 1, 1, 31);
	result = fixture_refresh_all(&f);
	fixture_expect(&f, result, SHADOW_RESOURCES, 1, 0);
	assert_int_equal(result.host_errno, 0);
	guest_put(&f.guest, f.st, 0, S390_UPPER_INVALID);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 1);
	fixture_deinit(&f);
}

static void test_aliases(void **state)
{
	struct fixture f, g;
	_Atomic uint16_t *aliases;

	fixture_init(&f, 0, 0);
	aliases = f.guest.regions[2].aliases;
	fixture_link(&f, 0, 0);
	aliases[7] = FRAME_ALIASES_MAX - 1;
	fixture_leaf(&f, 0, 0, 7);
	fixture_leaf(&f, 0, 1, 7);
	fixture_leaf(&f, 0, 2, 8);
	assert_int_equal(fixture_refresh_all(&f).verdict, SHADOW_RESOURCES);
	assert_int_equal(aliases[7], FRAME_ALIASES_MAX);
	assert_true(fixture_shows(&f, 0, 0, 7, true) && !fixture_shows(&f, 0, 1, 7, true));
	assert_true(fixture_shows(&f, 0, 2, 8, true));
	assert_int_equal(fixture_refresh_all(&f).verdict, SHADOW_RESOURCES);
	/* A table that can keep nothing is not kept. */
	fixture_link(&f, 1, 1);
	fixture_leaf(&f, 1, 0, 9);
	assert_int_equal(fixture_refresh_all(&f).mapped, 1);
	fixture_expect_kept(&f, 2);
	fixture_leaf(&f, 1, 0, 7);
	assert_int_equal(fixture_refresh_all(&f).verdict, SHADOW_RESOURCES);
	fixture_expect_kept(&f, 1);
	guest_put(&f.guest, f.st, 1, S390_UPPER_INVALID);
	aliases[7]--; /* elsewhere one went */
	assert_int_equal(fixture_refresh_all(&f).verdict, SHADOW_DONE);
	assert_true(fixture_shows(&f, 0, 1, 7, true));
	aliases[7] -= FRAME_ALIASES_MAX - 2;
	fixture_deinit(&f);
	/* One cut takes a bounded sum of areas times aliases. */
	fixture_init(&g, 0, 0);
	aliases = g.guest.regions[2].aliases;
	fixture_link(&g, 0, 0);
	fixture_fill(&g, 0, 0, 100, 0);
	assert_int_equal(fixture_refresh_all(&g).mapped, 100);
	for (unsigned int i = 0; i < 100; i++)
		aliases[i] += 4000;
	guest_put(&g.guest, g.st, 0, S390_UPPER_INVALID);
	assert_int_equal(fixture_refresh_all(&g).unmapped, 100);
	assert_int_equal(g.record.installed, 0);
	assert_int_equal(g.record.cuts, 7); /* 16 leaves of 4,001 each */
	for (unsigned int i = 0; i < 100; i++)
		aliases[i] -= 4000;
	fixture_deinit(&g);
}

/* Four single-leaf runs in one table, over one leaf that goes. */
static void map_failure_setup(struct fixture *f)
{
	fixture_init(f, 0, 0);
	fixture_link(f, 0, 0);
	fixture_leaf(f, 0, 100, 100);
	fixture_expect(f, fixture_refresh_all(f), SHADOW_DONE, 1, 0);
	guest_put(&f->guest, f->pt[0], 100, S390_PAGE_INVALID);
	for (unsigned int i = 0; i < 4; i++)
		fixture_leaf(f, 0, 2 * i, 2 * i);
}

static void test_map_failures(void **state)
{
	struct shadow_result result;
	struct fixture f;

	map_failure_setup(&f);
	fixture_fail_maps(&f, 2, 1, ENOSPC); /* passes when it is tried again */
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 4, 1);
	fixture_deinit(&f);

	map_failure_setup(&f);
	fixture_fail_maps(&f, 2, 100, ENOMEM); /* tried twice, then no more */
	result = fixture_refresh_all(&f);
	fixture_expect(&f, result, SHADOW_RESOURCES, 1, 1);
	assert_int_equal(result.host_errno, ENOMEM);
	fixture_expect_calls(&f, 4, 1);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_RESOURCES, 0, 0);
	f.record.fail_map_first = 0;
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 3, 0);
	/* Nothing of a new table could be mapped: nothing of it is kept. */
	fixture_link(&f, 1, 1);
	fixture_leaf(&f, 1, 0, 9);
	fixture_fail_maps(&f, 1, 2, ENOSPC);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_RESOURCES, 0, 0);
	fixture_expect_kept(&f, 1);
	/* A leaf that changed goes with a fault elsewhere, and its table with it. */
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 0);
	fixture_leaf(&f, 1, 0, 10);
	guest_put(&f.guest, f.st, 9, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_ERROR, 0, 1);
	fixture_expect_kept(&f, 1);
	fixture_deinit(&f);

	map_failure_setup(&f);
	fixture_fail_maps(&f, 2, 1, EIO); /* its own run only */
	result = fixture_refresh_all(&f);
	fixture_expect(&f, result, SHADOW_ERROR, 3, 1);
	assert_int_equal(result.fault.code, S390_PEC_NONE);
	assert_int_equal(result.host_errno, EIO);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 0);
	fixture_deinit(&f);

	map_failure_setup(&f);
	fixture_fail_maps(&f, 3, 1, ENOENT); /* a region that just went */
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 3, 1);
	assert_int_equal(f.record.refusals, 1);
	assert_int_equal(f.record.refused_iova, fixture_iova(0, 4));
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 0);
	fixture_deinit(&f);
}

static void test_overlap(void **state)
{
	struct record_leaf *ghost;
	struct fixture f;

	/* Something that we know nothing of lies in the way: cut once, mapped once more. */
	map_failure_setup(&f);
	f.record.allow_overlap = true;
	ghost = record_leaf(&f.record, fixture_iova(0, 2), true);
	*ghost = (struct record_leaf){.gpa = 0x4000, .installed = true};
	f.record.installed++;
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 4, 1);
	assert_true(fixture_shows(&f, 0, 2, 2, true));
	fixture_expect_calls(&f, 6, 2);
	fixture_deinit(&f);

	map_failure_setup(&f);
	fixture_fail_maps(&f, 2, 2, EEXIST);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_RESOURCES, 3, 1);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 0);
	fixture_deinit(&f);
}

static void test_cut_failures(void **state)
{
	struct shadow_result result;
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 0, 8, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 8, 0);
	/* The whole fails, its halves do not. */
	guest_put(&f.guest, f.st, 0, S390_UPPER_INVALID);
	f.record.fail_cut_first = 1;
	f.record.fail_cut_n = 1;
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 8);
	fixture_expect_calls(&f, 1, 3);
	assert_int_equal(f.record.installed, 0);
	fixture_link(&f, 0, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 8, 0);
	/* For good: broken, and nothing is done before the cut is paid. */
	guest_put(&f.guest, f.st, 0, S390_UPPER_INVALID);
	fixture_link(&f, 1, 1);
	fixture_leaf(&f, 1, 0, 99);
	fixture_link(&f, 2, 2);
	fixture_fill(&f, 2, 0, 3, 50);
	fixture_fill(&f, 3, 0, 4, 60);
	fixture_link(&f, 3, 3);
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(2, 0), 2 << 20), SHADOW_DONE, 7, 0);
	guest_put(&f.guest, f.pt[2], 0, S390_PAGE_INVALID);
	guest_put(&f.guest, f.pt[2], 2, S390_PAGE_INVALID);
	guest_put(&f.guest, f.pt[3], 1, S390_PAGE_INVALID);
	f.record.fail_cut_first = 4;
	f.record.fail_cut_n = 1000;
	result = fixture_refresh_all(&f);
	assert_int_equal(result.verdict, SHADOW_BROKEN);
	assert_int_equal(result.host_errno, ENOMEM);
	assert_int_equal(fixture_refresh_all(&f).verdict, SHADOW_BROKEN);
	assert_int_equal(shadow_drop_frames(f.shadow, f.guest.view, 0, UINT64_MAX), ENOMEM);
	assert_int_equal(f.record.maps, 4);
	assert_int_equal(f.record.installed, 15);
	/* One cut is owed; what was to come after it is still there, and goes now. */
	f.record.fail_cut_first = 0;
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 2);
	assert_int_equal(f.record.installed, 5);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaf_refused), cmocka_unit_test(test_regions),
		cmocka_unit_test(test_limits),       cmocka_unit_test(test_aliases),
		cmocka_unit_test(test_map_failures), cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_cut_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
