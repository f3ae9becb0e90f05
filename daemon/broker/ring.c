/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Update rings, as the broker knows them: a claim that is charged to a guest, has a handle, belongs
 * to the session that made it, and ends with that session or with the guest, whichever is first.
 * What is in a ring, and who serves it, is ring/'s affair, which is told of the end.
 *
 * Who takes a claim out of the list ends it: so that is done once.
 */
#include "broker/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/guest.h"
#include "broker/nested.h"
#include "broker/root.h"

struct claimed_ring {
	struct object object; /* object.session: whose it is, a reference */
	uint64_t bytes;
	void (*end)(void *context);
	void *context;
	struct claimed_ring *prev, *next; /* broker's lock */
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

static void claimed_end(struct claimed_ring *ring)
{
	ring->end(ring->context);
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
	object_unref(object);
	return ours ? 0 : refuse_not_found(refusal, "update ring");
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
