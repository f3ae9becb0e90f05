/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The shadow against a simple model: random tables at every designation, random changes at every
 * level, random ranges, windows, regions, limits, failures and step budgets. After every
 * operation what is installed must be what the rules say, as far as they say it; after a clean
 * walk of the whole window it must be the model exactly.
 *
 *     shadow_property_test [--seed N] [--rounds N] [--first N]
 *
 * A failure names its seed and round: --seed SEED --first ROUND --rounds 1 runs it alone.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "shadow_model.h"
#include "util/guest_read.h"

#define OPS 60 /* operations a round */

struct property_run run;

static void inject(struct property *p)
{
	static const int errors[] = {ENOSPC, ENOMEM, EIO, ENOENT, EEXIST, EPERM};

	p->injected = false;
	p->record.fail_map_first = p->record.fail_cut_first = 0;
	p->record.allow_overlap = false;
	if (chance(p, 6)) {
		p->record.fail_map_first = p->record.maps + 1 + pick(p, 4);
		p->record.fail_map_n = 1 + pick(p, 4);
		p->record.map_errno = errors[pick(p, 6)];
		p->injected = true;
	}
	if (chance(p, 8)) {
		/* One failure, after which the halves must do; or a broken one. */
		p->record.fail_cut_first = p->record.cuts + 1 + pick(p, 3);
		p->record.fail_cut_n = chance(p, 3) ? 3 : 1;
		p->injected = true;
	}
}

static void inject_end(struct property *p)
{
	p->injected = false;
	p->record.fail_map_first = p->record.fail_cut_first = 0;
}

/* A cut that failed is owed: nothing happens before it is paid. */
static void pay_owed(struct property *p)
{
	struct shadow_op op;
	struct shadow_result result;

	inject_end(p);
	shadow_op_range(&op, SHADOW_OP_SWEEP, 0, UINT64_MAX);
	result = shadow_run(p->shadow, p->guest.view, op, 0);
	if (result.verdict != SHADOW_DONE)
		fail("a sweep after a broken cut answers %d", result.verdict);
}

static void random_range(struct property *p, uint64_t *ret_first, uint64_t *ret_last)
{
	const struct s390_anchor *anchor = &p->anchor;
	uint64_t first, length;

	if (chance(p, 5) || !p->n_hot) {
		*ret_first = anchor->pba;
		*ret_last = anchor->pal;
		/* 2^64 bytes cannot be asked for. */
		if (*ret_last - *ret_first == UINT64_MAX)
			*ret_last -= 4096;
		return;
	}
	first = (p->hot[pick(p, p->n_hot)].segment << 20) + pick(p, 256) * 4096u;
	length = 4096ull << pick(p, 24);
	if (chance(p, 3))
		length = 4096;
	first = first < anchor->pba ? anchor->pba : first > anchor->pal ? anchor->pba : first;
	*ret_first = first;
	*ret_last = length - 1 > anchor->pal - first ? anchor->pal : first + length - 1;
}

static void count_result(struct property *p, const struct shadow_result *result)
{
	p->balance += (int64_t)result->mapped - (int64_t)result->unmapped;
	if (p->balance < (int64_t)p->record.installed)
		fail("more is installed (%" PRIu64 ") than was said to be mapped (%" PRId64 ")",
		     p->record.installed, p->balance);
	p->balance = (int64_t)p->record.installed;
}

static void do_refresh(struct property *p)
{
	struct shadow_op op;
	struct shadow_result result;
	uint64_t first, last;

	random_range(p, &first, &last);
	model_walk(p, first, last);
	model_snapshot(p);
	inject(p);
	shadow_op_refresh(&op, first, last - first + 1);
	result = shadow_run(p->shadow, p->guest.view, op, chance(p, 2) ? 0 : 1 + pick(p, 60));
	if (result.verdict == SHADOW_BROKEN) {
		if (!p->record.fail_cut_first || p->record.fail_cut_n < 3)
			fail("broken although the halves could be cut");
		pay_owed(p);
		p->balance = (int64_t)p->record.installed;
		return;
	}
	count_result(p, &result);
	check_fault(p, &result, "refresh");
	switch (result.verdict) {
	case SHADOW_DONE:
		if (p->fault.code)
			fail("refresh: DONE with a fault");
		check_range(p, first, last, p->injected ? EXPECT_BETWEEN : EXPECT_EXACT, "refresh");
		break;
	case SHADOW_ERROR:
		if (!p->fault.code && !p->injected)
			fail("refresh: ERROR without a fault");
		check_range(p, first, last, p->fault.code ? EXPECT_UNMAPPED : EXPECT_BETWEEN,
			    "refresh with an error");
		break;
	default:
		check_want(p, "refresh");
		check_range(p, first, last, EXPECT_BETWEEN, "refresh out of mappings");
		break;
	}
	inject_end(p);
}

