/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the records of a guest name, built again over the stored descriptors: nothing is changed in
 * the kernel but that ranges of runs that were under way are cut.
 */
#include "broker/restore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/device.h"
#include "broker/domain.h"
#include "broker/memory.h"
#include "broker/memory_file.h"
#include "broker/nested.h"
#include "broker/ring.h"
#include "broker/root.h"
#include "util/crash_point.h"
#include "util/fd.h"
#include "util/log.h"

/* Deaths in a row while this guest was being taken over, after which it is not any more: it would
 * be what they are for. */
#define TRIES_MAX 10

/* ── the file ──────────────────────────────────────────────────────────────────────────────── */

static int state_read(struct restoring *r)
{
	const char *why = "";
	const void *content;
	size_t n;
	int fd = restore_fd_take(r, FD_STATE, 0), status;

	/* It is stored before all else of a guest: without it nobody can say what was promised. */
	r->promised = true;
	if (fd < 0)
		return restore_fail_missing(r, "the state file", 0);
	state_file_name(fd, r->name);
	status = state_file_adopt(&r->state, fd, &why);
	if (status)
		return restore_fail(r, status == -EBADMSG ? why : strerror(-status));
	content = state_file_content(r->state, &n);
	r->promised = content;
	if (!content)
		return restore_fail(r, "it was still being made");
	if (atomic_fetch_add(state_word(r->state, GUEST_WORD_TRIES), 1) >= TRIES_MAX)
		return restore_fail(r, "this daemon has died over it again and again");
	status = restore_plan_read(&r->plan, content, n, r->why);
	if (status)
		return status;
	memcpy(r->name, r->plan.guest.name, sizeof(r->name));
	if (r->plan.guest.number && r->plan.guest.number != r->number + 1)
		return restore_fail(r, "its state is another guest's");
	return 0;
}

/* ── what it has ───────────────────────────────────────────────────────────────────────────── */

static int context_build(struct restoring *r)
{
	const struct record_guest *record = &r->plan.guest;
	struct guest *guest = r->guest;
	int fd = restore_fd_take(r, FD_CONTEXT, 0), error;

	if (fd < 0 && record->stage == RECORD_GOING)
		return 0; /* all of it has gone */
	if (fd < 0)
		return restore_fail_missing(r, "the context", 0);
	error = broker_ops(r->broker)->context_adopt(r->broker->backend, fd, &guest->context);
	if (error)
		return restore_fail(r, strerror(error));
	guest->parent.made = true;
	guest->parent.ioas = record->parent_ioas;
	guest->parent.n_page_tables = record->n_page_tables;
	memcpy(guest->parent.page_tables, record->page_tables, sizeof(record->page_tables));
	guest->pinned = record->pinned;
	CRASH_POINT(RESTORE_ADOPTED);
	return 0;
}

static int files_build(struct restoring *r)
{
	for (size_t i = 0; i < r->plan.n_files; i++) {
		const struct record_file *record = &r->plan.files[i];
		int fd = restore_fd_take(r, FD_MEMORY, record->index);

		if (fd < 0 && r->plan.guest.stage == RECORD_GOING)
			continue;
		if (fd < 0)
			return restore_fail_missing(r, "memory file", record->index);
		if (memory_file_restore(r->guest, record, fd, &r->refusal))
			return restore_fail_refused(r, "memory file");
	}
	return 0;
}

static struct memory_file *file_of(const struct restoring *r, uint64_t handle)
{
	struct memory_file *file;

	DL_FOREACH (r->guest->files, file)
		if (file->object.handle == handle)
			break;
	return file;
}

static int region_build(struct restoring *r, const struct record_region *record)
{
	struct region region = {
		.file = file_of(r, record->file),
		.offset = record->offset,
		.gpa = record->gpa,
		.length = record->length,
		.granule = record->granule,
		.area_bytes = record->area_bytes,
		.writable = record->writable,
	};
	struct region_list *list = record->stage == RECORD_LIVE    ? &r->live
				   : record->stage == RECORD_GOING ? &r->going
								   : &r->making;

	if (!region.file)
		return r->plan.guest.stage == RECORD_GOING
			       ? 0
			       : restore_fail(r, "a region without file");
	if (region.area_bytes > r->broker->slice_bytes)
		return restore_fail(r, "a region whose areas are larger than a slice");
	if (record->stage != RECORD_MAKING) {
		region.counters = frame_counters_new(region.length);
		if (!region.counters)
			return restore_fail(r, "no memory");
	}
	if (!region_list_push(list, &region))
		return 0;
	frame_counters_put(region.counters);
	return restore_fail(r, "no memory");
}

