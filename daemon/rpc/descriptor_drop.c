/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/descriptor_drop.h"

#include <stdlib.h>

#include "rpc/dispatcher.h"
#include "rpc/rpc_session.h"
#include "util/fd.h"

struct drop {
	struct pool_job job;
	struct dispatcher *dispatcher; /* counts it as a call in flight, and so stays */
	struct pool_share *share;      /* reference */
	uid_t uid;
	bool counted;
	int fd;
};

static void drop_charge(struct drop *drop)
{
	struct dispatcher *dispatcher = drop->dispatcher;

	pthread_mutex_lock(&dispatcher->lock);
	dispatcher->in_flight++;
	drop->counted = user_count_charge(&dispatcher->drops, drop->uid, 1, UINT32_MAX);
	pthread_mutex_unlock(&dispatcher->lock);
}

/* The dispatcher may be gone afterwards. */
static void drop_refund(struct drop *drop)
{
	struct dispatcher *dispatcher = drop->dispatcher;

	pthread_mutex_lock(&dispatcher->lock);
	if (drop->counted)
		user_count_refund(&dispatcher->drops, drop->uid, 1);
	if (!--dispatcher->in_flight)
		pthread_cond_broadcast(&dispatcher->idle);
	pthread_mutex_unlock(&dispatcher->lock);
}

static bool drop_run(struct pool_job *job)
{
	struct drop *drop = (struct drop *)job;

	fd_close(drop->fd);
	pool_share_unref(drop->share);
	drop_refund(drop);
	free(drop);
	return false;
}

static void drop_one(struct dispatcher *dispatcher, struct pool_share *share, uid_t uid,
		     int consume_fd)
{
	struct drop *drop = consume_fd >= 0 ? calloc(1, sizeof(*drop)) : NULL;

	if (!drop) {
		fd_close(consume_fd);
		return;
	}
	drop->job.run = drop_run;
	drop->share = drop->job.share = pool_share_ref(share);
	drop->fd = consume_fd;
	drop->dispatcher = dispatcher;
	drop->uid = uid;
	drop_charge(drop);
	pool_submit(broker_pool(dispatcher->broker), &drop->job);
}

void descriptors_drop(struct dispatcher *dispatcher, struct rpc_session *session, uid_t uid,
		      const int *consume_fds, size_t n_fds)
{
	struct pool_share *share =
		session ? session_share(rpc_session_broker(session)) : dispatcher->strangers;

	for (size_t i = 0; i < n_fds; i++)
		drop_one(dispatcher, share, uid, consume_fds[i]);
}

bool descriptors_pile_up(struct dispatcher *dispatcher, uid_t uid)
{
	bool many;

	pthread_mutex_lock(&dispatcher->lock);
	many = user_count_get(&dispatcher->drops, uid) >= DESCRIPTORS_DROPPING_MAX;
	pthread_mutex_unlock(&dispatcher->lock);
	return many;
}
