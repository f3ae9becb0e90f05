/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lanes keep order, shares bound threads, and nothing waits for a worker that waits for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "util/clock.h"
#include "util/pool.h"

#define JOBS 64

static struct pool *pool_make(unsigned int threads)
{
	struct pool *pool = NULL;

	assert_int_equal(pool_new(&pool, threads), 0);
	return pool;
}

/* A job that writes its number when it runs, as often as slices says. */
struct numbered {
	struct pool_job job;
	unsigned int number, slices;
	_Atomic unsigned int *place;
	unsigned int *order;
	atomic_uint *inside, *most;
	sem_t *gate; /* waited for inside, if any */
	sem_t *began;
};

static void note_inside(struct numbered *n)
{
	unsigned int inside = atomic_fetch_add(n->inside, 1) + 1;
	unsigned int most = atomic_load(n->most);

	while (inside > most && !atomic_compare_exchange_weak(n->most, &most, inside))
		;
}

static bool numbered_run(struct pool_job *job)
{
	struct numbered *n = (struct numbered *)job;

	note_inside(n);
	if (n->began)
		sem_post(n->began);
	if (n->gate)
		sem_wait(n->gate);
	n->order[atomic_fetch_add(n->place, 1)] = n->number;
	atomic_fetch_sub(n->inside, 1);
	return --n->slices > 0;
}

struct run {
	_Atomic unsigned int place;
	unsigned int order[4 * JOBS];
	atomic_uint inside, most;
	struct numbered jobs[JOBS];
};

static struct numbered *run_job(struct run *run, unsigned int i, struct pool_lane *lane,
				struct pool_share *share, unsigned int slices)
{
	run->jobs[i] = (struct numbered){
		.job = {.run = numbered_run, .lane = lane, .share = share},
		.number = i,
		.slices = slices,
		.place = &run->place,
		.order = run->order,
		.inside = &run->inside,
		.most = &run->most,
	};
	return &run->jobs[i];
}

static void test_lane_keeps_order(void **state)
{
	struct pool *pool = pool_make(4);
	struct pool_lane *lane = pool_lane_new();
	struct run run = {0};

	for (unsigned int i = 0; i < JOBS; i++)
		pool_submit(pool, &run_job(&run, i, lane, NULL, 1)->job);
	pool_lane_unref(lane);
	pool_free(pool);
	assert_int_equal(run.place, JOBS);
	assert_int_equal(run.most, 1);
	for (unsigned int i = 0; i < JOBS; i++)
		assert_int_equal(run.order[i], i);
}

/* A job that yields goes behind those that wait in its lane. */
static void test_yield_goes_to_the_end(void **state)
{
	struct pool *pool = pool_make(1);
	struct pool_lane *lane = pool_lane_new();
	struct run run = {0};

	pool_lane_enter(lane); /* until all are queued */
	for (unsigned int i = 0; i < 3; i++)
		pool_submit(pool, &run_job(&run, i, lane, NULL, 2)->job);
	pool_lane_leave(pool, lane);
	pool_lane_unref(lane);
	pool_free(pool);
	assert_int_equal(run.place, 6);
	for (unsigned int i = 0; i < 6; i++)
		assert_int_equal(run.order[i], i % 3);
}

static void test_lanes_run_beside_each_other(void **state)
{
	struct pool *pool = pool_make(2);
	struct run run = {0};
	sem_t gate, began;

	sem_init(&gate, 0, 0);
	sem_init(&began, 0, 0);
	for (unsigned int i = 0; i < 2; i++) {
		struct pool_lane *lane = pool_lane_new();
		struct numbered *job = run_job(&run, i, lane, NULL, 1);

		job->gate = &gate;
		job->began = &began;
		pool_submit(pool, &job->job);
		pool_lane_unref(lane);
	}
	/* Both are inside before either may leave: one thread alone would hang here. */
	sem_wait(&began);
	sem_wait(&began);
	sem_post(&gate);
	sem_post(&gate);
	pool_free(pool);
	assert_int_equal(run.most, 2);
}

static void test_share_bounds_threads(void **state)
{
	struct pool *pool = pool_make(4);
	struct pool_share *share = pool_share_new(2);
	struct run run = {0};
	sem_t gate, began;

	sem_init(&gate, 0, 0);
	sem_init(&began, 0, 0);
	for (unsigned int i = 0; i < 8; i++) {
		struct numbered *job = run_job(&run, i, NULL, share, 1);

		job->gate = &gate;
		job->began = &began;
		pool_submit(pool, &job->job);
	}
	sem_wait(&began);
	sem_wait(&began);
	/* Somebody else's job passes the six that wait for their share. */
	pool_submit(pool, &run_job(&run, 8, NULL, NULL, 1)->job);
	while (!run.place)
		clock_sleep_ns(1000000);
	for (unsigned int i = 0; i < 8; i++)
		sem_post(&gate);
	pool_share_unref(share);
	pool_free(pool);
	assert_int_equal(run.order[0], 8);
	assert_int_equal(run.place, 9);
	assert_true(run.most <= 3); /* two of the share and the other one */
}

