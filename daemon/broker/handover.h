/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_HANDOVER_H
#define IB_BROKER_HANDOVER_H

/*
 * A guest that goes on without its VMM, from one process to the next.
 *
 * Who owns it announces that. Then the end of the last session that holds it does not take it down:
 * it stays in that session's list, which is closed and cannot end meanwhile, and is charged there,
 * until somebody resumes it by its secret, or the time is over and it is taken down like any other.
 */

#include <stdbool.h>
#include <stdint.h>

#include "util/pool.h"

struct broker;
struct guest;
struct session;

struct handover {
	uint64_t deadline_ns; /* CLOCK_BOOTTIME: it outlives the process; 0: not announced */
	bool blocks;          /* its devices, while nobody holds it */
	bool waiting;         /* nobody holds it */
	bool blocking;        /* block is queued, or runs */
	struct pool_job block;
};

/* All with the broker's lock held. */

/* Nobody holds it any more. false: it was not announced, or too long ago: it is to be taken down.
 */
bool handover_begin(struct guest *guest);
/* A guest is that session's from now on: who was to use its delegation has to come before long.
 * With the broker's lock held. */
void handover_await_claim(struct session *session);
/* One of a process before this one, with the deadline that was written down: never later than one
 * that could be granted now. */
struct record_guest;
void handover_restore(struct guest *guest, const struct record_guest *record);
/* A guest that goes: nobody needs to come to use what is delegated of it. */
void handover_claims_expire(struct guest *guest);
/* The process ends and leaves nobody to resume it: take down what waits. */
void handover_give_up(struct broker *broker);

#endif
