/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See failure_life.h. The steps visit every call that the daemon makes of the kernel: the parent
 * pinned at bind, a shadow filled, split, emptied and replaced, regions that go and come, a relaxed
 * mapping that follows, the parent itself, a managed domain, and the end of everything.
 */

#include "failure_life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "failure_memory.h"
#include "machine.h"

#define TIMEOUT_NS UINT64_C(120000000000) /* nothing is judged by it: a hang becomes a failure */
#define TOKEN_AT   64u                    /* in a page */

struct life {
	const char *fd_sock;
	struct guest_memory memory;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_memory_file *main, *side;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested, *managed;
	struct engine *engine;
	int device_fd;
	bool dma;
	bool stopped; /* the daemon blocked the device for good, and its VMM has to start it again
		       */
	uint64_t token;
	unsigned int n_events[16];
};

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

/* ── outcomes ──────────────────────────────────────────────────────────────────────────────── */

static struct outcome outcome_of(int result, struct iommubroker_error *error)
{
	struct outcome outcome = {.good = result == 0, .result = result};

	if (result == 0)
		return outcome;
	outcome.code = (uint32_t)iommubroker_error_code(error);
	snprintf(outcome.reason, sizeof(outcome.reason), "%s", iommubroker_error_reason(error));
	snprintf(outcome.message, sizeof(outcome.message), "%s", iommubroker_error_message(error));
	iommubroker_error_free(error);
	return outcome;
}

static struct outcome outcome_of_verdict(uint32_t verdict)
{
	return (struct outcome){
		.good = verdict == IOMMUBROKER_VERDICT_DONE,
		.verdict = verdict,
	};
}

/* ── memory ────────────────────────────────────────────────────────────────────────────────── */

static struct outcome step_session(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_session_open(life->fd_sock, "life", &life->session, &error);

	if (r == 0)
		iommubroker_session_set_timeout(life->session, TIMEOUT_NS);
	return outcome_of(r, error);
}

static void on_event(void *user_data, int result, const struct iommubroker_event *event,
		     const struct iommubroker_error *error)
{
	struct life *life = user_data;

	(void)result;
	(void)error;
	if (event != NULL && event->kind < sizeof(life->n_events) / sizeof(life->n_events[0]))
		life->n_events[event->kind]++;
}

static struct outcome step_guest(struct life *life)
{
	const struct iommubroker_guest_options options = {
		.struct_bytes = sizeof(options),
		.name = "guest",
	};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_guest_create(life->session, &options, &life->guest, &error);
	uint64_t call;

	if (r == 0)
		CHECK_EQUAL(iommubroker_watch_events(life->guest, 0, on_event, life, &call), 0);
	return outcome_of(r, error);
}

static struct outcome step_main_file(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_memory_file_add(life->guest, life->memory.main_fd, true, &life->main,
					    &error);

	return outcome_of(r, error);
}

static struct outcome step_side_file(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_memory_file_add(life->guest, life->memory.side_fd, true, &life->side,
					    &error);

	return outcome_of(r, error);
}

static struct outcome memory_map(struct life *life, const struct iommubroker_map *map, size_t n)
{
	const struct iommubroker_memory_update update = {.n_map = n, .map = map};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_memory_update(life->guest, &update, NULL, NULL, NULL, &error);

	return outcome_of(r, error);
}

static struct outcome memory_unmap(struct life *life, uint64_t first, uint64_t last)
{
	const struct iommubroker_address_range range = {first, last};
	const struct iommubroker_memory_update update = {.n_unmap = 1, .unmap = &range};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_memory_update(life->guest, &update, NULL, NULL, NULL, &error);

	return outcome_of(r, error);
}

static struct outcome step_memory(struct life *life)
{
	const struct iommubroker_map map[] = {
		{.file = life->main, .length = MAIN_BYTES, .access = IOMMUBROKER_ACCESS_READ_WRITE},
		{.file = life->side,
		 .gpa = HIGH_GPA,
		 .length = HIGH_BYTES,
		 .granule = HIGH_BYTES / 2,
		 .access = IOMMUBROKER_ACCESS_READ_WRITE},
		{.file = life->side,
		 .offset = READ_ONLY_AT,
		 .gpa = READ_ONLY_GPA,
		 .length = READ_ONLY_SIZE,
		 .access = IOMMUBROKER_ACCESS_READ},
	};

	return memory_map(life, map, sizeof(map) / sizeof(map[0]));
}

/* The same addresses show other memory: in one update, which puts back what was there if what comes
 * cannot be mapped. */
static struct outcome step_region_changes(struct life *life)
{
	const struct iommubroker_address_range range = {HIGH_GPA, HIGH_GPA + HIGH_BYTES - 1};
	const struct iommubroker_map map = {
		.file = life->side,
		.offset = READ_ONLY_AT,
		.gpa = HIGH_GPA,
		.length = HIGH_BYTES,
		.access = IOMMUBROKER_ACCESS_READ_WRITE,
	};
	const struct iommubroker_memory_update update = {
		.n_unmap = 1,
		.unmap = &range,
		.n_map = 1,
		.map = &map,
	};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_memory_update(life->guest, &update, NULL, NULL, NULL, &error);

