/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_DISPATCHER_H
#define IB_RPC_DISPATCHER_H

/*
 * What the files of rpc/ share of a dispatcher; transports see rpc/dispatch.h only.
 *
 * Locks, in the order in which they may be taken: a stream's place in its call (stream.c), then a
 * session's, then the dispatcher's. None of them is held while the broker, a transport or the loop
 * is called, but for loop_post(), which takes none of ours.
 */

#include <pthread.h>

#include "rpc/call.h"
#include "rpc/dispatch.h"
#include "rpc/log_share.h"
#include "rpc/metrics.h"
#include "rpc/monitor.h"
#include "rpc/session_index.h"
#include "rpc/throttle.h"
#include "rpc/user_count.h"
#include "util/log.h"

/* Something to be done on the loop's thread, from any thread, without allocating. The owner keeps
 * it alive until it has run. */
struct task {
	void (*run)(struct task *task);
	struct task *next;
	bool queued;
};

/* See handover.h; the loop's. */
struct handover_watch {
	struct dispatcher *dispatcher;
	struct task look;
	struct event *timer;
};

struct refresh_call;

struct dispatcher {
	struct broker *broker;
	struct loop *loop;
	pthread_mutex_t settings_lock; /* the innermost */
	struct rpc_settings settings;
	const struct operator_ops *operator_ops; /* NULL: none */
	void *operator_context;
	const struct ring_ops *ring_ops; /* NULL: none */
	void *ring_context;
	uint64_t started_ns, started_realtime_ns;
	struct metrics *metrics;
	struct monitor monitor;
	struct throttle throttle; /* calls that come too fast */
	struct handover_watch handovers;
	struct native_transport *native; /* the loop's; NULL: there is none */
	struct pool_share *strangers;    /* of the pool, for who has no session */
	_Atomic uint64_t calls, refusals;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t idle;  /* no call in flight */
	size_t in_flight;
	struct call *spare; /* refresh calls that wait for their next use */
	size_t n_spare;
	struct session_index sessions;
	bool stopping; /* no session is opened any more */
	uint32_t connections;
	struct user_counts refused; /* users' connections that are only told why, see account.h */
	uint32_t n_refused;         /* of all users */
	struct user_counts drops;   /* descriptors of users that wait to be closed */
	struct task *tasks, **tasks_tail;
	bool posted;
	struct loop_post post;
	struct log_shares log_shares;
};

/* true: queued now; false: it was queued already and will run. */
bool dispatcher_defer(struct dispatcher *dispatcher, struct task *task);
/* Whether one more line of that kind may be logged for the tenant of that name; or "", for a user
 * who has not come so far as to have one. */
bool dispatcher_may_log(struct dispatcher *dispatcher, const char *tenant, uid_t uid,
			enum log_kind kind, uint32_t *ret_suppressed);

#endif
