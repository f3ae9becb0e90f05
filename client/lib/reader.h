/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_READER_H
#define IB_CLIENT_READER_H

/* Who reads a connection's socket, and who waits meanwhile (connection.h). */

#include "lib/connection.h"

/* What a thread waits for: news of its call; without one a free slot. */
struct wait {
	struct call *call;
	bool patient; /* for a slot: also while the link is down */
};

/* Under the lock. 0 when it is there, or the connection is lost; -ETIMEDOUT. */
int reader_wait(struct connection *connection, const struct wait *wait, uint64_t deadline);
/* Under the lock: whoever leaves a wait has somebody else read on. */
void reader_hand_over(struct connection *connection);
/* Without it: until the socket may have room, or the deadline. The daemon may itself wait for us to
 * take answers, so read if nobody does. */
void reader_wait_for_room(struct connection *connection, uint64_t deadline);

/* Read what is there without waiting, at most max packets; with the link down do what is due for
 * it. Nothing if somebody else reads. */
void reader_drain(struct connection *connection, unsigned int max);
/* The same under the lock. */
void reader_drain_locked(struct connection *connection, unsigned int max);

#endif
