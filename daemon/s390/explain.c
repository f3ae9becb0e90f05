/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The walk for one IOVA, step by step, for people who ask why an address does not translate.
 */

#include "s390/entry.h"
#include "util/guest_read.h"

struct explain {
	struct s390_explanation *ret;
	const struct memory_view *view;
	uint64_t iova;
	size_t hint;
	bool protect;
};

static void explain_fault(struct explain *explain, enum s390_event_code code, enum s390_level level,
			  uint64_t entry, bool outside)
{
	explain->ret->fault = (struct s390_fault){
		.code = code,
		.level = level,
		.iova = explain->iova,
		.entry = entry,
		.outside_memory = outside,
	};
}

/* Load one entry and note it as a step. above: level of the entry that names the table. */
static struct s390_step *explain_load(struct explain *explain, enum s390_level level,
				      enum s390_level above, uint64_t table, uint64_t bytes,
				      unsigned int index)
{
	struct s390_step *step = &explain->ret->steps[explain->ret->n_steps++];
	const struct memory_view_region *region;
	uint64_t word;

	*step = (struct s390_step){
		.level = level,
		.table_gpa = table,
		.entry_gpa = table + index * sizeof(word),
		.note = "table outside guest memory",
	};
	if (!memory_view_covers(explain->view, table, bytes, false)) {
		explain_fault(explain, S390_PEC_INVALTE, above, table, true);
		return NULL;
	}
	region = memory_view_find(explain->view, step->entry_gpa, &explain->hint);
	if (!guest_read_u64(region->host + (step->entry_gpa - region->gpa_first), &word)) {
		step->note = "table could not be read";
		explain_fault(explain, S390_PEC_INVALTE, above, table, true);
		return NULL;
	}
	step->entry = be64toh(word);
	step->note = "valid";
	return step;
}

static const char *bad_note(enum s390_event_code code)
{
	switch (code) {
	case S390_PEC_INVALTE:
		return "entry is 0";
	case S390_PEC_INVALTL:
		return "length is not 3 or offset is not 0";
	default:
		return "type differs from the level";
	}
}

static void explain_frame(struct explain *explain, uint64_t frame, uint64_t bytes)
{
	struct s390_explanation *ret = explain->ret;

	ret->present = true;
	ret->writable = !explain->protect;
	ret->frame_bytes = bytes;
	ret->gpa = frame + (explain->iova & (bytes - 1) & S390_PAGE_FRAME);
	ret->in_memory = memory_view_covers(explain->view, frame, bytes, ret->writable);
}

static void explain_page(struct explain *explain, uint64_t table)
{
	struct s390_step *step =
		explain_load(explain, S390_LEVEL_PAGE, S390_LEVEL_SEGMENT, table, S390_PT_BYTES,
			     (explain->iova >> 12) & (S390_PT_ENTRIES - 1));

	if (!step)
		return;
	if (step->entry & S390_PAGE_INVALID) {
		step->note = "invalid bit set";
		return;
	}
	explain->protect |= !!(step->entry & S390_PROTECT);
	explain_frame(explain, step->entry & S390_PAGE_FRAME, S390_PAGE_BYTES);
}

/* One segment or region table. true: *table is the next one. */
static bool explain_upper(struct explain *explain, enum s390_level level, enum s390_level above,
			  uint64_t *table)
{
	struct s390_step *step = explain_load(explain, level, above, *table, S390_UPPER_BYTES,
					      s390_level_index(level, explain->iova));
	enum s390_event_code code = S390_PEC_NONE;

	if (!step)
		return false;
	switch (s390_upper_decode(level, step->entry, &code)) {
	case S390_ENTRY_ABSENT:
		step->note = "invalid bit set";
		return false;
	case S390_ENTRY_BAD:
		step->note = bad_note(code);
		explain_fault(explain, code, level, step->entry, false);
		return false;
	case S390_ENTRY_FRAME:
		step->note = "1 MiB frame";
		explain->protect |= !!(step->entry & S390_PROTECT);
		explain_frame(explain, step->entry & S390_SEGMENT_FRAME, S390_SEGMENT_BYTES);
		return false;
	case S390_ENTRY_TABLE:
		break;
	}
	explain->protect |= !!(step->entry & S390_PROTECT);
	*table = step->entry & (level == S390_LEVEL_SEGMENT ? S390_PT_ORIGIN : S390_TABLE_ORIGIN);
	return true;
}

static void explain_tables(struct explain *explain, const struct s390_anchor *anchor)
{
	enum s390_level top = s390_anchor_level(anchor), above = S390_LEVEL_NONE;
	uint64_t table = s390_anchor_origin(anchor);

	explain->protect = anchor->iota & S390_IOTA_PROTECT;
	if (explain->iova > s390_level_last(top)) {
		explain_fault(explain, S390_PEC_OORANGE, S390_LEVEL_NONE, 0, false);
		return;
	}
	for (int level = (int)top; level >= S390_LEVEL_SEGMENT; level--) {
		if (!explain_upper(explain, (enum s390_level)level, above, &table))
			return;
		above = (enum s390_level)level;
	}
	explain_page(explain, table);
}

void s390_explain(struct s390_explanation *ret, const struct s390_anchor *anchor,
		  const struct memory_view *view, uint64_t iova)
{
	struct explain explain = {.ret = ret, .view = view, .iova = iova & S390_PAGE_FRAME};

	*ret = (struct s390_explanation){.n_steps = 0};
	if (!anchor)
		explain_fault(&explain, S390_PEC_INVALAS, S390_LEVEL_NONE, 0, false);
	else if (iova < anchor->pba || iova > anchor->pal)
		explain_fault(&explain, S390_PEC_OORANGE, S390_LEVEL_NONE, 0, false);
	else if (!s390_anchor_is_relaxed(anchor))
		explain_tables(&explain, anchor);
}
