/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See replay_device.h. What a device did is judged by memory alone where it can be: an edu never
 * tells, and an nvme that reports an error has not shown that nothing was moved.
 */

#include "replay_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "proc.h"
#include "replay/workspace.h"

#define WORD_BYTES sizeof(uint64_t)
/* In what a write holds that is to be blocked: found again wherever it landed. */
#define BLOCKED_MARK UINT64_C(0xb10cced000000000)
#define BLOCKED_MASK UINT64_C(0xfffffffff0000000)

#define PINS_EVERY    8 /* refreshes */
#define RECOVER_TRIES 4

/* Which of the leaves that a recording changes are tried, for each kind: the first few, then one of
 * so many. Odd numbers, for recordings repeat themselves in powers of two. */
#define FIRST_FEW 3u
struct rate {
	unsigned int read_write, read_only, blocked;
};
static const struct rate rate_silent = {1201, 601, 1501};
static const struct rate rate_stopping = {401, 201, 7001};

/* At the end, of a function: pages that are to be out of reach, and leaves that are read only. */
#define BLOCKED_AT_END   5u
#define READ_ONLY_AT_END 2u

/* What belongs to one function. */
struct judge {
	struct engine *engine;
	uint64_t workspace_iova;
	bool stops; /* a blocked access stops the device, which is how it tells of it */
	bool lost;  /* it did not come back: nothing more to be found out */
	struct rate seen;
	unsigned int blocked_at_end, read_only_at_end, pages_at_end;
};

static struct judge *judge_of(const struct function *function)
{
	return function->device_engine;
}

static struct replay_device *device_of(const struct machine *machine)
{
	return machine->checks_data;
}

static const char *outcome(int r)
{
	return r == 0 ? "the device reported no error" : strerrordesc_np(-r);
}

static int device_open(struct machine *machine, struct function *function)
{
	function->device_engine = calloc(1, sizeof(struct judge));
	return function->device_engine != NULL ? 0 : -ENOMEM;
}

static void device_close(struct function *function)
{
	struct judge *judge = judge_of(function);

	if (judge != NULL)
		engine_close(judge->engine);
	free(judge);
	function->device_engine = NULL;
}

static int device_start(struct machine *machine, struct function *function)
{
	const struct engine_workspace workspace = {
		.iova = function->workspace.iova,
		.host = function->workspace.host,
	};
	struct judge *judge = judge_of(function);
	int r;

	judge->engine = engine_close(judge->engine);
	r = engine_open(&judge->engine, function->device_fd, &workspace);
	if (r < 0)
		return r;
	judge->stops = strcmp(engine_name(judge->engine), "edu") != 0;
	return engine_start(judge->engine);
}

/* ── a device that was stopped ────────────────────────────────────────────────────────────── */

static int set_all(struct machine *machine, struct function *function, bool mapped)
{
	struct zpci_tables *tables = &function->tables[function->current];
	struct leaf *leaf, *next;
	int r = 0;

	HASH_ITER (hh, function->leaves, leaf, next)
		if (r == 0)
			r = zpci_tables_set(tables, leaf->iova, leaf->gpa,
					    mapped ? leaf->access : ZPCI_LEAF_NONE);
	if (r < 0)
		return r;
	if (mapped)
		machine->totals.model_mapped += HASH_COUNT(function->leaves);
	else
		machine->totals.model_unmapped += HASH_COUNT(function->leaves);
	machine_refresh(machine, function, function->pba, function->pal - function->pba + 1);
	return 0;
}

/* A function that was in error has forgotten its translations (QEMU's; a real one walks the host's
 * tables again). So the guest takes all of its leaves out, and maps them again. */
static int renew(struct machine *machine, struct function *function)
{
	struct replay_device *device = device_of(machine);
	int r;

	r = set_all(machine, function, false);
	if (r == 0)
		r = set_all(machine, function, true);
	device->refreshes += 2;
	device->leaves_mapped += HASH_COUNT(function->leaves);
	device->leaves_unmapped += HASH_COUNT(function->leaves);
	return r;
}

