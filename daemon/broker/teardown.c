/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking a guest down.
 *
 * The order is what keeps memory safe: a device is stopped, then blocked, then its nested domains
 * go, then it is closed; only then the parent is unmapped, and only then the context and our own
 * mappings are closed. The ledger gives back each thing when that thing is gone. Closing the
 * context alone would not do: whoever holds a bound device's descriptor keeps it and its pins
 * alive.
 *
 * Everything here runs on the guest's lane, allocates nothing and cannot fail. It is bounded: every
 * call of the backend is tried a few times at most, and unmapping goes slice by slice.
 */
#include <utlist.h>

#include "broker/device.h"
#include "broker/domain.h"
#include "broker/guest.h"
#include "broker/handover.h"
#include "broker/guest_record.h"
#include "broker/memory_file.h"
#include "broker/memory.h"
#include "broker/nested.h"
#include "broker/ring.h"
#include "broker/root.h"
#include "util/crash_point.h"

static void guest_drop_devices(struct guest *guest)
{
	struct device *device, *next;

	/* All are blocked before anything else: what one of them still wrote could be what
	 * another's tables show. */
	DL_FOREACH (guest->devices, device) {
		device->object.stage = RECORD_GOING; /* with its guest, which was written down */
		device_block(device, true);
	}
	DL_FOREACH_SAFE(guest->devices, device, next)
	device_take_down(device, NULL);
}

static void guest_drop_files(struct guest *guest)
{
	struct memory_file *file, *next;

	DL_FOREACH_SAFE(guest->files, file, next)
	memory_file_drop(file);
}

/* Out of its session's list and out of the table: no call finds it any more. */
static void guest_withdraw(struct guest *guest)
{
	handle_withdraw(guest->broker, &guest->object);
	pthread_mutex_lock(&guest->broker->lock);
	DL_DELETE2(guest->home->guests, guest, session_prev, session_next);
	pthread_mutex_unlock(&guest->broker->lock);
}

/* The home's reference goes with it: it may be a session that refers to the guest. */
static struct session *guest_leave_home(struct guest *guest)
{
	struct session *home;

	pthread_mutex_lock(&guest->broker->lock);
	home = guest->home;
	guest->home = NULL;
	pthread_mutex_unlock(&guest->broker->lock);
	return home;
}

static void guest_take_apart(struct guest *guest)
{
	struct broker *broker = guest->broker;

	guest_withdraw(guest);
	handover_claims_expire(guest);
	rings_end(broker, NULL, guest);
	guest->object.stage = RECORD_GOING;
	save_now(guest);
	CRASH_POINT(GUEST_GOES);
	guest_drop_devices(guest);
	CRASH_POINT(GUEST_DEVICES);
	memory_drop(guest);
	CRASH_POINT(GUEST_MEMORY);
	domain_drop_leftovers(guest);
	parent_destroy(guest);
	guest->context = broker_ops(broker)->context_free(guest->context);
	CRASH_POINT(GUEST_CONTEXT);
	guest_drop_files(guest);
	event_ring_keep(guest->events, NULL);
	save_end(guest);
	CRASH_POINT(GUEST_FORGOTTEN);
	guest_refund_events(guest);
	guest_uncount(guest);
	event_ring_end(guest->events, guest->object.handle);
}

void guest_take_down(struct guest *consume_guest)
{
	struct guest *guest = consume_guest;
	struct session *session;

	if (guest->down) {
		guest_unref(guest);
		return;
	}
	guest->down = true;
	guest->dying = true;
	guest_take_apart(guest);
	session = guest_leave_home(guest);
	guest_unref(guest); /* the session's */
	guest_unref(guest);
	session_leave(session);
}
