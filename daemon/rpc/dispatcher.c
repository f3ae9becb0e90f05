/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/dispatcher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/log_quota.h"
#include "rpc/handover.h"
#include "rpc/rpc_session.h"
#include "util/clock.h"

#define STRANGERS_THREADS_MAX 2
/* Of all tenants; each is bounded by its calls in flight, and its bytes. */
#define CALLS_HELD_MAX 4096

/* ── tasks for the loop ───────────────────────────────────────────────────────────────────── */

static struct task *task_next(struct dispatcher *dispatcher)
{
	struct task *task;

	pthread_mutex_lock(&dispatcher->lock);
	task = dispatcher->tasks;
	if (task) {
		dispatcher->tasks = task->next;
		if (!dispatcher->tasks)
			dispatcher->tasks_tail = &dispatcher->tasks;
		task->queued = false;
	} else {
		dispatcher->posted = false;
	}
	pthread_mutex_unlock(&dispatcher->lock);
	return task;
}

/* One task a post, so that what else was posted has its turn between them. */
static void tasks_run(struct loop_post *post)
{
	struct dispatcher *dispatcher =
		(struct dispatcher *)((char *)post - offsetof(struct dispatcher, post));
	struct task *task = task_next(dispatcher);

	if (!task)
		return;
	task->run(task);
	loop_post(dispatcher->loop, post);
}

bool dispatcher_defer(struct dispatcher *dispatcher, struct task *task)
{
	bool newly, post = false;

	pthread_mutex_lock(&dispatcher->lock);
	newly = !task->queued;
	if (newly) {
		task->queued = true;
		task->next = NULL;
		*dispatcher->tasks_tail = task;
		dispatcher->tasks_tail = &task->next;
		post = !dispatcher->posted;
		dispatcher->posted = true;
	}
	pthread_mutex_unlock(&dispatcher->lock);
	if (post)
		loop_post(dispatcher->loop, &dispatcher->post);
	return newly;
}

bool dispatcher_may_log(struct dispatcher *dispatcher, const char *tenant, uid_t uid,
			enum log_kind kind, uint32_t *ret_suppressed)
{
	char name[LOG_SHARE_NAME_MAX];
	bool allowed;

	if (tenant[0])
		snprintf(name, sizeof(name), "%s", tenant);
	else
		snprintf(name, sizeof(name), "uid:%lu", (unsigned long)uid);
	pthread_mutex_lock(&dispatcher->lock);
	allowed = log_share_allow(&dispatcher->log_shares, name, kind, clock_monotonic_ns(),
				  ret_suppressed);
	pthread_mutex_unlock(&dispatcher->lock);
	return allowed;
}

/* ── life ─────────────────────────────────────────────────────────────────────────────────── */

int dispatcher_new(struct dispatcher **ret, struct broker *broker, struct loop *loop,
		   const struct rpc_settings *settings)
{
	struct dispatcher *dispatcher = calloc(1, sizeof(*dispatcher));

	if (!dispatcher)
		return -ENOMEM;
	dispatcher->strangers = pool_share_new(STRANGERS_THREADS_MAX);
	dispatcher->metrics = metrics_new();
	if (!dispatcher->strangers || !dispatcher->metrics ||
	    throttle_init(&dispatcher->throttle, loop, CALLS_HELD_MAX, call_let_go)) {
		pool_share_unref(dispatcher->strangers);
		metrics_free(dispatcher->metrics);
		free(dispatcher);
		return -ENOMEM;
	}
	dispatcher->broker = broker;
	dispatcher->loop = loop;
	dispatcher->settings = *settings;
	dispatcher->started_ns = clock_monotonic_ns();
	dispatcher->started_realtime_ns = clock_realtime_ns();
	dispatcher->tasks_tail = &dispatcher->tasks;
	dispatcher->post.function = tasks_run;
	RB_INIT(&dispatcher->sessions);
	RB_INIT(&dispatcher->refused);
	RB_INIT(&dispatcher->drops);
	pthread_mutex_init(&dispatcher->settings_lock, NULL);
	pthread_mutex_init(&dispatcher->lock, NULL);
	pthread_cond_init(&dispatcher->idle, NULL);
	monitor_init(&dispatcher->monitor);
	log_set_observer(monitor_log, &dispatcher->monitor);
	broker_set_observer(broker, monitor_guest_event, &dispatcher->monitor);
	broker_on_quota_high(broker, log_quota_high, NULL);
	if (handover_watch_start(dispatcher)) {
		dispatcher_free(dispatcher);
		return -ENOMEM;
	}
	*ret = dispatcher;
	return 0;
}

