/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_STATUS_ASK_H
#define IB_CTL_STATUS_ASK_H

/* What the daemon and all tenants do, however many these are. */

#include "ctl/rpc.h"
#include "iommubroker/v1/admin.pb-c.h"

/* As rpc_call() of GetStatus; function is called once, with the tenants of all pages. */
void status_ask(struct rpc *rpc, rpc_message_fn function, void *user_data,
		struct rpc_status *ret_status);

#endif