/* Two tenants flood the only worker before a third comes with two jobs of one guest: these are
 * served by turns with the others', not after them. */
static void test_shares_take_turns(void **state)
{
	enum { FLOOD = 20 };
	struct pool *pool = pool_make(1);
	struct pool_share *a = pool_share_new(1), *b = pool_share_new(4), *c = pool_share_new(1);
	struct run run = {0};
	sem_t gate, began;
	struct numbered *blocker = run_job(&run, 0, NULL, NULL, 1);
	unsigned int at[JOBS];

	sem_init(&gate, 0, 0);
	sem_init(&began, 0, 0);
	blocker->gate = &gate;
	blocker->began = &began;
	pool_submit(pool, &blocker->job);
	sem_wait(&began);
	for (unsigned int i = 0; i < FLOOD; i++) {
		pool_submit(pool, &run_job(&run, 1 + i, NULL, a, 1)->job);
		pool_submit(pool, &run_job(&run, 1 + FLOOD + i, NULL, b, 1)->job);
	}
	for (unsigned int i = 0; i < 2; i++)
		pool_submit(pool, &run_job(&run, 1 + 2 * FLOOD + i, NULL, c, 1)->job);
	sem_post(&gate);
	pool_share_unref(a);
	pool_share_unref(b);
	pool_share_unref(c);
	pool_free(pool);
	assert_int_equal(run.place, 1 + 2 * FLOOD + 2);
	for (unsigned int i = 0; i < run.place; i++)
		at[run.order[i]] = i;
	/* blocker, a, b, c, a, b, c, then a and b by turns */
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(at[1 + i], 1 + 3 * i);
		assert_int_equal(at[1 + FLOOD + i], 2 + 3 * i);
		assert_int_equal(at[1 + 2 * FLOOD + i], 3 + 3 * i);
	}
	for (unsigned int i = 2; i < FLOOD; i++)
		assert_int_equal(at[1 + FLOOD + i], at[1 + i] + 1);
}

/* Of one tenant, a guest whose job goes on for many slices does not delay that of another. */
static void test_lanes_of_a_share_take_turns(void **state)
{
	struct pool *pool = pool_make(1);
	struct pool_share *share = pool_share_new(1);
	struct pool_lane *one = pool_lane_new(), *other = pool_lane_new();
	struct run run = {0};
	sem_t gate, began;
	struct numbered *blocker = run_job(&run, 0, NULL, NULL, 1);

	sem_init(&gate, 0, 0);
	sem_init(&began, 0, 0);
	blocker->gate = &gate;
	blocker->began = &began;
	pool_submit(pool, &blocker->job);
	sem_wait(&began);
	for (unsigned int i = 1; i <= 10; i++)
		pool_submit(pool, &run_job(&run, i, one, share, 10)->job);
	pool_submit(pool, &run_job(&run, 11, other, share, 1)->job);
	sem_post(&gate);
	pool_lane_unref(one);
	pool_lane_unref(other);
	pool_share_unref(share);
	pool_free(pool);
	assert_int_equal(run.place, 102);
	assert_int_equal(run.order[1], 1);
	assert_int_equal(run.order[2], 11);
}

static void test_try_enter(void **state)
{
	struct pool *pool = pool_make(1);
	struct pool_lane *lane = pool_lane_new();
	struct run run = {0};

	assert_true(pool_lane_try_enter(lane));
	assert_false(pool_lane_try_enter(lane));
	pool_submit(pool, &run_job(&run, 0, lane, NULL, 1)->job);
	pool_lane_leave(pool, lane);
	pool_free(pool);
	assert_int_equal(run.place, 1);
	pool_lane_unref(lane);
}

/* Who finds a lane free but jobs queued for it does not overtake them. */
static void test_try_enter_does_not_overtake(void **state)
{
	struct pool *pool = pool_make(1);
	struct pool_lane *lane = pool_lane_new();
	struct run run = {0};
	sem_t gate, began;
	struct numbered *blocker = run_job(&run, 0, NULL, NULL, 1);

	sem_init(&gate, 0, 0);
	sem_init(&began, 0, 0);
	blocker->gate = &gate;
	blocker->began = &began;
	pool_submit(pool, &blocker->job); /* the only worker is busy */
	sem_wait(&began);
	pool_submit(pool, &run_job(&run, 1, lane, NULL, 1)->job);
	assert_false(pool_lane_try_enter(lane));
	sem_post(&gate);
	pool_free(pool);
	assert_int_equal(run.place, 2);
	assert_true(pool_lane_try_enter(lane));
	pool_lane_leave(NULL, lane);
	pool_lane_unref(lane);
}

struct enterer {
	struct pool *pool;
	struct pool_lane *lane;
	struct run *run;
	sem_t *ready;
};

static void *enterer_run(void *argument)
{
	struct enterer *e = argument;

	sem_post(e->ready);
	pool_lane_enter(e->lane);
	e->run->order[e->run->place++] = 100;
	pool_lane_leave(e->pool, e->lane);
	return NULL;
}

