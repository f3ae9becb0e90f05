/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Conformance: what is taken over from a process that was killed in the middle of calls. */

#include "conformance_life.h"

#include <stdlib.h>
#include <unistd.h>

#define AREA  8u /* pages of a slot */
#define SLOTS 8u

/* Maps, copies, cuts and attaches. Slot i of the parent shows pages i * AREA … of the file, if it
 * is mapped, and slot i of the nested space the same, as far as it is not cut. */
static void life_of_changes(struct rig *rig, uint32_t ids[LIFE_IDS])
{
	uint64_t n;

	srandom((unsigned int)getpid());
	for (;;) {
		uint64_t at = (uint64_t)random() % SLOTS * AREA, i = (uint64_t)random() % AREA;
		uint64_t iova = rig->base + at * PAGE;

		switch (random() % 6) {
		case 0:
			rig->ops->map_file(rig->context, ids[PARENT], &rig->file, at * PAGE,
					   AREA * PAGE, iova, RW);
			break;
		case 1:
			rig->ops->unmap(rig->context, ids[PARENT], iova, AREA * PAGE, &n);
			break;
		case 2:
		case 3:
			rig->ops->copy(rig->context, ids[NESTED], iova, ids[PARENT], iova,
				       AREA * PAGE, RW);
			break;
		case 4:
			rig->ops->cut(rig->context, ids[NESTED], iova + i * PAGE,
				      (1 + (uint64_t)random() % AREA) * PAGE, &n);
			break;
		default:
			rig->ops->attach(rig->device,
					 ids[random() % 2 ? PARENT_TABLE : NESTED_TABLE]);
			break;
		}
	}
}

static void life_before_changes(struct rig *rig, uint32_t ids[LIFE_IDS])
{
	life_of_a_guest(rig, ids);
	rig_cut(rig, ids[NESTED], 0, 100, 18);
	rig_unmap(rig, ids[PARENT], 0, 32, 0, 32);
}

/* What the address spaces say is what the device sees. Answers how many pages they show. */
static uint64_t changes_agree(struct rig *rig, const uint32_t ids[LIFE_IDS])
{
	uint64_t mapped = 0;

	rig_attach(rig, ids[NESTED_TABLE]);
	for (unsigned int i = 0; i < SLOTS * AREA; i++) {
		if (rig_has(rig, ids[NESTED], i))
			rig_dma_lands(rig, i, i);
		else if (i % AREA == 0)
			rig_dma_misses(rig, i);
		/* two times, if the parent shows it anew */
		mapped += rig_has(rig, ids[PARENT], i) + rig_has(rig, ids[NESTED], i);
	}
	return mapped;
}

static void killed_in_a_call(unsigned int useconds)
{
	struct inheritance from;
	struct rig *rig = life_inherit(&from, life_before_changes, life_of_changes);
	const uint32_t *ids = from.will.ids;
	uint64_t mapped, n;
	bool counted;

	usleep(useconds);
	life_kill(&from);
	life_adopt(rig, &from);
	counted = rig->host->pinned_pages &&
		  (rig->host->counts_by_context || !rig->ops->context_change_process(rig->context));
	rig_took_over(rig, ids[PARENT_TABLE], ids[PARENT]);
	rig_took_over(rig, ids[NESTED_TABLE], ids[NESTED]);
	mapped = changes_agree(rig, ids);
	if (counted)
		assert_in_range(rig_pinned(rig), 0, mapped);
	/* each can be taken away, and nothing was left pinned */
	assert_int_equal(
		rig->ops->cut(rig->context, ids[NESTED], rig->base, SLOTS * AREA * PAGE, &n), 0);
	rig->ops->unmap(rig->context, ids[PARENT], rig->base, SLOTS * AREA * PAGE, &n);
	for (unsigned int i = 0; i < SLOTS * AREA; i++)
		rig_is_gone(rig, ids[PARENT], i);
	if (counted)
		assert_int_equal(rig_pinned(rig), 0);
	rig_map(rig, ids[PARENT], 0, 0, SLOTS * AREA, RW, 0);
	rig_copy(rig, ids[NESTED], 0, ids[PARENT], 0, SLOTS * AREA, RW, 0);
	rig_shows(rig, ids[NESTED], SLOTS * AREA - 1, SLOTS * AREA - 1);
	rig_free(rig);
	life_end();
}

void conformance_adopt_after_a_kill_in_a_call(void **state)
{
	struct rig *rig = rig_begin();
	/* A machine that is emulated takes its time. */
	unsigned int kills = rig->host->counts_by_context ? 200 : 12;

	rig_free(rig);
	for (unsigned int i = 0; i < kills; i++)
		killed_in_a_call(i * 97 % 1500);
}
