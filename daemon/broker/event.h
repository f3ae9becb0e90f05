/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_EVENT_H
#define IB_BROKER_EVENT_H

/* The events of one guest: a ring of the last ones, and who watches it. */

#include <pthread.h>
#include <stdatomic.h>

#include "broker/broker.h"

struct event_ring;

/* Who is told the events of all guests of a broker. */
struct event_observer {
	pthread_rwlock_t lock; /* held while it is told */
	void (*observe)(void *context, const struct event *event,
			const struct event_subject *subject);
	void *context;
};
void event_observer_init(struct event_observer *observer);
void event_observer_deinit(struct event_observer *observer);

/* n_slots: 1 .. BROKER_EVENTS_MAX. NULL: no memory. */
struct event_ring *event_ring_new(uint32_t n_slots);
/* From now on observer is told too; its texts are copied. Before anything is posted. */
void event_ring_observe(struct event_ring *ring, struct event_observer *observer,
			const struct event_subject *subject);
/* Whose it is by now. Any thread, under any lock. */
void event_ring_set_holder(struct event_ring *ring, const char *tenant, pid_t pid, uid_t uid);
/* Sequences go on from word's value, and it follows; NULL: not any more. */
void event_ring_keep(struct event_ring *ring, _Atomic uint64_t *word);
struct event_ring *event_ring_ref(struct event_ring *ring);
struct event_ring *event_ring_unref(struct event_ring *ring);

/* Sequence and time are filled in. Any thread; no lock of a guest or of the broker may be held that
 * a watcher's wake() takes. Neither allocates nor fails. Answers the sequence; 0 if it has ended.
 */
uint64_t event_post(struct event_ring *ring, const struct event *event);
/* Post GUEST_GONE; nothing comes after it. */
void event_ring_end(struct event_ring *ring, uint64_t guest);
/* Let all watchers look again, as after a post. */
void event_ring_wake(struct event_ring *ring);

#endif
