/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_RPC_SESSION_H
#define IB_RPC_RPC_SESSION_H

/*
 * What rpc/ keeps beside a session of the broker: its request ids, the descriptors that wait in
 * it, and the watch on its process.
 *
 * A session belongs to a process. It ends by CloseSession, by the death of the process (seen on
 * its pidfd by the loop), or with its native connection if it has one; a gRPC connection's end
 * ends nothing, and the next one finds the session again by its secret.
 */

#include <stdbool.h>
#include <stdint.h>

#include "rpc/dispatch.h"
#include "rpc/request_table.h"

struct log_rate;
struct rpc_session;

/* A new session; *ret is a reference. 0, REFUSED or negative. */
int rpc_session_open(struct rpc_session **ret, struct dispatcher *dispatcher,
		     const struct peer *peer, const char *name,
		     uint8_t ret_secret[BROKER_SECRET_BYTES], struct refusal *refusal);
/* By its secret, for the same process only. *ret is a reference. Cheap: every gRPC call does it. */
int rpc_session_find(struct rpc_session **ret, struct dispatcher *dispatcher,
		     const struct peer *peer, const uint8_t *secret, size_t secret_bytes,
		     struct refusal *refusal);
/* Of a session of the broker's: a reference, or NULL: it has ended. */
struct rpc_session *rpc_session_of(struct dispatcher *dispatcher, struct session *session);
struct rpc_session *rpc_session_ref(struct rpc_session *session);
struct rpc_session *rpc_session_unref(struct rpc_session *session); /* returns NULL */

struct session *rpc_session_broker(struct rpc_session *session);
struct request_table *rpc_session_requests(struct rpc_session *session);
bool rpc_session_ended(struct rpc_session *session);

/* Make a native connection this session's. REFUSED: it has one. */
int rpc_session_claim(struct rpc_session *session, struct refusal *refusal);

/* Not after all: what claimed it could not be its. */
void rpc_session_unclaim(struct rpc_session *session);

/* One that a delegation or a process before this one made: consume_session is taken, also on
 * failure. *ret is a reference. what: for the log, static. 0 or REFUSED. */
int rpc_session_adopt(struct rpc_session **ret, struct dispatcher *dispatcher,
		      struct session *consume_session, const struct peer *peer, const char *what,
		      struct refusal *refusal);
/* It is this process' from now on; the loop's thread. 0, or REFUSED: it is another's. */
int rpc_session_bind(struct rpc_session *session, const struct peer *peer, struct refusal *refusal);
/* ended(context) is called on the loop's thread once it has ended, if the loop still runs then, and
 * else when the dispatcher goes. Once, before anybody can have ended it. */
void rpc_session_on_end(struct rpc_session *session, void (*ended)(void *context), void *context);

/* No call is accepted any more, running mutations are cancelled, waiting descriptors closed, the
 * broker takes everything down; done(context) is called once that is over, from any thread. May be
 * called again, and then done is called all the same. why: for the log, static. */
void rpc_session_end(struct rpc_session *session, const char *why, void (*done)(void *context),
		     void *context);
/* End all sessions, when the daemon stops. */
void rpc_session_end_all(struct dispatcher *dispatcher);

int rpc_session_reserve_descriptor(struct rpc_session *session, struct refusal *refusal);
/* The same whatever the setting says, up to DESCRIPTORS_WAITING_CAP. */
int rpc_session_reserve_place(struct rpc_session *session, struct refusal *refusal);
void rpc_session_unreserve_descriptor(struct rpc_session *session);
/* Into a reserved place. 0 or negative. A session that has ended closes it at once. */
int rpc_session_put_descriptor(struct rpc_session *session, int consume_fd, bool ours,
			       uint64_t *ret_token);
/* -1: none. ours: only one that no client sent. */
int rpc_session_take_descriptor(struct rpc_session *session, uint64_t token, bool ours);

/* Whether one more line may be logged of what this session does: its tenant's share. */
bool rpc_session_may_log(struct rpc_session *session, uint32_t *ret_suppressed);

/* The one answer to whoever has no session, or not this one. */
int refuse_unauthenticated(struct refusal *refusal);

#endif
