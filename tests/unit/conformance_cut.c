/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Conformance: cutting holes into areas that a device is using. */

#include "conformance.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

/* A cuttable space that shows pages 0 … 63 of the file at 0, as four areas of 16. */
static uint32_t four_runs(struct rig *rig)
{
	uint32_t parent, ioas;

	assert_int_equal(rig->ops->ioas_new(rig->context, false, &parent), 0);
	rig_map(rig, parent, 0, 0, 64, RW, 0);
	ioas = rig_space(rig, true, NULL);
	for (unsigned int i = 0; i < 64; i += 16)
		rig_copy(rig, ioas, i, parent, i, 16, RW, 0);
	return ioas;
}

/* Pages first … last are gone, all others of the 64 are there. The device tries the two ends of the
 * hole, and all that must not be a hole. */
static void only_gone(struct rig *rig, uint32_t ioas, unsigned int first, unsigned int last)
{
	for (unsigned int i = 0; i < 64; i++) {
		if (i < first || i > last)
			rig_shows(rig, ioas, i, i);
		else if (i == first || i == last)
			rig_shows_nothing(rig, ioas, i);
		else
			rig_is_gone(rig, ioas, i);
	}
}

void conformance_cut_middle(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = four_runs(rig);

	rig_cut(rig, ioas, 20, 3, 3);
	only_gone(rig, ioas, 20, 22);
	rig_free(rig);
}

void conformance_cut_edges(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = four_runs(rig);

	rig_cut(rig, ioas, 16, 1, 1);
	only_gone(rig, ioas, 16, 16);
	rig_cut(rig, ioas, 31, 1, 1);
	rig_shows(rig, ioas, 17, 17);
	rig_shows(rig, ioas, 30, 30);
	rig_shows_nothing(rig, ioas, 31);
	rig_shows(rig, ioas, 32, 32);
	rig_free(rig);
}

void conformance_cut_nothing(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = four_runs(rig);

	rig_cut(rig, ioas, 64, 1000, 0);
	rig_cut(rig, ioas, ROOM_PAGES - 1, 1, 0);
	rig_cut(rig, ioas, 20, 1, 1);
	rig_cut(rig, ioas, 20, 1, 0);
	only_gone(rig, ioas, 20, 20);
	rig_free(rig);
}

void conformance_cut_across_areas(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = four_runs(rig);

	rig_cut(rig, ioas, 10, 30, 30);
	only_gone(rig, ioas, 10, 39);
	/* Beyond the last area: what is there goes. */
	rig_cut(rig, ioas, 60, 100, 4);
	rig_shows(rig, ioas, 59, 59);
	rig_shows_nothing(rig, ioas, 60);
	rig_free(rig);
}

void conformance_cut_everything(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = four_runs(rig);

	rig_cut(rig, ioas, 0, 1 << 20, 64);
	only_gone(rig, ioas, 0, 63);
	rig_unmap(rig, ioas, 0, 64, ENOENT, 0);
	rig_free(rig);
}

void conformance_cut_splits_into_areas(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = four_runs(rig);

	rig_cut(rig, ioas, 20, 2, 2);
	/* The pieces are whole areas, and parts of them are parts. */
	rig_unmap(rig, ioas, 17, 3, ENOENT, 0);
	rig_unmap(rig, ioas, 22, 9, ENOENT, 0);
	rig_unmap(rig, ioas, 16, 4, 0, 4);
	rig_unmap(rig, ioas, 22, 10, 0, 10);
	only_gone(rig, ioas, 16, 31);
	/* All pieces go in one call. */
	rig_cut(rig, ioas, 35, 1, 1);
	rig_cut(rig, ioas, 40, 1, 1);
	rig_unmap(rig, ioas, 32, 16, 0, 14);
	rig_free(rig);
}

void conformance_cut_and_fill_the_hole(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = four_runs(rig), spare;

	assert_int_equal(rig->ops->ioas_new(rig->context, false, &spare), 0);
	rig_map(rig, spare, 0, 300, 4, RW, 0);
	rig_copy(rig, ioas, 20, spare, 1, 1, RW, EEXIST);
	rig_cut(rig, ioas, 20, 1, 1);
	rig_copy(rig, ioas, 20, spare, 1, 1, RW, 0);
	rig_shows(rig, ioas, 19, 19);
	rig_shows(rig, ioas, 20, 301);
	rig_shows(rig, ioas, 21, 21);
	/* The filling is an area of its own. */
	rig_unmap(rig, ioas, 20, 1, 0, 1);
	only_gone(rig, ioas, 20, 20);
	rig_free(rig);
}

