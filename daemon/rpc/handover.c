/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handover.h"

#include <errno.h>

#include "rpc/rpc_session.h"

/* Late rather than a moment too early, which would mean another look. */
#define SLACK_US 1000

/* Their guests go with them. */
static void end_unclaimed(struct dispatcher *dispatcher)
{
	struct session *session;

	while ((session = broker_unclaimed_session(dispatcher->broker))) {
		struct rpc_session *found = rpc_session_of(dispatcher, session);

		if (found)
			rpc_session_end(found, "nobody came to hold its guest", NULL, NULL);
		else
			session_close(session, NULL, NULL);
		if (found)
			rpc_session_unref(found);
		session_unref(session);
	}
}

void handover_watch_look(struct dispatcher *dispatcher)
{
	uint64_t wait_ns = broker_expire_handovers(dispatcher->broker);
	uint64_t wait_us = wait_ns / 1000 + SLACK_US;
	struct timeval wait = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};

	end_unclaimed(dispatcher);
	if (wait_ns != UINT64_MAX)
		event_add(dispatcher->handovers.timer, &wait);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	handover_watch_look(context);
}

static void look_run(struct task *task)
{
	struct handover_watch *watch =
		(struct handover_watch *)((char *)task - offsetof(struct handover_watch, look));

	if (watch->timer)
		handover_watch_look(watch->dispatcher);
}

/* Under the broker's locks, on any thread. */
static void tell(void *context)
{
	struct dispatcher *dispatcher = context;

	dispatcher_defer(dispatcher, &dispatcher->handovers.look);
}

int handover_watch_start(struct dispatcher *dispatcher)
{
	struct handover_watch *watch = &dispatcher->handovers;

	watch->dispatcher = dispatcher;
	watch->look.run = look_run;
	watch->timer = evtimer_new(loop_base(dispatcher->loop), on_timer, dispatcher);
	if (!watch->timer)
		return -ENOMEM;
	broker_on_handover(dispatcher->broker, tell, dispatcher);
	return 0;
}

void handover_watch_stop(struct dispatcher *dispatcher)
{
	broker_on_handover(dispatcher->broker, NULL, NULL);
	if (dispatcher->handovers.timer)
		event_free(dispatcher->handovers.timer);
	dispatcher->handovers.timer = NULL;
}
