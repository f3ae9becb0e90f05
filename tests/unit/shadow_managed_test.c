/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Managed shadows: what the VMM asks for is the only table.
 */

#include <errno.h>

#include "shadow_fixture.h"

static struct shadow_result managed_map(struct fixture *f, uint64_t iova, uint64_t length,
					uint64_t gpa, bool writable)
{
	struct shadow_op op;

	shadow_op_managed_map(&op, iova, iova + length - 1, gpa, writable);
	return shadow_run(f->shadow, f->guest.view, op, 3);
}

static void test_managed(void **state)
{
	struct fixture f;

	fixture_init(&f, 600, 4);
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 0, 10, 0);
	assert_int_equal(managed_map(&f, FIXTURE_BASE, 4096, 0, true).fault.code, S390_PEC_INVALAS);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 10, 0);
	shadow_set_managed(f.shadow, FIXTURE_BASE, FIXTURE_LAST);
	assert_null(shadow_anchor(f.shadow));
	/* What a guest's tables left is no wish of the VMM. */
	fixture_expect(&f, managed_map(&f, fixture_iova(0, 250), 20 * 4096, FIXTURE_FRAMES, true),
		       SHADOW_DONE, 20, 10);
	assert_int_equal(f.record.installed, 20);
	assert_true(fixture_shows(&f, 1, 13, 19, true));
	/* The same again is nothing; a part of it anew replaces it. */
	fixture_expect(&f, managed_map(&f, fixture_iova(0, 250), 20 * 4096, FIXTURE_FRAMES, true),
		       SHADOW_DONE, 0, 0);
	fixture_expect(&f,
		       managed_map(&f, fixture_iova(0, 252), 4096, FIXTURE_FRAMES + 0x9000, false),
		       SHADOW_DONE, 1, 0);
	assert_true(fixture_shows(&f, 0, 252, 9, false) && fixture_shows(&f, 0, 251, 1, true));
	fixture_expect(&f,
		       fixture_op(&f, SHADOW_OP_MANAGED_UNMAP, fixture_iova(0, 251),
				  fixture_iova(0, 253) + 0xfff),
		       SHADOW_DONE, 0, 3);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 0, 0);
	/* Dropped, it is still wanted, and reconciling brings it back. */
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_DROP, 0, UINT64_MAX), SHADOW_DONE, 0, 17);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 17, 0);
	/* Out of leaves, or of tables: nothing of the range is left, not even what was there. */
	fixture_expect(&f, managed_map(&f, fixture_iova(1, 0), 800 * 4096, FIXTURE_FRAMES, true),
		       SHADOW_RESOURCES, 0, 14);
	assert_int_equal(f.record.installed, 3);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 0, 0);
	assert_int_equal(
		managed_map(&f, FIXTURE_BASE, FIXTURE_LAST - FIXTURE_BASE + 1, 0, true).verdict,
		SHADOW_RESOURCES);
	assert_int_equal(f.record.installed, 0);
	fixture_deinit(&f);
}

static void test_managed_refusals(void **state)
{
	struct shadow_result result;
	struct fixture f;

	fixture_init(&f, 0, 0);
	shadow_set_managed(f.shadow, FIXTURE_BASE, FIXTURE_LAST);
	assert_int_equal(managed_map(&f, FIXTURE_BASE - 4096, 8192, 0, true).fault.code,
			 S390_PEC_OORANGE);
	assert_int_equal(managed_map(&f, FIXTURE_LAST - 4095, 8192, 0, true).fault.code,
			 S390_PEC_OORANGE);
	result = managed_map(&f, FIXTURE_BASE, 8192, UINT64_MAX - 4095, true);
	assert_int_equal(result.fault.code, S390_PEC_INVALTE);
	assert_true(result.fault.outside_memory);
	assert_int_equal(managed_map(&f, FIXTURE_BASE, 8192, 0x3800, true).verdict, SHADOW_ERROR);
	/* What is not memory yet is told, wanted, and installed when it is. */
	f.guest.regions[2].present = false;
	guest_publish(&f.guest);
	fixture_expect(&f, managed_map(&f, FIXTURE_BASE, 8192, FIXTURE_FRAMES, true), SHADOW_DONE,
		       0, 0);
	assert_int_equal(f.record.refusals, 2);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 0, 0);
	assert_int_equal(f.record.refusals, 2);
	f.guest.regions[2].present = true;
	guest_publish(&f.guest);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 2, 0);
	/* The region goes and comes back. */
	assert_int_equal(
		shadow_drop_frames(f.shadow, f.guest.view, FIXTURE_FRAMES, FIXTURE_FRAMES + 0xfff),
		0);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 1, 0);
	/* A smaller window forgets what lies outside it. */
	shadow_set_managed(f.shadow, FIXTURE_BASE, FIXTURE_BASE + 0xfff);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 0, 1);
	shadow_set_managed(f.shadow, FIXTURE_BASE, FIXTURE_LAST);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 0, 0);
	/* A map that the kernel refuses leaves its range unmapped. */
	fixture_fail_maps(&f, 1, 1, EIO);
	result = managed_map(&f, FIXTURE_BASE, 8192, FIXTURE_FRAMES + 0x8000, true);
	fixture_expect(&f, result, SHADOW_ERROR, 0, 1);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 0, 0);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_managed),
		cmocka_unit_test(test_managed_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
