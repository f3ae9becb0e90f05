/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_SESSION_INDEX_H
#define IB_RPC_SESSION_INDEX_H

/* The sessions that live, by number. Trees because they take no memory of their own. */

#include <bsd/sys/tree.h>
#include <stdint.h>

struct rpc_session;
RB_HEAD(session_index, rpc_session);

#endif
