/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A shadow taken over from a process that died: at every call of the kernel that a life of changes
 * makes, before and after it took effect; at any instruction, killed by a signal; and over storage
 * that was damaged.
 *
 * A process that dies loses what is in its heap: the shadow is thrown away with longjmp() out of
 * the call, and what it had allocated is freed with the arena that it came from when the test ends.
 */

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shadow_fixture.h"
#include "s390/shadow_internal.h"

/* ── dying ────────────────────────────────────────────────────────────────────────────────── */

static struct {
	jmp_buf death;
	unsigned int calls, at; /* dies at the call of that number; 0: never */
	bool after;             /* when it took effect */
} fate;

static void maybe_die(bool after)
{
	fate.calls += !after;
	if (fate.at == fate.calls && fate.after == after)
		longjmp(fate.death, 1);
}

static int mortal_map(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable)
{
	int error;

	maybe_die(false);
	error = record_ops.map(context, iova, gpa, length, writable);
	maybe_die(true);
	return error;
}

static int mortal_cut(void *context, uint64_t iova, uint64_t length)
{
	int error;

	maybe_die(false);
	error = record_ops.cut(context, iova, length);
	maybe_die(true);
	return error;
}

static const struct shadow_ops mortal_ops = {.map = mortal_map, .cut = mortal_cut};

/* What a dead process leaves behind in its own memory. */
static void shadow_bury(struct shadow *shadow)
{
	free(shadow->store.nodes);
	free(shadow);
}

/* ── one life ─────────────────────────────────────────────────────────────────────────────── */

static void life_begin(struct fixture *f)
{
	fixture_init(f, 0, 0);
	shadow_free(f->shadow, f->guest.view);
	memset(f->storage, 0, shadow_storage_bytes(&f->limits));
	assert_int_equal(shadow_new(&f->shadow, &mortal_ops, &f->record, &f->limits, f->storage),
			 0);
	shadow_set_anchor(f->shadow, &f->anchor);
	for (unsigned int i = 0; i < 4; i++)
		fixture_link(f, i, i);
}

/* Changes of all kinds: what is new, what goes, what changes its frame, its permission, its table;
 * runs within a table and over several. */
static void life(struct fixture *f)
{
	fixture_fill(f, 0, 0, 200, 0);
	fixture_fill(f, 1, 10, 5, 300);
	fixture_leaf(f, 2, 7, 7);
	fixture_refresh_all(f);
	fixture_fill(f, 0, 20, 30, 500);
	for (unsigned int i = 100; i < 110; i++)
		guest_put(&f->guest, f->pt[0], i, S390_PAGE_INVALID);
	guest_put(&f->guest, f->pt[1], 12, fixture_frame(302) | S390_PROTECT);
	fixture_refresh(f, fixture_iova(0, 15), 0x180000);
	for (unsigned int i = 0; i < 256; i += 2)
		fixture_leaf(f, 3, i, 600 + i);
	fixture_refresh_all(f);
	guest_put(&f->guest, f->st, 1, 0x20);
	fixture_leaf(f, 2, 8, 8);
	fixture_refresh_all(f);
	fixture_op(f, SHADOW_OP_DROP, fixture_iova(3, 0), fixture_iova(3, 63) + 4095);
	fixture_op(f, SHADOW_OP_RECONCILE, 0, UINT64_MAX);
	fixture_op(f, SHADOW_OP_SWEEP, 0, UINT64_MAX);
}

static bool tables_show(struct fixture *f, unsigned int segment, unsigned int i, uint64_t *ret_word)
{
	if (guest_get(&f->guest, f->st, segment) & 0x20)
		return false;
	*ret_word = guest_get(&f->guest, f->pt[segment], i);
	return !(*ret_word & S390_PAGE_INVALID);
}

static void expect_tables(struct fixture *f)
{
	const struct shadow_header *header = f->storage;
	uint64_t shown = 0;

	/* Whatever is through is no intent any more. */
	assert_false(header->cut.set || header->map.set || header->owed.set);

	for (unsigned int segment = 0; segment < 4; segment++)
		for (unsigned int i = 0; i < 256; i++) {
			uint64_t word;

			if (!tables_show(f, segment, i, &word))
				continue;
			shown++;
			assert_true(record_shows(&f->record, fixture_iova(segment, i),
						 word & S390_PAGE_FRAME, !(word & S390_PROTECT)));
		}
	assert_int_equal(f->record.installed, shown);
	if (f->record.violations)
		fail_msg("%s", f->record.violation);
	assert_true(record_aliases_match(&f->record));
}

