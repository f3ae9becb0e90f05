/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_FAKE_DISPATCHER_H
#define IB_TESTS_FAKE_DISPATCHER_H

/*
 * rpc/dispatch.h without a broker, for tests of a transport.
 *
 *   /test.Echo/Unary   the request again
 *   /test.Echo/Later   the same, from another thread
 *   /test.Echo/Who     {pid, uid as 32-bit words}, then the session's secret
 *   /test.Echo/Refuse  the status whose number the first byte is, with the rest as its details
 *   /test.Echo/Hold    answers when fake_release() is called, or CANCELLED when it is cancelled
 *   /test.Echo/Stream  {count, bytes as 32-bit words}: so many messages of that size, numbered
 *   /test.Echo/Watch   a stream that ends only when it is cancelled
 */

#include <stdbool.h>
#include <stddef.h>

#include "rpc/dispatch.h"

/* settings: borrowed. */
struct dispatcher *fake_dispatcher_new(const struct rpc_settings *settings);
struct dispatcher *fake_dispatcher_free(struct dispatcher *dispatcher);

/* Counters, for any thread. */
size_t fake_calls(struct dispatcher *dispatcher);               /* that were dispatched, ever */
size_t fake_held(struct dispatcher *dispatcher);                /* that wait in Hold or Watch now */
size_t fake_cancelled(struct dispatcher *dispatcher);           /* dispatch_cancelled(), ever */
size_t fake_refused_sends(struct dispatcher *dispatcher);       /* send() answered false, ever */
size_t fake_connections(struct dispatcher *dispatcher);         /* charged and not refunded */
size_t fake_bytes(struct dispatcher *dispatcher);               /* of answers, charged now */
void fake_bytes_max(struct dispatcher *dispatcher, size_t max); /* 0: no limit */
/* Answer all that are held. */
void fake_release(struct dispatcher *dispatcher);
/* Let nobody connect any more. */
void fake_close_door(struct dispatcher *dispatcher);

#endif