static void recover(struct machine *machine, struct function *function)
{
	struct judge *judge = judge_of(function);
	int r = 0;

	if (!judge->stops)
		return;
	device_of(machine)->recoveries++;
	/* The error of a blocked access can be told late, after the reset that was to end it. */
	for (int i = 0; i < RECOVER_TRIES; i++) {
		r = engine_reset(judge->engine);
		if (r == 0)
			r = renew(machine, function);
		if (r == 0)
			r = engine_start(judge->engine);
		if (r != -EIO)
			break;
	}
	judge->lost = r < 0;
	if (r < 0)
		machine_fail(machine, "function %u: does not come back from an error: %s",
			     function->id, strerrordesc_np(-r));
}

/* ── one access ───────────────────────────────────────────────────────────────────────────── */

/* Counts, and judges. A device that answered an error where it should not is stopped, too. */
static void settle(struct machine *machine, struct function *function, uint64_t iova,
		   enum replay_access access, bool good, const char *what, int r)
{
	device_of(machine)->accesses[access]++;
	check_judge(machine, function, iova, good, what, outcome(r));
	if (r < 0 || access >= REPLAY_BLOCKED_READ)
		recover(machine, function);
}

static void try_read(struct machine *machine, struct function *function, uint64_t iova,
		     uint8_t *host)
{
	uint64_t pattern = check_pattern(machine), seen = ~pattern;
	int r;

	memcpy(host, &pattern, WORD_BYTES);
	r = engine_read(judge_of(function)->engine, iova, &seen, WORD_BYTES);
	settle(machine, function, iova, REPLAY_READ, r == 0 && seen == pattern,
	       "a read did not bring what guest memory holds", r);
}

static void try_write(struct machine *machine, struct function *function, uint64_t iova,
		      const uint8_t *host)
{
	uint64_t pattern = check_pattern(machine), after;
	int r;

	r = engine_write(judge_of(function)->engine, iova, &pattern, WORD_BYTES);
	memcpy(&after, host, WORD_BYTES);
	settle(machine, function, iova, REPLAY_WRITE, r == 0 && after == pattern,
	       "a write did not arrive in guest memory", r);
}

/* An edu reports nothing. An nvme whose function is in error hangs or reports that; but the kernel
 * may have recovered the function before the device is through, which then ends its command as if
 * nothing had been: so that not every blocked access is reported, and what was moved decides. */
static bool is_as_blocked(struct machine *machine, const struct function *function, int r)
{
	device_of(machine)->reported += r < 0;
	return r == 0 || judge_of(function)->stops;
}

/* Whatever it hits has to be found again: see replay_device_has_leaked(). */
static void try_blocked_write(struct machine *machine, struct function *function, uint64_t iova,
			      const uint8_t *host, enum replay_access access, const char *what)
{
	uint64_t pattern = BLOCKED_MARK | (machine->totals.dma_checks & ~BLOCKED_MASK);
	uint64_t before = 0, after = 0;
	int r;

	if (host != NULL)
		memcpy(&before, host, WORD_BYTES);
	r = engine_write(judge_of(function)->engine, iova, &pattern, WORD_BYTES);
	if (host != NULL)
		memcpy(&after, host, WORD_BYTES);
	settle(machine, function, iova, access,
	       is_as_blocked(machine, function, r) && after == before && after != pattern, what, r);
}

static void try_blocked_read(struct machine *machine, struct function *function, uint64_t iova,
			     uint8_t *host)
{
	uint64_t pattern = check_pattern(machine), seen = ~pattern, before;
	int r;

	memcpy(&before, host, WORD_BYTES);
	memcpy(host, &pattern, WORD_BYTES);
	r = engine_read(judge_of(function)->engine, iova, &seen, WORD_BYTES);
	memcpy(host, &before, WORD_BYTES);
	settle(machine, function, iova, REPLAY_BLOCKED_READ,
	       is_as_blocked(machine, function, r) && seen != pattern,
	       "a read of an unmapped leaf was not blocked", r);
}