/* A new process counts anew. */
static void counters_clear(struct fixture *f)
{
	for (size_t i = 0; i < f->guest.n_regions; i++)
		memset((void *)f->guest.regions[i].aliases, 0,
		       f->guest.regions[i].bytes / S390_PAGE_BYTES * sizeof(uint16_t));
}

static bool in_intent(const struct shadow_intent *intent, uint64_t iova)
{
	return intent->set && iova >= intent->first && iova <= intent->last;
}

/* What lay outside of the ranges of calls under way is there as it was. */
static void expect_undisturbed(struct fixture *f, const struct shadow_header *before,
			       const struct record_segment *segments, size_t n)
{
	for (size_t s = 0; s < n; s++)
		for (unsigned int i = 0; i < S390_PT_ENTRIES; i++) {
			uint64_t iova = (segments[s].segment << 20) + ((uint64_t)i << 12);
			struct record_leaf *now = record_leaf(&f->record, iova, false);

			if (in_intent(&before->cut, iova) || in_intent(&before->map, iova))
				assert_false(now && now->installed);
			else if (segments[s].leaves[i].installed)
				assert_true(now && now->installed &&
					    now->gpa == segments[s].leaves[i].gpa);
		}
}

static struct shadow *adopt(struct fixture *f)
{
	struct shadow *shadow = NULL;
	uint32_t damaged = 99;

	counters_clear(f);
	assert_int_equal(shadow_adopt(&shadow, &record_ops, &f->record, &f->limits, f->storage,
				      f->guest.view, &damaged),
			 0);
	assert_int_equal(damaged, 0);
	return shadow;
}

/* Adopted, each leaf that is installed is booked and counted. */
static void take_over(struct fixture *f)
{
	const struct shadow_header before = *(const struct shadow_header *)f->storage;
	struct record_segment *segments = calloc(f->record.n_segments + 1, sizeof(*segments));
	size_t n = f->record.n_segments;
	struct shadow_stats stats;

	assert_non_null(segments);
	for (size_t s = 0; s < n; s++)
		segments[s] = *f->record.segments[s];
	f->shadow = adopt(f);
	expect_undisturbed(f, &before, segments, n);
	free(segments);
	shadow_stats(f->shadow, &stats);
	assert_int_equal(stats.leaves_installed, f->record.installed);
	assert_true(record_aliases_match(&f->record));
	shadow_set_anchor(f->shadow, &f->anchor);
	assert_int_equal(fixture_op(f, SHADOW_OP_RECONCILE, 0, UINT64_MAX).verdict, SHADOW_DONE);
	expect_tables(f);
}

/* true: it died. */
static bool live_until(struct fixture *f, unsigned int at, bool after)
{
	fate.calls = 0;
	fate.at = at;
	fate.after = after;
	if (setjmp(fate.death))
		return true;
	life(f);
	return false;
}

static void test_death_at_every_call(void **state)
{
	unsigned int at, deaths = 0;
	bool died = true;

	(void)state;
	for (at = 1; died; at++)
		for (int after = 0; after < 2; after++) {
			static struct fixture f;

			life_begin(&f);
			died = live_until(&f, at, after);
			deaths += died;
			fate.at = 0;
			shadow_bury(f.shadow);
			take_over(&f);
			/* and its life goes on */
			life(&f);
			expect_tables(&f);
			fixture_deinit(&f);
		}
	assert_in_range(deaths, 50, 10000); /* the life is one that does something */
}

/* The successor dies as well, in the middle of bringing things in line. */
static void test_death_of_the_successor(void **state)
{
	(void)state;
	for (volatile unsigned int at = 1; at < 40; at++) {
		static struct fixture f;

		life_begin(&f);
		live_until(&f, 60, true);
		shadow_bury(f.shadow);
		fixture_fill(&f, 2, 0, 256, 700);
		counters_clear(&f);
		fate = (typeof(fate)){.at = at};
		f.shadow = NULL;
		if (!setjmp(fate.death)) {
			assert_int_equal(shadow_adopt(&f.shadow, &mortal_ops, &f.record, &f.limits,
						      f.storage, f.guest.view, NULL),
					 0);
			shadow_set_anchor(f.shadow, &f.anchor);
			fixture_op(&f, SHADOW_OP_RECONCILE, 0, UINT64_MAX);
		}
		if (f.shadow)
			shadow_bury(f.shadow);
		take_over(&f);
		fixture_deinit(&f);
	}
}

