/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_WATCHDOG_H
#define IB_WATCHDOG_H

/*
 * systemd's watchdog: it is told that the daemon lives by the main loop, and only while the threads
 * that all clients depend on go on as well: gRPC's guard and queue, and those of the update rings.
 * If one hangs the daemon is killed before long, and the next process takes the guests over.
 *
 * Workers are not looked at. What they do may take as long as the kernel likes, a pin for example,
 * and who waits for one is its guest alone.
 */

#include <stdint.h>

struct event;
struct grpc_transport;
struct loop;
struct ring_server;

struct watchdog {
	struct event *timer; /* NULL: nobody watches */
	uint64_t interval_us;
	struct grpc_transport *grpc;
	struct ring_server *rings;
	const char *hung; /* a thread that was said to hang */
};

/* What is borrowed is until watchdog_stop(). 0 or -ENOMEM. */
int watchdog_start(struct watchdog *watchdog, struct loop *loop, struct grpc_transport *borrow_grpc,
		   struct ring_server *borrow_rings);
/* Harmless on one that is zeroed. */
void watchdog_stop(struct watchdog *watchdog);

#endif
