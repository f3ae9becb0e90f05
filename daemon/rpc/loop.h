/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LOOP_H
#define IB_RPC_LOOP_H

/*
 * The main thread's event loop: a libevent base that other threads can post to.
 *
 * Everything here but loop_post() and loop_exit() is called on the loop's own thread.
 */

#include <stdbool.h>

#include <event2/event.h>

struct loop;

/* 0 or a negative errno. */
int loop_new(struct loop **ret);
struct loop *loop_free(struct loop *loop);
struct event_base *loop_base(struct loop *loop);
/* Run until loop_exit(). 0 or the negative errno given there. */
int loop_run(struct loop *loop);
/* Any thread. The first negative status wins. */
void loop_exit(struct loop *loop, int status);

/* Run function on the loop's thread, soon, in the order of posting. Any thread; never fails and
 * never allocates: the memory is the caller's until function runs. */
struct loop_post {
	void (*function)(struct loop_post *post);
	struct loop_post *next;
};
void loop_post(struct loop *loop, struct loop_post *post);
/* Whether it went round since this was asked the last time. One other thread. */
bool loop_goes_on(struct loop *loop);
/* Take back a post that has not run yet; false: it is not queued. The loop's own thread, or when
 * the loop does not run any more. */
bool loop_unpost(struct loop *loop, struct loop_post *post);

#endif
