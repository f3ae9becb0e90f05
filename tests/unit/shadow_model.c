/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The simple model, see shadow_model.h. Numbers instead of names on purpose: nothing of the code
 * under test is used but its public structures. */

#include <string.h>

#include "shadow_model.h"

struct model {
	struct property *p;
	uint64_t first, last;
	struct s390_fault *fault;
};

const struct guest_region *model_region(struct property *p, uint64_t gpa)
{
	for (size_t i = 0; i < p->guest.n_regions; i++) {
		const struct guest_region *region = &p->guest.regions[i];

		if (region->present && gpa >= region->gpa && gpa - region->gpa < region->bytes)
			return region;
	}
	return NULL;
}

static bool model_memory(struct property *p, uint64_t gpa, uint64_t bytes, bool writable)
{
	for (uint64_t at = 0; at < bytes; at += 4096) {
		const struct guest_region *region = model_region(p, gpa + at);

		if (!region || (writable && !region->writable))
			return false;
	}
	return true;
}

static struct hot *model_hot(struct property *p, uint64_t segment)
{
	for (unsigned int i = 0; i < p->n_hot; i++)
		if (p->hot[i].segment == segment)
			return &p->hot[i];
	if (p->n_hot == HOT_MAX)
		fail("the test's own table of segments is too small");
	memset(&p->hot[p->n_hot], 0, sizeof(p->hot[0]));
	p->hot[p->n_hot].segment = segment;
	return &p->hot[p->n_hot++];
}

static void model_fault(struct model *m, unsigned int code, unsigned int level, uint64_t base,
			uint64_t entry, bool outside)
{
	if (m->fault->code)
		return;
	m->fault->code = (enum s390_event_code)code;
	m->fault->level = (enum s390_level)level;
	m->fault->iova = base < m->first ? m->first : base;
	m->fault->entry = entry;
	m->fault->outside_memory = outside;
}

static void model_leaf(struct model *m, uint64_t iova, uint64_t gpa, bool writable, bool admissible)
{
	struct want *want;

	if (iova < m->first || iova > m->last)
		return;
	want = &model_hot(m->p, iova >> 20)->want[iova >> 12 & 255];
	*want = (struct want){true, admissible, gpa, writable};
}

static void model_pages(struct model *m, uint64_t base, uint64_t table, bool protect)
{
	for (unsigned int i = 0; i < 256; i++) {
		uint64_t e = guest_get(&m->p->guest, table, i);
		bool writable = !protect && !(e & 0x200);

		if (!(e & 0x400))
			model_leaf(m, base + i * 4096u, e & ~0xfffull, writable,
				   model_memory(m->p, e & ~0xfffull, 4096, writable));
	}
}

static void model_segment(struct model *m, uint64_t base, uint64_t e, bool protect)
{
	bool writable = !protect;
	bool admissible;

	if (!(e & 0x400)) {
		if (!model_memory(m->p, e & ~0x7ffull, 0x800, false))
			model_fault(m, 7, 0, base, e & ~0x7ffull, true);
		else
			model_pages(m, base, e & ~0x7ffull, protect);
		return;
	}
	admissible = model_memory(m->p, e & ~0xfffffull, 1 << 20, writable);
	for (unsigned int i = 0; i < 256; i++)
		model_leaf(m, base + i * 4096u, (e & ~0xfffffull) + i * 4096u, writable,
			   admissible);
}

static void model_table(struct model *m, int level, uint64_t base, uint64_t table, bool protect,
			unsigned int above)
{
	uint64_t covers = 1ull << (20 + 11 * level);

	if (!model_memory(m->p, table, 0x4000, false)) {
		model_fault(m, 7, above, base, table, true);
		return;
	}
	for (unsigned int i = 0; i < 2048; i++) {
		uint64_t e = guest_get(&m->p->guest, table, i);
		uint64_t at = base + i * covers;
		bool below = protect || (e & 0x200);

		if (at > m->last || at + covers - 1 < m->first || (e & 0x20))
			continue;
		if (!e)
			model_fault(m, 7, (unsigned int)level, at, e, false);
		else if (level && ((e & 3) != 3 || (e & 0xc0)))
			model_fault(m, 8, (unsigned int)level, at, e, false);
		else if ((e >> 2 & 3) != (unsigned int)level)
			model_fault(m, 9, (unsigned int)level, at, e, false);
		else if (level)
			model_table(m, level - 1, at, e & ~0x3fffull, below, (unsigned int)level);
		else
			model_segment(m, at, e, below);
	}
}

void model_walk(struct property *p, uint64_t first, uint64_t last)
{
	struct model m = {.p = p, .first = first, .last = last, .fault = &p->fault};
	int top = p->anchor.iota >> 2 & 3;
	uint64_t covered = top == 3 ? UINT64_MAX : (1ull << (31 + 11 * top)) - 1;

	memset(&p->fault, 0, sizeof(p->fault));
	for (unsigned int i = 0; i < p->n_hot; i++)
		memset(p->hot[i].want, 0, sizeof(p->hot[i].want));
	model_table(&m, top, 0, p->anchor.iota & ~0x3fffull, p->anchor.iota & 0x200, 15);
	if (last > covered)
		model_fault(&m, 2, 15, covered + 1, 0, false);
}

