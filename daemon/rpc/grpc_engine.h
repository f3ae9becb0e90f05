/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_GRPC_ENGINE_H
#define IB_RPC_GRPC_ENGINE_H

/*
 * The two threads behind all gRPC connections of the process.
 *
 * The "grpc-guard" thread runs the guards' loop: the clients' sockets, their frame guards and
 * timers. It is not the daemon's main loop, so a client that floods its gRPC connection does not
 * delay the native transport or the watchdog. The "grpc-queue" thread takes gRPC's completions and
 * so calls the dispatcher.
 *
 * There is one of each, however many transports there are: gRPC core has one epoll set for the
 * process, and a second thread on a queue of its own would now and then take an event that belongs
 * to the first one's and have to wake it (measured: one and a half times the time of a call).
 */

#include <grpc/grpc.h>

#include "rpc/loop.h"

struct grpc_engine;

/* The process' engine; made by the first call. The main thread only. 0 or a negative errno. */
int grpc_engine_ref(struct grpc_engine **ret);
/* The last one ends the threads; nothing may be served or posted any more. NULL is fine; returns
 * NULL. */
struct grpc_engine *grpc_engine_unref(struct grpc_engine *engine);
/* A thread of it that is at what it was at when this was asked the last time, by name; NULL: both
 * go on. The main thread only. */
const char *grpc_engine_hangs(struct grpc_engine *engine);
struct loop *grpc_engine_loop(struct grpc_engine *engine);
grpc_completion_queue *grpc_engine_queue(struct grpc_engine *engine);

#endif
