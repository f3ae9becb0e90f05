/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See failure_life.h. The steps visit every call that the daemon makes of the kernel: the parent
 * pinned at bind, a shadow filled, split, emptied and replaced, regions that go and come, a relaxed
 * mapping that follows, the parent itself, a managed domain, and the end of everything.
 */

#include "failure_life.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "failure_step.h"
#include "machine.h"

#define TOKEN_AT 64u /* in a page */

struct life *life_new(const struct machine *machine)
{
	struct life *life = calloc(1, sizeof(*life));

	REQUIRE(life != NULL);
	life->fd_sock = machine->fd_sock;
	life->device_fd = -1;
	guest_memory_make(&life->memory);
	return life;
}

void life_free(struct life *life)
{
	close(life->memory.main_fd);
	close(life->memory.side_fd);
	free(life);
}

/* ── the order of things ───────────────────────────────────────────────────────────────────── */

/* Which tables the domain that the device is attached to follows. */
enum shown {
	SHOWN_NOTHING,
	SHOWN_FIRST,
	SHOWN_WITHOUT_HIGH, /* the first tables, while a region is away */
	SHOWN_OTHER,
};

static const struct {
	const char *name;
	struct outcome (*run)(struct life *);
	enum shown before, after;
} steps[] = {
	{"open session", step_session, SHOWN_NOTHING, SHOWN_NOTHING},
	{"create guest", step_guest, SHOWN_NOTHING, SHOWN_NOTHING},
	{"add memory file", step_main_file, SHOWN_NOTHING, SHOWN_NOTHING},
	{"add side file", step_side_file, SHOWN_NOTHING, SHOWN_NOTHING},
	{"map memory", step_memory, SHOWN_NOTHING, SHOWN_NOTHING},
	{"open device", step_open, SHOWN_NOTHING, SHOWN_NOTHING},
	{"bind device", step_bind, SHOWN_NOTHING, SHOWN_NOTHING},
	{"device info", step_info, SHOWN_NOTHING, SHOWN_NOTHING},
	{"register", step_register, SHOWN_NOTHING, SHOWN_FIRST},
	{"refresh that maps", step_refresh_maps, SHOWN_FIRST, SHOWN_FIRST},
	{"refresh that cuts", step_refresh_cuts, SHOWN_FIRST, SHOWN_FIRST},
	{"refresh that changes", step_refresh_changes, SHOWN_FIRST, SHOWN_FIRST},
	{"region changes", step_region_changes, SHOWN_FIRST, SHOWN_FIRST},
	{"region goes", step_region_goes, SHOWN_FIRST, SHOWN_WITHOUT_HIGH},
	{"region returns", step_region_returns, SHOWN_WITHOUT_HIGH, SHOWN_FIRST},
	{"re-register", step_replace, SHOWN_FIRST, SHOWN_OTHER},
	{"re-register relaxed", step_replace_relaxed, SHOWN_OTHER, SHOWN_NOTHING},
	{"re-register with tables", step_replace_back, SHOWN_NOTHING, SHOWN_FIRST},
	{"attach relaxed", step_attach_relaxed, SHOWN_FIRST, SHOWN_NOTHING},
	{"grow under relaxed", step_grow, SHOWN_NOTHING, SHOWN_NOTHING},
	{"shrink under relaxed", step_shrink, SHOWN_NOTHING, SHOWN_NOTHING},
	{"block", step_block, SHOWN_NOTHING, SHOWN_NOTHING},
	{"attach parent", step_attach_parent, SHOWN_NOTHING, SHOWN_NOTHING},
	{"create managed", step_managed, SHOWN_NOTHING, SHOWN_NOTHING},
	{"update managed", step_managed_update, SHOWN_NOTHING, SHOWN_NOTHING},
	{"attach managed", step_attach_managed, SHOWN_NOTHING, SHOWN_NOTHING},
	{"attach nested", step_attach_again, SHOWN_NOTHING, SHOWN_FIRST},
	{"destroy managed", step_managed_destroy, SHOWN_FIRST, SHOWN_FIRST},
	{"refresh again", step_refresh_cuts, SHOWN_FIRST, SHOWN_FIRST},
	{"deregister", step_deregister, SHOWN_FIRST, SHOWN_NOTHING},
	{"close device", step_close, SHOWN_NOTHING, SHOWN_NOTHING},
	{"unmap all memory", step_unmap_all, SHOWN_NOTHING, SHOWN_NOTHING},
	{"remove side file", step_remove_file, SHOWN_NOTHING, SHOWN_NOTHING},
	{"destroy guest", step_destroy, SHOWN_NOTHING, SHOWN_NOTHING},
};

size_t life_steps(void)
{
	return sizeof(steps) / sizeof(steps[0]);
}

const char *life_step_name(size_t step)
{
	return steps[step].name;
}

size_t life_step_find(const char *name)
{
	for (size_t i = 0; i < life_steps(); i++)
		if (strcmp(steps[i].name, name) == 0)
			return i;
	REQUIRE(!"a step of that name");
	return 0;
}

struct outcome life_step(struct life *life, size_t step)
{
	struct outcome outcome = steps[step].run(life);

	if (!outcome.good && strstr(outcome.message, "the device is blocked") != NULL)
		life->stopped = true;
	return outcome;
}

