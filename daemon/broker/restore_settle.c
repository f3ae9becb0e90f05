/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a process before this one had begun and not answered, undone or finished; what no record
 * names, destroyed; everything in line with the guest's tables.
 */
#include "broker/restore.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/device.h"
#include "broker/domain.h"
#include "broker/memory.h"
#include "broker/memory_file.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "util/crash_point.h"
#include "util/log.h"

/* ── attached as recorded ──────────────────────────────────────────────────────────────────── */

static bool page_table_of(const struct device *device, const struct record_device *record,
			  const struct nested *nested, uint32_t *ret)
{
	switch ((enum attachment)record->attachment) {
	case ATTACHMENT_PARENT:
		*ret = record->page_table;
		return true;
	case ATTACHMENT_RELAXED:
		*ret = device->relaxed.domain.page_table;
		return device->relaxed.domain.made;
	case ATTACHMENT_NESTED:
		*ret = nested ? nested_backing_page_table(&nested->backing) : 0;
		return nested && !nested->broken;
	case ATTACHMENT_BLOCKED:
		break;
	}
	return false;
}

/* To attach it where it is attached does nothing, and to detach what is not, neither. */
static void device_settle(struct restoring *r, const struct record_device *record)
{
	struct device *device = restore_device_of(r, record->handle);
	struct nested *nested = restore_nested_of(r, record->attached);
	uint32_t page_table;

	if (!device || !device->bound)
		return;
	/* A domain that was being destroyed leaves its device blocked, and may have no page table
	 * any more. */
	if (record->attachment == ATTACHMENT_BLOCKED ||
	    (record->attachment == ATTACHMENT_NESTED && nested &&
	     nested->object.stage == RECORD_GOING)) {
		device_block(device, false);
	} else if (!page_table_of(device, record, nested, &page_table) ||
		   device_backend_attach(device, page_table)) {
		log_warning("guest '%s': function %s cannot be attached as it was: it is blocked",
			    r->guest->name, device->info.pci_address);
		device_block_broken(device, record->attached);
		/* Its ids can be another's before long. */
		if (record->attachment == ATTACHMENT_RELAXED)
			relaxed_free(r->guest, &device->relaxed);
	} else {
		device_set_attachment(device, record->attachment,
				      record->attachment == ATTACHMENT_NESTED ? nested : NULL);
	}
}

/* ── what was under way ────────────────────────────────────────────────────────────────────── */

static void unmap_all(struct guest *guest, const struct region_list *regions)
{
	for (size_t i = 0; i < regions->n; i++)
		parent_unmap(guest, &regions->items[i]);
}

/* The first device's bind: nothing of it is promised. */
static void settle_pins(struct restoring *r)
{
	bool binding = false;

	for (size_t i = 0; i < r->plan.n_devices; i++)
		binding |= r->plan.devices[i].stage == RECORD_BINDING;
	if (binding && !r->guest->pinned)
		unmap_all(r->guest, &r->guest->regions);
}

/* Everything that shows memory of which nobody knows whether it is there. */
static void memory_hide(struct restoring *r, const struct memory_view *kept)
{
	struct nested *nested;

	DL_FOREACH (r->guest->nested, nested) {
		nested_lane_enter(nested);
		nested_drop_memory(nested, guest_view(r->guest), kept);
		nested_publish_stats(nested);
		nested_lane_leave(nested);
	}
}

static void relaxed_each(struct restoring *r, const struct region_list *regions,
			 void (*each)(struct guest *guest, struct device *device,
				      struct relaxed *relaxed, struct nested *nested,
				      const struct region *region))
{
	struct guest *guest = r->guest;
	struct device *device;
	struct nested *nested;

	for (size_t i = 0; i < regions->n; i++) {
		DL_FOREACH (guest->devices, device)
			if (device->relaxed.domain.made)
				each(guest, device, &device->relaxed, NULL, &regions->items[i]);
		DL_FOREACH (guest->nested, nested)
			if (nested->backing.relaxed.domain.made)
				each(guest, nested->device, &nested->backing.relaxed, nested,
				     &regions->items[i]);
	}
}

