/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring_glue.h"

#include <assert.h>
#include <string.h>

static_assert(RPC_RING_FDS_MAX == 2 + RING_LANES_MAX, "");

static int glue_create(void *context, struct session *session, uint64_t guest, uint32_t lanes,
		       uint32_t entries, uint64_t *ret_ring, int ret_fds[RPC_RING_FDS_MAX],
		       struct refusal *refusal)
{
	const struct ring_request request = {guest, lanes, entries};
	struct ring_ends ends;
	int status = ring_create(context, session, &request, ret_ring, &ends, refusal);

	if (status)
		return status;
	ret_fds[0] = ends.memory;
	ret_fds[1] = ends.submit;
	memcpy(&ret_fds[2], ends.complete, ends.lanes * sizeof(ret_fds[0]));
	return 0;
}

static int glue_destroy(void *context, struct session *session, uint64_t ring,
			struct refusal *refusal)
{
	return ring_destroy(context, session, ring, refusal);
}

static void glue_count(void *context, struct refresh_counts *ret)
{
	ring_server_count(context, ret);
}

const struct ring_ops ring_glue = {
	.version = RING_VERSION,
	.entries_max = RING_ENTRIES_MAX,
	.bytes = ring_bytes,
	.count = glue_count,
	.create = glue_create,
	.destroy = glue_destroy,
};