static void do_sweep(struct property *p)
{
	struct shadow_op op;
	struct shadow_result result;

	model_walk(p, p->anchor.pba, p->anchor.pal);
	model_snapshot(p);
	shadow_op_range(&op, SHADOW_OP_SWEEP, 0, 0);
	result = shadow_run(p->shadow, p->guest.view, op, chance(p, 2) ? 0 : 1 + pick(p, 20));
	if (result.verdict != SHADOW_DONE)
		fail("sweep: verdict %d", result.verdict);
	count_result(p, &result);
	check_range(p, p->anchor.pba, p->anchor.pal, EXPECT_UNMAPPED, "sweep");
	if (shadow_sweep_due(p->shadow))
		fail("a sweep is due after a sweep");
}

/* After this all is as the model says, the limits apart. */
static void do_reconcile(struct property *p)
{
	struct shadow_op op;
	struct shadow_result result;

	model_walk(p, p->anchor.pba, p->anchor.pal);
	model_snapshot(p);
	shadow_op_range(&op, SHADOW_OP_RECONCILE, 0, UINT64_MAX);
	result = shadow_run(p->shadow, p->guest.view, op, chance(p, 2) ? 0 : 1 + pick(p, 60));
	check_fault(p, &result, "reconcile");
	count_result(p, &result);
	if (result.verdict == SHADOW_RESOURCES) {
		check_want(p, "reconcile");
		check_range(p, 0, UINT64_MAX, EXPECT_BETWEEN, "reconcile out of mappings");
		return;
	}
	if ((result.verdict == SHADOW_ERROR) != (p->fault.code != 0))
		if (!(p->alias_pressure && p->fault.code))
			fail("reconcile: verdict %d", result.verdict);
	check_range(p, 0, UINT64_MAX, result.verdict == SHADOW_DONE ? EXPECT_EXACT : EXPECT_BETWEEN,
		    "reconcile");
}

static void check_tables_kept(struct property *p)
{
	struct shadow_stats stats;
	uint64_t expected = 0;

	for (unsigned int h = 0; h < p->n_hot; h++) {
		bool any = false;

		for (unsigned int i = 0; i < 256; i++)
			any |= p->hot[h].want[i].valid;
		expected += any;
	}
	shadow_stats(p->shadow, &stats);
	if (stats.tables_kept != expected)
		fail("%" PRIu64 " tables kept, %" PRIu64 " hold a leaf", stats.tables_kept,
		     expected);
}

/* A clean walk of the whole window twice: exact, and then nothing to do. */
static void do_settle(struct property *p)
{
	struct shadow_result result;
	struct shadow_op op;
	unsigned int maps, cuts, refusals;

	change_heal(p);
	do_reconcile(p);
	shadow_op_refresh(&op, p->anchor.pba, p->anchor.pal - p->anchor.pba + 1);
	if (!(p->anchor.pal - p->anchor.pba + 1))
		return;
	model_walk(p, p->anchor.pba, p->anchor.pal);
	model_snapshot(p);
	result = shadow_run(p->shadow, p->guest.view, op, 0);
	if (result.verdict != SHADOW_DONE) {
		p->balance = (int64_t)p->record.installed;
		return;
	}
	check_range(p, 0, UINT64_MAX, EXPECT_EXACT, "settled");
	check_tables_kept(p);
	check_lookup(p);
	p->balance = (int64_t)p->record.installed;
	maps = p->record.maps;
	cuts = p->record.cuts;
	refusals = p->record.refusals;
	shadow_op_refresh(&op, p->anchor.pba, p->anchor.pal - p->anchor.pba + 1);
	result = shadow_run(p->shadow, p->guest.view, op, 0);
	if (result.verdict != SHADOW_DONE || result.mapped || result.unmapped ||
	    maps != p->record.maps || cuts != p->record.cuts || refusals != p->record.refusals)
		fail("a refresh of what did not change does something");
}

