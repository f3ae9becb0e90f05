/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LOG_REFUSAL_H
#define IB_RPC_LOG_REFUSAL_H

#include "rpc/call.h"

/* Tell the operator of a refusal that is his to know: quota, rate and permission, with the numbers
 * and the peer, as the client was told. Others (a client's own mistakes) are not logged. Of each
 * tenant only so many lines (log_share.h), and the next one says how many were not shown. */
void log_refusal(struct call *call);

#endif
