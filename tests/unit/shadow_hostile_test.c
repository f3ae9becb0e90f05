/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The shadow against a guest that means harm, or is in a hurry: bad entries, tables that change
 * under the walk, go away or point everywhere; operations in steps.
 */

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shadow_fixture.h"

static void test_fault(void **state)
{
	struct fixture f;
	struct shadow_result result;

	fixture_init(&f, 0, 0);
	for (unsigned int i = 0; i < 4; i++)
		fixture_link(&f, i, i);
	for (unsigned int i = 0; i < 3; i++)
		fixture_fill(&f, i, 0, 4, 8 * i);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 12, 0);
	/* Segment 1 goes bad; unmaps before and behind it happen, maps do not. */
	guest_put(&f.guest, f.st, 1, 0);
	guest_put(&f.guest, f.st, 2000, 0x8);
	guest_put(&f.guest, f.pt[0], 0, S390_PAGE_INVALID);
	guest_put(&f.guest, f.pt[2], 0, S390_PAGE_INVALID);
	fixture_leaf(&f, 0, 9, 9);
	fixture_leaf(&f, 3, 9, 10);
	fixture_leaf(&f, 2, 1, 99); /* changed: the old one must go */
	result = fixture_refresh_all(&f);
	fixture_expect(&f, result, SHADOW_ERROR, 0, 7);
	fixture_expect_fault(result, S390_PEC_INVALTE, S390_LEVEL_SEGMENT, fixture_iova(1, 0), 0);
	assert_int_equal(f.record.installed, 5);
	/* Sweeps say nothing of it, registrations map all the same. */
	result = fixture_op(&f, SHADOW_OP_SWEEP, 0, 0);
	fixture_expect(&f, result, SHADOW_DONE, 0, 0);
	assert_int_equal(result.fault.code, S390_PEC_INVALTE);
	result = fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0);
	fixture_expect(&f, result, SHADOW_ERROR, 3, 0);
	/* A range beside the bad entry is none of its business; one inside begins where asked. */
	fixture_expect(&f, fixture_refresh(&f, fixture_iova(0, 0), 1 << 20), SHADOW_DONE, 0, 0);
	result = fixture_refresh(&f, fixture_iova(1, 7), 4096);
	fixture_expect_fault(result, S390_PEC_INVALTE, S390_LEVEL_SEGMENT, fixture_iova(1, 7), 0);
	/* A whole region of leaves goes with its entry. */
	guest_put(&f.guest, f.rt, 2, region_entry(S390_LEVEL_REGION_THIRD, 0x7fff0000));
	result = fixture_refresh_all(&f);
	fixture_expect(&f, result, SHADOW_ERROR, 0, 8);
	fixture_expect_fault(result, S390_PEC_INVALTE, S390_LEVEL_REGION_THIRD, FIXTURE_BASE,
			     0x7fff0000);
	assert_true(result.fault.outside_memory);
	fixture_deinit(&f);
}

/* The guest changes an entry between the passes: what the second one meets counts. Step until the
 * second pass begins at segment 0 of the window. */
static void step_to_mapping(struct fixture *f, struct shadow_op *op)
{
	shadow_op_refresh(op, FIXTURE_BASE, 1ull << 31);
	do
		assert_true(shadow_step(f->shadow, f->guest.view, op, 1));
	while (op->cursor.n_dirty == 0);
	while (op->cursor.next != FIXTURE_BASE >> 20)
		assert_true(shadow_step(f->shadow, f->guest.view, op, 1));
}

static void between_passes_setup(struct fixture *f)
{
	fixture_init(f, 0, 0);
	for (unsigned int i = 0; i < 4; i++) {
		fixture_link(f, i, i);
		fixture_fill(f, i, 0, 2, 2 * i);
	}
	fixture_link(f, 100, 3);
	fixture_expect(f, fixture_refresh(f, fixture_iova(1, 0), 4096), SHADOW_DONE, 1, 0);
	fixture_expect(f, fixture_refresh(f, fixture_iova(100, 0), 1 << 20), SHADOW_DONE, 2, 0);
}

