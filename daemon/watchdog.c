/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "watchdog.h"

#include <errno.h>
#include <stdint.h>

#include <systemd/sd-daemon.h>

#include "notify.h"
#include "ring/ring.h"
#include "rpc/dispatch.h"
#include "rpc/loop.h"
#include "util/log.h"

/* So often in its time is everybody looked at: who had one long turn has time to end it. */
#define LOOKS   4
#define SOON_US 100000u

static const char *thread_that_hangs(struct watchdog *watchdog)
{
	const char *grpc = grpc_transport_hangs(watchdog->grpc);
	bool rings = ring_server_hangs(watchdog->rings);

	return grpc ? grpc : rings ? "rings" : NULL;
}

/* What was not heard is said again before long: time runs on meanwhile. */
static int look_again(struct watchdog *watchdog, bool soon)
{
	const uint64_t usec =
		soon && watchdog->interval_us > SOON_US ? SOON_US : watchdog->interval_us;
	const struct timeval interval = {(time_t)(usec / 1000000), (suseconds_t)(usec % 1000000)};

	return event_add(watchdog->timer, &interval);
}

static void on_look(evutil_socket_t fd, short what, void *context)
{
	struct watchdog *watchdog = context;
	const char *hangs = thread_that_hangs(watchdog);

	(void)fd;
	(void)what;
	if (!hangs)
		look_again(watchdog, !notify_now("WATCHDOG=1"));
	else if (hangs != watchdog->hung)
		log_warning("a thread does not go on: %s; the watchdog is not told until it does",
			    hangs);
	watchdog->hung = hangs;
}

int watchdog_start(struct watchdog *watchdog, struct loop *loop, struct grpc_transport *borrow_grpc,
		   struct ring_server *borrow_rings)
{
	uint64_t usec = 0;

	*watchdog = (struct watchdog){.grpc = borrow_grpc, .rings = borrow_rings};
	if (sd_watchdog_enabled(0, &usec) <= 0)
		return 0;
	watchdog->interval_us = usec / LOOKS;
	watchdog->timer = event_new(loop_base(loop), -1, EV_PERSIST, on_look, watchdog);
	return watchdog->timer && !look_again(watchdog, false) ? 0 : -ENOMEM;
}

void watchdog_stop(struct watchdog *watchdog)
{
	if (watchdog->timer)
		event_free(watchdog->timer);
	watchdog->timer = NULL;
}
