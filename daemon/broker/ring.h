/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_RING_H
#define IB_BROKER_RING_H

/* The end of update rings with what they belong to, and what outlives this process. */

#include <stdbool.h>
#include <stdint.h>

#include "state/fd_store.h"

struct broker;
struct guest;
struct record_ring;
struct ring_parts;
struct session;

/* Those of a session, or (session NULL) of a guest; both NULL: all. Without the broker's lock. */
void rings_end(struct broker *broker, const struct session *session, const struct guest *guest);

/* On the guest's lane: the records of those that are there. */
void rings_put(struct guest *guest);
/* On the guest's lane. What no record names any more, or all, is stored no more. */
void rings_forget(struct guest *guest, bool all);

/* Descriptors of a ring of that index: FD_RING for the two memories, FD_DOORBELL for the ends. */
#define RING_FD_MEMORY(index)         (2 * (index))
#define RING_FD_STATE(index)          (2 * (index) + 1)
#define RING_FD_SUBMIT(index)         ((1 + BROKER_RING_LANES_MAX) * (index))
#define RING_FD_COMPLETE(index, lane) (RING_FD_SUBMIT(index) + 1 + (lane))
#define RING_INDICES_MAX              (FD_NAME_INDICES_MAX / (1 + BROKER_RING_LANES_MAX))

/* As a process before this one had it, with its descriptors, also on failure; charged also above a
 * limit. NULL session: it has ended. false: it is given up. */
bool ring_restore(struct guest *guest, struct session *session, const struct record_ring *record,
		  const struct ring_parts *consume_parts);

#endif