/* Live and going ones are charged: those that go come back. */
static void regions_charge(struct restoring *r)
{
	struct ledger_amounts amounts = {0};

	amounts.amount[LEDGER_PINNED_BYTES] =
		region_list_bytes(&r->live) + region_list_bytes(&r->going);
	amounts.amount[LEDGER_REGIONS] = region_list_cost(&r->live) + region_list_cost(&r->going);
	ledger_take_over(&r->broker->ledger, &r->guest->account, &amounts);
}

/* From here on they are the guest's, and go with it. */
static int regions_own(struct restoring *r)
{
	struct guest *guest = r->guest;
	struct region_list all = {0};
	int error = 0;

	for (size_t i = 0; !error && i < r->live.n; i++)
		error = region_list_push(&all, &r->live.items[i]);
	for (size_t i = 0; !error && i < r->going.n; i++)
		error = region_list_push(&all, &r->going.items[i]);
	if (error) {
		region_list_clear(&all);
		return restore_fail(r, "no memory");
	}
	region_list_sort(&all);
	guest->regions = all;
	for (size_t i = 0; i < guest->regions.n; i++)
		guest->regions.items[i].file->n_regions++;
	regions_charge(r);
	r->owned = true;
	return 0;
}

static int regions_build(struct restoring *r)
{
	struct memory_view *view;
	int status = 0;

	for (size_t i = 0; !status && i < r->plan.n_regions; i++)
		status = region_build(r, &r->plan.regions[i]);
	if (!status)
		status = regions_own(r);
	if (status)
		return status;
	view = memory_view_of(&r->guest->regions);
	if (!view)
		return restore_fail(r, "no memory");
	free(memory_publish(r->guest, view));
	return 0;
}

static bool id_is_recorded(const struct restoring *r, uint32_t id)
{
	const struct restore_plan *plan = &r->plan;

	for (size_t i = 0; i < plan->n_devices; i++)
		if (plan->devices[i].kernel_id == id && plan->devices[i].stage != RECORD_BINDING)
			return true;
	return false;
}

/* Bound by a process that died before it could say so: the one id of a device that no record has.
 */
static uint32_t id_of_binding(const struct restoring *r)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);

	for (uint32_t id = 1; id <= r->plan.guest.highest_id + RESTORE_IDS_BEYOND; id++) {
		bool is_device = false;

		if (!id_is_recorded(r, id) &&
		    !ops->context_has_device(r->guest->context, id, &is_device) && is_device)
			return id;
	}
	return 0;
}

static uint32_t kernel_id_of(const struct restoring *r, const struct record_device *record)
{
	if (record->stage == RECORD_BINDING && !record->bound)
		return id_of_binding(r);
	return record->kernel_id;
}

/* Of one that cannot be taken over the descriptor stays: it is to be stopped. */
static int device_build(struct restoring *r, const struct record_device *record)
{
	int fd = restore_fd_take(r, FD_DEVICE, record->index);
	uint32_t id;

	if (fd < 0 && (record->stage == RECORD_GOING || r->plan.guest.stage == RECORD_GOING))
		return 0; /* that far it had come */
	if (fd < 0)
		return restore_fail_missing(r, "device", record->index);
	id = kernel_id_of(r, record);
	if (device_restore(r->guest, record, fd_duplicate(fd), id, &r->refusal)) {
		restore_fd_give_back(r, FD_DEVICE, record->index, fd);
		return restore_fail_refused(r, record->pci_address);
	}
	fd_close(fd);
	/* One that was being bound has the latest of all, which no record knows. */
	save_note_id(r->guest, id);
	return 0;
}

struct device *restore_device_of(const struct restoring *r, uint64_t handle)
{
	struct device *device;