static void test_fault_between_passes(void **state)
{
	struct shadow_stats stats;
	struct shadow_op op;
	struct fixture f;

	between_passes_setup(&f);
	step_to_mapping(&f, &op);
	guest_put(&f.guest, f.st, 1, 4);
	while (shadow_step(f.shadow, f.guest.view, &op, 1))
		;
	fixture_expect(&f, op.result, SHADOW_ERROR, 2, 1);
	fixture_expect_fault(op.result, S390_PEC_TT, S390_LEVEL_SEGMENT, fixture_iova(1, 0), 4);
	assert_true(fixture_shows(&f, 0, 1, 1, true));
	assert_false(fixture_shows(&f, 2, 0, 4, true));
	assert_true(fixture_shows(&f, 100, 0, 6, true));
	fixture_deinit(&f);
	/* A whole region: what this operation mapped a step before goes with the rest. */
	between_passes_setup(&f);
	step_to_mapping(&f, &op);
	while (!fixture_shows(&f, 0, 1, 1, true))
		assert_true(shadow_step(f.shadow, f.guest.view, &op, 1));
	guest_put(&f.guest, f.rt, 2, 0);
	while (shadow_step(f.shadow, f.guest.view, &op, 1))
		;
	fixture_expect(&f, op.result, SHADOW_ERROR, 2, 5);
	fixture_expect_fault(op.result, S390_PEC_INVALTE, S390_LEVEL_REGION_THIRD, FIXTURE_BASE, 0);
	assert_int_equal(f.record.installed, 0);
	shadow_stats(f.shadow, &stats);
	assert_int_equal(stats.tables_kept, 0);
	fixture_deinit(&f);
}

/* A whole refresh in steps; others come between and are exact at once. */
static void test_steps(void **state)
{
	struct shadow_op op;
	struct fixture f;
	unsigned int steps = 0;

	fixture_init(&f, 0, 4096);
	for (unsigned int i = 0; i < 2048; i++)
		fixture_link(&f, i, i % 4);
	for (unsigned int i = 0; i < 4; i++)
		fixture_leaf(&f, i, i, i);
	shadow_op_refresh(&op, FIXTURE_BASE, 1ull << 31);
	while (shadow_step(f.shadow, f.guest.view, &op, 100)) {
		if (++steps == 10) {
			guest_put(&f.guest, f.pt[0], 0, S390_PAGE_INVALID);
			assert_int_equal(fixture_refresh(&f, fixture_iova(2044, 0), 4096).verdict,
					 SHADOW_DONE);
			assert_false(fixture_shows(&f, 2044, 0, 0, true));
		}
	}
	assert_in_range(steps, 20, 2000);
	assert_int_equal(op.result.verdict, SHADOW_DONE);
	fixture_refresh_all(&f);
	assert_int_equal(f.record.installed, 3 * 512);
	fixture_deinit(&f);
}

static struct fixture *quick;

static void quick_guest(struct record *record)
{
	guest_put(&quick->guest, quick->rt, 2, 0);
}

/* The same within one step, with a run not yet handed on when the bad entry is met. */
static void test_fault_while_mapping(void **state)
{
	struct shadow_result result;
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_link(&f, 5, 1);
	fixture_leaf(&f, 0, 0, 0);
	fixture_leaf(&f, 0, 2, 2);
	fixture_leaf(&f, 1, 0, 9);
	quick = &f;
	f.record.on_map = quick_guest;
	result = fixture_refresh_all(&f);
	fixture_expect(&f, result, SHADOW_ERROR, 2, 2);
	fixture_expect_fault(result, S390_PEC_INVALTE, S390_LEVEL_REGION_THIRD, FIXTURE_BASE, 0);
	assert_int_equal(f.record.installed, 0);
	fixture_deinit(&f);
}

/* The window moves while it is reconciled: what was done under the old one does not count. */
static void test_window_moves(void **state)
{
	struct shadow_op op;
	struct fixture f;

	fixture_init(&f, 0, 0);
	for (unsigned int i = 0; i < 4; i++) {
		fixture_link(&f, i, i);
		fixture_fill(&f, i, 0, 256, 256 * i);
	}
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1024, 0);
	shadow_op_range(&op, SHADOW_OP_RECONCILE, 0, 0);
	assert_true(shadow_step(f.shadow, f.guest.view, &op, 2));
	f.anchor.pba = fixture_iova(1, 0);
	shadow_set_anchor(f.shadow, &f.anchor);
	while (shadow_step(f.shadow, f.guest.view, &op, 2))
		;
	fixture_expect(&f, op.result, SHADOW_DONE, 0, 256);
	/* A refresh that the window left behind is out of range. */
	fixture_link(&f, 4, 0);
	shadow_op_refresh(&op, fixture_iova(1, 0), 8 << 20);
	assert_true(shadow_step(f.shadow, f.guest.view, &op, 1));
	f.anchor.pba = fixture_iova(2, 0);
	shadow_set_anchor(f.shadow, &f.anchor);
	assert_false(shadow_step(f.shadow, f.guest.view, &op, 1));
	fixture_expect_fault(op.result, S390_PEC_OORANGE, S390_LEVEL_NONE, fixture_iova(1, 0), 0);
	fixture_deinit(&f);
}