/* ── one page ─────────────────────────────────────────────────────────────────────────────── */

static uint64_t next_offset(const struct machine *machine)
{
	return machine->totals.dma_checks * WORD_BYTES % ZPCI_PAGE_BYTES;
}

/* What was mapped there last, if anything was: where a stale translation would lead to. */
static void try_unmapped(struct machine *machine, struct function *function, uint64_t iova)
{
	uint64_t offset = next_offset(machine);
	struct leaf *stale = NULL;
	uint8_t *host = NULL;

	HASH_FIND(hh, function->dropped, &iova, sizeof(iova), stale);
	if (stale != NULL) {
		host = machine->memory + stale->gpa + offset;
		try_blocked_read(machine, function, iova + offset, host);
	}
	try_blocked_write(machine, function, iova + offset, host, REPLAY_BLOCKED_WRITE,
			  "a write to an unmapped leaf was not blocked");
}

static void try_mapped(struct machine *machine, struct function *function, const struct leaf *leaf,
		       bool with_blocked)
{
	uint64_t offset = next_offset(machine);
	uint8_t *host = machine->memory + leaf->gpa + offset;
	uint64_t before;

	memcpy(&before, host, WORD_BYTES);
	try_read(machine, function, leaf->iova + offset, host);
	if (leaf->access == ZPCI_LEAF_READ_WRITE)
		try_write(machine, function, leaf->iova + offset, host);
	else if (with_blocked)
		try_blocked_write(machine, function, leaf->iova + offset, host,
				  REPLAY_READ_ONLY_WRITE,
				  "a write to a read-only leaf was not blocked");
	memcpy(host, &before, WORD_BYTES);
}

/* ── samples ──────────────────────────────────────────────────────────────────────────────── */

static bool is_sampled(unsigned int *seen, unsigned int rate)
{
	unsigned int n = (*seen)++;

	return n < FIRST_FEW || n % rate == 0;
}

static void device_leaf(struct machine *machine, struct function *function, uint64_t iova,
			const struct leaf *leaf)
{
	struct judge *judge = judge_of(function);
	const struct rate *rate = judge->stops ? &rate_stopping : &rate_silent;

	if (judge->lost)
		return;
	if (leaf == NULL) {
		if (is_sampled(&judge->seen.blocked, rate->blocked))
			try_unmapped(machine, function, iova);
	} else if (leaf->access == ZPCI_LEAF_READ_WRITE) {
		if (is_sampled(&judge->seen.read_write, rate->read_write))
			try_mapped(machine, function, leaf, false);
	} else if (is_sampled(&judge->seen.read_only, rate->read_only)) {
		try_mapped(machine, function, leaf, !judge->stops);
	}
}

/* Pages that were never mapped are the most: of the others one of so many, of these a few. */
static bool is_sampled_at_end(struct judge *judge, const struct function *function, uint64_t iova)
{
	unsigned int n_dropped = HASH_COUNT(function->dropped);
	struct leaf *stale = NULL;

	HASH_FIND(hh, function->dropped, &iova, sizeof(iova), stale);
	if (stale == NULL)
		return judge->pages_at_end++ % 50021 == 0;
	return judge->blocked_at_end++ % (n_dropped / BLOCKED_AT_END + 1) == 0;
}

static void device_page(struct machine *machine, struct function *function, uint64_t iova,
			const struct leaf *leaf)
{
	struct judge *judge = judge_of(function);

	if (judge->lost)
		return;
	if (leaf == NULL) {
		if (is_sampled_at_end(judge, function, iova))
			try_unmapped(machine, function, iova);
	} else if (!workspace_has_iova(function, iova)) {
		bool read_only = leaf->access == ZPCI_LEAF_READ;

		try_mapped(machine, function, leaf,
			   read_only && judge->read_only_at_end++ < READ_ONLY_AT_END);
	}
}

/* ── after the recording ──────────────────────────────────────────────────────────────────── */

