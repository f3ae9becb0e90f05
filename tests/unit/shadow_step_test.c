/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A shadow whose process dies at every instruction, one after the other.
 *
 * A child lives a life of changes and is traced, instruction by instruction. Whenever one of them
 * changed the shadow's storage or what the device sees, that is a death that can be told from the
 * one before: what is in the storage must then say exactly what is installed, but for the ranges of
 * calls under way; and a copy of it is taken over and brought in line, which must disturb nothing
 * that stays, and end as the guest's tables of that instant say.
 *
 * Skipped where no process can be traced, as under emulation of another machine.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "s390/shadow_internal.h"
#include "shadow_fixture.h"

#define SEGMENTS 4u
#define LEAVES   (SEGMENTS * S390_PT_ENTRIES)
#define NOWHERE  UINT64_C(0x70000000) /* no memory */
#define WRITABLE UINT64_C(0x80000000) /* in struct device: frame numbers are less */

/* What the device sees: 0, or the frame's number + 1 and whether it may be written. */
struct device {
	uint64_t shown[LEAVES];
	/* The next call of that kind fails. */
	int map_error, cut_errors;
};

/* The copy that a successor works on. */
struct successor {
	struct device device;
	bool cut[LEAVES]; /* installed, and taken away */
	unsigned int refusals;
};

static bool device_leaf(uint64_t iova, unsigned int *ret)
{
	if (iova - FIXTURE_BASE >= LEAVES * S390_PAGE_BYTES)
		return false;
	*ret = (unsigned int)((iova - FIXTURE_BASE) >> 12);
	return true;
}

static uint64_t device_word(uint64_t gpa, bool writable)
{
	return (gpa >> 12) + 1 + (writable ? WRITABLE : 0);
}

static int device_map(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable)
{
	struct device *device = context;
	int error = device->map_error;
	unsigned int i;

	device->map_error = 0;
	for (uint64_t at = 0; !error && at < length; at += S390_PAGE_BYTES)
		if (!device_leaf(iova + at, &i) || device->shown[i])
			error = EEXIST;
	for (uint64_t at = 0; !error && at < length; at += S390_PAGE_BYTES)
		if (device_leaf(iova + at, &i))
			device->shown[i] = device_word(gpa + at, writable);
	return error;
}

static int device_cut(void *context, uint64_t iova, uint64_t length)
{
	struct device *device = context;
	unsigned int i;

	if (device->cut_errors) {
		device->cut_errors--;
		return ENOMEM;
	}
	for (uint64_t at = 0; at < length; at += S390_PAGE_BYTES)
		if (device_leaf(iova + at, &i))
			device->shown[i] = 0;
	return 0;
}

static const struct shadow_ops device_ops = {.map = device_map, .cut = device_cut};

static int successor_map(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable)
{
	return device_map(&((struct successor *)context)->device, iova, gpa, length, writable);
}

/* Whole segments are cut where a table makes no sense: only what is installed counts. */
static int successor_cut(void *context, uint64_t iova, uint64_t length)
{
	struct successor *successor = context;

	for (unsigned int i = 0; i < LEAVES; i++) {
		uint64_t at = FIXTURE_BASE + i * S390_PAGE_BYTES;

		if (at >= iova && at - iova < length && successor->device.shown[i])
			successor->cut[i] = true;
	}
	return device_cut(&successor->device, iova, length);
}

static void successor_refused(void *context, uint64_t iova, uint64_t gpa,
			      enum shadow_leaf_refusal refusal)
{
	(void)iova, (void)gpa, (void)refusal;
	((struct successor *)context)->refusals++;
}

static const struct shadow_ops successor_ops = {
	.map = successor_map,
	.cut = successor_cut,
	.leaf_refused = successor_refused,
};

/* ── the life ─────────────────────────────────────────────────────────────────────────────── */

static struct fixture f;
static struct device *device;
static bool managed;

static void refresh(unsigned int segment, unsigned int first, unsigned int n)
{
	fixture_refresh(&f, fixture_iova(segment, first), (uint64_t)n * S390_PAGE_BYTES);
}

