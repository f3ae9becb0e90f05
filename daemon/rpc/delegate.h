/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_DELEGATE_H
#define IB_RPC_DELEGATE_H

/*
 * The way in to a delegation: one end of a connected socket, or a socket that listens.
 *
 * Behind it there is a session that can use one guest, made at Delegate. Who calls OpenSession on
 * such a connection first is given it: it is one process' from then on, and no other one's, whoever
 * has the socket too. With the end of its connection the session ends, and with the session the way
 * in; if it is the daemon that ended, its successor listens on, and that process joins it again. A
 * connected socket that nobody has any more ends it likewise; one that listens waits.
 *
 * All but delegate_new() is the loop's thread's.
 */

#include <sys/queue.h>
#include <sys/socket.h>

#include "rpc/dispatch.h"

struct delegate;
struct rpc_session;
TAILQ_HEAD(delegates, delegate);

/* A way in to a session: consume_fd is served or listened on by the native transport, soon. tenant:
 * who is charged for its connections; its reference is taken. On failure, too. 0 or REFUSED. */
int delegate_new(struct dispatcher *dispatcher, struct rpc_session *session,
		 struct tenant *consume_tenant, int consume_fd, bool listens,
		 struct refusal *refusal);
/* One that a process before this one listened for; without its socket, or if that is none any more,
 * nothing is done. */
void delegate_restore(struct dispatcher *dispatcher, struct rpc_session *session);
struct delegate *delegate_ref(struct delegate *delegate);
struct delegate *delegate_unref(struct delegate *delegate); /* NULL is fine; returns NULL */

/* Its session, claimed by that process: borrowed. NULL: REFUSED. */
struct rpc_session *delegate_claim(struct delegate *delegate, const struct peer *peer,
				   struct refusal *refusal);
/* Whether it is the way in to that session. */
bool delegate_leads_to(const struct delegate *delegate, const struct rpc_session *session);
/* A connection through it has ended. */
void delegate_left(struct delegate *delegate);
/* The transport ends. */
void delegates_close(struct delegates *delegates);

#endif
