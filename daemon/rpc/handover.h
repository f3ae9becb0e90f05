/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_HANDOVER_H
#define IB_RPC_HANDOVER_H

/* Guests that wait for their next process: the timer that ends their time, and the methods. */

#include "rpc/dispatcher.h"

/* 0 or -ENOMEM. */
int handover_watch_start(struct dispatcher *dispatcher);
/* The loop does not run any more. */
void handover_watch_stop(struct dispatcher *dispatcher);
/* Some may wait from before. The loop's thread, or before it runs. */
void handover_watch_look(struct dispatcher *dispatcher);

#endif