static void clear(unsigned int pt, unsigned int first, unsigned int n)
{
	for (unsigned int i = first; i < first + n; i++)
		guest_put(&f.guest, f.pt[pt], i, S390_PAGE_INVALID);
}

static void life_of_runs(void)
{
	fixture_fill(&f, 0, 0, 20, 0);
	fixture_fill(&f, 0, 30, 3, 300);
	refresh(0, 0, 256);
	/* part of a run, the whole table, a frame that changes, a permission */
	clear(0, 5, 4);
	fixture_leaf(&f, 0, 12, 77);
	guest_put(&f.guest, f.pt[0], 14, fixture_frame(14) | S390_PROTECT);
	refresh(0, 4, 12);
	fixture_fill(&f, 0, 3, 8, 100);
	refresh(0, 0, 256);
	/* a run over two tables, a table that goes and one that comes */
	fixture_fill(&f, 1, 250, 6, 400);
	fixture_fill(&f, 2, 0, 6, 406);
	refresh(1, 240, 40);
	clear(1, 250, 6);
	fixture_fill(&f, 3, 9, 2, 9);
	refresh(1, 0, 3 * 256);
	guest_put(&f.guest, f.st, 0, 0x20);
	refresh(0, 0, 256);
	fixture_link(&f, 0, 0);
	refresh(0, 0, 256);
	fixture_op(&f, SHADOW_OP_DROP, fixture_iova(0, 10), fixture_iova(0, 40) - 1);
	shadow_drop_frames(f.shadow, f.guest.view, fixture_frame(400), fixture_frame(430));
}

static void life_of_failures(void)
{
	fixture_fill(&f, 0, 0, 8, 0);
	fixture_fill(&f, 0, 40, 8, 200);
	refresh(0, 0, 256);
	clear(0, 2, 4);
	device->cut_errors = 2; /* the whole and the first half */
	refresh(0, 0, 256);
	fixture_leaf(&f, 0, 44, 500);
	refresh(0, 0, 256); /* pays */
	clear(0, 40, 4);
	device->cut_errors = 2;
	refresh(0, 0, 256);
	device->cut_errors = 2;
	refresh(0, 0, 256); /* cannot pay */
	refresh(0, 0, 256);
	fixture_fill(&f, 0, 100, 4, 600);
	device->map_error = EIO;
	refresh(0, 0, 256);
	refresh(0, 0, 256);
	fixture_fill(&f, 1, 100, 4, 600);
	device->map_error = ENOENT;
	refresh(1, 0, 256);
	device->map_error = EEXIST;
	refresh(1, 90, 30);
}

static void life_of_refusals(void)
{
	/* writable over read-only memory, outside of memory, then not so any more */
	guest_put(&f.guest, f.pt[0], 3, FIXTURE_ROM);
	guest_put(&f.guest, f.pt[0], 4, FIXTURE_ROM | S390_PROTECT);
	guest_put(&f.guest, f.pt[0], 5, NOWHERE);
	fixture_fill(&f, 0, 6, 3, 6);
	refresh(0, 0, 256);
	guest_put(&f.guest, f.pt[0], 3, FIXTURE_ROM | S390_PROTECT);
	guest_put(&f.guest, f.pt[0], 6, NOWHERE + 4096);
	fixture_leaf(&f, 0, 5, 5);
	refresh(0, 0, 256);
	guest_publish(&f.guest); /* all is decided again */
	refresh(0, 0, 256);
	/* A frame of 1 MiB in place of a table, and back. */
	guest_put(&f.guest, f.st, 1, FIXTURE_FRAMES | 0x400);
	refresh(1, 16, 8);
	refresh(1, 0, 256);
	fixture_link(&f, 1, 1);
	refresh(1, 0, 256);
}

static void managed_map(unsigned int segment, unsigned int first, unsigned int n,
			unsigned int frame)
{
	struct shadow_op op;
	uint64_t iova = fixture_iova(segment, first);

	shadow_op_managed_map(&op, iova, iova + (uint64_t)n * S390_PAGE_BYTES - 1,
			      fixture_frame(frame), true);
	shadow_run(f.shadow, f.guest.view, op, 0);
}

