/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/monitor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "util/clock.h"

struct monitor_watch {
	struct monitor *monitor;
	uint64_t next; /* sequence of the next to give out; the monitor's lock */
	void (*wake)(void *context);
	void *context;
	struct monitor_watch *prev, *next_watch;
};

void monitor_init(struct monitor *monitor)
{
	memset(monitor, 0, sizeof(*monitor));
	pthread_mutex_init(&monitor->lock, NULL);
	pthread_mutex_init(&monitor->wake_lock, NULL);
}

void monitor_deinit(struct monitor *monitor)
{
	free(monitor->slots);
	pthread_mutex_destroy(&monitor->wake_lock);
	pthread_mutex_destroy(&monitor->lock);
}

uint32_t monitor_watchers(const struct monitor *monitor)
{
	return atomic_load_explicit(&monitor->n_watches, memory_order_relaxed);
}

/* ── posting ──────────────────────────────────────────────────────────────────────────────── */

static void monitor_put(struct monitor *monitor, const struct monitor_event *event)
{
	struct monitor_event *slot;

	pthread_mutex_lock(&monitor->lock);
	if (monitor->slots) {
		slot = &monitor->slots[++monitor->last % MONITOR_EVENTS_MAX];
		*slot = *event;
		slot->sequence = monitor->last;
		slot->time_ns = clock_realtime_ns();
	}
	pthread_mutex_unlock(&monitor->lock);
}

void monitor_post(struct monitor *monitor, const struct monitor_event *event)
{
	struct monitor_watch *watch;

	if (!monitor_watchers(monitor))
		return;
	monitor_put(monitor, event);
	pthread_mutex_lock(&monitor->wake_lock);
	DL_FOREACH2(monitor->watches, watch, next_watch)
	watch->wake(watch->context);
	pthread_mutex_unlock(&monitor->wake_lock);
}

/* ── watching ─────────────────────────────────────────────────────────────────────────────── */

/* Makes the ring with the first watcher; it stays, so that an operator who looks again does not
 * make it again. */
static bool watch_place(struct monitor_watch *watch)
{
	struct monitor *monitor = watch->monitor;
	bool there;

	pthread_mutex_lock(&monitor->lock);
	if (!monitor->slots)
		monitor->slots = calloc(MONITOR_EVENTS_MAX, sizeof(monitor->slots[0]));
	there = monitor->slots;
	watch->next = monitor->last + 1;
	pthread_mutex_unlock(&monitor->lock);
	return there;
}

static bool watch_add(struct monitor_watch *watch)
{
	struct monitor *monitor = watch->monitor;
	bool room;

	pthread_mutex_lock(&monitor->wake_lock);
	room = atomic_load(&monitor->n_watches) < MONITOR_WATCHERS_MAX;
	if (room) {
		DL_APPEND2(monitor->watches, watch, prev, next_watch);
		atomic_fetch_add(&monitor->n_watches, 1);
	}
	pthread_mutex_unlock(&monitor->wake_lock);
	return room;
}

int monitor_watch_new(struct monitor_watch **ret, struct monitor *monitor,
		      void (*wake)(void *context), void *context, struct refusal *refusal)
{
	struct monitor_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return refuse_errno(refusal, ENOMEM, "watching what happens");
	watch->monitor = monitor;
	watch->wake = wake;
	watch->context = context;
	if (!watch_place(watch)) {
		free(watch);
		return refuse_errno(refusal, ENOMEM, "watching what happens");
	}
	if (!watch_add(watch)) {
		free(watch);
		return refuse(refusal, REFUSAL_HOST_RESOURCES, "MONITORS",
			      "%d operators watch already", MONITOR_WATCHERS_MAX);
	}
	*ret = watch;
	return 0;
}

bool monitor_watch_next(struct monitor_watch *watch, struct monitor_event *ret)
{
	struct monitor *monitor = watch->monitor;
	uint64_t oldest;
	bool there = true;

	pthread_mutex_lock(&monitor->lock);
	oldest = monitor->last > MONITOR_EVENTS_MAX ? monitor->last - MONITOR_EVENTS_MAX + 1 : 1;
	if (watch->next < oldest) {
		*ret = (struct monitor_event){
			.sequence = oldest - 1,
			.time_ns = monitor->slots[oldest % MONITOR_EVENTS_MAX].time_ns,
			.kind = "lost",
			.lost = oldest - watch->next,
		};
		watch->next = oldest;
	} else if (watch->next <= monitor->last) {
		*ret = monitor->slots[watch->next++ % MONITOR_EVENTS_MAX];
	} else {
		there = false;
	}
	pthread_mutex_unlock(&monitor->lock);
	return there;
}

struct monitor_watch *monitor_watch_free(struct monitor_watch *watch)
{
	struct monitor *monitor;

	if (!watch)
		return NULL;
	monitor = watch->monitor;
	pthread_mutex_lock(&monitor->wake_lock);
	DL_DELETE2(monitor->watches, watch, prev, next_watch);
	atomic_fetch_sub(&monitor->n_watches, 1);
	pthread_mutex_unlock(&monitor->wake_lock);
	free(watch);
	return NULL;
}
