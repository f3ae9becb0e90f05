/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/descriptor_drop.h"

#include <stdlib.h>

#include "rpc/dispatcher.h"
#include "rpc/rpc_session.h"
#include "util/fd.h"

struct drop {
	struct pool_job job;
	struct pool_share *share; /* reference */
	int fd;
};

static bool drop_run(struct pool_job *job)
{
	struct drop *drop = (struct drop *)job;

	fd_close(drop->fd);
	pool_share_unref(drop->share);
	free(drop);
	return false;
}

static void drop_one(struct dispatcher *dispatcher, struct pool_share *share, int consume_fd)
{
	struct drop *drop = consume_fd >= 0 ? calloc(1, sizeof(*drop)) : NULL;

	if (!drop) {
		fd_close(consume_fd);
		return;
	}
	drop->job.run = drop_run;
	drop->share = drop->job.share = pool_share_ref(share);
	drop->fd = consume_fd;
	pool_submit(broker_pool(dispatcher->broker), &drop->job);
}

void descriptors_drop(struct dispatcher *dispatcher, struct rpc_session *session,
		      const int *consume_fds, size_t n_fds)
{
	struct pool_share *share =
		session ? session_share(rpc_session_broker(session)) : dispatcher->strangers;

	for (size_t i = 0; i < n_fds; i++)
		drop_one(dispatcher, share, consume_fds[i]);
}