static void managed_unmap(unsigned int segment, unsigned int first, unsigned int n)
{
	fixture_op(&f, SHADOW_OP_MANAGED_UNMAP, fixture_iova(segment, first),
		   fixture_iova(segment, first + n) - 1);
}

static void life_of_wishes(void)
{
	managed_map(0, 10, 10, 10);
	managed_map(0, 250, 12, 250); /* into the next */
	managed_map(0, 15, 2, 100);
	managed_unmap(0, 18, 4);
	managed_map(0, 12, 2, 4096); /* no memory: undone */
	device->map_error = ENOSPC;
	managed_map(1, 20, 2, 20);
	fixture_op(&f, SHADOW_OP_DROP, fixture_iova(0, 14), fixture_iova(0, 255) - 1);
	fixture_op(&f, SHADOW_OP_RECONCILE, 0, UINT64_MAX);
	managed_unmap(0, 0, 256);
}

/* ── one death ────────────────────────────────────────────────────────────────────────────── */

static struct {
	void *storage; /* what the life before the last instruction left */
	size_t bytes;
	struct device device;
	void *copy; /* for the successor */
	unsigned int deaths, under_way;
} watch;

static const struct kept_table *kept_tables(const void *storage)
{
	return (const struct kept_table *)((const char *)storage + SHADOW_HEADER_BYTES);
}

static bool in_range(const struct shadow_intent *intent, uint64_t iova)
{
	return intent->set && iova >= intent->first && iova <= intent->last;
}

static bool is_under_way(const struct shadow_header *header, unsigned int leaf)
{
	uint64_t iova = FIXTURE_BASE + leaf * S390_PAGE_BYTES;

	return in_range(&header->cut, iova) || in_range(&header->map, iova) ||
	       in_range(&header->owed, iova);
}

/* What the storage says of a leaf, as the device would say it. */
static uint64_t storage_shows(const void *storage, unsigned int leaf)
{
	const struct shadow_header *header = storage;
	uint64_t segment = segment_of(FIXTURE_BASE) + leaf / S390_PT_ENTRIES;
	unsigned int i = leaf % S390_PT_ENTRIES;
	uint64_t shows = 0;

	for (uint32_t slot = 0; slot < header->touched; slot++) {
		const struct kept_table *table = &kept_tables(storage)[slot];

		if (table->used && table->segment == segment && bit_get(&table->installed, i))
			shows = device_word(s390_word_frame(table->raw[i]),
					    bit_get(&table->writable, i));
	}
	return shows;
}

static void expect_exact(void)
{
	const struct shadow_header *header = watch.storage;
	bool under_way = header->cut.set || header->map.set || header->owed.set;

	for (unsigned int i = 0; i < LEAVES; i++)
		if (!is_under_way(header, i) &&
		    watch.device.shown[i] != storage_shows(watch.storage, i))
			fail_msg("death %u: leaf %u shows %lx, kept is %lx", watch.deaths, i,
				 (unsigned long)watch.device.shown[i],
				 (unsigned long)storage_shows(watch.storage, i));
	watch.under_way += under_way;
}

/* The word that the guest's tables have there now, in our order. */
static uint64_t tables_word(unsigned int leaf)
{
	uint64_t entry = guest_get(&f.guest, f.st, leaf / S390_PT_ENTRIES);

	if (entry & 0x20)
		return S390_PAGE_INVALID;
	if (entry & 0x400)
		return (entry & ~UINT64_C(0xfffff)) + leaf % S390_PT_ENTRIES * S390_PAGE_BYTES;
	return guest_get(&f.guest, entry & S390_PT_ORIGIN, leaf % S390_PT_ENTRIES);
}

static bool tables_refuse(unsigned int leaf)
{
	uint64_t word = tables_word(leaf), frame = word & S390_PAGE_FRAME;

	return !(word & S390_PAGE_INVALID) &&
	       (frame >= NOWHERE || (frame == FIXTURE_ROM && !(word & S390_PROTECT)));
}