	return outcome_of(r, error);
}

static struct outcome step_region_goes(struct life *life)
{
	return memory_unmap(life, HIGH_GPA, HIGH_GPA + HIGH_BYTES - 1);
}

static struct outcome step_region_returns(struct life *life)
{
	const struct iommubroker_map map = {
		.file = life->side,
		.gpa = HIGH_GPA,
		.length = HIGH_BYTES,
		.access = IOMMUBROKER_ACCESS_READ_WRITE,
	};

	return memory_map(life, &map, 1);
}

/* Something else of the same file, while a relaxed mapping follows. */
static struct outcome step_grow(struct life *life)
{
	const struct iommubroker_map map = {
		.file = life->side,
		.offset = READ_ONLY_AT + READ_ONLY_SIZE,
		.gpa = GROWN_GPA,
		.length = READ_ONLY_SIZE,
		.access = IOMMUBROKER_ACCESS_READ_WRITE,
	};

	return memory_map(life, &map, 1);
}

static struct outcome step_shrink(struct life *life)
{
	return memory_unmap(life, GROWN_GPA, GROWN_GPA + READ_ONLY_SIZE - 1);
}

static struct outcome step_unmap_all(struct life *life)
{
	return memory_unmap(life, 0, UINT64_MAX);
}

static struct outcome step_remove_file(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_memory_file_remove(life->side, &error);

	return outcome_of(r, error);
}

/* ── the device ────────────────────────────────────────────────────────────────────────────── */

static void device_forget(struct life *life)
{
	life->engine = engine_close(life->engine);
	life->device = iommubroker_device_free(life->device);
	if (life->device_fd >= 0)
		close(life->device_fd);
	life->device_fd = -1;
}

static struct outcome step_open(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_device_open_pci(life->guest, machine_pci(), &life->device,
					    &life->device_fd, &error);

	return outcome_of(r, error);
}

static void engine_make(struct life *life)
{
	const struct engine_workspace workspace = {
		.iova = IOVA(0),
		.host = life->memory.main + WORKSPACE_GPA,
	};

	if (life->dma)
		REQUIRE_EQUAL(engine_open(&life->engine, life->device_fd, &workspace), 0);
}

/* A bind that had to be undone closed the device, and says so: then it is opened again. */
static struct outcome step_bind(struct life *life)
{
	struct iommubroker_error *error = NULL;
	struct outcome outcome;
	int r;

	if (life->device == NULL) {
		outcome = step_open(life);
		if (!outcome.good)
			return outcome;
	}
	r = iommubroker_device_bind(life->device, NULL, NULL, NULL, &error);
	outcome = outcome_of(r, error);
	if (!outcome.good && strstr(outcome.message, "the device was closed") != NULL)
		device_forget(life);
	if (outcome.good)
		engine_make(life);
	return outcome;
}

static struct outcome step_info(struct life *life)
{
	struct iommubroker_device_info *info = NULL;
	struct iommubroker_error *error = NULL;
	int r = iommubroker_device_info(life->device, &info, &error);

	if (r == 0)
		CHECK(info->dma_last >= WINDOW_LAST);
	iommubroker_device_info_free(info);
	return outcome_of(r, error);
}

static struct outcome attach(struct life *life, uint32_t to, struct iommubroker_nested *nested)
{
	struct iommubroker_result walk = {.verdict = IOMMUBROKER_VERDICT_DONE};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_device_attach(life->device, to, nested, &walk, &error);

	return r < 0 ? outcome_of(r, error) : outcome_of_verdict(walk.verdict);
}

static struct outcome step_attach_relaxed(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_RELAXED, NULL);
}

static struct outcome step_attach_parent(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_PARENT, NULL);
}

static struct outcome step_block(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_BLOCKED, NULL);
}

static struct outcome step_attach_managed(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_NESTED, life->managed);
}

static struct outcome step_attach_again(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_NESTED, life->nested);
}

static struct outcome step_close(struct life *life)
{
	struct iommubroker_error *error = NULL;
	bool held = false;
	int r;

	/* The daemon's descriptor is then the last one. */
	life->engine = engine_close(life->engine);
	if (life->device_fd >= 0)
		close(life->device_fd);
	life->device_fd = -1;
	r = iommubroker_device_close(life->device, &held, &error);
	return outcome_of(r, error);
}

/* ── domains ───────────────────────────────────────────────────────────────────────────────── */

static struct iommubroker_anchor anchor_of(const struct life *life, enum table_set set)
{
	return (struct iommubroker_anchor){
		.iota = tables_iota(&life->memory.tables[set]),
		.pba = WINDOW_FIRST,
		.pal = WINDOW_LAST,
	};
}

static struct outcome step_register(struct life *life)
{
	const struct iommubroker_anchor anchor = anchor_of(life, TABLES_FIRST);
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r;

