/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LOG_DEVICE_H
#define IB_RPC_LOG_DEVICE_H

#include "rpc/call.h"

/* Tell the operator what became of a device, and who did it. what: "opened", static. */
void log_device(struct call *call, const struct device_description *device, const char *what);

#endif
