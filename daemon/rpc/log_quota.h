/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LOG_QUOTA_H
#define IB_RPC_LOG_QUOTA_H

#include "broker/broker.h"

/* Tell the operator that something rose above its soft limit. For broker_on_quota_high(). */
void log_quota_high(void *context, const struct quota_high *high);

#endif
