/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RELOAD_H
#define IB_RELOAD_H

/*
 * Another configuration while the daemon runs, whole or not at all. Asked for by SIGHUP, or over
 * the admin socket.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "config.h"
#include "options.h"
#include "util/pool.h"

struct reload {
	const struct options *options;
	struct config *start;         /* borrowed: what the daemon started with */
	struct config *current;       /* what holds, a reference */
	pthread_mutex_t current_lock; /* of it, for a moment */
	struct broker *broker;
	struct dispatcher *dispatcher;
	pthread_mutex_t lock; /* one at a time */
	struct pool_job job;  /* of reload_later() */
	_Atomic bool asked;   /* it was, and has not begun */
	bool stopped;         /* nothing is taken any more; lock */
};

extern const struct operator_ops reload_operator; /* its context is a struct reload */

/* Options, start and broker are borrowed until reload_deinit(), when no worker lives any more; the
 * dispatcher until reload_stop(). */
void reload_init(struct reload *reload, const struct options *options, struct config *start,
		 struct broker *broker, struct dispatcher *dispatcher);
/* Whatever is asked from now on is refused; what has begun is waited for. */
void reload_stop(struct reload *reload);
void reload_deinit(struct reload *reload);
/* Take it, and tell the log and systemd how that went; on a worker, since names of users can be a
 * slow network's to tell. Never blocks. */
void reload_later(struct reload *reload);

/* The kernel's own ceiling behind our ledger: the soft limit follows, up to what it was at the
 * start, which the unit grants. */
void reload_memlock(uint64_t pinned_bytes_max);

#endif
