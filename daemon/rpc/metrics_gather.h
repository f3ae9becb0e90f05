/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METRICS_GATHER_H
#define IB_RPC_METRICS_GATHER_H

/*
 * All metrics as OpenMetrics text: what was counted (rpc/metrics.h), and what the broker, its pool
 * and the kernel say now.
 */

#include <stddef.h>

struct dispatcher;

/* *ret: n bytes and a zero, the caller frees it; at most METRICS_TEXT_BYTES_MAX. 0 or
 * -ENOMEM, then nothing is written. Takes up to some milliseconds: not on the event loop. Any other
 * thread. */
int metrics_gather(struct dispatcher *dispatcher, char **ret, size_t *ret_n);

#endif
