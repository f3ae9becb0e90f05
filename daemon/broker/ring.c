/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Update rings, as the broker knows them: a claim that is charged to a guest, has a handle, belongs
 * to the session that made it, and ends with that session or with the guest, whichever is first.
 * What is in a ring, and who serves it, is ring/'s affair, which is told of the end.
 *
 * Who takes a claim out of the list ends it: so that is done once.
 *
 * One that is to outlive this process is in a list of its guest's, too, which is the lane's: who
 * ends the claim only marks it there, and what is stored is forgotten when the guest is next
 * written down.
 */
#include "broker/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "broker/save.h"
#include "util/crash_point.h"
#include "util/fd.h"

struct claimed_ring {
	struct object object;   /* object.session: whose it is, a reference */
	_Atomic uint64_t bytes; /* written with the broker's lock */
	/* broker's lock */
	void (*end)(void *context); /* NULL: nobody serves it */
	void *context;
	bool left;               /* parts are its own: of a process before this one */
	struct ring_parts parts; /* with left, else only its shape */
	struct claimed_ring *prev, *next;
	/* guest's lane */
	uint32_t index;
	bool unwritten; /* no record names it any more */
	struct claimed_ring *kept_prev, *kept_next;
	_Atomic bool ended; /* any thread */
};

static void claimed_free(struct object *object)
{
	session_unref(object->session);
	guest_unref(object->guest);
	free(object);
}

static struct ledger_amounts amounts_of(uint64_t bytes)
{
	return (struct ledger_amounts){
		.amount[LEDGER_RINGS] = 1,
		.amount[LEDGER_TABLE_BYTES] = bytes,
	};
}

/* Out of the list, the table and the ledger, while the accounts are there for sure. With the
 * broker's lock held. */
static void claimed_take(struct broker *broker, struct claimed_ring *ring)
{
	const struct ledger_amounts amounts = amounts_of(ring->bytes);

	DL_DELETE(broker->rings, ring);
	HASH_DELETE(hh, broker->handles, &ring->object);
	ring->object.listed = false;
	ledger_refund(&broker->ledger, &ring->object.guest->account, &amounts);
}

void ring_parts_close(const struct ring_parts *consume_parts)
{
	fd_close(consume_parts->memory);
	fd_close(consume_parts->state);
	fd_close(consume_parts->submit);
	for (uint32_t i = 0; i < consume_parts->lanes; i++)
		fd_close(consume_parts->complete[i]);
}

/* After claimed_take(): nobody else looks at it any more. */
static void claimed_end(struct claimed_ring *ring)
{
	if (ring->left)
		ring_parts_close(&ring->parts);
	if (ring->end)
		ring->end(ring->context);
	atomic_store(&ring->ended, true);
	save_later(ring->object.guest);
	object_unref(&ring->object);
}

void rings_end(struct broker *broker, const struct session *session, const struct guest *guest)
{
	struct claimed_ring *ring, *next, *ending = NULL;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH_SAFE(broker->rings, ring, next)
	{
		if ((session && ring->object.session != session) ||
		    (guest && ring->object.guest != guest))
			continue;
		claimed_take(broker, ring);
		DL_APPEND(ending, ring);
	}
	pthread_mutex_unlock(&broker->lock);
	DL_FOREACH_SAFE(ending, ring, next)
	claimed_end(ring);
}

void ring_release_all(struct broker *broker)
{
	rings_end(broker, NULL, NULL);
}

/* From here on the ends of its session and its guest end it. */
static int claimed_list(struct broker *broker, struct claimed_ring *ring, struct refusal *refusal)
{
	int status = 0;

	pthread_mutex_lock(&broker->lock);
	if (ring->object.session->closed)
		status = refuse(refusal, REFUSAL_CANCELLED, "SESSION_ENDED",
				"the session has ended");
	else if (ring->object.guest->dying)
		status = guest_refuse_cancelled(ring->object.guest, refusal);
	else
		DL_APPEND(broker->rings, ring);
	pthread_mutex_unlock(&broker->lock);
	return status;
}

static int claimed_publish(struct broker *broker, struct claimed_ring *ring,
			   struct refusal *refusal)
{
	const struct ledger_amounts amounts = amounts_of(ring->bytes);
	struct ledger_account *account = &ring->object.guest->account;
	int status = ledger_charge(&broker->ledger, account, &amounts, refusal);

	if (status)
		return status;
	status = handle_publish(broker, &ring->object, refusal);
	if (!status)
		status = claimed_list(broker, ring, refusal);
	if (!status)
		return 0;
	handle_withdraw(broker, &ring->object);
	ledger_refund(&broker->ledger, account, &amounts);
	return status;
}

