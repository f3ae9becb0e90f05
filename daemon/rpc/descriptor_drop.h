/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_DESCRIPTOR_DROP_H
#define IB_RPC_DESCRIPTOR_DROP_H

/*
 * Closing what a stranger sent.
 *
 * close() calls the file's flush, and that of a FUSE file waits for its server, who may be the
 * sender; a socket that lingers waits as well. So such a descriptor is never closed on the loop or
 * on a thread that decodes requests, but by the pool, at the expense of its sender's share of it.
 */

#include <stddef.h>

struct dispatcher;
struct rpc_session;

/* Negative ones are ignored. session: the sender's, or NULL for one who has none. Never fails:
 * without memory they are closed here. */
void descriptors_drop(struct dispatcher *dispatcher, struct rpc_session *session,
		      const int *consume_fds, size_t n_fds);

#endif