void life_begin(struct life *life, bool dma)
{
	life->dma = dma;
	life->stopped = false;
	memset(life->n_events, 0, sizeof(life->n_events));
	leaves_reset(&life->memory);
}

void life_end(struct life *life)
{
	life->managed = iommubroker_nested_free(life->managed);
	life->nested = iommubroker_nested_free(life->nested);
	device_forget(life);
	life->side = iommubroker_memory_file_free(life->side);
	life->main = iommubroker_memory_file_free(life->main);
	life->guest = iommubroker_guest_free(life->guest);
	life->session = iommubroker_session_free(life->session);
}

/* ── what is so ────────────────────────────────────────────────────────────────────────────── */

uint64_t life_leaves(struct life *life)
{
	struct iommubroker_guest_info *info = NULL;
	struct iommubroker_error *error = NULL;
	uint64_t n = UINT64_MAX;

	REQUIRE_DONE(iommubroker_guest_describe(life->guest, &info, &error), &error);
	for (size_t i = 0; i < info->n_nested; i++)
		if (info->nested[i].nested == iommubroker_nested_handle(life->nested))
			n = info->nested[i].live_leaves;
	iommubroker_guest_info_free(info);
	return n;
}

/* What the guest took out of its tables must not be installed; what it holds must, and where it
 * says, after a step that went well. */
static void check_explained(struct life *life, enum table_set set, unsigned int i, bool good)
{
	const struct leaf *leaf = &life->memory.leaves[set][i];
	struct iommubroker_explanation *explanation = NULL;
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_explain(life->nested, IOVA(i), &explanation, &error), &error);
	if (!leaf->valid)
		CHECK(!explanation->installed);
	else if (good)
		CHECK(explanation->installed);
	if (leaf->valid && explanation->installed)
		CHECK_EQUAL(explanation->installed_gpa, leaf->gpa);
	iommubroker_explanation_free(explanation);
}

static uint64_t token_at(const struct life *life, uint64_t gpa)
{
	uint64_t token;

	memcpy(&token, guest_memory_at(&life->memory, gpa) + TOKEN_AT, sizeof(token));
	return token;
}

/* The device writes to the leaf: whether that is seen in the frame that it shows, or showed last.
 */
static bool device_writes(struct life *life, enum table_set set, unsigned int i)
{
	uint64_t token = ++life->token, gpa = life->memory.leaves[set][i].gpa;

	/* Never in the other tables: what it must not show is what the first ones did. */
	if (gpa == 0)
		gpa = life->memory.leaves[TABLES_FIRST][i].gpa;
	/* edu does not tell; what it says to a blocked access is no judge. */
	(void)engine_write(life->engine, IOVA(i) + TOKEN_AT, &token, sizeof(token));
	return token_at(life, gpa) == token;
}

bool life_device_reaches(struct life *life, unsigned int leaf)
{
	return device_writes(life, TABLES_FIRST, leaf);
}

static void check_dma(struct life *life, enum table_set set, unsigned int i, bool good)
{
	const struct leaf *leaf = &life->memory.leaves[set][i];
	bool reached = device_writes(life, set, i);

	if (!leaf->valid || !leaf->writable)
		CHECK(!reached);
	else if (good)
		CHECK(reached);
}

/* A neighbour, what is cut, what changes its frame, what becomes read-only, a frame that goes. */
#define STAYS 19u
static const unsigned int samples[] = {STAYS, 20, 25, 66, 80};

static enum table_set set_of(enum shown shown)
{
	return shown == SHOWN_OTHER ? TABLES_OTHER : TABLES_FIRST;
}

static void check_leaves(struct life *life, enum shown shown)
{
	CHECK_EQUAL(life_leaves(life),
		    leaves_count(&life->memory, set_of(shown), shown == SHOWN_WITHOUT_HIGH));
}

/* What the tables do not hold is not there; what they held all the while is, if strict. */
static void check_no_more(struct life *life, enum shown shown, bool strict)
{
	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		check_explained(life, set_of(shown), samples[i], false);
		if (life->engine != NULL)
			check_dma(life, set_of(shown), samples[i], strict && samples[i] == STAYS);
	}
}

static void check_all(struct life *life, enum shown shown)
{
	check_leaves(life, shown);
	if (life->engine == NULL)
		return;
	if (life->stopped)
		CHECK_EQUAL(engine_start(life->engine), 0);
	life->stopped = false;
	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
		check_dma(life, set_of(shown), samples[i], true);
}

void life_check(struct life *life, size_t step, const struct outcome *outcome, bool strict)
{
	enum shown shown = outcome->good ? steps[step].after : steps[step].before;

	if (shown == SHOWN_NOTHING)
		return;
	if (outcome->good && strict) {
		check_all(life, shown);
		return;
	}
	check_no_more(life, shown, strict && !life->stopped);
	if (outcome->result < 0 && strict && !life->stopped)
		check_leaves(life, shown);
}

struct outcome life_register_again(struct life *life)
{
	struct outcome outcome = step_deregister(life);

	if (!outcome.good)
		return outcome;
	life->nested = iommubroker_nested_free(life->nested);
	return step_register(life);
}

unsigned int life_events(struct life *life, uint32_t kind)
{
	while (iommubroker_process(life->session) > 0)
		;
	return life->n_events[kind];
}