/* The loop does not run any more: what it would have done is done here. */
static void tasks_drain(struct dispatcher *dispatcher)
{
	struct task *task;

	while ((task = task_next(dispatcher)))
		task->run(task);
}

static void wait_for_calls(struct dispatcher *dispatcher)
{
	pthread_mutex_lock(&dispatcher->lock);
	while (dispatcher->in_flight)
		pthread_cond_wait(&dispatcher->idle, &dispatcher->lock);
	pthread_mutex_unlock(&dispatcher->lock);
}

static void spare_free(struct dispatcher *dispatcher)
{
	while (dispatcher->spare) {
		struct call *call = dispatcher->spare;

		dispatcher->spare = call->next_joiner;
		free(call);
	}
}

/* What is delayed goes on, and finds its session ended.
 * Ending the sessions cancels what runs: the transports, which wait for their calls, need not wait
 * for a pin that takes minutes. */
void dispatcher_stop(struct dispatcher *dispatcher)
{
	if (!dispatcher)
		return;
	rpc_session_end_all(dispatcher);
	throttle_stop(&dispatcher->throttle);
}

/* The transports are gone: no call comes any more, but mutations may still run. */
struct dispatcher *dispatcher_free(struct dispatcher *dispatcher)
{
	if (!dispatcher)
		return NULL;
	dispatcher_stop(dispatcher);
	wait_for_calls(dispatcher);
	handover_watch_stop(dispatcher);
	tasks_drain(dispatcher);
	loop_unpost(dispatcher->loop, &dispatcher->post);
	throttle_deinit(&dispatcher->throttle);
	spare_free(dispatcher);
	pool_share_unref(dispatcher->strangers);
	broker_set_observer(dispatcher->broker, NULL, NULL);
	log_set_observer(NULL, NULL);
	monitor_deinit(&dispatcher->monitor);
	metrics_free(dispatcher->metrics);
	pthread_cond_destroy(&dispatcher->idle);
	pthread_mutex_destroy(&dispatcher->settings_lock);
	pthread_mutex_destroy(&dispatcher->lock);
	free(dispatcher);
	return NULL;
}

struct broker *dispatcher_broker(struct dispatcher *dispatcher)
{
	return dispatcher->broker;
}

struct rpc_settings dispatcher_settings(struct dispatcher *dispatcher)
{
	struct rpc_settings settings;

	pthread_mutex_lock(&dispatcher->settings_lock);
	settings = dispatcher->settings;
	pthread_mutex_unlock(&dispatcher->settings_lock);
	return settings;
}

void dispatcher_set_settings(struct dispatcher *dispatcher, const struct rpc_settings *settings)
{
	struct rpc_settings now = *settings;

	pthread_mutex_lock(&dispatcher->settings_lock);
	now.calls_per_connection_max = dispatcher->settings.calls_per_connection_max;
	now.first_request_ms = dispatcher->settings.first_request_ms;
	dispatcher->settings = now;
	pthread_mutex_unlock(&dispatcher->settings_lock);
}

void dispatcher_set_operator(struct dispatcher *dispatcher, const struct operator_ops *ops,
			     void *context)
{
	dispatcher->operator_ops = ops;
	dispatcher->operator_context = context;
}

void dispatcher_set_rings(struct dispatcher *dispatcher, const struct ring_ops *ops, void *context)
{
	dispatcher->ring_ops = ops;
	dispatcher->ring_context = context;
}

void dispatcher_fail(struct dispatcher *dispatcher, int status)
{
	log_as(LOG_LEVEL_ERROR, LOG_MESSAGE_BROKEN, "the daemon is broken and stops: %s",
	       strerror(-status));
	loop_exit(dispatcher->loop, status);
}