static void relaxed_lost(struct guest *guest, struct device *device, struct relaxed *relaxed,
			 struct nested *nested)
{
	device_block_broken(device, nested ? nested->object.handle : 0);
	relaxed_free(guest, relaxed);
	if (nested)
		nested->broken = true;
}

static void relaxed_hide(struct guest *guest, struct device *device, struct relaxed *relaxed,
			 struct nested *nested, const struct region *region)
{
	if (!relaxed_remove(guest, relaxed, region))
		relaxed_lost(guest, device, relaxed, nested);
}

static void relaxed_show(struct guest *guest, struct device *device, struct relaxed *relaxed,
			 struct nested *nested, const struct region *region)
{
	if (relaxed->domain.made && relaxed_complete(guest, relaxed, region))
		relaxed_lost(guest, device, relaxed, nested);
}

static void region_lose(struct restoring *r, const struct region *lost)
{
	struct guest *guest = r->guest;
	struct ledger_amounts amounts = {0};
	const struct event event = {
		.kind = EVENT_MEMORY_LOST,
		.guest = guest->object.handle,
		.gpa = lost->gpa,
	};
	struct region_list one = {.n = 1, .items = (struct region *)lost};
	size_t i = 0;

	while (guest->regions.items[i].gpa != lost->gpa)
		i++;
	amounts.amount[LEDGER_PINNED_BYTES] = lost->length;
	amounts.amount[LEDGER_REGIONS] = region_list_cost(&one);
	lost->file->n_regions--;
	frame_counters_put(guest->regions.items[i].counters);
	memmove(&guest->regions.items[i], &guest->regions.items[i + 1],
		(--guest->regions.n - i) * sizeof(guest->regions.items[0]));
	ledger_refund(&guest->broker->ledger, &guest->account, &amounts);
	event_post(guest->events, &event);
}

/* An update of the memory map that was not answered is undone. */
static int settle_memory(struct restoring *r)
{
	struct guest *guest = r->guest;
	struct memory_view *kept, *all;

	if (!r->going.n && !r->making.n)
		return 0;
	kept = memory_view_of(&r->live);
	if (!kept)
		return restore_fail(r, "no memory");
	memory_hide(r, kept);
	free(kept);
	relaxed_each(r, &r->making, relaxed_hide);
	relaxed_each(r, &r->going, relaxed_hide);
	/* What came was mapped only when what goes was gone. */
	unmap_all(guest, &r->making);
	unmap_all(guest, &r->going);
	for (size_t i = 0; i < r->going.n; i++) {
		struct pin_progress progress = {.total_bytes = r->going.items[i].length};

		if (parent_map(guest, &r->going.items[i], &progress, &r->refusal))
			region_lose(r, &r->going.items[i]);
	}
	all = memory_view_of(&guest->regions);
	if (!all)
		return restore_fail(r, "no memory");
	free(memory_publish(guest, all));
	return 0;
}

/* Also those of which a fill or a change of the memory map was cut short. */
static void settle_relaxed(struct restoring *r)
{
	relaxed_each(r, &r->guest->regions, relaxed_show);
}

static void settle_going(struct restoring *r)
{
	struct device *device, *next_device;
	struct nested *nested, *next;

	DL_FOREACH_SAFE(r->guest->nested, nested, next)
	{
		if (nested->object.stage == RECORD_GOING)
			nested_drop(nested);
	}
	DL_FOREACH_SAFE(r->guest->devices, device, next_device)
	{
		if (device->object.stage == RECORD_GOING)
			device_take_down(device, NULL);
	}
}

/* ── what no record names ──────────────────────────────────────────────────────────────────── */

