/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LISTENER_H
#define IB_RPC_LISTENER_H

/*
 * A listening unix socket: accepts, finds out who connected, hands the connection on.
 *
 * Who connected is taken once, right after accept: SO_PEERCRED, and a pidfd (SO_PEERPIDFD, or
 * where the kernel lacks it pidfd_open() checked against SO_PEERCRED). A peer whose pid reads 0
 * lives in a pid namespace that we cannot see into and is refused. Accept errors never end the
 * loop: on EMFILE and the like it pauses accepting for 100 ms.
 */

#include "broker/broker.h"
#include "rpc/loop.h"

struct listener;

/* consume_fd: the connection, non-blocking and close-on-exec. peer->pidfd is borrowed: duplicate
 * it to keep it. */
typedef void (*listener_accept_fn)(void *context, int consume_fd, const struct peer *peer);

/* Bind and listen at path (mode 0666 for client sockets: who may connect is the folder's business
 * and peer_allowed()'s), or adopt a listening descriptor that systemd gave us (consumed).
 * type: SOCK_STREAM or SOCK_SEQPACKET. 0 or a negative errno. A stale socket file is removed; a
 * live one is -EADDRINUSE. */
int listener_new(struct listener **ret, struct loop *loop, const char *path, int type,
		 listener_accept_fn accept, void *context);
int listener_adopt(struct listener **ret, struct loop *loop, int consume_fd, int type,
		   listener_accept_fn accept, void *context);
/* Stops accepting; removes the socket file that listener_new() made. */
struct listener *listener_free(struct listener *listener);

/* Who connected. 0 and *ret filled (ret->pidfd is the caller's), or a negative errno. */
int peer_of_socket(int fd, struct peer *ret);

#endif
