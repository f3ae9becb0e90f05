/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_MONITOR_H
#define IB_RPC_MONITOR_H

/*
 * What happens in the daemon, for operators who watch: what is logged, and events of all guests.
 *
 * One ring of the last MONITOR_EVENTS_MAX for all watchers, which is made when the first comes;
 * each has a place of its own in it. A watcher that was overtaken gets one event "lost" that says
 * how many. While nobody watches, posting costs one load.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/broker.h"
#include "util/log.h"

#define MONITOR_EVENTS_MAX   1024
#define MONITOR_WATCHERS_MAX 16
#define MONITOR_TEXT_BYTES   384

struct monitor_event {
	uint64_t sequence, time_ns; /* of the monitor; CLOCK_REALTIME */
	char kind[32];
	char tenant[BROKER_NAME_MAX];
	uint64_t guest;
	char guest_name[BROKER_NAME_MAX];
	uint64_t pid, uid;
	uint64_t lost;
	char text[MONITOR_TEXT_BYTES];
};

struct monitor_watch;

/* Locks: lock guards the ring; wake_lock the list, and is held while watchers are woken, so that
 * monitor_watch_free() returns only when no wake() runs. Neither is taken while the other is. */
struct monitor {
	_Atomic uint32_t n_watches;
	pthread_mutex_t lock;
	uint64_t last; /* sequence of the newest */
	struct monitor_event *slots;
	pthread_mutex_t wake_lock;
	struct monitor_watch *watches;
};

void monitor_init(struct monitor *monitor);
void monitor_deinit(struct monitor *monitor); /* nobody watches any more */
uint32_t monitor_watchers(const struct monitor *monitor);

/* Sequence and time are filled in. Any thread; no lock may be held that a wake() takes. Neither
 * allocates nor waits. */
void monitor_post(struct monitor *monitor, const struct monitor_event *event);
/* A log_observer_fn, and what broker_set_observer() wants: context is the monitor. */
void monitor_log(void *context, const struct log_entry *entry, const char *text);
void monitor_guest_event(void *context, const struct event *event,
			 const struct event_subject *subject);

/* wake(context): there may be something new; any thread, must not wait. 0 or REFUSED: too many
 * watch, no memory. */
int monitor_watch_new(struct monitor_watch **ret, struct monitor *monitor,
		      void (*wake)(void *context), void *context, struct refusal *refusal);
/* true: *ret is the next. */
bool monitor_watch_next(struct monitor_watch *watch, struct monitor_event *ret);
struct monitor_watch *monitor_watch_free(struct monitor_watch *watch); /* returns NULL */

#endif