void model_snapshot(struct property *p)
{
	for (size_t i = 0; i < p->record.n_segments; i++) {
		struct record_segment *segment = p->record.segments[i];

		memcpy(model_hot(p, segment->segment)->before, segment->leaves,
		       sizeof(segment->leaves));
	}
}

static bool leaf_is(const struct record_leaf *leaf, const struct want *want)
{
	return want->valid && want->admissible && leaf->installed && leaf->gpa == want->gpa &&
	       leaf->writable == want->writable;
}

void check_always(struct property *p, const char *after)
{
	struct shadow_stats stats;

	if (p->record.violations)
		fail("%s: %s", after, p->record.violation);
	if (!record_aliases_match(&p->record))
		fail("%s: alias counters are not what is installed", after);
	shadow_stats(p->shadow, &stats);
	if (stats.leaves_installed != p->record.installed)
		fail("%s: %" PRIu64 " leaves counted, %" PRIu64 " installed", after,
		     stats.leaves_installed, p->record.installed);
	if (stats.leaves_installed > p->limits.leaves_max ||
	    stats.tables_kept > p->limits.tables_max)
		fail("%s: above the limits", after);
}

void check_lookup(struct property *p)
{
	struct shadow_run runs[64];
	uint64_t from = 0, pages = 0;
	size_t n;

	while ((n = shadow_runs(p->shadow, from, runs, 64)) > 0) {
		for (size_t i = 0; i < n; i++) {
			for (uint64_t at = 0; at < runs[i].length; at += 4096, pages++)
				if (!record_shows(&p->record, runs[i].iova + at, runs[i].gpa + at,
						  runs[i].writable))
					fail("a run that is not installed");
		}
		from = runs[n - 1].iova + runs[n - 1].length;
		if (!from)
			break;
	}
	if (pages != p->record.installed)
		fail("runs of %" PRIu64 " pages, %" PRIu64 " installed", pages,
		     p->record.installed);
}

static void check_leaf(const struct record_leaf *leaf, const struct hot *hot, unsigned int i,
		       uint64_t first, uint64_t last, enum expect expect, const char *what)
{
	uint64_t iova = (hot->segment << 20) + i * 4096u;
	const struct want *want = &hot->want[i];
	bool right = leaf_is(leaf, want), was_right = leaf_is(&hot->before[i], want);

	if (iova < first || iova > last) {
		const struct record_leaf *before = &hot->before[i];

		if (leaf->installed != before->installed ||
		    (leaf->installed &&
		     (leaf->gpa != before->gpa || leaf->writable != before->writable)))
			fail("%s: leaf %" PRIx64 " outside the range changed", what, iova);
		return;
	}
	if (leaf->installed && !right)
		fail("%s: leaf %" PRIx64 " shows %" PRIx64 "%s, wanted %s %" PRIx64 "%s", what,
		     iova, leaf->gpa, leaf->writable ? "w" : "", want->valid ? "valid" : "none",
		     want->gpa, want->writable ? "w" : "");
	if (was_right && !right)
		fail("%s: leaf %" PRIx64 " was right and is gone", what, iova);
	if (expect == EXPECT_EXACT && want->valid && want->admissible && !right)
		fail("%s: leaf %" PRIx64 " is missing", what, iova);
	if (expect == EXPECT_UNMAPPED && right && !was_right)
		fail("%s: leaf %" PRIx64 " was mapped after a fault", what, iova);
}

void check_range(struct property *p, uint64_t first, uint64_t last, enum expect expect,
		 const char *what)
{
	for (unsigned int h = 0; h < p->n_hot; h++) {
		const struct record_leaf *leaves =
			record_leaf(&p->record, p->hot[h].segment << 20, true);

		for (unsigned int i = 0; i < 256; i++)
			check_leaf(&leaves[i], &p->hot[h], i, first, last, expect, what);
	}
}

void check_fault(struct property *p, const struct shadow_result *result, const char *what)
{
	const struct s390_fault *a = &p->fault, *b = &result->fault;

	if (a->code != b->code || a->level != b->level || a->iova != b->iova ||
	    a->entry != b->entry || a->outside_memory != b->outside_memory)
		fail("%s: fault %d level %d iova %" PRIx64 " entry %" PRIx64
		     ", expected %d level %d iova %" PRIx64 " entry %" PRIx64,
		     what, b->code, b->level, b->iova, b->entry, a->code, a->level, a->iova,
		     a->entry);
}

void check_want(struct property *p, const char *what)
{
	struct shadow_stats stats;

	shadow_stats(p->shadow, &stats);
	if (!p->injected && !p->alias_pressure && stats.leaves_installed < p->limits.leaves_max &&
	    stats.tables_kept < p->limits.tables_max)
		fail("%s: RESOURCES without a limit reached", what);
}