/* From the first page of the address space to the last: more than one length can say. */
static void test_whole_space(void **state)
{
	uint64_t rf, rs;
	struct fixture f;

	fixture_init(&f, 0, 0);
	rf = guest_upper_table(&f.guest);
	rs = guest_upper_table(&f.guest);
	for (unsigned int i = 0; i < 2; i++) {
		guest_put(&f.guest, rf, i * 2047, region_entry(S390_LEVEL_REGION_FIRST, rs));
		guest_put(&f.guest, rs, i * 2047, region_entry(S390_LEVEL_REGION_SECOND, f.rt));
		guest_put(&f.guest, f.rt, i * 2047, region_entry(S390_LEVEL_REGION_THIRD, f.st));
		fixture_link(&f, i * 2047, 0);
	}
	guest_put(&f.guest, f.rt, 2, S390_UPPER_INVALID);
	guest_put(&f.guest, f.rt, 3, S390_UPPER_INVALID);
	fixture_leaf(&f, 0, 0, 0);
	fixture_leaf(&f, 0, 255, 1);
	f.anchor = (struct s390_anchor){.iota = rf | 0x80c, .pba = 0, .pal = UINT64_MAX};
	shadow_set_anchor(f.shadow, &f.anchor);
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_RECONCILE, 0, 0), SHADOW_DONE, 32, 0);
	assert_true(record_shows(&f.record, 0, fixture_frame(0), true));
	assert_true(record_shows(&f.record, UINT64_MAX - 0xfff, fixture_frame(1), true));
	fixture_expect(&f, fixture_op(&f, SHADOW_OP_DROP, 0, UINT64_MAX), SHADOW_DONE, 0, 32);
	assert_int_equal(f.record.installed, 0);
	fixture_deinit(&f);
}

/* More changed places than a cursor remembers: nothing is left out. */
static void test_many_dirty(void **state)
{
	struct fixture f;
	unsigned int n = 0;

	fixture_init(&f, 0, 0);
	fixture_leaf(&f, 0, 3, 3);
	for (unsigned int i = 0; i < 2048; i += 3 + i % 5, n++)
		fixture_link(&f, i, 0);
	assert_true(n > 10 * SHADOW_DIRTY_MAX);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, n, 0);
	fixture_expect_calls(&f, n, 0);
	/* Each second one changes; intervals then hold tables that did not. */
	fixture_leaf(&f, 1, 4, 4);
	for (unsigned int i = 0, k = 0; i < 2048; i += 3 + i % 5, k++)
		if (k % 2)
			fixture_link(&f, i, 1);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, n / 2, n / 2);
	fixture_deinit(&f);
}

/* Every entry of every level the same: the walk ends, in RESOURCES, and unmaps are exact also
 * behind where it ended. */
static void test_bounded(void **state)
{
	uint64_t rf, rs, far;
	struct fixture f;

	fixture_init(&f, 0, 4);
	rf = guest_upper_table(&f.guest);
	rs = guest_upper_table(&f.guest);
	guest_put(&f.guest, f.rt, 2, S390_UPPER_INVALID);
	guest_put(&f.guest, f.rt, 3, S390_UPPER_INVALID);
	guest_put(&f.guest, rf, 2047, region_entry(S390_LEVEL_REGION_FIRST, rs));
	guest_put(&f.guest, rs, 2047, region_entry(S390_LEVEL_REGION_SECOND, f.rt));
	guest_put(&f.guest, f.rt, 2047, region_entry(S390_LEVEL_REGION_THIRD, f.st));
	fixture_link(&f, 2047, 0);
	fixture_leaf(&f, 0, 255, 5);
	fixture_leaf(&f, 0, 254, 4);
	f.anchor = (struct s390_anchor){.iota = rf | 0x80c, .pba = 0, .pal = UINT64_MAX - 0x1000};
	shadow_set_anchor(f.shadow, &f.anchor);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 1, 0);
	far = UINT64_MAX - 0x1fff;
	assert_true(record_shows(&f.record, far, fixture_frame(4), true));
	guest_put(&f.guest, f.pt[0], 254, S390_PAGE_INVALID);
	guest_put(&f.guest, f.pt[0], 255, S390_PAGE_INVALID);
	for (unsigned int i = 0; i < 2048; i++) {
		guest_put(&f.guest, rf, i, region_entry(S390_LEVEL_REGION_FIRST, rs));
		guest_put(&f.guest, rs, i, region_entry(S390_LEVEL_REGION_SECOND, f.rt));
		guest_put(&f.guest, f.rt, i, region_entry(S390_LEVEL_REGION_THIRD, f.st2));
	}
	guest_put(&f.guest, f.rt, 2047, region_entry(S390_LEVEL_REGION_THIRD, f.st));
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_RESOURCES, 0, 1);
	assert_int_equal(f.record.installed, 0);
	fixture_deinit(&f);
}

