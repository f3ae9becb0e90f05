/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "watchdog.h"

#include <errno.h>
#include <stdint.h>

#include <systemd/sd-daemon.h>

#include "ring/ring.h"
#include "rpc/dispatch.h"
#include "rpc/loop.h"
#include "util/log.h"

/* So often in its time is everybody looked at: who had one long turn has time to end it. */
#define LOOKS 4

static const char *thread_that_hangs(struct watchdog *watchdog)
{
	const char *grpc = grpc_transport_hangs(watchdog->grpc);
	bool rings = ring_server_hangs(watchdog->rings);

	return grpc ? grpc : rings ? "rings" : NULL;
}

static void on_look(evutil_socket_t fd, short what, void *context)
{
	struct watchdog *watchdog = context;
	const char *hangs = thread_that_hangs(watchdog);

	(void)fd;
	(void)what;
	if (!hangs)
		sd_notify(0, "WATCHDOG=1");
	else if (hangs != watchdog->hung)
		log_warning("a thread does not go on: %s; the watchdog is not told until it does",
			    hangs);
	watchdog->hung = hangs;
}

int watchdog_start(struct watchdog *watchdog, struct loop *loop, struct grpc_transport *borrow_grpc,
		   struct ring_server *borrow_rings)
{
	struct timeval interval;
	uint64_t usec = 0;

	*watchdog = (struct watchdog){.grpc = borrow_grpc, .rings = borrow_rings};
	if (sd_watchdog_enabled(0, &usec) <= 0)
		return 0;
	usec /= LOOKS;
	interval = (struct timeval){(time_t)(usec / 1000000), (suseconds_t)(usec % 1000000)};
	watchdog->timer = event_new(loop_base(loop), -1, EV_PERSIST, on_look, watchdog);
	if (!watchdog->timer || event_add(watchdog->timer, &interval))
		return -ENOMEM;
	return 0;
}

void watchdog_stop(struct watchdog *watchdog)
{
	if (watchdog->timer)
		event_free(watchdog->timer);
	watchdog->timer = NULL;
}