void conformance_cut_arguments(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = four_runs(rig);
	uint64_t n;

	assert_int_equal(rig->ops->cut(rig->context, ioas, rig->base, 0, &n), EINVAL);
	assert_int_equal(rig->ops->cut(rig->context, ioas, rig->base + 8, PAGE, &n), EINVAL);
	assert_int_equal(rig->ops->cut(rig->context, ioas, -PAGE, 2 * PAGE, &n), EOVERFLOW);
	assert_int_equal(rig->ops->cut(rig->context, 4000, rig->base, PAGE, &n), ENOENT);
	only_gone(rig, ioas, 64, 64);
	rig_free(rig);
}

/* Pages that stay: 8 … 19 and 44 … 55. */
#define NEIGHBOURS 24u
/* Writes of the device that must fall among the changes. */
#define WRITES_MIN  48u
#define CHANGES_MIN 200u

struct neighbours {
	struct rig *rig;
	_Atomic bool stop;
	_Atomic uint64_t writes, missed;
};

static void *neighbours_run(void *context)
{
	struct neighbours *n = context;
	struct rig *rig = n->rig;

	for (uint64_t i = 0; !n->stop; i++) {
		unsigned int page = 8 + i % NEIGHBOURS + (i % NEIGHBOURS < 12 ? 0 : 24);
		const uint64_t *word = &rig->memory[page * PAGE / 8];
		uint64_t stamp = (UINT64_C(1) << 63) + i;

		if (!rig->host->dma->write(rig->dma, rig->base + page * PAGE, stamp) ||
		    __atomic_load_n(word, __ATOMIC_RELAXED) != stamp)
			n->missed++;
		n->writes++;
	}
	return NULL;
}

/* Takes a page away and puts another in its place, by cuts out of runs or by unmaps of what is an
 * area of its own. */
struct change {
	uint32_t ioas, spare;
	bool cut;
};

static void change_one(struct rig *rig, const struct change *change, unsigned int i)
{
	const struct timespec breath = {.tv_nsec = 1000000};
	uint64_t at = 20 + i % 24;

	if (change->cut)
		rig_cut(rig, change->ioas, at, 1, 1);
	else
		rig_unmap(rig, change->ioas, at, 1, 0, 1);
	rig_copy(rig, change->ioas, at, change->spare, i % 64, 1, RW, 0);
	/* A machine with one processor has the device's VMM run as well. */
	if (i % 4 == 0)
		nanosleep(&breath, NULL);
}

static void change_in_flight(struct rig *rig, const struct change *change)
{
	struct neighbours n = {.rig = rig};
	pthread_t thread;

	rig_shows(rig, change->ioas, 8, 8); /* the device is ready */
	assert_int_equal(pthread_create(&thread, NULL, neighbours_run, &n), 0);
	for (unsigned int i = 0; i < CHANGES_MIN || (n.writes < WRITES_MIN && !n.missed); i++)
		change_one(rig, change, i);
	n.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(n.missed, 0);
	rig_shows(rig, change->ioas, 19, 19);
	rig_shows(rig, change->ioas, 44, 44);
}

static uint32_t spare_pages(struct rig *rig)
{
	uint32_t spare;

	assert_int_equal(rig->ops->ioas_new(rig->context, false, &spare), 0);
	rig_map(rig, spare, 0, 300, 64, RW, 0);
	return spare;
}

void conformance_cut_leaves_neighbours_in_flight(void **state)
{
	struct rig *rig = rig_new();
	struct change change = {.ioas = four_runs(rig), .spare = spare_pages(rig), .cut = true};

	if (!rig->dma)
		rig_skip("no DMA of this device is known");
	change_in_flight(rig, &change);
	rig_free(rig);
}

void conformance_unmap_leaves_neighbours_in_flight(void **state)
{
	struct rig *rig = rig_new();
	struct change change = {.ioas = four_runs(rig), .spare = spare_pages(rig)};

	if (!rig->dma)
		rig_skip("no DMA of this device is known");
	rig_cut(rig, change.ioas, 20, 24, 24);
	for (unsigned int i = 20; i < 44; i++)
		rig_copy(rig, change.ioas, i, change.spare, i, 1, RW, 0);
	change_in_flight(rig, &change);
	rig_free(rig);
}
