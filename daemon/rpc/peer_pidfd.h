/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_PEER_PIDFD_H
#define IB_RPC_PEER_PIDFD_H

/* The process that a pidfd, or a message's credentials, name. */

#include <sys/socket.h>

#include "broker/broker.h"

/* pidfd: borrowed, from anybody; ret->pidfd is the same one. 0, or REFUSED naming field: it is no
 * pidfd, its process has ended, or lives where we cannot see it. */
int peer_of_pidfd(int pidfd, const char *field, struct peer *ret, struct refusal *refusal);
/* The sender of a message that has just come; ret->pidfd is the caller's. False: it has ended. The
 * number could be another process' of the same user since; who that could be has the socket. */
bool peer_of_credentials(const struct ucred *credentials, struct peer *ret);

#endif
