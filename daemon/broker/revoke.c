/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an operator takes away: a device, a guest, all guests of a tenant, or whatever the device
 * rules do not give any more.
 *
 * A revocation is a job on the lane of each guest that it concerns, so it waits for what runs
 * there, and nothing that it takes apart is in use. The order is that of teardown.c: stop, block,
 * drop nested mappings, close, and only then, of a guest, unmap. All memory that it needs is there
 * before the first job is queued; from then on it cannot fail. The last job tells the caller.
 *
 * A guest that is to go is marked as dying at once, as by its session's end: a long pin does not
 * hold the operator up. A VMM that holds a device's descriptor keeps the kernel's object alive, but
 * not what it could reach: nested and relaxed mappings are gone, and with the guest all memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/device.h"
#include "broker/guest.h"
#include "broker/nested.h"
#include "broker/root.h"

struct revocation;

/* One guest that it concerns. */
struct revoke_target {
	struct pool_job job;
	struct revocation *revocation;
	struct guest *guest; /* a reference */
	struct revoked *items;
	size_t n, room;
};

struct revocation {
	struct revoke_request request;
	void (*done)(void *context, const struct revoked *revoked, size_t n);
	void *context;
	struct revoked *all; /* room for the items of all targets */
	size_t n_targets;
	atomic_size_t remaining;
	struct revoke_target targets[];
};

/* ── which guests ──────────────────────────────────────────────────────────────────────────── */

static bool device_is(const struct device *device, const struct iommu_device_address *address)
{
	if (address->by_fid)
		return device->info.has_fid && device->info.fid == address->fid;
	return !strcmp(device->info.pci_address, address->pci_address);
}

static bool guest_has_device(struct guest *guest, const struct iommu_device_address *address)
{
	struct device *device;

	pthread_mutex_lock(&guest->lock);
	DL_FOREACH (guest->devices, device)
		if (device_is(device, address))
			break;
	pthread_mutex_unlock(&guest->lock);
	return device;
}

static bool guest_is_concerned(struct guest *guest, const struct revoke_request *request)
{
	switch (request->what) {
	case REVOKE_GUEST:
		return guest->object.handle == request->guest;
	case REVOKE_TENANT:
		return !strcmp(device_client(guest).tenant, request->tenant);
	case REVOKE_DEVICE:
		return guest_has_device(guest, &request->device);
	case REVOKE_UNRULED:
		break;
	}
	return true;
}

/* Fills in up to room targets with a reference to each; the number there are. */
static size_t targets_collect(struct broker *broker, const struct revoke_request *request,
			      struct revoke_target *ret, size_t room)
{
	struct session *session;
	struct guest *guest;
	size_t n = 0;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (broker->sessions, session) {
		DL_FOREACH2(session->guests, guest, session_next)
		{
			if (!guest_is_concerned(guest, request))
				continue;
			if (n < room)
				ret[n].guest = guest_ref(guest);
			n++;
		}
	}
	pthread_mutex_unlock(&broker->lock);
	return n;
}

/* ── on the guest's lane ───────────────────────────────────────────────────────────────────── */

static void tell(const struct device *device, enum event_kind kind)
{
	struct guest *guest = device->object.guest;
	const struct event event = {
		.kind = kind,
		.guest = guest->object.handle,
		.device = device->object.handle,
	};

	event_post(guest->events, &event);
}

/* What could be opened since the targets were counted is one device, by the call that held the lane
 * then; there is room for it. */
static struct revoked *item_add(struct revoke_target *target, enum revoked_kind kind)
{
	const struct guest *guest = target->guest;
	struct revoked *item =
		&target->items[target->n < target->room ? target->n++ : target->n - 1];

	*item = (struct revoked){.kind = kind, .guest = guest->object.handle};
	memcpy(item->name, guest->name, sizeof(item->name));
	strncpy(item->tenant, device_client(guest).tenant, sizeof(item->tenant) - 1);
	return item;
}

static void revoke_device(struct revoke_target *target, struct device *device)
{
	struct revoked *item = item_add(target, REVOKED_DEVICE);

	item->device = device->object.handle;
	item->info = device->info;
	item->devices = 1;
	object_ref(&device->object);
	device_take_down(device, &item->still_held);
	tell(device, EVENT_REVOKED);
	device_unref(device);
}

static bool nested_is_relaxed_of(const struct nested *nested, const struct device *device)
{
	return nested->device == device && nested->backing.format == NESTED_RELAXED;
}

/* The device stays, blocked if it was relaxed. */
static void revoke_relaxed(struct revoke_target *target, struct device *device)
{
	struct revoked *item = item_add(target, REVOKED_RELAXED);
	struct guest *guest = device->object.guest;
	struct nested *nested, *next, *attached;

	item->device = device->object.handle;
	item->info = device->info;
	pthread_mutex_lock(&guest->lock);
	device->relaxed_granted = false;
	pthread_mutex_unlock(&guest->lock);
	if (device_attachment(device, &attached) == ATTACHMENT_RELAXED ||
	    (attached && attached->backing.format == NESTED_RELAXED))
		device_block(device, true);
	relaxed_free(guest, &device->relaxed);
	DL_FOREACH_SAFE(guest->nested, nested, next)
	if (nested_is_relaxed_of(nested, device))
		nested_drop(nested);
	tell(device, EVENT_DEVICE_BLOCKED);
}

static void revoke_named(struct revoke_target *target)
{
	struct device *device, *next;

	DL_FOREACH_SAFE(target->guest->devices, device, next)
	if (device_is(device, &target->revocation->request.device))
		revoke_device(target, device);
}

