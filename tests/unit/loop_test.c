/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Posting to the loop from its own and from other threads, and ending it. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rpc/loop.h"
#include "util/turns.h"

#define THREADS 4
#define POSTS   2000

struct counted {
	struct loop_post post; /* first */
	struct loop *loop;
	int thread, number;
};

static struct counted posts[THREADS][POSTS];
static int next_number[THREADS];
static int ran;
static pthread_t loop_thread;

static struct loop *loop_open(void)
{
	struct loop *loop = NULL;

	assert_int_equal(loop_new(&loop), 0);
	assert_non_null(loop_base(loop));
	ran = 0;
	return loop;
}

static void on_counted(struct loop_post *post)
{
	struct counted *counted = (struct counted *)post;

	assert_true(pthread_equal(pthread_self(), loop_thread));
	assert_int_equal(counted->number, next_number[counted->thread]);
	next_number[counted->thread]++;
	if (++ran == THREADS * POSTS)
		loop_exit(counted->loop, 0);
}

static void *poster_main(void *context)
{
	struct counted *mine = context;

	for (int i = 0; i < POSTS; i++)
		loop_post(mine[i].loop, &mine[i].post);
	return NULL;
}

static void test_order_of_each_thread_is_kept(void **state)
{
	struct loop *loop = loop_open();
	pthread_t threads[THREADS];

	(void)state;
	loop_thread = pthread_self();
	for (int i = 0; i < THREADS; i++) {
		next_number[i] = 0;
		for (int j = 0; j < POSTS; j++)
			posts[i][j] = (struct counted){{on_counted, NULL}, loop, i, j};
		assert_int_equal(pthread_create(&threads[i], NULL, poster_main, posts[i]), 0);
	}
	assert_int_equal(loop_run(loop), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(ran, THREADS * POSTS);
	loop_free(loop);
}

static void on_repost(struct loop_post *post)
{
	struct counted *counted = (struct counted *)post;

	if (++counted->number == 100)
		loop_exit(counted->loop, -ECANCELED);
	else
		loop_post(counted->loop, post);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	++*(int *)context;
}

/* A post that posts itself again does not keep the loop from its other events. */
static void test_post_from_a_post(void **state)
{
	struct loop *loop = loop_open();
	struct counted self = {{on_repost, NULL}, loop, 0, 0};
	struct timeval now = {0};
	struct event *timer;
	int fired = 0;

	(void)state;
	timer = event_new(loop_base(loop), -1, 0, on_timer, &fired);
	event_add(timer, &now);
	loop_post(loop, &self.post);
	assert_int_equal(loop_run(loop), -ECANCELED);
	assert_int_equal(self.number, 100);
	assert_int_equal(fired, 1);
	event_free(timer);
	loop_free(loop);
}

static void test_exit_before_run(void **state)
{
	struct loop *loop = loop_open();

	(void)state;
	loop_exit(loop, -EIO);
	assert_int_equal(loop_run(loop), -EIO);
	loop_free(loop);
}

static void test_first_failure_wins(void **state)
{
	struct loop *loop = loop_open();

	(void)state;
	loop_exit(loop, 0);
	loop_exit(loop, -EPERM);
	loop_exit(loop, -EIO);
	loop_exit(loop, 0);
	assert_int_equal(loop_run(loop), -EPERM);
	loop_free(loop);
}

static void on_ran(struct loop_post *post)
{
	(void)post;
	ran++;
}

static void on_ran_last(struct loop_post *post)
{
	struct counted *counted = (struct counted *)post;

	ran++;
	loop_exit(counted->loop, 0);
}

static void test_unpost(void **state)
{
	struct loop *loop = loop_open();
	struct loop_post first = {on_ran, NULL}, middle = {on_ran, NULL}, last = {on_ran, NULL};
	struct counted end = {{on_ran_last, NULL}, loop, 0, 0};

	(void)state;
	loop_post(loop, &first);
	loop_post(loop, &middle);
	loop_post(loop, &last);
	assert_true(loop_unpost(loop, &middle));
	assert_false(loop_unpost(loop, &middle));
	assert_true(loop_unpost(loop, &last));
	loop_post(loop, &end.post);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(ran, 2);
	assert_false(loop_unpost(loop, &first));
	loop_free(loop);
}

/* Asked before it turns, it has not gone on; afterwards it has, each time anew. */
static void test_goes_on(void **state)
{
	struct loop *loop = loop_open();

	(void)state;
	assert_true(loop_goes_on(loop));
	for (int i = 0; i < 3; i++) {
		assert_false(loop_goes_on(loop));
		assert_false(loop_goes_on(loop));
		event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
		assert_true(loop_goes_on(loop));
	}
	loop_free(loop);
}

/* Who sleeps goes on, who is in another turn does, and who is in the same does not. */
static void test_turns(void **state)
{
	struct turns turns = {0};

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_true(turns_go_on(&turns));
		assert_true(turns_go_on(&turns));
		turn_begin(&turns);
		assert_true(turns_go_on(&turns));
		assert_false(turns_go_on(&turns));
		assert_false(turns_go_on(&turns));
		turn_end(&turns);
		turn_begin(&turns);
		assert_true(turns_go_on(&turns));
		assert_false(turns_go_on(&turns));
		turn_end(&turns);
	}
}

static void on_ran_posts(struct loop_post *post)
{
	struct counted *counted = (struct counted *)post;

	ran++;
	loop_post(counted->loop, &counted[1].post);
}

/* As a transport does that waits for its connections at a stop. */
static void test_turned_after_its_end(void **state)
{
	struct loop *loop = loop_open();
	struct counted chain[2] = {{{on_ran_posts, NULL}, loop, 0, 0},
				   {{on_ran, NULL}, loop, 0, 0}};
	struct loop_post between = {on_ran, NULL};

	(void)state;
	loop_exit(loop, 0);
	assert_int_equal(loop_run(loop), 0);
	loop_post(loop, &chain[0].post);
	loop_post(loop, &between);
	event_base_loop(loop_base(loop), EVLOOP_ONCE | EVLOOP_NONBLOCK);
	assert_int_equal(ran, 2);
	event_base_loop(loop_base(loop), EVLOOP_ONCE | EVLOOP_NONBLOCK);
	assert_int_equal(ran, 3);
	loop_free(loop);
}

static void *exit_main(void *context)
{
	loop_exit(context, 0);
	return NULL;
}

static void test_exit_from_another_thread(void **state)
{
	struct loop *loop = loop_open();
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, exit_main, loop), 0);
	assert_int_equal(loop_run(loop), 0);
	pthread_join(thread, NULL);
	loop_free(loop);
	assert_null(loop_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_of_each_thread_is_kept),
		cmocka_unit_test(test_post_from_a_post),
		cmocka_unit_test(test_exit_before_run),
		cmocka_unit_test(test_turned_after_its_end),
		cmocka_unit_test(test_first_failure_wins),
		cmocka_unit_test(test_unpost),
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_exit_from_another_thread),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