static bool domain_has(const struct domain *domain, uint32_t id)
{
	return domain->made && (domain->ioas == id || domain->page_table == id);
}

static bool id_is_ours(const struct restoring *r, uint32_t id)
{
	const struct guest *guest = r->guest;
	const struct device *device;
	const struct nested *nested;

	if (guest->parent.ioas == id)
		return true;
	for (size_t i = 0; i < guest->parent.n_page_tables; i++)
		if (guest->parent.page_tables[i] == id)
			return true;
	for (size_t i = 0; i < r->plan.n_leftovers; i++)
		if (r->plan.leftovers[i].ioas == id || r->plan.leftovers[i].page_table == id)
			return true;
	DL_FOREACH (guest->devices, device)
		if (device->kernel_id == id || domain_has(&device->relaxed.domain, id))
			return true;
	DL_FOREACH (guest->nested, nested)
		if (domain_has(&nested->backing.domain, id) ||
		    domain_has(&nested->backing.relaxed.domain, id))
			return true;
	return false;
}

/* Page tables are made after what they are over; one more pass for what was still in use. */
static void sweep(struct restoring *r)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);

	for (int pass = 0; pass < 2; pass++)
		for (uint32_t id = r->plan.guest.highest_id + RESTORE_IDS_BEYOND; id; id--)
			if (!id_is_ours(r, id))
				ops->destroy(r->guest->context, id);
}

/* ── in line ───────────────────────────────────────────────────────────────────────────────── */

static void reconcile(struct restoring *r)
{
	struct range_result walk;
	struct nested *nested;

	DL_FOREACH (r->guest->nested, nested)
		nested_reconcile(nested, &walk);
}

static int guest_announce(struct restoring *r)
{
	struct guest *guest = r->guest;
	const struct event event = {
		.kind = EVENT_RESUMED,
		.guest = r->plan.guest.handle,
	};

	if (handle_publish_as(r->broker, &guest->object, r->plan.guest.handle, &r->refusal))
		return restore_fail(r, "its handle is another guest's");
	pthread_mutex_lock(&r->broker->lock);
	guest_set_limits(guest);
	pthread_mutex_unlock(&r->broker->lock);
	event_post(guest->events, &event);
	return 0;
}

static int state_save(struct restoring *r)
{
	if (save_guest(r->guest, &r->refusal))
		return restore_fail_refused(r, "writing it down");
	atomic_store(state_word(r->guest->kept.state, GUEST_WORD_TRIES), 0);
	return 0;
}

int restore_settle(struct restoring *r)
{
	int status;

	for (size_t i = 0; i < r->plan.n_devices; i++)
		device_settle(r, &r->plan.devices[i]);
	restore_step(r, "attached", 0);
	CRASH_POINT(RESTORE_DEVICES);
	settle_pins(r);
	status = restore_step(r, "memory", settle_memory(r));
	if (!status)
		status = restore_step(r, "audited", restore_audit(r));
	if (status)
		return status;
	settle_relaxed(r);
	restore_step(r, "relaxed", 0);
	settle_going(r);
	restore_step(r, "going", 0);
	/* Some went before it died, and their ids are the next objects': none may stay in the list.
	 */
	domain_settle(r->guest);
	CRASH_POINT(RESTORE_SETTLED);
	sweep(r);
	restore_step(r, "swept", 0);
	CRASH_POINT(RESTORE_SWEPT);
	reconcile(r);
	restore_step(r, "reconciled", 0);
	CRASH_POINT(RESTORE_RECONCILED);
	/* Where the kernel counts by process, it is ours now; where not, nothing is wrong. */
	r->uncounted_error = broker_ops(r->broker)->context_change_process(r->guest->context);
	restore_step(r, "counted", -r->uncounted_error);
	status = restore_step(r, "announced", guest_announce(r));
	if (!status)
		status = restore_step(r, "saved", state_save(r));
	CRASH_POINT(RESTORE_DONE);
	return status;
}