static void revoke_unruled(struct revoke_target *target)
{
	struct device_judgement judgement;
	struct device *device, *next;

	DL_FOREACH_SAFE(target->guest->devices, device, next)
	{
		device_judge_open(device, &judgement);
		if (judgement.kind != DEVICE_ALLOWED)
			revoke_device(target, device);
		else if (device->relaxed_granted && !judgement.relaxed)
			revoke_relaxed(target, device);
	}
}

/* Every device is blocked before one is taken down: see teardown.c. */
static void revoke_guest(struct revoke_target *target)
{
	struct guest *guest = target->guest;
	const struct event event = {.kind = EVENT_REVOKED, .guest = guest->object.handle};
	struct device *device, *next;
	struct revoked *item;

	if (guest->down)
		return;
	item = item_add(target, REVOKED_GUEST);
	DL_FOREACH (guest->devices, device)
		device_block(device, true);
	DL_FOREACH_SAFE(guest->devices, device, next)
	{
		bool held = false;

		device_take_down(device, &held);
		item->devices++;
		item->still_held |= held;
	}
	event_post(guest->events, &event);
	guest_take_down(guest_ref(guest));
}

/* ── told ──────────────────────────────────────────────────────────────────────────────────── */

static void revocation_free(struct revocation *revocation)
{
	for (size_t i = 0; i < revocation->n_targets; i++) {
		free(revocation->targets[i].items);
		guest_unref(revocation->targets[i].guest);
	}
	free(revocation->all);
	free(revocation);
}

static void revocation_finish(struct revocation *consume_revocation)
{
	struct revocation *revocation = consume_revocation;
	size_t n = 0;

	for (size_t i = 0; i < revocation->n_targets; i++) {
		const struct revoke_target *target = &revocation->targets[i];

		memcpy(&revocation->all[n], target->items, target->n * sizeof(target->items[0]));
		n += target->n;
	}
	revocation->done(revocation->context, revocation->all, n);
	revocation_free(revocation);
}

static bool target_run(struct pool_job *job)
{
	struct revoke_target *target = (struct revoke_target *)job;
	struct revocation *revocation = target->revocation;

	switch (revocation->request.what) {
	case REVOKE_GUEST:
	case REVOKE_TENANT:
		revoke_guest(target);
		break;
	case REVOKE_DEVICE:
		revoke_named(target);
		break;
	case REVOKE_UNRULED:
		revoke_unruled(target);
		break;
	}
	if (atomic_fetch_sub(&revocation->remaining, 1) == 1)
		revocation_finish(revocation);
	return false;
}

/* ── begun ─────────────────────────────────────────────────────────────────────────────────── */

static struct revocation *revocation_alloc(const struct revoke_request *request, size_t n)
{
	struct revocation *revocation =
		calloc(1, sizeof(*revocation) + n * sizeof(revocation->targets[0]));

	if (revocation) {
		revocation->request = *request;
		revocation->n_targets = n;
	}
	return revocation;
}

static bool items_alloc(struct revocation *revocation)
{
	size_t total = 1; /* so that none asks for 0 bytes */

	for (size_t i = 0; i < revocation->n_targets; i++) {
		struct revoke_target *target = &revocation->targets[i];

		pthread_mutex_lock(&target->guest->lock);
		target->room = target->guest->n_devices + 1;
		pthread_mutex_unlock(&target->guest->lock);
		target->items = calloc(target->room, sizeof(target->items[0]));
		if (!target->items)
			return false;
		total += target->room;
	}
	revocation->all = calloc(total, sizeof(revocation->all[0]));
	return revocation->all;
}

/* Its targets with their references; NULL: no memory. */
static struct revocation *revocation_new(struct broker *broker,
					 const struct revoke_request *request)
{
	struct revocation *revocation = NULL;
	size_t n = targets_collect(broker, request, NULL, 0), found = n;

	/* Guests come and go meanwhile. */
	do {
		if (revocation)
			revocation_free(revocation);
		n = found;
		revocation = revocation_alloc(request, n);
		if (!revocation)
			return NULL;
		found = targets_collect(broker, request, revocation->targets, n);
		if (found < n)
			revocation->n_targets = found;
	} while (found > n);
	if (items_alloc(revocation))
		return revocation;
	revocation_free(revocation);
	return NULL;
}

static void revocation_start(struct broker *broker, struct revocation *revocation)
{
	bool guests = revocation->request.what == REVOKE_GUEST ||
		      revocation->request.what == REVOKE_TENANT;
	size_t n = revocation->n_targets;

	/* One more than there are targets, so that it does not end while they are queued. */
	atomic_init(&revocation->remaining, n + 1);
	for (size_t i = 0; i < n; i++) {
		struct revoke_target *target = &revocation->targets[i];

		target->revocation = revocation;
		target->job = (struct pool_job){.run = target_run, .lane = target->guest->lane};
		if (guests)
			atomic_store(&target->guest->dying, true);
		pool_submit(broker->pool, &target->job);
	}
	if (atomic_fetch_sub(&revocation->remaining, 1) == 1)
		revocation_finish(revocation);
}

int broker_revoke(struct broker *broker, const struct revoke_request *request,
		  void (*done)(void *context, const struct revoked *revoked, size_t n),
		  void *context, struct refusal *refusal)
{
	struct revocation *revocation = revocation_new(broker, request);

	if (!revocation)
		return refuse_errno(refusal, ENOMEM, "revoking");
	revocation->done = done;
	revocation->context = context;
	revocation_start(broker, revocation);
	return 0;
}