/* A region's file shrinks under the tables. */
static void test_tables_gone(void **state)
{
	struct shadow_result result;
	struct fixture f;
	int fd = memfd_create("tables", MFD_CLOEXEC);

	fixture_init(&f, 0, 0);
	assert_int_equal(ftruncate(fd, 0x80000), 0);
	assert_int_equal(pwrite(fd, f.guest.regions[0].host, 0x80000, 0), 0x80000);
	assert_ptr_not_equal(mmap(f.guest.regions[0].host, 0x80000, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_FIXED, fd, 0),
			     MAP_FAILED);
	fixture_link(&f, 0, 0);
	fixture_fill(&f, 0, 0, 10, 0);
	fixture_expect(&f, fixture_refresh_all(&f), SHADOW_DONE, 10, 0);
	/* The page table goes: what it showed goes too, in a range of any size. */
	assert_int_equal(ftruncate(fd, (off_t)f.pt[0] & ~0xfff), 0);
	result = fixture_refresh(&f, fixture_iova(0, 3), 4096);
	fixture_expect(&f, result, SHADOW_ERROR, 0, 1);
	fixture_expect_fault(result, S390_PEC_INVALTE, S390_LEVEL_SEGMENT, fixture_iova(0, 3),
			     f.pt[0]);
	assert_true(result.fault.outside_memory);
	result = fixture_refresh_all(&f);
	fixture_expect(&f, result, SHADOW_ERROR, 0, 9);
	/* Then all of them. */
	assert_int_equal(ftruncate(fd, 0), 0);
	result = fixture_refresh_all(&f);
	fixture_expect_fault(result, S390_PEC_INVALTE, S390_LEVEL_NONE, FIXTURE_BASE, f.rt);
	fixture_deinit(&f);
	close(fd);
}

struct scribbler {
	struct fixture *fixture;
	atomic_bool stop;
};

static uint64_t scribble_entry(uint64_t *seed, const struct fixture *f)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	switch (*seed >> 33 & 7) {
	case 0:
		return S390_UPPER_INVALID;
	case 1:
		return 0;
	case 2:
		return *seed;
	case 3:
		return 0x7fff0000;
	case 4:
		return (FIXTURE_FRAMES + (*seed >> 40 << 20 & 0x700000)) | S390_SEGMENT_LARGE;
	default:
		return f->pt[*seed >> 60 & 3] | (*seed >> 50 & S390_PROTECT);
	}
}

static void *scribble(void *argument)
{
	struct scribbler *s = argument;
	struct fixture *f = s->fixture;
	uint64_t seed = 42;

	while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		uint64_t e = scribble_entry(&seed, f);

		guest_put(&f->guest, f->st, seed >> 45 & 7, e);
		for (unsigned int i = 0; i < 8; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			guest_put(&f->guest, f->pt[seed >> 62], seed >> 40 & 255,
				  seed >> 30 & 1 ? fixture_frame(seed >> 50 & 1023) : seed >> 28);
		}
		guest_put(&f->guest, f->rt, 2,
			  seed >> 37 & 15 ? region_entry(S390_LEVEL_REGION_THIRD, f->st)
					  : (seed >> 20));
	}
	return NULL;
}

