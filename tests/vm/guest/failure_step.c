/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See failure_step.h. Each may be called again after it failed, and asks for the same then. */

#include "failure_step.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "machine.h"

#define TIMEOUT_NS UINT64_C(120000000000) /* nothing is judged by it: a hang becomes a failure */

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

struct outcome step_session(struct life *life)
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

struct outcome step_guest(struct life *life)
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

struct outcome step_main_file(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_memory_file_add(life->guest, life->memory.main_fd, true, &life->main,
					    &error);

	return outcome_of(r, error);
}

struct outcome step_side_file(struct life *life)
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

struct outcome step_memory(struct life *life)
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
struct outcome step_region_changes(struct life *life)
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

struct outcome step_region_goes(struct life *life)
{
	return memory_unmap(life, HIGH_GPA, HIGH_GPA + HIGH_BYTES - 1);
}

struct outcome step_region_returns(struct life *life)
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
struct outcome step_grow(struct life *life)
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

struct outcome step_shrink(struct life *life)
{
	return memory_unmap(life, GROWN_GPA, GROWN_GPA + READ_ONLY_SIZE - 1);
}

struct outcome step_unmap_all(struct life *life)
{
	return memory_unmap(life, 0, UINT64_MAX);
}

struct outcome step_remove_file(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_memory_file_remove(life->side, &error);

	return outcome_of(r, error);
}

/* ── the device ────────────────────────────────────────────────────────────────────────────── */

void device_forget(struct life *life)
{
	life->engine = engine_close(life->engine);
	life->device = iommubroker_device_free(life->device);
	if (life->device_fd >= 0)
		close(life->device_fd);
	life->device_fd = -1;
}

struct outcome step_open(struct life *life)
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
struct outcome step_bind(struct life *life)
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

struct outcome step_info(struct life *life)
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

struct outcome step_attach_relaxed(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_RELAXED, NULL);
}

struct outcome step_attach_parent(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_PARENT, NULL);
}

struct outcome step_block(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_BLOCKED, NULL);
}

struct outcome step_attach_managed(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_NESTED, life->managed);
}

struct outcome step_attach_again(struct life *life)
{
	return attach(life, IOMMUBROKER_ATTACHMENT_NESTED, life->nested);
}

struct outcome step_close(struct life *life)
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

struct outcome step_register(struct life *life)
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

struct outcome step_refresh_maps(struct life *life)
{
	leaves_map(&life->memory, TABLES_FIRST, 60, 16, frame_of(60), true);
	leaves_map(&life->memory, TABLES_FIRST, 80, 1, frame_of(90), true);
	leaves_map(&life->memory, TABLES_FIRST, 82, 1, frame_of(82), false);
	leaves_map(&life->memory, TABLES_FIRST, 90, 4, HIGH_GPA + 4 * PAGE_BYTES, true);
	leaves_map(&life->memory, TABLES_FIRST, 94, 2, READ_ONLY_GPA, false);
	return refresh(life, 60, 36);
}

struct outcome step_refresh_cuts(struct life *life)
{
	leaves_unmap(&life->memory, TABLES_FIRST, 20, 4);
	leaves_unmap(&life->memory, TABLES_FIRST, 80, 1);
	return refresh(life, 16, 80);
}

struct outcome step_refresh_changes(struct life *life)
{
	leaves_map(&life->memory, TABLES_FIRST, 25, 1, frame_of(200), true);
	leaves_map(&life->memory, TABLES_FIRST, 66, 2, frame_of(66), false);
	return refresh(life, 0, 512);
}

/* Other tables that hold some of the same. */
struct outcome step_replace(struct life *life)
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
struct outcome step_replace_relaxed(struct life *life)
{
	const struct iommubroker_anchor anchor = {.pba = 0, .pal = WINDOW_LAST};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_replace(life->nested, &anchor, &registration, &error);

	return r < 0 ? outcome_of(r, error) : outcome_of_verdict(registration.verdict);
}

struct outcome step_replace_back(struct life *life)
{
	const struct iommubroker_anchor anchor = anchor_of(life, TABLES_FIRST);
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_replace(life->nested, &anchor, &registration, &error);

	return r < 0 ? outcome_of(r, error) : outcome_of_verdict(registration.verdict);
}

struct outcome step_managed(struct life *life)
{
	const struct iommubroker_address_range window = {WINDOW_FIRST, WINDOW_LAST};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_create_managed(life->device, &window, false, LEAVES,
						  &life->managed, &registration, &error);

	return r < 0 ? outcome_of(r, error) : outcome_of_verdict(registration.verdict);
}

struct outcome step_managed_update(struct life *life)
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

struct outcome step_managed_destroy(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_destroy(life->managed, NULL, &error);

	return outcome_of(r, error);
}

struct outcome step_deregister(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_nested_destroy(life->nested, NULL, &error);

	return outcome_of(r, error);
}

struct outcome step_destroy(struct life *life)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_guest_destroy(life->guest, &error);

	return outcome_of(r, error);
}
