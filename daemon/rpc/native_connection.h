/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_NATIVE_CONNECTION_H
#define IB_RPC_NATIVE_CONNECTION_H

/*
 * One connection of the native transport: a client's socket, its calls in flight, its session.
 *
 * The loop's thread reads, opens and closes it; whichever thread finishes a call sends the answer.
 * Calls outlive the connection: each holds a reference on its memory.
 */

#include <sys/queue.h>

#include "rpc/delegate.h"
#include "rpc/dispatcher.h"

struct native_connection;
TAILQ_HEAD(native_connections, native_connection);

/* What all connections share; the loop's thread only. */
struct native_transport {
	struct dispatcher *dispatcher;
	struct loop *loop;
	uint32_t calls_max, first_request_ms; /* settings of the start */
	struct native_connections connections;
	struct delegates delegates;
	uint8_t *buffer; /* of the packet that is being read */
};

/* consume_fd: taken also on failure. The connection is charged to the peer. NULL: no memory or
 * descriptor for it. */
struct native_connection *native_connection_new(struct native_transport *transport, int consume_fd,
						const struct peer *peer,
						struct rpc_account *account);
/* One through a delegation's socket: its session is the delegation's. peer NULL: who is at the
 * other end of a connected socket is known when the first message comes; such a one may stay
 * silent. */
struct native_connection *native_connection_new_delegated(struct native_transport *transport,
							  int consume_fd, const struct peer *peer,
							  struct rpc_account *account,
							  struct delegate *delegate);
/* End it: its session ends, its calls are told, its charge is given back. why NULL: its client
 * closed it, nothing to log. */
void native_connection_close(struct native_connection *connection, const char *why);

#endif