/* A thread that waits in enter goes before jobs that were queued earlier. */
static void test_enter_goes_before_jobs(void **state)
{
	struct pool *pool = pool_make(2);
	struct pool_lane *lane = pool_lane_new();
	struct run run = {0};
	sem_t ready;
	struct enterer enterer = {pool, lane, &run, &ready};
	pthread_t thread;

	sem_init(&ready, 0, 0);
	pool_lane_enter(lane);
	pool_submit(pool, &run_job(&run, 1, lane, NULL, 1)->job);
	pool_submit(pool, &run_job(&run, 2, lane, NULL, 1)->job);
	assert_int_equal(pthread_create(&thread, NULL, enterer_run, &enterer), 0);
	sem_wait(&ready);
	clock_sleep_ns(50000000); /* long enough to be waiting in all likelihood */
	pool_lane_leave(pool, lane);
	pthread_join(thread, NULL);
	pool_free(pool);
	pool_lane_unref(lane);
	assert_int_equal(run.order[0], 100);
	assert_int_equal(run.order[1], 1);
	assert_int_equal(run.order[2], 2);
}

/* A worker that finds the lane held puts its job back before those that came later. */
static void test_job_put_back_keeps_its_place(void **state)
{
	struct pool *pool = pool_make(1);
	struct pool_lane *lane = pool_lane_new();
	struct run run = {0};
	sem_t gate, began;
	struct numbered *blocker = run_job(&run, 0, NULL, NULL, 1);

	sem_init(&gate, 0, 0);
	sem_init(&began, 0, 0);
	blocker->gate = &gate;
	blocker->began = &began;
	pool_submit(pool, &blocker->job); /* the only worker is busy */
	sem_wait(&began);
	pool_submit(pool, &run_job(&run, 1, lane, NULL, 1)->job);
	pool_submit(pool, &run_job(&run, 2, lane, NULL, 1)->job);
	pool_lane_enter(lane);
	sem_post(&gate);
	clock_sleep_ns(
		50000000); /* it takes the first and finds the lane held, in all likelihood */
	pool_lane_leave(pool, lane);
	pool_free(pool);
	pool_lane_unref(lane);
	assert_int_equal(run.order[1], 1);
	assert_int_equal(run.order[2], 2);
}

/* Jobs of one lane that enter another, as many as there are threads, with jobs queued there. */
struct crossing {
	struct pool_job job;
	struct pool *pool;
	struct pool_lane *inner;
	unsigned int *count; /* by the inner lane */
	unsigned int slices;
};

static bool crossing_run(struct pool_job *job)
{
	struct crossing *c = (struct crossing *)job;

	pool_lane_enter(c->inner);
	++*c->count;
	pool_lane_leave(c->pool, c->inner);
	return --c->slices > 0;
}

static bool inner_run(struct pool_job *job)
{
	struct crossing *c = (struct crossing *)job;

	++*c->count;
	return --c->slices > 0;
}

static void test_pool_does_not_lock_up_on_its_lanes(void **state)
{
	struct pool *pool = pool_make(2);
	struct pool_lane *inner = pool_lane_new();
	struct crossing jobs[16] = {0};
	unsigned int count = 0;

	for (unsigned int i = 0; i < 16; i++) {
		struct pool_lane *outer = i % 2 ? pool_lane_new() : NULL;

		jobs[i] = (struct crossing){
			.job = {.run = i % 2 ? crossing_run : inner_run,
				.lane = i % 2 ? outer : inner},
			.pool = pool,
			.inner = inner,
			.count = &count,
			.slices = 200,
		};
		pool_submit(pool, &jobs[i].job);
		pool_lane_unref(outer);
	}
	for (unsigned int i = 0; i < 200; i++) {
		pool_lane_enter(inner);
		count++;
		pool_lane_leave(pool, inner);
	}
	pool_free(pool);
	pool_lane_unref(inner);
	assert_int_equal(count, 17 * 200);
}

/* Memory of a job that ended is its owner's at once, and so are its lane and share. */
static bool freeing_run(struct pool_job *job)
{
	free(job);
	return false;
}

static void test_job_frees_itself(void **state)
{
	struct pool *pool = pool_make(4);

	for (unsigned int i = 0; i < 200; i++) {
		struct pool_job *job = calloc(1, sizeof(*job));

		job->run = freeing_run;
		job->lane = pool_lane_new();
		job->share = pool_share_new(1);
		struct pool_lane *lane = job->lane;
		struct pool_share *share = job->share;
		pool_submit(pool, job);
		pool_lane_unref(lane);
		pool_share_unref(share);
	}
	pool_free(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lane_keeps_order),
		cmocka_unit_test(test_yield_goes_to_the_end),
		cmocka_unit_test(test_lanes_run_beside_each_other),
		cmocka_unit_test(test_share_bounds_threads),
		cmocka_unit_test(test_shares_take_turns),
		cmocka_unit_test(test_lanes_of_a_share_take_turns),
		cmocka_unit_test(test_try_enter),
		cmocka_unit_test(test_try_enter_does_not_overtake),
		cmocka_unit_test(test_enter_goes_before_jobs),
		cmocka_unit_test(test_job_put_back_keeps_its_place),
		cmocka_unit_test(test_pool_does_not_lock_up_on_its_lanes),
		cmocka_unit_test(test_job_frees_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
