/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_DESCRIPTOR_DROP_H
#define IB_RPC_DESCRIPTOR_DROP_H

/*
 * Closing what a stranger sent.
 *
 * close() calls the file's flush, and that of a FUSE file waits for its server, who may be the
 * sender; a socket that lingers waits as well. So such a descriptor is never closed on the loop or
 * on a thread that decodes requests, but by the pool, at the expense of its sender's share of it.
 *
 * Who makes the pool wait has its descriptors pile up here. Beyond a bound no more of that user's
 * are received, so that the daemon keeps the descriptors that it needs for everybody else.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define DESCRIPTORS_DROPPING_MAX 256 /* of one user; one packet more may be over it */

struct dispatcher;
struct rpc_session;

/* Negative ones are ignored. session: the sender's, or NULL for one who has none; uid: the
 * sender's. Never fails: without memory they are closed here. */
void descriptors_drop(struct dispatcher *dispatcher, struct rpc_session *session, uid_t uid,
		      const int *consume_fds, size_t n_fds);
/* Whether this user has as many that wait to be closed as may be. */
bool descriptors_pile_up(struct dispatcher *dispatcher, uid_t uid);

#endif
