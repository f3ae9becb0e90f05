/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_NATIVE_OUTBOX_H
#define IB_RPC_NATIVE_OUTBOX_H

/*
 * Answers that a client has not made room for yet, in their order, bounded in number and bytes.
 * Not locked: the connection's lock.
 */

#include <stdbool.h>
#include <sys/queue.h>

#include "rpc/native_packet.h"

#define NATIVE_OUTBOX_PACKETS_MAX 256
#define NATIVE_OUTBOX_BYTES_MAX   (1024 * 1024)

struct native_queued;
struct native_outbox {
	STAILQ_HEAD(, native_queued) packets;
	size_t n_packets, n_bytes;
};

void native_outbox_init(struct native_outbox *outbox);
bool native_outbox_empty(const struct native_outbox *outbox);
/* The answer's descriptors become the outbox's, on success only. NULL, or why it was not taken. */
const char *native_outbox_put(struct native_outbox *outbox, const struct native_answer *answer);
/* Send what there is room for. 0, EAGAIN, or the errno that ends the connection. */
int native_outbox_flush(struct native_outbox *outbox, int socket);
void native_outbox_clear(struct native_outbox *outbox);

#endif
