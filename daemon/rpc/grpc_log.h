/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_GRPC_LOG_H
#define IB_RPC_GRPC_LOG_H

/* What keeps gRPC core's own log and its error-queue reads from doing harm, process-wide. */

#include <stdbool.h>

/* Once, before any thread: recvmsg() and recvmmsg() with MSG_ERRQUEUE fail with EAGAIN from now on.
 * gRPC calls them with room for descriptors. The frame guard keeps clients' sockets from gRPC; this
 * is the second line: a system call filter, or functions of our own where a filter cannot see the
 * flags. Sets no-new-privileges. Where the filter cannot be had that is logged and the answer is
 * false. */
bool grpc_errqueue_guard(void);

/* Have gRPC's errors go to our log, without their text: it echoes bytes of clients. */
void grpc_log_filter(void);

#endif
