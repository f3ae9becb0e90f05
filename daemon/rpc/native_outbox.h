/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_NATIVE_OUTBOX_H
#define IB_RPC_NATIVE_OUTBOX_H

/*
 * Answers that a client has not made room for yet, in their order, bounded in number and bytes, and
 * charged to whoever pays for the connection.
 *
 * An answer that nobody has room to pay for is taken all the same: what it tells was done, and a
 * client that lost it could only end. But then the connection reads no more requests until all its
 * answers have gone, so that what is not charged is no more than the answers of the calls that were
 * in flight at that moment, which are few and charged themselves.
 *
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
	struct rpc_account *account; /* borrowed */
	bool over; /* something is not charged: no more is to be read until this is empty */
};

void native_outbox_init(struct native_outbox *outbox, struct rpc_account *account);
bool native_outbox_empty(const struct native_outbox *outbox);
/* The answer's descriptors become the outbox's, on success only. NULL, or why it was not taken. */
const char *native_outbox_put(struct native_outbox *outbox, const struct native_answer *answer);
/* Send what there is room for. 0, EAGAIN, or the errno that ends the connection. */
int native_outbox_flush(struct native_outbox *outbox, int socket);
void native_outbox_clear(struct native_outbox *outbox);

#endif
