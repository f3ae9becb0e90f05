/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/throttle.h"

#include <errno.h>

#include "util/clock.h"

#define BATCH_MAX 32 /* let go before the loop looks at other things again */

static int held_compare(const struct held *a, const struct held *b)
{
	if (a->due_ns != b->due_ns)
		return a->due_ns < b->due_ns ? -1 : 1;
	return a->serial < b->serial ? -1 : a->serial > b->serial;
}

RB_GENERATE_INTERNAL(held_tree, held, entry, held_compare, static __attribute__((unused)))

/* The first, if it is due. */
static struct held *held_take(struct throttle *throttle, uint64_t now_ns)
{
	struct held *held;

	pthread_mutex_lock(&throttle->lock);
	held = RB_MIN(held_tree, &throttle->tree);
	if (held && held->due_ns > now_ns)
		held = NULL;
	if (held) {
		RB_REMOVE(held_tree, &throttle->tree, held);
		throttle->n--;
	}
	pthread_mutex_unlock(&throttle->lock);
	return held;
}

/* The loop's thread. Rounded up: a timer that is early would only be set again. */
static void timer_set(struct throttle *throttle)
{
	const struct held *first;
	uint64_t now_ns = clock_monotonic_ns(), us = 0;
	struct timeval after;
	bool any;

	pthread_mutex_lock(&throttle->lock);
	first = RB_MIN(held_tree, &throttle->tree);
	any = first;
	if (any && first->due_ns > now_ns)
		us = (first->due_ns - now_ns + 999) / 1000;
	pthread_mutex_unlock(&throttle->lock);
	if (!any)
		return;
	after = (struct timeval){.tv_sec = (time_t)(us / 1000000), .tv_usec = (long)(us % 1000000)};
	evtimer_add(throttle->timer, &after);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
	struct throttle *throttle = context;
	uint64_t now_ns = clock_monotonic_ns();
	struct held *held;

	(void)fd;
	(void)what;
	for (int i = 0; i < BATCH_MAX && (held = held_take(throttle, now_ns)); i++)
		throttle->let_go(held);
	timer_set(throttle);
}

static void on_post(struct loop_post *post)
{
	struct throttle *throttle =
		(struct throttle *)((char *)post - offsetof(struct throttle, post));

	pthread_mutex_lock(&throttle->lock);
	throttle->posted = false;
	pthread_mutex_unlock(&throttle->lock);
	timer_set(throttle);
}

int throttle_init(struct throttle *throttle, struct loop *loop, size_t n_max,
		  void (*let_go)(struct held *held))
{
	*throttle = (struct throttle){.loop = loop, .let_go = let_go, .n_max = n_max};
	throttle->timer = evtimer_new(loop_base(loop), on_timer, throttle);
	if (!throttle->timer)
		return -ENOMEM;
	throttle->post.function = on_post;
	RB_INIT(&throttle->tree);
	pthread_mutex_init(&throttle->lock, NULL);
	return 0;
}

bool throttle_hold(struct throttle *throttle, struct held *held, uint64_t due_ns)
{
	bool post = false, room;

	pthread_mutex_lock(&throttle->lock);
	room = throttle->n < throttle->n_max && !throttle->stopped;
	if (room) {
		held->due_ns = due_ns;
		held->serial = throttle->serial++;
		RB_INSERT(held_tree, &throttle->tree, held);
		throttle->n++;
		post = !throttle->posted && RB_MIN(held_tree, &throttle->tree) == held;
		throttle->posted |= post;
	}
	pthread_mutex_unlock(&throttle->lock);
	if (post)
		loop_post(throttle->loop, &throttle->post);
	return room;
}

void throttle_stop(struct throttle *throttle)
{
	struct held *held;

	pthread_mutex_lock(&throttle->lock);
	throttle->stopped = true;
	pthread_mutex_unlock(&throttle->lock);
	while ((held = held_take(throttle, UINT64_MAX)))
		throttle->let_go(held);
}

void throttle_deinit(struct throttle *throttle)
{
	loop_unpost(throttle->loop, &throttle->post);
	event_free(throttle->timer);
	pthread_mutex_destroy(&throttle->lock);
}
