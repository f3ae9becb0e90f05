/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See replay_guest.h. */

#include "replay_guest.h"

#include <inttypes.h>
#include <stdio.h>

#include "check.h"
#include "proc.h"
#include "replay/play.h"
#include "replay_device.h"

#define RAM_BYTES (UINT64_C(384) << 20)

/* Of the first recording; see tests/data/traces/README.md. */
static const struct play_anchor anchors[REPLAY_FUNCTIONS] = {
	{1, {.iota = 0x3014804, .pba = 0x100000000, .pal = 0x117ffffff}},
	{2, {.iota = 0x3010804, .pba = 0x100000000, .pal = 0x117ffffff}},
};

static void guest_open(struct machine *machine, const struct replay_recording *recording,
		       const struct replay_place *place, struct replay_device *device)
{
	static const uint32_t ids[REPLAY_FUNCTIONS] = {1, 2};
	const struct machine_options options = {
		.socket = place->socket,
		.guest_name = "recorded",
		.ram_bytes = RAM_BYTES,
		.function_ids = ids,
		.pci_addresses = place->by_function_id ? NULL : place->pci_addresses,
		.n_functions = REPLAY_FUNCTIONS,
		.own_tables = recording->tables == NULL,
		.checks = &replay_device_checks,
		.checks_data = device,
	};

	REQUIRE_EQUAL(machine_open(machine, &options), 0);
	device->daemon = place->daemon;
	device->pinned_bytes = machine->ram_bytes + machine->tables_bytes;
	CHECK_EQUAL(proc_pinned_bytes(place->daemon), device->pinned_bytes);
}

static void input_open(struct input *input, const char *path)
{
	if (path != NULL)
		REQUIRE_EQUAL(input_read(path, input), 0);
}

static void guest_play(struct machine *machine, const struct replay_recording *recording)
{
	struct input trace = {0}, tables = {0};

	input_open(&trace, recording->trace);
	input_open(&tables, recording->tables);
	if (recording->tables == NULL) {
		CHECK_EQUAL(play_trace(machine, &trace), 0);
	} else {
		CHECK_EQUAL(play_tables(machine, &tables, anchors, REPLAY_FUNCTIONS), 0);
		CHECK_EQUAL(play_compare_end(machine, &trace), 0);
	}
	input_free(&trace);
	input_free(&tables);
}

/* As recorded, but for what the checks themselves added. */
static void compare_counts(const struct machine *machine, const struct replay_recording *recording,
			   const struct replay_device *device)
{
	const struct totals *totals = &machine->totals;
	uint64_t workspaces = (uint64_t)REPLAY_FUNCTIONS * replay_device_checks.workspace_pages;

	CHECK_EQUAL(totals->refreshes - device->refreshes, recording->refreshes);
	CHECK_EQUAL(totals->leaves_mapped - device->leaves_mapped - workspaces,
		    recording->leaves_mapped);
	CHECK_EQUAL(totals->leaves_unmapped - device->leaves_unmapped, recording->leaves_unmapped);
}

static void compare_ends(struct machine *machine, const struct replay_recording *recording)
{
	CHECK_EQUAL(machine_read_counters(machine), 0);
	for (size_t i = 0; i < machine->n_functions; i++) {
		struct function *function = &machine->functions[i];

		check_step("function %u at the end", function->id);
		CHECK_EQUAL(function->live_leaves - function->workspace.n_pages,
			    recording->live[i]);
		check_all_leaves(machine, function);
	}
}

static void change_some(struct machine *machine)
{
	for (size_t i = 0; i < machine->n_functions; i++) {
		check_step("function %u: changes after the recording", machine->functions[i].id);
		CHECK_EQUAL(replay_device_change_some(machine, &machine->functions[i]), 0);
	}
}

static void tell(const struct machine *machine, const struct replay_device *device)
{
	const uint64_t *n = device->accesses;

	printf("  %" PRIu64 " refreshes, %" PRIu64 " and %" PRIu64
	       " calls of the backend that map and unmap\n"
	       "  by DMA: %" PRIu64 " reads, %" PRIu64 " writes; blocked: %" PRIu64
	       " reads, %" PRIu64 " writes, %" PRIu64 " writes to read-only leaves\n"
	       "  %" PRIu64 " blocked ones reported, %" PRIu64 " recoveries of a function, %" PRIu64
	       " looks at what is pinned\n",
	       machine->totals.refreshes, machine->totals.backend_maps,
	       machine->totals.backend_unmaps, n[REPLAY_READ], n[REPLAY_WRITE],
	       n[REPLAY_BLOCKED_READ], n[REPLAY_BLOCKED_WRITE], n[REPLAY_READ_ONLY_WRITE],
	       device->reported, device->recoveries, device->pins_seen);
}

/* A run that tried nothing would show nothing. */
static void compare_effort(const struct replay_device *device)
{
	for (size_t i = 0; i < REPLAY_ACCESSES; i++) {
		check_step("accesses of kind %zu", i);
		CHECK(device->accesses[i] > 0);
	}
	check_step("accesses that were blocked and reported");
	CHECK(device->reported > 0 || device->recoveries == 0);
	CHECK(device->pins_seen > 0);
	CHECK_EQUAL(device->pins_wrong, 0);
}

void replay_guest_run(const struct replay_recording *recording, const struct replay_place *place)
{
	static struct machine machine;
	struct replay_device device = {0};

	check_step("opening");
	guest_open(&machine, recording, place, &device);
	check_step("playing");
	guest_play(&machine, recording);
	compare_counts(&machine, recording, &device);
	compare_ends(&machine, recording);
	change_some(&machine);
	check_step("after all");
	CHECK_EQUAL(machine.totals.leaves_mapped, machine.totals.model_mapped);
	CHECK_EQUAL(machine.totals.leaves_unmapped, machine.totals.model_unmapped);
	CHECK(!replay_device_has_leaked(&machine));
	CHECK_EQUAL(proc_pinned_bytes(place->daemon), device.pinned_bytes);
	compare_effort(&device);
	tell(&machine, &device);
	check_step("closing");
	machine_close(&machine);
	CHECK_EQUAL(machine.totals.dma_failures, 0);
	CHECK_EQUAL(machine.totals.failures, 0);
}
