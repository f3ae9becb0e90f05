/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LOG_REFUSAL_H
#define IB_RPC_LOG_REFUSAL_H

#include "rpc/call.h"

/* Tell the operator of a refusal that is his to know: quota and permission, with the numbers and
 * the peer, as the client was told. Others (a client's own mistakes) are not logged. */
void log_refusal(struct call *call);
/* A connection that was dropped, and why. */
void log_drop(struct dispatcher *dispatcher, const struct peer *peer, const char *why);

#endif
