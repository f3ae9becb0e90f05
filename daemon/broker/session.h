/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_SESSION_H
#define IB_BROKER_SESSION_H

/* A process that talks to us, and what it owns. */

#include "broker/ledger.h"
#include "broker/tenant.h"

/* Places for callers of session_close() that need no memory. */
#define SESSION_CLOSERS 8

struct record_session;

struct session_closer {
	void (*done)(void *context);
	void *context;
};

struct session {
	struct broker *broker;
	atomic_uint refs;
	uint64_t id;
	char name[BROKER_NAME_MAX];
	char tenant_name[BROKER_NAME_MAX];
	uint8_t secret[BROKER_SECRET_BYTES];
	pid_t pid;
	uid_t uid;
	int pidfd;
	uint64_t claim_by_ns; /* of a delegation's that nobody has used: its guest waits until then,
				 CLOCK_BOOTTIME; broker's lock */
	_Atomic uint64_t start_ticks; /* of its process, once that was asked for; 0 before */
	struct pool_share *share;     /* of the tenant, a reference */
	struct ledger_account account;
	struct ledger_account managed; /* guests created on behalf of others; no level above */
	/* What another session lets it do, and all that it can; NULL: it owns what it makes. */
	struct delegation *delegation;
	unsigned int rights; /* set of 1 << enum guest_right */

	/* broker's lock */
	struct tenant *tenant; /* NULL once it has ended */
	bool closed;           /* no call is accepted any more */
	bool gone;             /* restored, and its process is not there any more */
	uint64_t last_event;   /* of its guest that it is told once it is closed */
	bool ended;            /* and nothing is left */
	uint32_t users;        /* guests, and guests in the making */
	struct guest *guests;  /* utlist */
	size_t n_closers;
	struct session_closer closers[SESSION_CLOSERS];
	struct session *prev, *next;
};

/* By the policy that holds. With the broker's lock held. */
void session_set_limits(struct session *session);
/* Whether its tenant's rule lets it create guests on behalf of others. With the broker's lock
 * held. */
bool session_is_manager(const struct session *session);
/* A guest is about to be made: it is counted, or REFUSED as the session is closed. */
int session_enter(struct session *session, struct refusal *refusal);
/* What session_enter() counted is gone with all that it held; with the last one a closed session
 * ends. Takes a reference of the caller with it, and is called last, with no lock held: it may call
 * the closers. */
void session_leave(struct session *consume_session);

/* Made by session_alloc() and put into the list. */
struct session *session_alloc(struct broker *broker, const char *name);
/* One of a process before this one, in the list if it is not ended: with a reference for the
 * caller. Its process is found again by its number and the time of its start; *ret_lives (may be
 * NULL) says whether it was, for a session that has one. Charged also above limits. tenant: its
 * reference is taken over; NULL: of one that has ended, charged nothing. With the broker's lock
 * held. NULL: no memory. */
struct session *session_restore(struct broker *broker, const struct record_session *record,
				struct tenant *consume_tenant, bool *ret_lives);
/* Takes the same time wherever the first difference of the two secrets is. */
bool secret_equal(const uint8_t *a, const uint8_t *b);
bool session_same_process(const struct session *session, const struct peer *peer);
/* The process that it is of, from now on. 0 or REFUSED. */
int session_set_peer(struct session *session, const struct peer *peer, struct refusal *refusal);
/* Charge it to that tenant, whose reference it takes over, and put it into the list. With the
 * broker's lock held. 0, or REFUSED: the reference is the caller's still. */
int session_admit_to(struct session *session, struct tenant *tenant, struct refusal *refusal);

#endif