int ring_claim(struct broker *broker, struct session *session, const struct ring_claim *claim,
	       uint64_t *ret_ring, struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, session, claim->guest, refusal);
	struct claimed_ring *ring;
	int status;

	if (!guest)
		return REFUSED;
	ring = calloc(1, sizeof(*ring));
	if (!ring) {
		guest_unref(guest);
		return refuse_errno(refusal, ENOMEM, "update ring");
	}
	object_init(&ring->object, OBJECT_RING, session_ref(session), guest, claimed_free);
	ring->bytes = claim->bytes;
	ring->end = claim->end;
	ring->context = claim->context;
	object_ref(&ring->object); /* ours: once it is listed it can be ended */
	status = claimed_publish(broker, ring, refusal);
	if (status)
		object_unref(&ring->object);
	else
		*ret_ring = ring->object.handle;
	object_unref(&ring->object);
	return status;
}

int ring_release(struct broker *broker, struct session *session, uint64_t handle,
		 struct refusal *refusal)
{
	struct object *object = handle_find(broker, session, handle, OBJECT_RING, refusal);
	struct claimed_ring *ring = (struct claimed_ring *)object;
	bool ours;

	if (!object)
		return REFUSED;
	pthread_mutex_lock(&broker->lock);
	ours = object->listed && ring->prev;
	if (ours)
		claimed_take(broker, ring);
	pthread_mutex_unlock(&broker->lock);
	if (ours)
		claimed_end(ring);
	CRASH_POINT(RING_ENDED);
	object_unref(object);
	return ours ? 0 : refuse_not_found(refusal, "update ring");
}

/* ── beyond this process ───────────────────────────────────────────────────────────────────── */

static bool index_used(const struct guest *guest, uint32_t index)
{
	const struct claimed_ring *ring;

	DL_FOREACH2(guest->kept.rings, ring, kept_next)
	if (ring->index == index)
		return true;
	return false;
}

static void kept_add(struct guest *guest, struct claimed_ring *ring)
{
	object_ref(&ring->object);
	DL_APPEND2(guest->kept.rings, ring, kept_prev, kept_next);
}

static void parts_forget(struct guest *guest, uint32_t index, uint32_t lanes)
{
	save_forget_fd(guest, FD_RING, RING_FD_MEMORY(index));
	save_forget_fd(guest, FD_RING, RING_FD_STATE(index));
	save_forget_fd(guest, FD_DOORBELL, RING_FD_SUBMIT(index));
	for (uint32_t i = 0; i < lanes; i++)
		save_forget_fd(guest, FD_DOORBELL, RING_FD_COMPLETE(index, i));
}

static void kept_remove(struct guest *guest, struct claimed_ring *ring)
{
	parts_forget(guest, ring->index, ring->parts.lanes);
	DL_DELETE2(guest->kept.rings, ring, kept_prev, kept_next);
	object_unref(&ring->object);
}

void rings_forget(struct guest *guest, bool all)
{
	struct claimed_ring *ring, *next;

	DL_FOREACH_SAFE2(guest->kept.rings, ring, next, kept_next)
	if (all || ring->unwritten)
		kept_remove(guest, ring);
}

void rings_put(struct guest *guest)
{
	struct claimed_ring *ring;

	DL_FOREACH2(guest->kept.rings, ring, kept_next)
	{
		const struct record_ring record = {
			.handle = ring->object.handle,
			.session = ring->object.session->id,
			.index = ring->index,
			.lanes = ring->parts.lanes,
			.entries = ring->parts.entries,
			.bytes = ring->bytes,
		};

		ring->unwritten = atomic_load(&ring->ended);
		if (ring->unwritten)
			continue;
		record_put(&guest->kept.writer, RECORD_RING, 0, &record, sizeof(record), NULL, 0);
	}
}

static int parts_store(struct guest *guest, uint32_t index, const struct ring_parts *parts,
		       struct refusal *refusal)
{
	int status = save_fd(guest, FD_RING, RING_FD_MEMORY(index), parts->memory, refusal);

	if (!status)
		status = save_fd(guest, FD_RING, RING_FD_STATE(index), parts->state, refusal);
	if (!status)
		status = save_fd(guest, FD_DOORBELL, RING_FD_SUBMIT(index), parts->submit, refusal);
	for (uint32_t i = 0; !status && i < parts->lanes; i++)
		status = save_fd(guest, FD_DOORBELL, RING_FD_COMPLETE(index, i), parts->complete[i],
				 refusal);
	return status;
}

static int kept_make(struct claimed_ring *ring, const struct ring_parts *parts,
		     struct refusal *refusal)
{
	struct guest *guest = ring->object.guest;
	int status;

	ring->index = 0;
	while (index_used(guest, ring->index))
		ring->index++;
	if (ring->index >= RING_INDICES_MAX)
		return refuse_errno(refusal, ENOSPC, "update ring");
	ring->parts = *parts;
	kept_add(guest, ring);
	status = parts_store(guest, ring->index, parts, refusal);
	CRASH_POINT(RING_STORED);
	if (status)
		kept_remove(guest, ring);
	return status;
}

