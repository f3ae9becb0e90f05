/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Random changes of a guest's tables, for the property test of the shadow. */

#include "shadow_model.h"

static const unsigned int hot_indices[] = {0, 1, 2, 3, 1024, 2047};

/* splitmix64 */
uint64_t rnd(struct property *p)
{
	uint64_t z = p->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

unsigned int pick(struct property *p, unsigned int n)
{
	return (unsigned int)(rnd(p) % n);
}

bool chance(struct property *p, unsigned int one_in)
{
	return pick(p, one_in) == 0;
}

/* Few entries in upper tables, so that there are not thousands of segments to compare. */
unsigned int pick_index(struct property *p, enum s390_level level)
{
	return hot_indices[level == S390_LEVEL_SEGMENT ? pick(p, 6) : 5 * pick(p, 2)];
}

static uint64_t random_frame(struct property *p)
{
	switch (pick(p, 12)) {
	case 0:
		return 0; /* legal */
	case 1:
		return 0x10000000 + pick(p, 80) * 4096u; /* read only, and a bit beyond */
	case 2:
		return rnd(p) & 0xfffffffffffff000ull; /* most likely nothing there */
	case 3:
		return 0x20000000 + 3 * 0x100000 - 4096; /* ends a region */
	case 4:
		return 0x20000000; /* popular */
	default:
		return 0x20000000 + pick(p, 800) * 4096u;
	}
}

static void change_pages(struct property *p)
{
	const struct table *table = &p->tables[p->n_upper + pick(p, p->n_tables - p->n_upper)];
	unsigned int i = pick(p, 256), n = chance(p, 3) ? 1 + pick(p, 255) : 1 + pick(p, 4);
	uint64_t frame = random_frame(p), step = chance(p, 5) ? 0 : 4096;
	unsigned int kind = pick(p, 8);

	for (; n && i < 256; n--, i++, frame += step) {
		uint64_t e = guest_get(&p->guest, table->gpa, i);

		if (kind == 0)
			e |= 0x400; /* as Linux does: the frame stays */
		else if (kind == 1)
			e = 0x400;
		else if (kind == 2)
			e ^= 0x200;
		else if (kind == 3)
			e ^= 0x801 & rnd(p); /* bits without a meaning */
		else
			e = frame | (chance(p, 6) ? 0x200 : 0);
		guest_put(&p->guest, table->gpa, i, e);
	}
}

static uint64_t corrupt(struct property *p, uint64_t e)
{
	switch (pick(p, 5)) {
	case 0:
		return 0;
	case 1:
		return e ^ 4;
	case 2:
		return e ^ 1;
	case 3:
		return e | 0x40;
	default:
		return (e & 0x3fff) | 0x7fff0000; /* outside memory */
	}
}

uint64_t random_child(struct property *p, enum s390_level level)
{
	unsigned int tries = 200;

	while (tries--) {
		const struct table *table = &p->tables[pick(p, p->n_tables)];

		if (table->level ==
		    (level == S390_LEVEL_SEGMENT ? S390_LEVEL_PAGE : (enum s390_level)(level - 1)))
			return region_entry(level, table->gpa);
	}
	return S390_UPPER_INVALID;
}

static void change_upper(struct property *p)
{
	const struct table *table = &p->tables[pick(p, p->n_upper)];
	unsigned int i = pick_index(p, table->level);
	uint64_t e = guest_get(&p->guest, table->gpa, i);
	unsigned int kind = pick(p, 10);

	if (kind < 2)
		e = chance(p, 2) ? 0x20 : e | 0x20;
	else if (kind < 4)
		e ^= 0x200;
	else if (kind == 4 && chance(p, 2))
		e = corrupt(p, e);
	else if (kind == 5 && table->level == S390_LEVEL_SEGMENT)
		e = (0x20000000 + (uint64_t)pick(p, 4) * 0x100000) | 0x400 |
		    (chance(p, 3) ? 0x200 : 0);
	else
		e = random_child(p, table->level);
	guest_put(&p->guest, table->gpa, i, e);
}

/* A page table becomes a frame with the same frames, or the other way round. */
static void change_form(struct property *p)
{
	const struct table *pt = &p->tables[p->n_upper + pick(p, p->n_tables - p->n_upper)];
	const struct table *st;
	uint64_t frame = 0x20000000 + (uint64_t)pick(p, 3) * 0x100000;
	unsigned int i = hot_indices[pick(p, 6)];

	do
		st = &p->tables[pick(p, p->n_upper)];
	while (st->level != S390_LEVEL_SEGMENT);
	for (unsigned int n = 0; n < 256; n++)
		guest_put(&p->guest, pt->gpa, n, frame + n * 4096u);
	guest_put(&p->guest, st->gpa, i, chance(p, 2) ? pt->gpa : frame | 0x400);
}

/* Take back what makes walks fail, so that not all of a round is faults. */
void change_heal(struct property *p)
{
	for (unsigned int t = 0; t < p->n_upper; t++) {
		for (unsigned int n = 0; n < 6; n++) {
			unsigned int i = hot_indices[n];
			uint64_t e = guest_get(&p->guest, p->tables[t].gpa, i);
			enum s390_event_code code;

			if (p->tables[t].level != S390_LEVEL_SEGMENT && n != 0 && n != 5)
				continue;
			if (s390_upper_decode(p->tables[t].level, e, &code) == S390_ENTRY_BAD ||
			    (e & ~0x3fffull) == 0x7fff0000)
				guest_put(&p->guest, p->tables[t].gpa, i,
					  random_child(p, p->tables[t].level));
		}
	}
}

void change_tables(struct property *p)
{
	for (unsigned int n = pick(p, 6); n; n--) {
		switch (pick(p, 8)) {
		case 0:
		case 1:
			change_upper(p);
			break;
		case 2:
			change_form(p);
			break;
		case 3:
			if (chance(p, 2))
				change_heal(p);
			break;
		default:
			change_pages(p);
			break;
		}
	}
}