/* The first ones of each eight live leaves, in the order of their IOVAs; the others stay. */
static unsigned int changed_access(unsigned int n, const struct leaf *leaf)
{
	if (n % 8 == 1)
		return ZPCI_LEAF_NONE;
	return n % 8 == 3 ? ZPCI_LEAF_READ : leaf->access;
}

static int by_iova(const struct leaf *a, const struct leaf *b)
{
	return a->iova < b->iova ? -1 : a->iova > b->iova;
}

/* The first CHANGED_SHOWN of them are told. Returns how many, or a negative errno. */
#define CHANGED_SHOWN 16u
static int change_leaves(struct machine *machine, struct function *function, uint64_t *ret_iovas)
{
	struct zpci_tables *tables = &function->tables[function->current];
	struct leaf *leaf, *next;
	unsigned int n = 0;
	int r = 0;

	HASH_SORT(function->leaves, by_iova);
	HASH_ITER (hh, function->leaves, leaf, next) {
		unsigned int access = changed_access(n, leaf);

		if (workspace_has_iova(function, leaf->iova))
			continue;
		if (n < CHANGED_SHOWN)
			ret_iovas[n] = leaf->iova;
		n++;
		r = zpci_tables_set(tables, leaf->iova, leaf->gpa, access);
		if (r == 0)
			r = machine_expect(machine, function, leaf->iova, leaf->gpa, access);
		if (r < 0)
			return r;
	}
	return n < CHANGED_SHOWN ? (int)n : (int)CHANGED_SHOWN;
}

int replay_device_change_some(struct machine *machine, struct function *function)
{
	uint64_t iovas[CHANGED_SHOWN];
	int n;

	n = change_leaves(machine, function, iovas);
	if (n < 0)
		return n;
	machine_refresh(machine, function, function->pba, function->pal - function->pba + 1);
	for (int i = 0; i < n && !judge_of(function)->lost; i++) {
		struct leaf *leaf = NULL;

		HASH_FIND(hh, function->leaves, &iovas[i], sizeof(iovas[i]), leaf);
		if (leaf == NULL)
			try_unmapped(machine, function, iovas[i]);
		else
			try_mapped(machine, function, leaf, true);
	}
	return 0;
}

static void device_refreshed(struct machine *machine)
{
	struct replay_device *device = device_of(machine);
	uint64_t pinned;

	if (machine->totals.refreshes % PINS_EVERY != 1)
		return;
	pinned = proc_pinned_bytes(device->daemon);
	device->pins_seen++;
	if (pinned == device->pinned_bytes)
		return;
	if (device->pins_wrong++ == 0)
		machine_fail(machine, "after refresh %llu %llu bytes are pinned, not %llu",
			     (unsigned long long)machine->totals.refreshes,
			     (unsigned long long)pinned, (unsigned long long)device->pinned_bytes);
}

const struct check_ops replay_device_checks = {
	.workspace_pages = ENGINE_WORKSPACE_PAGES,
	.open = device_open,
	.close = device_close,
	.start = device_start,
	.leaf = device_leaf,
	.page = device_page,
	.refreshed = device_refreshed,
};

static bool is_workspace(const struct machine *machine, const uint8_t *host)
{
	for (size_t i = 0; i < machine->n_functions; i++) {
		const struct workspace *workspace = &machine->functions[i].workspace;

		if (host >= workspace->host &&
		    host < workspace->host + workspace->n_pages * ZPCI_PAGE_BYTES)
			return true;
	}
	return false;
}

bool replay_device_has_leaked(const struct machine *machine)
{
	uint64_t n_bytes = machine->ram_bytes + machine->tables_bytes;

	for (uint64_t at = 0; at < n_bytes; at += WORD_BYTES) {
		uint64_t word;

		memcpy(&word, machine->memory + at, WORD_BYTES);
		if ((word & BLOCKED_MASK) == BLOCKED_MARK &&
		    !is_workspace(machine, machine->memory + at))
			return true;
	}
	return false;
}
