/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LOG_DEVICE_H
#define IB_RPC_LOG_DEVICE_H

#include "rpc/call.h"

/* Tell the operator what became of a device, and who did it: opened, or closed. */
void log_device(struct call *call, const struct device_description *device, bool opened);
void log_guest_created(struct call *call, uint64_t guest, const char *name);

#endif
