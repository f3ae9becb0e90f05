/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_DELEGATION_H
#define IB_BROKER_DELEGATION_H

/*
 * A delegation: what a session whose guest it is lets another session do with that guest.
 *
 * The session that is given it is made with it, can do nothing else, and ends with it. Which
 * methods need which right the method table says (rpc/), before anything is looked up; which
 * objects it sees is said here.
 *
 * With GUEST_RIGHT_HOLD it keeps the guest alive: a guest is in the list of the session that
 * created it, its home, and when that one ends, in that of the first delegation that holds it. It
 * is taken down when its home ends and nobody else holds it.
 */

#include "broker/ledger.h"
#include "broker/session.h"
#include "util/pool.h"

struct guest;
struct guest_summary;
struct object;

struct delegation {
	/* fixed once it is made */
	struct guest *guest;     /* a reference */
	struct session *session; /* whose it is, and who frees it */
	uint64_t handle;
	uint64_t delegator; /* id of the session */
	unsigned int rights;
	uint64_t pinned_bytes_max, mappings_max; /* 0: no further limit */
	size_t n_devices;
	uint64_t devices[DELEGATION_DEVICES_MAX];

	/* broker's lock */
	bool listed; /* in its guest's list */
	struct delegation *prev, *next;
	_Atomic uint64_t *claimed; /* the guest's GUEST_WORD_CLAIMED, while its socket is stored */
	bool only_by_secret;       /* it is somebody's, and no record says whose */

	/* The guest's lane, but for left. With a listener that is stored: in its guest's list of
	 * them, which has a reference to the session. */
	int listener; /* -1: none */
	uint32_t listener_index;
	_Atomic bool left; /* it is over */
	bool unwritten;    /* the next record tells it no more */
	struct delegation *kept_prev, *kept_next;

	struct pool_job over; /* once it is */
};

/* NULL is fine, for all of these. */
void delegation_free(struct delegation *delegation);
/* Whether its session sees an object. With the broker's lock held. */
bool delegation_covers(const struct delegation *delegation, const struct object *object);
/* Whether a device of its guest's is among those it is for; delegation NULL: all are. */
bool delegation_names_device(const struct delegation *delegation, uint64_t device);
/* REFUSED if it is for some of the guest's devices only, and what is asked for concerns others. */
int delegation_refuse_part(const struct session *session, struct refusal *refusal);

/* Of all of a guest's: the limits that they set it. With the broker's lock held. */
void delegation_limit(const struct guest *guest, struct ledger_limits *limits);
/* The first session that holds it and is not closed, or NULL. With the broker's lock held. */
struct session *delegation_heir(const struct guest *guest);

/* One of a process before this one: of a session that was restored without it. 0 or -ENOMEM. With
 * the broker's lock held. */
struct record_session;
int delegation_restore(struct guest *guest, struct session *session,
		       const struct record_session *record);
/* The socket that it listened on. Guest's lane, or before anything runs. */
void delegation_restore_listener(struct session *session, uint32_t index, int consume_fd);

/* Around the writing of a record: those that are over are not in it, and stored no more once it is
 * written; all: none is. Guest's lane. */
void listeners_judge(struct guest *guest);
void listeners_forget(struct guest *guest, bool all);

/* Its session was closed: what it allowed is over. With the broker's lock held. */
void delegation_leave(struct session *session);
/* Its end is written down, and only then session_leave() called. false: neither, there is nothing
 * to be written. Without the lock. */
bool delegation_write_end(struct session *consume_session);
/* The same for those who watch with it. Without the lock. */
void delegation_tell_end(struct session *session);

#endif
