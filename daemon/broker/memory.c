/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An update of the guest's memory map, as a whole or not at all.
 *
 * What can fail for want of memory or quota is had before anything is done: the lists, the views,
 * the counters, the charge. What goes is taken away before what comes is mapped, as both may lie at
 * the same guest address; if then something cannot be mapped, what went is mapped again. Its pages
 * are there, it was pinned a moment ago; if even that fails, the region is lost, and said so.
 *
 * Walks. A view is published without what goes, so that walks can neither read nor show it any
 * more; then every nested domain's lane is entered in turn and what shows it is cut. Behind the
 * last lane nobody uses the old view: walks take the view after they have the lane, and give it up
 * with it. Only then the parent is unmapped. What comes is published when it is mapped and was
 * looked at a second time.
 *
 * The charge. While the update runs the ledger holds the larger of old and new for each resource.
 */
#include "broker/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <utlist.h>

#include "broker/device.h"
#include "broker/domain.h"
#include "broker/memory_file.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "util/crash_point.h"

struct memory_change {
	struct guest *guest;
	struct operation *operation;
	struct memory_plan plan;
	struct region_list pieces;                 /* kept and removed: the old map, in pieces */
	struct memory_view *middle, *final, *back; /* of kept, of final, of pieces */
	struct ledger_amounts growth, shrinkage;
	struct memory_updated result;
	uint64_t lost_bytes;
};

/* ── counters and views ────────────────────────────────────────────────────────────────────── */

struct frame_counters *frame_counters_new(uint64_t length_bytes)
{
	struct frame_counters *counters = malloc(sizeof(*counters));
	void *counts;

	if (!counters)
		return NULL;
	/* 2 bytes for each 4 KiB; what no leaf ever shows costs address space only. */
	counters->refs = 1;
	counters->bytes = length_bytes / 4096 * sizeof(uint16_t);
	counts = mmap(NULL, counters->bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (counts == MAP_FAILED) {
		free(counters);
		return NULL;
	}
	counters->counts = counts;
	return counters;
}

void frame_counters_put(struct frame_counters *counters)
{
	if (!counters || --counters->refs)
		return;
	munmap((void *)counters->counts, counters->bytes);
	free(counters);
}

struct memory_view *memory_view_of(const struct region_list *regions)
{
	struct memory_view *view = calloc(1, sizeof(*view) + regions->n * sizeof(view->regions[0]));