	DL_FOREACH (r->guest->devices, device)
		if (device->object.handle == handle)
			break;
	return device;
}

struct nested *restore_nested_of(const struct restoring *r, uint64_t handle)
{
	struct nested *nested;

	DL_FOREACH (r->guest->nested, nested)
		if (nested->object.handle == handle)
			break;
	return nested;
}

static int nested_build(struct restoring *r, const struct record_nested *record)
{
	struct device *device = restore_device_of(r, record->device);

	if (!device) /* it was closed: what is left goes with what no record names */
		return 0;
	if (nested_restore(device, record, guest_view(r->guest), &r->refusal))
		return restore_fail_refused(r, "nested domain");
	return 0;
}

static int devices_build(struct restoring *r)
{
	int status = 0;

	for (size_t i = 0; !status && i < r->plan.n_devices; i++) {
		const struct record_device *record = &r->plan.devices[i];
		struct device *device;

		status = device_build(r, record);
		device = restore_device_of(r, record->handle);
		if (!status && device &&
		    relaxed_take_over(&device->relaxed, &record->relaxed, &r->refusal))
			status = restore_fail_refused(r, "relaxed mapping");
	}
	for (size_t i = 0; !status && i < r->plan.n_nested; i++)
		status = nested_build(r, &r->plan.nested[i]);
	for (size_t i = 0; !status && i < r->plan.n_leftovers; i++) {
		const struct record_leftover *record = &r->plan.leftovers[i];

		status = domain_restore_leftover(r->guest, record->ioas, record->page_table,
						 record->has_page_table, &r->refusal);
	}
	return status;
}

/* ── update rings ─────────────────────────────────────────────────────────────────────────── */

static bool ring_is_sound(const struct record_ring *record)
{
	return record->handle && record->index < RING_INDICES_MAX && record->lanes &&
	       record->lanes <= BROKER_RING_LANES_MAX;
}

static struct ring_parts ring_parts_of(struct restoring *r, const struct record_ring *record)
{
	struct ring_parts parts = {
		.lanes = record->lanes,
		.entries = record->entries,
		.memory = restore_fd_take(r, FD_RING, RING_FD_MEMORY(record->index)),
		.state = restore_fd_take(r, FD_RING, RING_FD_STATE(record->index)),
		.submit = restore_fd_take(r, FD_DOORBELL, RING_FD_SUBMIT(record->index)),
	};

	for (uint32_t i = 0; i < record->lanes; i++)
		parts.complete[i] =
			restore_fd_take(r, FD_DOORBELL, RING_FD_COMPLETE(record->index, i));
	return parts;
}

/* A guest lives without them: its client sees at the doorbells that one has ended. */
static void ring_build(struct restoring *r, const struct record_ring *record)
{
	struct record_session *owner = restore_plan_session(&r->plan, record->session);
	struct ring_parts parts;
	struct session *session;
	bool lives;

	if (!ring_is_sound(record)) {
		log_error("guest '%s': the record of an update ring is damaged: it has ended",
			  r->guest->name);
		return;
	}
	session = owner ? restore_session(r, owner) : NULL;
	lives = session && !session->gone;
	parts = ring_parts_of(r, record);
	if (!ring_restore(r->guest, lives ? session : NULL, record, &parts) && lives)
		log_error("guest '%s': an update ring of session %" PRIu64
			  " cannot be taken over: it has ended",
			  r->guest->name, record->session);
	session_unref(session);
}

static int rings_build(struct restoring *r)
{
	for (size_t i = 0; i < r->plan.n_rings; i++)
		ring_build(r, &r->plan.rings[i]);
	return 0;
}

int restore_guest(struct restoring *r)
{
	int status = restore_step(r, "state", state_read(r));

	if (!status)
		status = restore_step(r, "guest", restore_guest_itself(r));
	if (!status)
		status = restore_step(r, "context", context_build(r));
	if (status || !r->guest->context)
		return status;
	status = restore_step(r, "files", files_build(r));
	if (!status)
		status = restore_step(r, "regions", regions_build(r));
	if (!status)
		status = restore_step(r, "devices", devices_build(r));
	return status ? status : restore_step(r, "rings", rings_build(r));
}
