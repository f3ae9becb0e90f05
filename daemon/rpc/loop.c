/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A libevent base and a queue of posts in front of it.
 *
 * libevent itself is used without locks: the only way in for another thread is the queue, a list
 * under a mutex with an eventfd that says "not empty". Nothing here allocates after loop_new(), so
 * that a post cannot fail.
 */

#include "rpc/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct loop {
	struct event_base *base;
	struct event *wake;
	int wake_fd;
	_Atomic bool exiting;
	_Atomic int status;
	struct loop_post look;
	_Atomic bool looked; /* look has not run yet */

	pthread_mutex_t lock; /* of what follows; nothing is called under it */
	struct loop_post *head, **tail;
	size_t n_posts;
};

static struct loop_post *loop_take(struct loop *loop)
{
	struct loop_post *post;

	pthread_mutex_lock(&loop->lock);
	post = loop->head;
	if (post) {
		loop->head = post->next;
		if (!loop->head)
			loop->tail = &loop->head;
		loop->n_posts--;
	}
	pthread_mutex_unlock(&loop->lock);
	return post;
}

static size_t loop_waiting(struct loop *loop)
{
	size_t n;

	pthread_mutex_lock(&loop->lock);
	n = loop->n_posts;
	pthread_mutex_unlock(&loop->lock);
	return n;
}

/* The counter of an eventfd cannot overflow here and the descriptor is ours: no error to handle. */
static void loop_wake(struct loop *loop)
{
	uint64_t one = 1;
	ssize_t n;

	do
		n = write(loop->wake_fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
}

/* Runs what was queued when it began and no more, so that posts that post again do not keep the
 * loop from its sockets. */
static void loop_on_wake(evutil_socket_t fd, short what, void *context)
{
	struct loop *loop = context;
	uint64_t count;
	size_t n;

	(void)what;
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	for (n = loop_waiting(loop); n; n--) {
		struct loop_post *post = loop_take(loop);

		if (!post)
			break;
		post->function(post);
	}
	/* Also when the loop ends: whoever turns it afterwards waits for what was posted, and a
	 * post wakes nobody while another is queued. */
	if (loop_waiting(loop))
		loop_wake(loop);
	if (atomic_load(&loop->exiting))
		event_base_loopbreak(loop->base);
}

static struct event_base *base_new(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base;

	if (!config)
		return NULL;
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

int loop_new(struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	pthread_mutex_init(&loop->lock, NULL);
	loop->tail = &loop->head;
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0) {
		int status = -errno;

		loop_free(loop);
		return status;
	}
	loop->base = base_new();
	if (loop->base)
		loop->wake = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST,
				       loop_on_wake, loop);
	if (!loop->wake || event_add(loop->wake, NULL)) {
		loop_free(loop);
		return -ENOMEM;
	}
	*ret = loop;
	return 0;
}

struct loop *loop_free(struct loop *loop)
{
	if (!loop)
		return NULL;
	if (loop->wake)
		event_free(loop->wake);
	if (loop->base)
		event_base_free(loop->base);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
	return NULL;
}

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

int loop_run(struct loop *loop)
{
	while (!atomic_load(&loop->exiting))
		if (event_base_loop(loop->base, 0) < 0)
			return -EIO;
	return atomic_load(&loop->status);
}

void loop_exit(struct loop *loop, int status)
{
	int none = 0;

	if (status < 0)
		atomic_compare_exchange_strong(&loop->status, &none, status);
	atomic_store(&loop->exiting, true);
	loop_wake(loop);
}

void loop_post(struct loop *loop, struct loop_post *post)
{
	bool first;

	post->next = NULL;
	pthread_mutex_lock(&loop->lock);
	first = !loop->head;
	*loop->tail = post;
	loop->tail = &post->next;
	loop->n_posts++;
	pthread_mutex_unlock(&loop->lock);
	if (first)
		loop_wake(loop);
}

static void on_look(struct loop_post *post)
{
	struct loop *loop = (struct loop *)((char *)post - offsetof(struct loop, look));

	atomic_store(&loop->looked, false);
}

bool loop_goes_on(struct loop *loop)
{
	if (atomic_exchange(&loop->looked, true))
		return false;
	loop->look.function = on_look;
	loop_post(loop, &loop->look);
	return true;
}

bool loop_unpost(struct loop *loop, struct loop_post *post)
{
	struct loop_post **link;
	bool found = false;

	pthread_mutex_lock(&loop->lock);
	for (link = &loop->head; *link; link = &(*link)->next) {
		if (*link != post)
			continue;
		*link = post->next;
		if (!*link)
			loop->tail = link;
		loop->n_posts--;
		found = true;
		break;
	}
	pthread_mutex_unlock(&loop->lock);
	return found;
}
