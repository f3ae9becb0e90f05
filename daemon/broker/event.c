/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events of a guest.
 *
 * Sequence numbers rise by one from 1, and event n stands in slot n % n_slots until event n +
 * n_slots comes. A watcher that was overtaken gets one LOST that says how many.
 *
 * Locks: ring->lock guards slots and counters; ring->wake_lock guards the list of watchers and is
 * held while they are woken, so that event_watch_free() returns only when no wake() runs. Neither
 * is taken while the other is held.
 */
#include "broker/event.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/guest.h"
#include "broker/root.h"
#include "util/clock.h"

struct event_watch {
	struct event_ring *ring;
	struct guest *guest;     /* references, to know when it is over for its session */
	struct session *session; /* or NULL: an operator */
	uint64_t next;           /* sequence of the next event to give out; ring->lock */
	void (*wake)(void *context);
	void *context;
	struct event_watch *prev, *next_watch;
};

struct event_ring {
	atomic_uint refs;
	pthread_mutex_t lock;
	uint64_t last; /* sequence of the newest, 0: none */
	/* The same, where it outlives the process; or NULL. */
	_Atomic uint64_t *kept;
	bool ended;
	pthread_mutex_t wake_lock;
	struct event_watch *watches;
	struct event_observer *observer; /* or NULL */
	struct event_subject subject;    /* lock; its texts are the next two */
	char name[BROKER_NAME_MAX], tenant[BROKER_NAME_MAX];
	uint32_t n_slots;
	struct event slots[];
};

struct event_ring *event_ring_new(uint32_t n_slots)
{
	struct event_ring *ring = calloc(1, sizeof(*ring) + n_slots * sizeof(ring->slots[0]));

	if (!ring)
		return NULL;
	ring->n_slots = n_slots;
	atomic_init(&ring->refs, 1);
	pthread_mutex_init(&ring->lock, NULL);
	pthread_mutex_init(&ring->wake_lock, NULL);
	return ring;
}

/* ── who is told of all guests' ───────────────────────────────────────────────────────────── */

void event_observer_init(struct event_observer *observer)
{
	observer->observe = NULL;
	pthread_rwlock_init(&observer->lock, NULL);
}

void event_observer_deinit(struct event_observer *observer)
{
	pthread_rwlock_destroy(&observer->lock);
}

void broker_set_observer(struct broker *broker,
			 void (*observe)(void *context, const struct event *event,
					 const struct event_subject *subject),
			 void *context)
{
	struct event_observer *observer = &broker->observer;

	pthread_rwlock_wrlock(&observer->lock);
	observer->observe = observe;
	observer->context = context;
	pthread_rwlock_unlock(&observer->lock);
}

void event_ring_observe(struct event_ring *ring, struct event_observer *observer,
			const struct event_subject *subject)
{
	ring->observer = observer;
	ring->subject = *subject;
	snprintf(ring->name, sizeof(ring->name), "%s", subject->name);
	snprintf(ring->tenant, sizeof(ring->tenant), "%s", subject->tenant);
	ring->subject.name = ring->name;
	ring->subject.tenant = ring->tenant;
}

void event_ring_set_holder(struct event_ring *ring, const char *tenant, pid_t pid, uid_t uid)
{
	pthread_mutex_lock(&ring->lock);
	snprintf(ring->tenant, sizeof(ring->tenant), "%s", tenant);
	ring->subject.pid = pid;
	ring->subject.uid = uid;
	pthread_mutex_unlock(&ring->lock);
}

/* ── the ring ─────────────────────────────────────────────────────────────────────────────── */

struct event_ring *event_ring_ref(struct event_ring *ring)
{
	atomic_fetch_add_explicit(&ring->refs, 1, memory_order_relaxed);
	return ring;
}