/* Operations in steps between each other, while tables change: only safety is determined. */
static void do_interleaved(struct property *p)
{
	struct shadow_op ops[3];
	bool more = true;

	for (unsigned int i = 0; i < 3; i++) {
		uint64_t first, last;

		random_range(p, &first, &last);
		shadow_op_refresh(&ops[i], first, last - first + 1);
		if (chance(p, 3))
			shadow_op_range(&ops[i],
					chance(p, 2) ? SHADOW_OP_RECONCILE : SHADOW_OP_SWEEP, 0, 0);
	}
	while (more) {
		more = false;
		for (unsigned int i = 0; i < 3; i++) {
			if (ops[i].result.verdict != SHADOW_BROKEN)
				more |= shadow_step(p->shadow, p->guest.view, &ops[i],
						    1 + pick(p, 40));
			if (chance(p, 4))
				change_tables(p);
		}
		check_always(p, "interleaved step");
	}
	p->balance = (int64_t)p->record.installed;
	do_settle(p);
}

static void do_region(struct property *p)
{
	/* The first regions hold the tables. */
	struct guest_region *region = &p->guest.regions[2 + pick(p, 2)];
	int error;

	if (region->present) {
		error = shadow_drop_frames(p->shadow, p->guest.view, region->gpa,
					   region->gpa + region->bytes - 1);
		if (error)
			fail("dropping frames answers %d", error);
		region->present = false;
	} else {
		region->present = true;
	}
	guest_publish(&p->guest);
	p->balance = (int64_t)p->record.installed;
	for (size_t i = 0; i < p->record.n_segments; i++)
		for (unsigned int n = 0; n < 256; n++)
			if (p->record.segments[i]->leaves[n].installed &&
			    !model_region(p, p->record.segments[i]->leaves[n].gpa))
				fail("a leaf shows a region that went");
	if (chance(p, 2))
		do_reconcile(p);
}

static void window_choose(struct property *p)
{
	int top = p->anchor.iota >> 2 & 3;
	uint64_t covered = top == 3 ? UINT64_MAX : (1ull << (31 + 11 * top)) - 1;

	p->anchor.pba = 0;
	p->anchor.pal = covered;
	if (chance(p, 2))
		p->anchor.pba = (uint64_t)pick(p, 600) * 4096;
	if (chance(p, 3))
		p->anchor.pal = p->anchor.pba + ((uint64_t)pick(p, 1200) * 4096) + 4095;
	else if (chance(p, 6) && top < 3)
		p->anchor.pal = covered + 0x100000;
	shadow_set_anchor(p->shadow, &p->anchor);
}

static void do_anchor(struct property *p)
{
	unsigned int designation = pick(p, 4);

	for (unsigned int i = 0; i < p->n_upper; i++) {
		if (p->tables[i].level == (enum s390_level)designation && chance(p, 2)) {
			p->anchor.iota = p->tables[i].gpa | 0x800 | designation << 2 |
					 (chance(p, 6) ? 0x200 : 0);
			break;
		}
	}
	window_choose(p);
	do_reconcile(p);
}

static void do_drop(struct property *p)
{
	struct shadow_op op;
	struct shadow_result result;
	uint64_t first, last;

	random_range(p, &first, &last);
	if (chance(p, 3)) {
		first = 0;
		last = UINT64_MAX;
	}
	model_walk(p, first, last);
	model_snapshot(p);
	shadow_op_range(&op, SHADOW_OP_DROP, first, last);
	result = shadow_run(p->shadow, p->guest.view, op, pick(p, 9));
	if (result.verdict != SHADOW_DONE || result.mapped)
		fail("drop: verdict %d", result.verdict);
	for (unsigned int h = 0; h < p->n_hot; h++)
		memset(p->hot[h].want, 0, sizeof(p->hot[h].want));
	check_range(p, first, last, EXPECT_EXACT, "drop");
	count_result(p, &result);
}

/* ---- a round ---- */

static void round_tables(struct property *p)
{
	static const struct {
		enum s390_level level;
		unsigned int n;
	} plan[] = {{S390_LEVEL_REGION_FIRST, 1},
		    {S390_LEVEL_REGION_SECOND, 1},
		    {S390_LEVEL_REGION_THIRD, 1},
		    {S390_LEVEL_SEGMENT, 2}};

	p->n_tables = 0;
	for (unsigned int i = 0; i < 4; i++)
		for (unsigned int n = 0; n < plan[i].n; n++)
			p->tables[p->n_tables++] =
				(struct table){plan[i].level, guest_upper_table(&p->guest)};
	p->n_upper = p->n_tables;
	for (unsigned int n = 0; n < 5; n++)
		p->tables[p->n_tables++] =
			(struct table){S390_LEVEL_PAGE, guest_page_table(&p->guest)};
	for (unsigned int i = 0; i < p->n_upper; i++) {
		unsigned int links = p->tables[i].level == S390_LEVEL_SEGMENT ? 6 : 1;

		while (links--)
			guest_put(&p->guest, p->tables[i].gpa, pick_index(p, p->tables[i].level),
				  random_child(p, p->tables[i].level));
	}
}