	leaves_map(&life->memory, TABLES_FIRST, 16, 16, frame_of(16), true);
	leaves_map(&life->memory, TABLES_FIRST, 40, 1, frame_of(40), false);
	leaves_map(&life->memory, TABLES_FIRST, 50, 2, HIGH_GPA, true);
	r = iommubroker_nested_create_s390(life->device, &anchor, true, LEAVES, &life->nested,
					   &registration, &error);
	if (r < 0)
		return outcome_of(r, error);
	if (registration.verdict == IOMMUBROKER_VERDICT_DONE && life->engine != NULL)
		CHECK_EQUAL(engine_start(life->engine), 0);
	return outcome_of_verdict(registration.verdict);
}

static struct outcome refresh(struct life *life, unsigned int first, unsigned int n)
{
	const struct iommubroker_range range = {IOVA(first), n * PAGE_BYTES};
	struct iommubroker_result result = {0};
	int r = iommubroker_refresh(life->nested, &range, 1, TIMEOUT_NS, &result);

	return r < 0 ? outcome_of(r, NULL) : outcome_of_verdict(result.verdict);
}

static struct outcome step_refresh_maps(struct life *life)
{
	leaves_map(&life->memory, TABLES_FIRST, 60, 16, frame_of(60), true);
	leaves_map(&life->memory, TABLES_FIRST, 80, 1, frame_of(90), true);
	leaves_map(&life->memory, TABLES_FIRST, 82, 1, frame_of(82), false);
	leaves_map(&life->memory, TABLES_FIRST, 90, 4, HIGH_GPA + 4 * PAGE_BYTES, true);
	leaves_map(&life->memory, TABLES_FIRST, 94, 2, READ_ONLY_GPA, false);
	return refresh(life, 60, 36);
}

static struct outcome step_refresh_cuts(struct life *life)
{
	leaves_unmap(&life->memory, TABLES_FIRST, 20, 4);
	leaves_unmap(&life->memory, TABLES_FIRST, 80, 1);
	return refresh(life, 16, 80);
}

static struct outcome step_refresh_changes(struct life *life)
{
	leaves_map(&life->memory, TABLES_FIRST, 25, 1, frame_of(200), true);
	leaves_map(&life->memory, TABLES_FIRST, 66, 2, frame_of(66), false);
	return refresh(life, 0, 512);
}

/* Other tables that hold some of the same. */
static struct outcome step_replace(struct life *life)
{
	const struct iommubroker_anchor anchor = anchor_of(life, TABLES_OTHER);
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r;

	leaves_map(&life->memory, TABLES_OTHER, 16, 2, frame_of(16), true);
	leaves_map(&life->memory, TABLES_OTHER, 18, 2, frame_of(100), true);
	leaves_map(&life->memory, TABLES_OTHER, 120, 4, frame_of(120), true);
	r = iommubroker_nested_replace(life->nested, &anchor, &registration, &error);
	return r < 0 ? outcome_of(r, error) : outcome_of_verdict(registration.verdict);
}

/* T = 0, and back: another page table each time. */
static struct outcome step_replace_relaxed(struct life *life)
{
	const struct iommubroker_anchor anchor = {.pba = 0, .pal = WINDOW_LAST};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_replace(life->nested, &anchor, &registration, &error);

	return r < 0 ? outcome_of(r, error) : outcome_of_verdict(registration.verdict);
}

static struct outcome step_replace_back(struct life *life)
{
	const struct iommubroker_anchor anchor = anchor_of(life, TABLES_FIRST);
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_replace(life->nested, &anchor, &registration, &error);

	return r < 0 ? outcome_of(r, error) : outcome_of_verdict(registration.verdict);
}

static struct outcome step_managed(struct life *life)
{
	const struct iommubroker_address_range window = {WINDOW_FIRST, WINDOW_LAST};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_create_managed(life->device, &window, false, LEAVES,
						  &life->managed, &registration, &error);

	return r < 0 ? outcome_of(r, error) : outcome_of_verdict(registration.verdict);
}

static struct outcome step_managed_update(struct life *life)
{
	const struct iommubroker_entry entries[] = {
		{IOVA(0), 8 * PAGE_BYTES, frame_of(0), IOMMUBROKER_ACCESS_READ_WRITE},
		{IOVA(2), PAGE_BYTES, frame_of(9), IOMMUBROKER_ACCESS_READ},
		{IOVA(5), PAGE_BYTES, 0, IOMMUBROKER_ACCESS_NONE},
	};
	struct iommubroker_result results[3] = {{0}};
	struct iommubroker_error *error = NULL;
	size_t n = 0;
	int r = iommubroker_nested_update(life->managed, entries, 3, results, &n, &error);

	if (r < 0)
		return outcome_of(r, error);
	REQUIRE(n >= 1 && n <= 3);
	return outcome_of_verdict(results[n - 1].verdict);
}

static struct outcome step_managed_destroy(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_destroy(life->managed, NULL, &error);

	return outcome_of(r, error);
}

static struct outcome step_deregister(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_destroy(life->nested, NULL, &error);

	return outcome_of(r, error);
}

static struct outcome step_destroy(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_guest_destroy(life->guest, &error);

	return outcome_of(r, error);
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