	if (!view)
		return NULL;
	view->n_regions = regions->n;
	for (size_t i = 0; i < regions->n; i++) {
		const struct region *region = &regions->items[i];

		view->regions[i] = (struct memory_view_region){
			.gpa_first = region->gpa,
			.gpa_last = region->gpa + region->length - 1,
			.host = region->file->host + region->offset,
			.writable = region->writable,
			.aliases = region->counters->counts + region->first_counter,
		};
	}
	return view;
}

struct memory_view *memory_publish(struct guest *guest, struct memory_view *consume)
{
	consume->generation = ++guest->generation;
	return atomic_exchange_explicit(&guest->view, consume, memory_order_acq_rel);
}

/* Whoever still walks with an older view holds a lane: once each was entered, nobody does. */
static void memory_pass_lanes(struct guest *guest)
{
	struct nested *nested;

	DL_FOREACH (guest->nested, nested) {
		nested_lane_enter(nested);
		nested_lane_leave(nested);
	}
}

/* ── prepare ───────────────────────────────────────────────────────────────────────────────── */

static int change_make_counters(struct memory_change *change)
{
	struct region_list *added = &change->plan.added, *final = &change->plan.final;
	size_t k = 0;

	for (size_t i = 0; i < added->n; i++) {
		added->items[i].first_counter = 0;
		added->items[i].counters = frame_counters_new(added->items[i].length);
		if (!added->items[i].counters)
			return -ENOMEM;
		/* Both lists are sorted. */
		while (final->items[k].gpa != added->items[i].gpa)
			k++;
		final->items[k] = added->items[i];
	}
	return 0;
}

static int change_make_pieces(struct memory_change *change)
{
	const struct region_list *kept = &change->plan.kept, *removed = &change->plan.removed;
	int error = 0;

	for (size_t i = 0; !error && i < kept->n; i++)
		error = region_list_push(&change->pieces, &kept->items[i]);
	for (size_t i = 0; !error && i < removed->n; i++)
		error = region_list_push(&change->pieces, &removed->items[i]);
	region_list_sort(&change->pieces);
	return error;
}

static int change_prepare(struct memory_change *change, struct refusal *refusal)
{
	if (change_make_counters(change) || change_make_pieces(change))
		return refuse_errno(refusal, ENOMEM, "memory map");
	region_list_sort_by_file(&change->plan.added); /* the order in which files are looked at */
	change->middle = memory_view_of(&change->plan.kept);
	change->final = memory_view_of(&change->plan.final);
	change->back = memory_view_of(&change->pieces);
	if (!change->middle || !change->final || !change->back)
		return refuse_errno(refusal, ENOMEM, "memory map");
	return 0;
}

static void change_clear(struct memory_change *change)
{
	for (size_t i = 0; i < change->plan.added.n; i++)
		frame_counters_put(change->plan.added.items[i].counters);
	free(change->middle);
	free(change->final);
	free(change->back);
	region_list_clear(&change->pieces);
	memory_plan_clear(&change->plan);
}

static void change_set_amount(struct memory_change *change, enum ledger_resource resource,
			      uint64_t old, uint64_t new)
{
	change->growth.amount[resource] = new > old ? new - old : 0;
	change->shrinkage.amount[resource] = old > new ? old - new : 0;
}

static int change_charge(struct memory_change *change, struct refusal *refusal)
{
	struct guest *guest = change->guest;

	change_set_amount(change, LEDGER_PINNED_BYTES, region_list_bytes(&guest->regions),
			  region_list_bytes(&change->plan.final));
	change_set_amount(change, LEDGER_REGIONS, region_list_cost(&guest->regions),
			  region_list_cost(&change->plan.final));
	return ledger_charge(&guest->broker->ledger, &guest->account, &change->growth, refusal);
}

static void change_refund(struct memory_change *change, const struct ledger_amounts *amounts)
{
	ledger_refund(&change->guest->broker->ledger, &change->guest->account, amounts);
}

static void region_field(char field[64], const struct region *region)
{
	snprintf(field, 64, "map[%zu]", region->request_index);
}

static int change_populate(struct memory_change *change, struct refusal *refusal)
{
	struct file_look look = {0};
	char field[64];

	for (size_t i = 0; i < change->plan.added.n; i++) {
		const struct region *region = &change->plan.added.items[i];

		region_field(field, region);
		if (parent_populate(change->guest, region, field, change->operation, &look,
				    refusal))
			return REFUSED;
	}
	return 0;
}

/* ── take away ─────────────────────────────────────────────────────────────────────────────── */

static uint64_t nested_leaves(const struct nested *nested)
{
	return nested->stats.leaves;
}

static void change_drop_from(struct memory_change *change, struct nested *nested,
			     const struct memory_view *old)
{
	uint64_t before = nested_leaves(nested);

	nested_lane_enter(nested);
	nested_drop_memory(nested, old, guest_view(change->guest));
	nested_publish_stats(nested);
	nested_lane_leave(nested);
	/* Refreshes that ran in between may have added some. */
	if (before > nested_leaves(nested))
		change->result.leaves_dropped += before - nested_leaves(nested);
}

/* Both kinds of relaxed mapping follow: call for each, with the device to block if it cannot. */
static void relaxed_lost(struct device *device, struct relaxed *relaxed, struct nested *nested)
{
	device_block_broken(device, nested ? nested->object.handle : 0);
	relaxed_free(device->object.guest, relaxed);
	if (nested)
		nested->broken = true;
}

static void change_relaxed_remove(struct memory_change *change, const struct region_list *regions)
{
	struct guest *guest = change->guest;
	struct device *device;
	struct nested *nested;

	for (size_t i = 0; i < regions->n; i++) {
		const struct region *region = &regions->items[i];

		DL_FOREACH (guest->devices, device)
			if (device->relaxed.domain.made &&
			    !relaxed_remove(guest, &device->relaxed, region))
				relaxed_lost(device, &device->relaxed, NULL);
		DL_FOREACH (guest->nested, nested)
			if (nested->backing.relaxed.domain.made &&
			    !relaxed_remove(guest, &nested->backing.relaxed, region))
				relaxed_lost(nested->device, &nested->backing.relaxed, nested);
	}
}

static void change_take_away(struct memory_change *change)
{
	struct guest *guest = change->guest;
	struct memory_view *old;
	struct nested *nested;

	if (!change->plan.removed.n)
		return;
	old = memory_publish(guest, change->middle);
	change->middle = NULL;
	CRASH_POINT(MEMORY_HIDDEN);
	DL_FOREACH (guest->nested, nested) {
		change_drop_from(change, nested, old);
		CRASH_POINT(MEMORY_CUT);
	}
	free(old);
	change_relaxed_remove(change, &change->plan.removed);
	CRASH_POINT(MEMORY_RELAXED_CUT);
	for (size_t i = 0; guest->pinned && i < change->plan.removed.n; i++)
		parent_unmap(guest, &change->plan.removed.items[i]);
	CRASH_POINT(MEMORY_UNMAPPED);
}

/* ── bring in ──────────────────────────────────────────────────────────────────────────────── */

static void parent_unmap_list(struct guest *guest, const struct region_list *regions, size_t n)
{
	for (size_t i = 0; i < n; i++)
		parent_unmap(guest, &regions->items[i]);
}

static int change_map(struct memory_change *change, struct refusal *refusal)
{
	struct guest *guest = change->guest;
	const struct region_list *added = &change->plan.added;
	struct file_look look = {0};
	struct pin_progress progress = {
		.operation = change->operation,
		.total_bytes = region_list_bytes(added),
	};

	for (size_t i = 0; i < added->n; i++) {
		if (parent_map(guest, &added->items[i], &progress, refusal)) {
			parent_unmap_list(guest, added, i);
			return REFUSED;
		}
	}
	for (size_t i = 0; i < added->n; i++) {
		if (parent_check_populated(guest, &added->items[i], &look, refusal)) {
			parent_unmap_list(guest, added, added->n);
			return REFUSED;
		}
	}
	return 0;
}

static int relaxed_add_all(struct guest *guest, const struct region *region)
{
	struct device *device;
	struct nested *nested;
	int error = 0;

	DL_FOREACH (guest->devices, device)
		if (!error && device->relaxed.domain.made)
			error = relaxed_add(guest, &device->relaxed, region);
	DL_FOREACH (guest->nested, nested)
		if (!error && nested->backing.relaxed.domain.made)
			error = relaxed_add(guest, &nested->backing.relaxed, region);
	return error;
}

static int change_relaxed_add(struct memory_change *change, struct refusal *refusal)
{
	const struct region_list *added = &change->plan.added;

	for (size_t i = 0; i < added->n; i++) {
		int error = relaxed_add_all(change->guest, &added->items[i]);

		if (error) {
			/* Takes what is there, also of the one that failed half way. */
			change_relaxed_remove(change, added);
			return refuse_errno(refusal, error, "following in a relaxed mapping");
		}
	}
	return 0;
}

static int change_bring_in(struct memory_change *change, struct refusal *refusal)
{
	struct guest *guest = change->guest;

	if (!guest->pinned)
		return 0;
	if (change_map(change, refusal))
		return REFUSED;
	CRASH_POINT(MEMORY_MAPPED);
	if (!change_relaxed_add(change, refusal)) {
		CRASH_POINT(MEMORY_FOLLOWED);
		return 0;
	}
	parent_unmap_list(guest, &change->plan.added, change->plan.added.n);
	return REFUSED;
}

static void change_reconcile(struct memory_change *change)
{
	struct range_result walk;
	struct nested *nested;

	DL_FOREACH (change->guest->nested, nested) {
		nested_reconcile(nested, &walk);
		change->result.leaves_restored += walk.mapped;
	}
}

/* ── settle ────────────────────────────────────────────────────────────────────────────────── */

/* The guest's list becomes this one. */
static void change_commit(struct memory_change *change, struct region_list *consume)
{
	struct guest *guest = change->guest;
	struct region_list old;

	for (size_t i = 0; i < consume->n; i++) {
		consume->items[i].counters->refs++;
		consume->items[i].file->n_regions++;
	}
	pthread_mutex_lock(&guest->lock);
	old = guest->regions;
	guest->regions = *consume;
	pthread_mutex_unlock(&guest->lock);
	*consume = (struct region_list){0};
	for (size_t i = 0; i < old.n; i++) {
		frame_counters_put(old.items[i].counters);
		old.items[i].file->n_regions--;
	}
	region_list_clear(&old);
}

static void change_publish(struct memory_change *change, struct memory_view **consume)
{
	struct memory_view *old = memory_publish(change->guest, *consume);

	*consume = NULL;
	memory_pass_lanes(change->guest);
	free(old);
}

static void change_succeed(struct memory_change *change)
{
	struct guest *guest = change->guest;

	change_publish(change, &change->final);
	CRASH_POINT(MEMORY_SHOWN);
	change_commit(change, &change->plan.final);
	change_refund(change, &change->shrinkage);
	CRASH_POINT(MEMORY_LISTED);
	change_reconcile(change);
	CRASH_POINT(MEMORY_RECONCILED);
	change->result.pinned = guest->pinned;
	change->result.region_bytes = region_list_bytes(&guest->regions);
}

/* ── put back ──────────────────────────────────────────────────────────────────────────────── */

static void view_forget(struct memory_view *view, uint64_t gpa)
{
	size_t i = 0;

	while (view->regions[i].gpa_first != gpa)
		i++;
	memmove(&view->regions[i], &view->regions[i + 1],
		(--view->n_regions - i) * sizeof(view->regions[0]));
}

static void list_forget(struct region_list *list, uint64_t gpa)
{
	size_t i = 0;

	while (list->items[i].gpa != gpa)
		i++;
	memmove(&list->items[i], &list->items[i + 1], (--list->n - i) * sizeof(list->items[0]));
}

static void change_lose(struct memory_change *change, const struct region *region)
{
	struct guest *guest = change->guest;
	const struct event event = {
		.kind = EVENT_MEMORY_LOST,
		.guest = guest->object.handle,
		.gpa = region->gpa,
	};

	view_forget(change->back, region->gpa);
	list_forget(&change->pieces, region->gpa);
	change->lost_bytes += region->length;
	if (!guest->dying)
		event_post(guest->events, &event);
}

/* The pieces that are left are the guest's memory from now on. They never count for more than the
 * regions that they were: a piece that stays got a granule at least as coarse. */
static void change_settle_loss(struct memory_change *change, struct refusal *refusal)
{
	struct guest *guest = change->guest;
	struct ledger_amounts lost = {0};
	size_t used = strlen(refusal->message);

	lost.amount[LEDGER_PINNED_BYTES] = change->lost_bytes;
	lost.amount[LEDGER_REGIONS] =
		region_list_cost(&guest->regions) - region_list_cost(&change->pieces);
	change_commit(change, &change->pieces);
	change_refund(change, &lost);
	snprintf(refusal->message + used, sizeof(refusal->message) - used,
		 "; and %llu bytes of guest memory could not be put back",
		 (unsigned long long)change->lost_bytes);
}

static void relaxed_restore(struct guest *guest, const struct region *region)
{
	struct device *device;
	struct nested *nested;

	DL_FOREACH (guest->devices, device)
		if (device->relaxed.domain.made && relaxed_add(guest, &device->relaxed, region))
			relaxed_lost(device, &device->relaxed, NULL);
	DL_FOREACH (guest->nested, nested)
		if (nested->backing.relaxed.domain.made &&
		    relaxed_add(guest, &nested->backing.relaxed, region))
			relaxed_lost(nested->device, &nested->backing.relaxed, nested);
}

/* Not to be stopped but by the end of the guest. */
static bool change_map_back(struct memory_change *change, const struct region *region)
{
	struct pin_progress progress = {.total_bytes = region->length};
	struct refusal refusal;

	for (int i = 0; i < BROKER_TRIES; i++)
		if (!parent_map(change->guest, region, &progress, &refusal))
			return true;
	return false;
}

/* What came has been taken away again. */
static void change_put_back(struct memory_change *change, struct refusal *refusal)
{
	struct guest *guest = change->guest;

	if (!change->plan.removed.n)
		return;
	for (size_t i = 0; guest->pinned && i < change->plan.removed.n; i++) {
		const struct region *region = &change->plan.removed.items[i];

		if (change_map_back(change, region))
			relaxed_restore(guest, region);
		else
			change_lose(change, region);
		CRASH_POINT(MEMORY_PUT_BACK);
	}
	change_publish(change, &change->back);
	if (change->lost_bytes)
		change_settle_loss(change, refusal);
	change_reconcile(change);
}

/* Before anything is done: a successor of this process puts back what this change took away, and
 * takes away what it brought. Until the next save, which is after the change. */
static int change_write_down(struct memory_change *change, struct refusal *refusal)
{
	struct guest_kept *kept = &change->guest->kept;
	int status;

	CRASH_POINT(MEMORY_POPULATED);
	if (!change->guest->pinned)
		return 0;
	kept->stay = &change->plan.kept;
	kept->go = &change->plan.removed;
	kept->come = &change->plan.added;
	status = save_guest(change->guest, refusal);
	kept->stay = kept->go = kept->come = NULL;
	CRASH_POINT(MEMORY_WRITTEN);
	/* What a call left that was never settled, as its session ended, shows memory still. */
	if (!status)
		domain_settle(change->guest);
	return status;
}

static int change_run(struct memory_change *change, struct refusal *refusal)
{
	if (change_prepare(change, refusal) || change_charge(change, refusal))
		return REFUSED;
	if (change_populate(change, refusal)) {
		change_refund(change, &change->growth);
		return REFUSED;
	}
	if (change_write_down(change, refusal)) {
		change_refund(change, &change->growth);
		return REFUSED;
	}
	change_take_away(change);
	if (change_bring_in(change, refusal)) {
		change_put_back(change, refusal);
		change_refund(change, &change->growth);
		return REFUSED;
	}
	change_succeed(change);
	return 0;
}

int memory_update(struct broker *broker, struct session *session, uint64_t guest_handle,
		  const struct memory_update_request *request, struct operation *operation,
		  struct memory_updated *ret, struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, session, guest_handle, refusal);
	struct memory_change change = {.guest = guest, .operation = operation};
	int status;

	if (!guest)
		return REFUSED;
	status = memory_plan_make(guest, request, &change.plan, refusal);
	if (!status) {
		status = change_run(&change, refusal);
		change_clear(&change);
	}
	if (!status)
		*ret = change.result;
	guest_unref(guest);
	return status;
}

void memory_drop(struct guest *guest)
{
	struct ledger_amounts amounts = {0};
	struct region_list old;

	amounts.amount[LEDGER_PINNED_BYTES] = region_list_bytes(&guest->regions);
	amounts.amount[LEDGER_REGIONS] = region_list_cost(&guest->regions);
	if (guest->pinned)
		parent_unmap_list(guest, &guest->regions, guest->regions.n);
	pthread_mutex_lock(&guest->lock);
	old = guest->regions;
	guest->regions = (struct region_list){0};
	guest->pinned = false;
	pthread_mutex_unlock(&guest->lock);
	for (size_t i = 0; i < old.n; i++) {
		frame_counters_put(old.items[i].counters);
		old.items[i].file->n_regions--;
	}
	region_list_clear(&old);
	ledger_refund(&guest->broker->ledger, &guest->account, &amounts);
}