static void round_begin(struct property *p)
{
	unsigned int designation = pick(p, 4), top;

	guest_init(&p->guest);
	/* Two regions that touch inside the tables, then a read-only one, then frames. */
	guest_add_region(&p->guest, 0, 0x2a000, true);
	guest_add_region(&p->guest, 0x2a000, 0x40000, true);
	guest_add_region(&p->guest, 0x10000000, 64 * 4096, false);
	guest_add_region(&p->guest, 0x20000000, 3 * 0x100000, true);
	guest_publish(&p->guest);
	/* Tables for the union of regions 0 and 1: one lies across their border. */
	p->guest.table_next = 0x4000;
	round_tables(p);
	record_init(&p->record, &p->guest);
	p->limits.leaves_max = chance(p, 3) ? 1 + pick(p, 1500) : 1 << 20;
	p->limits.tables_max = chance(p, 4) ? 1 + pick(p, 4) : HOT_MAX;
	p->storage_bytes = shadow_storage_bytes(&p->limits);
	p->storage = mmap(NULL, p->storage_bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->storage == MAP_FAILED ||
	    shadow_new(&p->shadow, &record_ops, &p->record, &p->limits, p->storage) < 0)
		fail("no memory");
	for (top = 0; p->tables[top].level != (enum s390_level)designation; top++)
		;
	p->anchor.iota = p->tables[top].gpa | 0x800 | designation << 2;
	p->n_hot = 0;
	p->balance = 0;
	p->injected = false;
	p->alias_pressure = false;
	window_choose(p);
}

/* Another nested domain shows the popular frame almost as often as is allowed. */
static void alias_pressure(struct property *p, bool on)
{
	_Atomic uint16_t *aliases = p->guest.regions[3].aliases;
	uint16_t others = FRAME_ALIASES_MAX - 3;

	if (on == p->alias_pressure || (on && aliases[0] > 2))
		return;
	if (on)
		aliases[0] += others;
	else
		aliases[0] -= others;
	p->alias_pressure = on;
}

static void round_operation(struct property *p)
{
	change_tables(p);
	switch (pick(p, 24)) {
	case 0:
		do_anchor(p);
		break;
	case 1:
		do_region(p);
		break;
	case 2:
		do_sweep(p);
		break;
	case 3:
		do_reconcile(p);
		break;
	case 4:
		do_interleaved(p);
		break;
	case 5:
		do_drop(p);
		break;
	case 6:
	case 7:
		do_settle(p);
		break;
	case 8:
		alias_pressure(p, true);
		do_refresh(p);
		do_refresh(p);
		alias_pressure(p, false);
		do_settle(p);
		break;
	default:
		do_refresh(p);
		break;
	}
	p->operations++;
	check_always(p, "operation");
}

static void round_end(struct property *p)
{
	do_settle(p);
	p->shadow = shadow_free(p->shadow, p->guest.view);
	for (size_t i = 0; i < p->guest.n_regions; i++)
		for (uint64_t n = 0; n < p->guest.regions[i].bytes / 4096; n++)
			if (p->guest.regions[i].present && p->guest.regions[i].aliases[n])
				fail("aliases are left behind");
	munmap(p->storage, p->storage_bytes);
	record_deinit(&p->record);
	guest_deinit(&p->guest);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void run_options(int argc, char **argv)
{
	run.seed = (uint64_t)time(NULL);
	run.rounds = 0;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--seed"))
			run.seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--rounds"))
			run.rounds = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--first"))
			run.first = strtoull(argv[i + 1], NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static struct property property;
	uint64_t operations = 0;
	double until = seconds() + 5;

	run_options(argc, argv);
	printf("seed %" PRIu64 "\n", run.seed);
	fflush(stdout);
	if (guest_read_init() < 0)
		return 1;
	/* Without --rounds: for about 5 seconds, and some rounds however slow the machine is. */
	for (run.round = run.first;
	     run.rounds ? run.round - run.first < run.rounds : run.round < 10 || seconds() < until;
	     run.round++) {
		memset(&property, 0, sizeof(property));
		property.state = run.seed + run.round * UINT64_C(0x632be59bd9b4e019);
		round_begin(&property);
		for (unsigned int i = 0; i < OPS; i++)
			round_operation(&property);
		round_end(&property);
		operations += property.operations;
	}
	printf("%" PRIu64 " rounds, %" PRIu64 " operations\n", run.round - run.first, operations);
	return 0;
}
