/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_LINK_H
#define IB_CLIENT_LINK_H

/* The link of a connection: up, down, up again, lost. All are called under the lock. */

#include "lib/connection.h"

/* For good: every call ends with result, and every later one. */
void link_lose(struct connection *connection, int result);
/* The socket is gone; get another one, or lose it where that cannot be. */
void link_fall(struct connection *connection);
/* By the reader, while it is down: what is due. */
void link_step(struct connection *connection);
/* By the reader, while it is up: send what is unsent, as far as there is room. */
void link_flush(struct connection *connection);
/* Have the event loop polled for what it is to be woken for. */
void link_arm(struct connection *connection);
/* Ask for a mutation to be stopped. Never waits. */
int link_send_cancel(struct connection *connection, uint64_t request_id);

/* Slots, for both sides of it. */
struct call *slot_take(struct connection *connection, enum call_state state,
		       const struct call_request *request);
void slot_free(struct connection *connection, struct call *call);

#endif