struct event_ring *event_ring_unref(struct event_ring *ring)
{
	if (!ring || atomic_fetch_sub_explicit(&ring->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	pthread_mutex_destroy(&ring->wake_lock);
	pthread_mutex_destroy(&ring->lock);
	free(ring);
	return NULL;
}

void event_ring_keep(struct event_ring *ring, _Atomic uint64_t *word)
{
	pthread_mutex_lock(&ring->lock);
	ring->kept = word;
	if (word)
		ring->last = atomic_load_explicit(word, memory_order_relaxed);
	pthread_mutex_unlock(&ring->lock);
}

static uint64_t event_ring_put(struct event_ring *ring, const struct event *event, bool end)
{
	uint64_t sequence = 0;
	struct event *slot;

	pthread_mutex_lock(&ring->lock);
	if (!ring->ended) {
		slot = &ring->slots[++ring->last % ring->n_slots];
		*slot = *event;
		slot->sequence = sequence = ring->last;
		slot->time_ns = clock_realtime_ns();
		if (ring->kept)
			atomic_store_explicit(ring->kept, sequence, memory_order_relaxed);
		ring->ended = end;
	}
	pthread_mutex_unlock(&ring->lock);
	return sequence;
}

void event_ring_wake(struct event_ring *ring)
{
	struct event_watch *watch;

	pthread_mutex_lock(&ring->wake_lock);
	DL_FOREACH2(ring->watches, watch, next_watch)
	watch->wake(watch->context);
	pthread_mutex_unlock(&ring->wake_lock);
}

/* After the watchers of the guest, which are its own. */
static void event_ring_tell(struct event_ring *ring, const struct event *event)
{
	struct event_observer *observer = ring->observer;
	struct event_subject subject;
	char tenant[BROKER_NAME_MAX];

	if (!observer)
		return;
	pthread_rwlock_rdlock(&observer->lock);
	if (observer->observe) {
		pthread_mutex_lock(&ring->lock);
		subject = ring->subject;
		memcpy(tenant, ring->tenant, sizeof(tenant));
		pthread_mutex_unlock(&ring->lock);
		subject.tenant = tenant;
		observer->observe(observer->context, event, &subject);
	}
	pthread_rwlock_unlock(&observer->lock);
}

uint64_t event_post(struct event_ring *ring, const struct event *event)
{
	uint64_t sequence = event_ring_put(ring, event, false);

	event_ring_wake(ring);
	event_ring_tell(ring, event);
	return sequence;
}

void event_ring_end(struct event_ring *ring, uint64_t guest)
{
	struct event event = {.kind = EVENT_GUEST_GONE, .guest = guest};

	event_ring_put(ring, &event, true);
	event_ring_wake(ring);
	event_ring_tell(ring, &event);
}

/* The oldest that is kept; ring->last + 1 if there is none. With ring->lock held. */
static uint64_t event_ring_oldest(const struct event_ring *ring)
{
	return ring->last > ring->n_slots ? ring->last - ring->n_slots + 1 : 1;
}

static uint64_t event_ring_start(struct event_ring *ring, uint64_t since)
{
	uint64_t start;

	pthread_mutex_lock(&ring->lock);
	if (!since)
		start = event_ring_oldest(ring);
	else
		start = since < ring->last ? since + 1 : ring->last + 1;
	pthread_mutex_unlock(&ring->lock);
	return start;
}

int event_watch_new(struct event_watch **ret, struct broker *broker, struct session *session,
		    uint64_t guest_handle, uint64_t since, void (*wake)(void *context),
		    void *context, struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, session, guest_handle, refusal);
	struct event_watch *watch;

	if (!guest)
		return REFUSED;
	watch = calloc(1, sizeof(*watch));
	if (!watch) {
		guest_unref(guest);
		return refuse_errno(refusal, ENOMEM, "watching events");
	}
	watch->ring = event_ring_ref(guest->events);
	watch->guest = guest_ref(guest);
	watch->session = session ? session_ref(session) : NULL;
	watch->wake = wake;
	watch->context = context;
	watch->next = event_ring_start(watch->ring, since);
	pthread_mutex_lock(&watch->ring->wake_lock);
	DL_APPEND2(watch->ring->watches, watch, prev, next_watch);
	pthread_mutex_unlock(&watch->ring->wake_lock);
	guest_unref(guest);
	*ret = watch;
	return 0;
}

/* The guest may go on without the session that watches it: what happens from then on is not for it.
 * What was posted before it was closed is. */
static bool watch_is_over(const struct event_watch *watch)
{
	struct session *session = watch->session;
	uint64_t last = UINT64_MAX;
	bool over;

	if (!session)
		return false;
	pthread_mutex_lock(&session->broker->lock);
	if (session->closed && watch->guest->home && watch->guest->home != session)
		last = session->last_event;
	pthread_mutex_unlock(&session->broker->lock);
	pthread_mutex_lock(&watch->ring->lock);
	over = watch->next > last;
	pthread_mutex_unlock(&watch->ring->lock);
	return over;
}

/* A delegation for some devices is told of those, and of what concerns the guest as a whole. */
static bool watch_may_see(const struct event_watch *watch, const struct event *event)
{
	return !watch->session || !event->device ||
	       delegation_names_device(watch->session->delegation, event->device);
}

/* Past what is not for it. With ring->lock held. */
static void watch_skip(struct event_watch *watch)
{
	const struct event_ring *ring = watch->ring;

	while (watch->next <= ring->last &&
	       !watch_may_see(watch, &ring->slots[watch->next % ring->n_slots]))
		watch->next++;
}

int event_watch_next(struct event_watch *watch, struct event *ret)
{
	struct event_ring *ring = watch->ring;
	uint64_t oldest;
	int result = 1;

	if (watch_is_over(watch))
		return -1;

	pthread_mutex_lock(&ring->lock);
	oldest = event_ring_oldest(ring);
	if (watch->next >= oldest)
		watch_skip(watch);
	if (watch->next < oldest) {
		*ret = (struct event){
			.sequence = oldest - 1,
			.time_ns = ring->slots[oldest % ring->n_slots].time_ns,
			.kind = EVENT_LOST,
			.guest = ring->slots[oldest % ring->n_slots].guest,
			.lost = oldest - watch->next,
		};
		watch->next = oldest;
	} else if (watch->next <= ring->last) {
		*ret = ring->slots[watch->next++ % ring->n_slots];
	} else {
		result = ring->ended ? -1 : 0;
	}
	pthread_mutex_unlock(&ring->lock);
	return result;
}

struct event_watch *event_watch_free(struct event_watch *watch)
{
	struct event_ring *ring;

	if (!watch)
		return NULL;
	ring = watch->ring;
	pthread_mutex_lock(&ring->wake_lock);
	DL_DELETE2(ring->watches, watch, prev, next_watch);
	pthread_mutex_unlock(&ring->wake_lock);
	event_ring_unref(ring);
	session_unref(watch->session);
	guest_unref(watch->guest);
	free(watch);
	return NULL;
}
