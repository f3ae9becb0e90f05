/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/native_outbox.h"

#include <stdlib.h>
#include <string.h>

#include "util/fd.h"

struct native_queued {
	STAILQ_ENTRY(native_queued) next;
	int fds[RPC_DESCRIPTORS_MAX];
	size_t n_fds, n_bytes, charged_bytes;
	uint8_t bytes[];
};

void native_outbox_init(struct native_outbox *outbox, struct rpc_account *account)
{
	outbox->account = account;
	outbox->over = false;
	STAILQ_INIT(&outbox->packets);
	outbox->n_packets = 0;
	outbox->n_bytes = 0;
}

bool native_outbox_empty(const struct native_outbox *outbox)
{
	return STAILQ_EMPTY(&outbox->packets);
}

static void charge(struct native_outbox *outbox, struct native_queued *queued, size_t n_bytes)
{
	bool charged = connection_hold(outbox->account, n_bytes);

	queued->charged_bytes = charged ? n_bytes : 0;
	outbox->over |= !charged;
}

const char *native_outbox_put(struct native_outbox *outbox, const struct native_answer *answer)
{
	size_t max = native_answer_bytes_max(answer);
	struct native_queued *queued;

	if (outbox->n_packets == NATIVE_OUTBOX_PACKETS_MAX ||
	    max > NATIVE_OUTBOX_BYTES_MAX - outbox->n_bytes)
		return "it does not read its answers";
	queued = malloc(sizeof(*queued) + max);
	if (!queued)
		return "no memory for an answer";
	charge(outbox, queued, sizeof(*queued) + max);
	queued->n_bytes = native_answer_pack(answer, queued->bytes);
	queued->n_fds = answer->n_fds;
	if (answer->n_fds)
		memcpy(queued->fds, answer->fds, answer->n_fds * sizeof(int));
	STAILQ_INSERT_TAIL(&outbox->packets, queued, next);
	outbox->n_packets++;
	outbox->n_bytes += queued->n_bytes;
	return NULL;
}

static void drop_first(struct native_outbox *outbox)
{
	struct native_queued *queued = STAILQ_FIRST(&outbox->packets);

	STAILQ_REMOVE_HEAD(&outbox->packets, next);
	outbox->n_packets--;
	outbox->n_bytes -= queued->n_bytes;
	outbox->over &= outbox->n_packets > 0;
	connection_release(outbox->account, queued->charged_bytes);
	for (size_t i = 0; i < queued->n_fds; i++)
		fd_close(queued->fds[i]);
	free(queued);
}

int native_outbox_flush(struct native_outbox *outbox, int socket)
{
	while (!STAILQ_EMPTY(&outbox->packets)) {
		struct native_queued *queued = STAILQ_FIRST(&outbox->packets);
		int error = native_send_bytes(socket, queued->bytes, queued->n_bytes, queued->fds,
					      queued->n_fds);

		if (error)
			return error;
		drop_first(outbox);
	}
	return 0;
}

void native_outbox_clear(struct native_outbox *outbox)
{
	while (!STAILQ_EMPTY(&outbox->packets))
		drop_first(outbox);
}