static uint64_t tables_want(unsigned int leaf)
{
	uint64_t word = tables_word(leaf);

	if (word & S390_PAGE_INVALID || tables_refuse(leaf))
		return 0;
	return device_word(word & S390_PAGE_FRAME, !(word & S390_PROTECT));
}

static void counters_clear(void)
{
	for (size_t i = 0; i < f.guest.n_regions; i++)
		memset((void *)f.guest.regions[i].aliases, 0,
		       f.guest.regions[i].bytes / S390_PAGE_BYTES * sizeof(uint16_t));
}

static uint64_t counters_sum(void)
{
	uint64_t sum = 0;

	for (size_t r = 0; r < f.guest.n_regions; r++)
		for (uint64_t i = 0; i < f.guest.regions[r].bytes / S390_PAGE_BYTES; i++)
			sum += f.guest.regions[r].aliases[i];
	return sum;
}

static uint64_t device_count(const struct device *of)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < LEAVES; i++)
		n += !!of->shown[i];
	return n;
}

static void expect_counted(const struct shadow *shadow, const struct successor *successor)
{
	struct shadow_stats stats;

	shadow_stats(shadow, &stats);
	assert_int_equal(stats.leaves_installed, device_count(&successor->device));
	assert_int_equal(counters_sum(), stats.leaves_installed);
}

static void expect_in_line(const struct successor *successor)
{
	const struct shadow_header *header = watch.storage;

	for (unsigned int i = 0; i < LEAVES; i++) {
		uint64_t want = managed ? watch.device.shown[i] : tables_want(i);

		if (managed && is_under_way(header, i))
			continue; /* the old wish or the new one */
		if (managed ? want && successor->device.shown[i] != want
			    : successor->device.shown[i] != want)
			fail_msg("death %u: leaf %u shows %lx in the end, not %lx", watch.deaths, i,
				 (unsigned long)successor->device.shown[i], (unsigned long)want);
		if (want && want == watch.device.shown[i] && !is_under_way(header, i) &&
		    successor->cut[i])
			fail_msg("death %u: leaf %u was disturbed", watch.deaths, i);
	}
}

/* A leaf that is not installed on purpose, which its guest was told of: as the tables have it. */
static bool is_held(unsigned int leaf)
{
	const struct shadow_header *header = watch.storage;
	uint64_t segment = segment_of(FIXTURE_BASE) + leaf / S390_PT_ENTRIES;
	unsigned int i = leaf % S390_PT_ENTRIES;
	uint64_t entry = guest_get(&f.guest, f.st, leaf / S390_PT_ENTRIES);

	for (uint32_t slot = 0; slot < header->touched; slot++) {
		const struct kept_table *table = &kept_tables(watch.storage)[slot];

		if (table->used && table->segment == segment)
			return bit_get(&table->held, i) && !(entry & 0x420) &&
			       table->raw[i] ==
				       *guest_word(&f.guest, (entry & S390_PT_ORIGIN) + i * 8);
	}
	return false;
}

/* The guest hears of each leaf that is refused, and of none two times. */
static void expect_told(const struct successor *successor)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < LEAVES; i++)
		n += tables_refuse(i) && (!is_held(i) || is_under_way(watch.storage, i));
	if (!managed && successor->refusals != n)
		fail_msg("death %u: %u leaves were told, not %u", watch.deaths, successor->refusals,
			 n);
}

static void die_here(void)
{
	struct successor successor = {.device = watch.device};
	struct shadow *shadow = NULL;
	struct shadow_op op;
	uint32_t damaged = 99;

	watch.deaths++;
	expect_exact();
	successor.device.map_error = successor.device.cut_errors = 0;
	memcpy(watch.copy, watch.storage, watch.bytes);
	counters_clear();
	assert_int_equal(shadow_adopt(&shadow, &successor_ops, &successor, &f.limits, watch.copy,
				      f.guest.view, &damaged),
			 0);
	assert_int_equal(damaged, 0);
	expect_counted(shadow, &successor);
	if (managed)
		shadow_set_managed(shadow, FIXTURE_BASE, FIXTURE_LAST);
	else
		shadow_set_anchor(shadow, &f.anchor);
	shadow_op_range(&op, SHADOW_OP_RECONCILE, 0, UINT64_MAX);
	assert_int_equal(shadow_run(shadow, f.guest.view, op, 0).verdict, SHADOW_DONE);
	expect_counted(shadow, &successor);
	expect_in_line(&successor);
	expect_told(&successor);
	shadow_free(shadow, f.guest.view);
	assert_int_equal(counters_sum(), 0);
}