/* Tables change under the walk: only memory is ever mapped, and the books agree. */
static void test_concurrent(void **state)
{
	struct fixture f;
	struct scribbler s = {.fixture = &f};
	pthread_t thread;

	fixture_init(&f, 700, 6);
	assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
	for (unsigned int i = 0; i < 2000; i++) {
		struct shadow_result result =
			i % 3 ? fixture_refresh_all(&f)
			      : fixture_refresh(&f, fixture_iova(i % 8, i % 256), 0x40000);
		struct shadow_stats stats;

		assert_true(result.verdict <= SHADOW_ERROR);
		if (f.record.violations)
			fail_msg("%s", f.record.violation);
		shadow_stats(f.shadow, &stats);
		assert_int_equal(stats.leaves_installed, f.record.installed);
		assert_true(stats.leaves_installed <= 700 && stats.tables_kept <= 6);
	}
	atomic_store(&s.stop, true);
	pthread_join(thread, NULL);
	assert_true(record_aliases_match(&f.record));
	fixture_op(&f, SHADOW_OP_DROP, 0, UINT64_MAX);
	assert_int_equal(f.record.installed, 0);
	fixture_deinit(&f);
}

/* The most refusals and maps that one step of a whole refresh made. */
static void steps_most(struct fixture *f, unsigned int *ret_refusals, unsigned int *ret_maps)
{
	struct shadow_op op;
	bool more = true;

	*ret_refusals = *ret_maps = 0;
	shadow_op_refresh(&op, FIXTURE_BASE, FIXTURE_LAST - FIXTURE_BASE + 1);
	while (more) {
		unsigned int refusals = f->record.refusals, maps = f->record.maps;

		more = shadow_step(f->shadow, f->guest.view, &op, 4096);
		refusals = f->record.refusals - refusals;
		maps = f->record.maps - maps;
		*ret_refusals = refusals > *ret_refusals ? refusals : *ret_refusals;
		*ret_maps = maps > *ret_maps ? maps : *ret_maps;
	}
	assert_int_equal(op.result.verdict, SHADOW_DONE);
	assert_true(op.cost >= 256);
}

/* One page table of leaves outside memory, shown everywhere: each is an event, and events are not
 * for nothing. */
static void test_refusals_end_a_step(void **state)
{
	unsigned int refusals, maps;
	struct fixture f;

	fixture_init(&f, 0, 0);
	for (unsigned int segment = 0; segment < 64; segment++)
		fixture_link(&f, segment, 0);
	for (unsigned int i = 0; i < S390_PT_ENTRIES; i++)
		guest_put(&f.guest, f.pt[0], i, UINT64_C(0x7000000000) + i * S390_PAGE_BYTES);
	steps_most(&f, &refusals, &maps);
	assert_int_equal(f.record.refusals, 64 * S390_PT_ENTRIES);
	assert_true(refusals <= 4096 / 4 + 1);
	fixture_deinit(&f);
}

static void frames_weigh(struct fixture *f, int more)
{
	for (size_t i = 0; i < f->guest.n_regions; i++)
		for (unsigned int n = 0; f->guest.regions[i].gpa == FIXTURE_FRAMES && n < 512; n++)
			f->guest.regions[i].aliases[n] += more;
}

/* Frames that are shown at 4000 other places make long calls of the kernel: maps are cut up as cuts
 * are, and few of them fit a step. */
static void test_heavy_calls_end_a_step(void **state)
{
	unsigned int refusals, maps;
	struct fixture f;

	fixture_init(&f, 0, 0);
	fixture_link(&f, 0, 0);
	fixture_link(&f, 1, 1);
	fixture_fill(&f, 0, 0, S390_PT_ENTRIES, 0);
	fixture_fill(&f, 1, 0, S390_PT_ENTRIES, S390_PT_ENTRIES);
	frames_weigh(&f, 4000);
	steps_most(&f, &refusals, &maps);
	assert_int_equal(f.record.installed, 2 * S390_PT_ENTRIES);
	/* One of them is more than a step's budget: it may end within a run, between two tables. */
	assert_in_range(f.record.maps, 2 * S390_PT_ENTRIES / 16, 2 * S390_PT_ENTRIES / 16 + 1);
	assert_true(maps <= 2);
	for (unsigned int i = 0; i < S390_PT_ENTRIES; i++)
		guest_put(&f.guest, f.pt[0], i, S390_PAGE_INVALID);
	fixture_refresh_all(&f);
	assert_int_equal(f.record.installed, S390_PT_ENTRIES);
	assert_int_equal(f.record.cuts, S390_PT_ENTRIES / 16);
	frames_weigh(&f, -4000);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fault),
		cmocka_unit_test(test_fault_between_passes),
		cmocka_unit_test(test_fault_while_mapping),
		cmocka_unit_test(test_window_moves),
		cmocka_unit_test(test_whole_space),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_refusals_end_a_step),
		cmocka_unit_test(test_heavy_calls_end_a_step),
		cmocka_unit_test(test_many_dirty),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_tables_gone),
		cmocka_unit_test(test_concurrent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