int ring_keep(struct broker *broker, struct session *session, uint64_t handle,
	      const struct ring_parts *borrow_parts, struct refusal *refusal)
{
	struct object *object = handle_find(broker, session, handle, OBJECT_RING, refusal);
	int status;

	if (!object)
		return REFUSED;
	if (!fd_store_keeps(broker->store))
		status = 0;
	else
		status = object->guest->down
				 ? guest_refuse_cancelled(object->guest, refusal)
				 : kept_make((struct claimed_ring *)object, borrow_parts, refusal);
	object_unref(object);
	return status;
}

/* Listed, with a handle and charged, or not at all. */
static bool left_list(struct claimed_ring *ring, uint64_t handle)
{
	const struct ledger_amounts amounts = amounts_of(ring->bytes);
	struct guest *guest = ring->object.guest;
	struct broker *broker = guest->broker;
	struct refusal refusal;

	if (handle_publish_as(broker, &ring->object, handle, &refusal))
		return false;
	pthread_mutex_lock(&broker->lock);
	ledger_take_over(&broker->ledger, &guest->account, &amounts);
	DL_APPEND(broker->rings, ring);
	pthread_mutex_unlock(&broker->lock);
	return true;
}

/* What is there, and not what a record says: until who serves it knows all that it takes. */
static uint64_t left_bytes(const struct ring_parts *parts)
{
	struct stat memory;

	return fstat(parts->memory, &memory) ? 0 : (uint64_t)memory.st_size;
}

static struct claimed_ring *left_make(struct guest *guest, struct session *session,
				      const struct record_ring *record,
				      const struct ring_parts *parts)
{
	struct claimed_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	object_init(&ring->object, OBJECT_RING, session_ref(session), guest_ref(guest),
		    claimed_free);
	ring->bytes = left_bytes(parts);
	ring->index = record->index;
	ring->parts = *parts;
	ring->left = true;
	return ring;
}

bool ring_restore(struct guest *guest, struct session *session, const struct record_ring *record,
		  const struct ring_parts *consume_parts)
{
	bool ours = !index_used(guest, record->index);
	struct claimed_ring *ring = NULL;

	if (ours && session && !session->closed)
		ring = left_make(guest, session, record, consume_parts);
	if (ring && left_list(ring, record->handle)) {
		kept_add(guest, ring);
		return true;
	}
	if (ring)
		object_unref(&ring->object);
	if (ours)
		parts_forget(guest, record->index, record->lanes);
	ring_parts_close(consume_parts);
	return false;
}

bool ring_take_left(struct broker *broker, struct ring_left *ret)
{
	struct claimed_ring *ring;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (broker->rings, ring)
		if (ring->left)
			break;
	if (ring) {
		ring->left = false;
		*ret = (struct ring_left){
			.ring = ring->object.handle,
			.guest = ring->object.guest->object.handle,
			.session = session_ref(ring->object.session),
			.parts = ring->parts,
		};
	}
	pthread_mutex_unlock(&broker->lock);
	return ring;
}

/* With the broker's lock held. */
static void claimed_recharge(struct broker *broker, struct claimed_ring *ring, uint64_t bytes)
{
	struct ledger_account *account = &ring->object.guest->account;
	const struct ledger_amounts amounts = {.amount[LEDGER_TABLE_BYTES] = bytes};

	ledger_refund_one(&broker->ledger, account, LEDGER_TABLE_BYTES, ring->bytes);
	ledger_take_over(&broker->ledger, account, &amounts);
	ring->bytes = bytes;
}

bool ring_serve_left(struct broker *broker, uint64_t handle, uint64_t bytes,
		     void (*end)(void *context), void *context)
{
	struct claimed_ring *ring;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (broker->rings, ring)
		if (ring->object.handle == handle)
			break;
	if (ring) {
		claimed_recharge(broker, ring, bytes);
		ring->end = end;
		ring->context = context;
	}
	pthread_mutex_unlock(&broker->lock);
	return ring;
}

static uint64_t index_handle(struct guest *guest, uint32_t index)
{
	const struct nested *nested;
	uint64_t handle = 0;

	pthread_mutex_lock(&guest->lock);
	DL_FOREACH (guest->nested, nested)
		if (nested->index == index)
			handle = nested->object.handle;
	pthread_mutex_unlock(&guest->lock);
	return handle;
}

uint64_t nested_of_index(struct broker *broker, struct session *session, uint64_t handle,
			 uint32_t index)
{
	struct guest *guest = guest_find(broker, session, handle, NULL);
	uint64_t nested;

	if (!guest)
		return 0;
	nested = index_handle(guest, index);
	guest_unref(guest);
	return nested;
}