/* ── every instruction ────────────────────────────────────────────────────────────────────── */

/* true: the last instruction changed something. */
static bool has_changed(void)
{
	if (!memcmp(f.storage, watch.storage, watch.bytes) &&
	    !memcmp(device->shown, watch.device.shown, sizeof(device->shown)))
		return false;
	memcpy(watch.storage, f.storage, watch.bytes);
	watch.device = *device;
	return true;
}

static __attribute__((noreturn)) void live_traced(void (*life)(void))
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(77);
	raise(SIGSTOP);
	life();
	_exit(0);
}

static void trace(void (*life)(void))
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (!child)
		live_traced(life);
	for (;;) {
		assert_int_equal(waitpid(child, &status, 0), child);
		if (!WIFSTOPPED(status))
			break;
		if (has_changed())
			die_here();
		if (ptrace(PTRACE_SINGLESTEP, child, NULL,
			   WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == SIGSTOP
				   ? 0
				   : (long)WSTOPSIG(status)) < 0) {
			kill(child, SIGKILL);
			waitpid(child, NULL, 0);
			skip();
		}
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

static void *shared_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static void life_begin(void)
{
	fixture_init(&f, 1 << 20, 5);
	shadow_free(f.shadow, f.guest.view);
	munmap(f.storage, shadow_storage_bytes(&f.limits));
	watch.bytes = shadow_storage_bytes(&f.limits);
	f.storage = shared_memory(watch.bytes);
	device = shared_memory(sizeof(*device));
	assert_int_equal(shadow_new(&f.shadow, &device_ops, device, &f.limits, f.storage), 0);
	for (unsigned int i = 0; i < SEGMENTS; i++)
		fixture_link(&f, i, i);
	if (managed)
		shadow_set_managed(f.shadow, FIXTURE_BASE, FIXTURE_LAST);
	else
		shadow_set_anchor(f.shadow, &f.anchor);
	watch.storage = shared_memory(watch.bytes);
	watch.copy = shared_memory(watch.bytes);
	watch.deaths = watch.under_way = 0;
	has_changed();
}

static void life_end(void)
{
	munmap(watch.copy, watch.bytes);
	munmap(watch.storage, watch.bytes);
	munmap(device, sizeof(*device));
	memset(f.storage, 0, watch.bytes);
	fixture_deinit(&f);
}

/* Ours never did a thing: the child's is what the storage tells of. */
static void every_instruction(void (*life)(void), bool of_wishes)
{
	managed = of_wishes;
	life_begin();
	trace(life);
	print_message("%u deaths, %u of them with a call under way\n", watch.deaths,
		      watch.under_way);
	/* Each life does a few dozen calls, and what is booked for them. */
	assert_in_range(watch.deaths, 300, 1000000);
	assert_in_range(watch.under_way, 50, watch.deaths - 50);
	life_end();
}

static void test_runs(void **state)
{
	(void)state;
	every_instruction(life_of_runs, false);
}

static __attribute__((unused)) void test_failures(void **state)
{
	(void)state;
	every_instruction(life_of_failures, false);
}

static __attribute__((unused)) void test_refusals(void **state)
{
	(void)state;
	every_instruction(life_of_refusals, false);
}

static void test_wishes(void **state)
{
	(void)state;
	every_instruction(life_of_wishes, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_wishes),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		/* Several times as many instructions would take minutes. */
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_refusals),
#endif
	};

	return cmocka_run_group_tests_name("shadow_step", tests, NULL, NULL);
}