/* ── at any instruction ───────────────────────────────────────────────────────────────────── */

#define FRAMES 1024u

/* Shared by the one that lives and the one that looks: what the device would see, a word for each
 * leaf, 0 or the frame's number plus 1. */
struct shared {
	_Atomic uint32_t shown[4 * 256];
	_Atomic uint64_t rounds;
};

static int shared_map(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable)
{
	struct shared *shared = context;

	(void)writable;
	for (uint64_t at = 0; at < length; at += 4096)
		if (shared->shown[(iova + at - FIXTURE_BASE) >> 12])
			return EEXIST;
	/* As the kernel does: as a whole, whenever its caller is killed. */
	for (uint64_t at = 0; at < length; at += 4096)
		shared->shown[(iova + at - FIXTURE_BASE) >> 12] =
			(uint32_t)((gpa + at - FIXTURE_FRAMES) >> 12) + 1;
	return 0;
}

static int shared_cut(void *context, uint64_t iova, uint64_t length)
{
	struct shared *shared = context;

	for (uint64_t at = 0; at < length; at += 4096)
		if (iova + at - FIXTURE_BASE < 4 * S390_SEGMENT_BYTES)
			shared->shown[(iova + at - FIXTURE_BASE) >> 12] = 0;
	return 0;
}

static const struct shadow_ops shared_ops = {.map = shared_map, .cut = shared_cut};

static __attribute__((noreturn)) void live_for_ever(struct fixture *f, unsigned int seed)
{
	srandom(seed);
	for (;;) {
		unsigned int pt = (unsigned int)random() % 4, n = 1 + (unsigned int)random() % 64;
		unsigned int first = (unsigned int)random() % 256;
		unsigned int frame = (unsigned int)random() % (FRAMES - 64);

		for (unsigned int i = first; i < first + n && i < 256; i++)
			if (random() % 4)
				fixture_leaf(f, pt, i, frame + i - first);
			else
				guest_put(&f->guest, f->pt[pt], i, S390_PAGE_INVALID);
		if (random() % 8)
			fixture_refresh(f, fixture_iova(pt, first), (uint64_t)n * 4096);
		else
			fixture_refresh_all(f);
		((struct shared *)f->shadow->context)->rounds++;
	}
}

static void *shared_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static void kill_one(struct fixture *f, struct shared *shared, unsigned int seed)
{
	uint64_t before = shared->rounds;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		f->shadow->context = shared;
		live_for_ever(f, seed);
	}
	while (shared->rounds < before + 20)
		sched_yield();
	usleep((useconds_t)(seed * 37 % 500));
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void expect_shared(struct fixture *f, const struct shared *shared)
{
	for (unsigned int segment = 0; segment < 4; segment++)
		for (unsigned int i = 0; i < 256; i++) {
			uint64_t word;
			uint32_t want = 0;

			if (tables_show(f, segment, i, &word))
				want = (uint32_t)(((word & S390_PAGE_FRAME) - FIXTURE_FRAMES) >>
						  12) +
				       1;
			assert_int_equal(shared->shown[segment * 256 + i], want);
		}
}

/* The child's guest is a copy of ours until it writes: tables have to be shared, too. */
static void tables_share(struct fixture *f)
{
	struct guest_region *region = &f->guest.regions[0];
	uint8_t *memory = shared_memory(region->bytes);

	memcpy(memory, region->host, region->bytes);
	assert_ptr_not_equal(mremap(memory, region->bytes, region->bytes,
				    MREMAP_MAYMOVE | MREMAP_FIXED, region->host),
			     MAP_FAILED);
}

static void test_killed_at_any_instruction(void **state)
{
	static struct fixture f;
	struct shared *shared = shared_memory(sizeof(*shared));
	unsigned int cut = 0;

	(void)state;
	fixture_init(&f, 0, 0);
	shadow_free(f.shadow, f.guest.view);
	tables_share(&f);
	munmap(f.storage, shadow_storage_bytes(&f.limits));
	f.storage = shared_memory(shadow_storage_bytes(&f.limits));
	assert_int_equal(shadow_new(&f.shadow, &shared_ops, shared, &f.limits, f.storage), 0);
	for (unsigned int i = 0; i < 4; i++)
		fixture_link(&f, i, i);
	shadow_set_anchor(f.shadow, &f.anchor);
	for (unsigned int n = 0; n < 300; n++) {
		const struct shadow_header *header = f.storage;

		kill_one(&f, shared, n);
		cut += header->cut.set || header->map.set;
		shadow_bury(f.shadow);
		counters_clear(&f);
		assert_int_equal(shadow_adopt(&f.shadow, &shared_ops, shared, &f.limits, f.storage,
					      f.guest.view, NULL),
				 0);
		shadow_set_anchor(f.shadow, &f.anchor);
		assert_int_equal(fixture_op(&f, SHADOW_OP_RECONCILE, 0, UINT64_MAX).verdict,
				 SHADOW_DONE);
		expect_shared(&f, shared);
	}
	assert_in_range(cut, 1, 300); /* some died in the middle of a run */
	fixture_deinit(&f);
	munmap(shared, sizeof(*shared));
}

/* ── damage ───────────────────────────────────────────────────────────────────────────────── */

static void test_not_a_shadow(void **state)
{
	static struct fixture f;
	struct shadow_header *header;
	struct shadow *shadow = NULL;
	struct shadow_limits other;

	(void)state;
	life_begin(&f);
	life(&f);
	shadow_bury(f.shadow);
	header = f.storage;
	other = f.limits;
	other.leaves_max++;
	assert_int_equal(shadow_adopt(&shadow, &record_ops, &f.record, &other, f.storage,
				      f.guest.view, NULL),
			 -EBADMSG);
	header->version++;
	assert_int_equal(shadow_adopt(&shadow, &record_ops, &f.record, &f.limits, f.storage,
				      f.guest.view, NULL),
			 -EBADMSG);
	header->version--;
	header->touched = f.limits.tables_max + 1;
	assert_int_equal(shadow_adopt(&shadow, &record_ops, &f.record, &f.limits, f.storage,
				      f.guest.view, NULL),
			 -EBADMSG);
	header->touched = 4;
	header->cut = (struct shadow_intent){.first = 1, .last = 4095, .set = 1};
	assert_int_equal(shadow_adopt(&shadow, &record_ops, &f.record, &f.limits, f.storage,
				      f.guest.view, NULL),
			 -EBADMSG);
	header->cut.set = 0;
	assert_null(shadow);
	take_over(&f);
	fixture_deinit(&f);
}

/* Any byte of the tables: it is taken over or given up, and afterwards all is as the tables say,
 * for what is not known to be installed is cut. */
static void test_damaged_tables(void **state)
{
	unsigned int given_up = 0, adopted = 0;

	(void)state;
	srandom(7);
	for (unsigned int n = 0; n < 2000; n++) {
		static struct fixture f;
		struct shadow *shadow = NULL;
		uint8_t *bytes;
		size_t at;

		life_begin(&f);
		life(&f);
		shadow_bury(f.shadow);
		f.record.allow_overlap = true;
		bytes = (uint8_t *)f.storage;
		at = SHADOW_HEADER_BYTES + (size_t)random() % (3 * sizeof(struct kept_table));
		if (n % 4)
			at = SHADOW_HEADER_BYTES +
			     (size_t)random() % offsetof(struct kept_table, raw);
		bytes[at] ^= (uint8_t)(1u << random() % 8);
		counters_clear(&f);
		if (shadow_adopt(&shadow, &record_ops, &f.record, &f.limits, f.storage,
				 f.guest.view, NULL)) {
			given_up++;
		} else {
			f.shadow = shadow;
			adopted++;
			shadow_set_anchor(f.shadow, &f.anchor);
			fixture_op(&f, SHADOW_OP_RECONCILE, 0, UINT64_MAX);
			shadow_free(f.shadow, f.guest.view);
		}
		f.shadow = NULL;
		counters_clear(&f);
		fixture_deinit(&f);
	}
	assert_in_range(adopted, 1000, 2000);
	assert_in_range(given_up, 0, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_death_at_every_call),
		cmocka_unit_test(test_death_of_the_successor),
		cmocka_unit_test(test_killed_at_any_instruction),
		cmocka_unit_test(test_not_a_shadow),
		cmocka_unit_test(test_damaged_tables),
	};

	return cmocka_run_group_tests_name("shadow_adopt", tests, NULL, NULL);
}
