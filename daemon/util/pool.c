/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Worker threads, lanes and shares.
 *
 * Where a submitted job stands, always in exactly one place, linked by job->next:
 *
 *   lane->jobs      waits for its turn in the lane
 *   share->ready    a worker may take it when it is its share's turn; of a lane at most one job is
 *                   past lane->jobs, the one for which lane->scheduled is set
 *   running         a worker holds it, and its lane
 *
 * Shares that have ready jobs, and a thread left to run one, stand in a ring and are served one job
 * each by turns: a share's thousand jobs are for the others no more than one. Within a share lanes
 * take turns, since each has one job there, and a job that yields goes to the end.
 *
 * A worker that took a lane's job and finds the lane held by a thread that works inline gives the
 * job back to the head of lane->jobs and goes on; whoever leaves the lane schedules it again. So no
 * worker ever waits for a lane here, and the share is taken only by jobs that really run.
 *
 * Locks: lane->lock and pool->lock; neither is ever taken while the other is held. Shares have no
 * lock of their own, pool->lock guards them.
 */
#include "util/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define POOL_THREADS_MAX 256

struct job_list {
	struct pool_job *first, **end;
};

/* A thread in pool_lane_enter(), on its own stack. */
struct lane_waiter {
	pthread_cond_t turn;
	bool granted;
	struct lane_waiter *next;
};

struct pool_lane {
	atomic_uint refs;
	pthread_mutex_t lock;
	bool held;
	bool scheduled; /* one of its jobs is ready in its share, or a worker just took it */
	struct lane_waiter *waiters, **waiters_end;
	struct job_list jobs;
};

struct pool_share {
	atomic_uint refs;
	/* by pool->lock: */
	unsigned int running, running_max;
	struct job_list ready;
	bool in_ring; /* it has ready jobs, and room for one of them */
	struct pool_share *next;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work;                 /* the ring is not empty, or stopping */
	pthread_cond_t idle;                 /* outstanding is 0 */
	struct pool_share *ring, **ring_end; /* shares, in turn */
	unsigned int n_ring;
	struct pool_share common; /* of jobs that have none */
	size_t n_ready;           /* jobs in all shares */
	size_t outstanding;       /* submitted, and has not ended */
	unsigned int n_threads, n_sleeping, threads_max;
	bool stopping;
	pthread_t threads[POOL_THREADS_MAX];
};

static void job_list_init(struct job_list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

static void job_list_append(struct job_list *list, struct pool_job *job)
{
	job->next = NULL;
	*list->end = job;
	list->end = &job->next;
}

static void job_list_prepend(struct job_list *list, struct pool_job *job)
{
	if (!list->first)
		list->end = &job->next;
	job->next = list->first;
	list->first = job;
}

static struct pool_job *job_list_pop(struct job_list *list)
{
	struct pool_job *job = list->first;

	if (!job)
		return NULL;
	list->first = job->next;
	if (!list->first)
		list->end = &list->first;
	return job;
}

/* ── lanes ─────────────────────────────────────────────────────────────────────────────────── */

struct pool_lane *pool_lane_new(void)
{
	struct pool_lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return NULL;
	atomic_init(&lane->refs, 1);
	pthread_mutex_init(&lane->lock, NULL);
	lane->waiters_end = &lane->waiters;
	job_list_init(&lane->jobs);
	return lane;
}

struct pool_lane *pool_lane_ref(struct pool_lane *lane)
{
	atomic_fetch_add_explicit(&lane->refs, 1, memory_order_relaxed);
	return lane;
}

struct pool_lane *pool_lane_unref(struct pool_lane *lane)
{
	if (!lane || atomic_fetch_sub_explicit(&lane->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	assert(!lane->held && !lane->jobs.first && !lane->waiters);
	pthread_mutex_destroy(&lane->lock);
	free(lane);
	return NULL;
}

bool pool_lane_try_enter(struct pool_lane *lane)
{
	bool entered;

	pthread_mutex_lock(&lane->lock);
	entered = !lane->held && !lane->waiters && !lane->scheduled && !lane->jobs.first;
	if (entered)
		lane->held = true;
	pthread_mutex_unlock(&lane->lock);
	return entered;
}

void pool_lane_enter(struct pool_lane *lane)
{
	struct lane_waiter waiter = {.next = NULL};

	pthread_mutex_lock(&lane->lock);
	if (!lane->held) {
		lane->held = true;
		pthread_mutex_unlock(&lane->lock);
		return;
	}
	pthread_cond_init(&waiter.turn, NULL);
	*lane->waiters_end = &waiter;
	lane->waiters_end = &waiter.next;
	while (!waiter.granted)
		pthread_cond_wait(&waiter.turn, &lane->lock);
	pthread_mutex_unlock(&lane->lock);
	pthread_cond_destroy(&waiter.turn);
}

/* Hand the lane to the first thread that waits for it, or leave it free. Answers the job that is
 * now to be scheduled, if any. Called with lane->lock held. */
static struct pool_job *lane_pass_on(struct pool_lane *lane)
{
	struct lane_waiter *waiter = lane->waiters;

	if (waiter) {
		lane->waiters = waiter->next;
		if (!lane->waiters)
			lane->waiters_end = &lane->waiters;
		waiter->granted = true;
		pthread_cond_signal(&waiter->turn);
		return NULL;
	}
	lane->held = false;
	if (lane->scheduled || !lane->jobs.first)
		return NULL;
	lane->scheduled = true;
	return job_list_pop(&lane->jobs);
}

static void pool_push(struct pool *pool, struct pool_job *job);

void pool_lane_leave(struct pool *pool, struct pool_lane *lane)
{
	struct pool_job *job;

	pthread_mutex_lock(&lane->lock);
	assert(lane->held);
	job = lane_pass_on(lane);
	pthread_mutex_unlock(&lane->lock);
	/* The job's own reference keeps the lane. */
	if (job)
		pool_push(pool, job);
}

/* A worker took this lane's job: it now holds the lane, or the job went back to its head. */
static bool lane_take_for(struct pool_lane *lane, struct pool_job *job)
{
	bool taken;

	pthread_mutex_lock(&lane->lock);
	lane->scheduled = false;
	taken = !lane->held;
	if (taken)
		lane->held = true;
	else
		job_list_prepend(&lane->jobs, job);
	pthread_mutex_unlock(&lane->lock);
	return taken;
}

/* Queue a job behind the others of its lane; true: nothing is before it, push it to the pool. */
static bool lane_queue(struct pool_lane *lane, struct pool_job *job)
{
	bool now;

	pthread_mutex_lock(&lane->lock);
	now = !lane->held && !lane->scheduled && !lane->jobs.first;
	if (now)
		lane->scheduled = true;
	else
		job_list_append(&lane->jobs, job);
	pthread_mutex_unlock(&lane->lock);
	return now;
}

/* ── shares ────────────────────────────────────────────────────────────────────────────────── */

struct pool_share *pool_share_new(unsigned int running_max)
{
	struct pool_share *share = calloc(1, sizeof(*share));

	assert(running_max >= 1 && running_max <= POOL_THREADS_MAX);
	if (!share)
		return NULL;
	atomic_init(&share->refs, 1);
	share->running_max = running_max;
	job_list_init(&share->ready);
	return share;
}

struct pool_share *pool_share_ref(struct pool_share *share)
{
	if (share)
		atomic_fetch_add_explicit(&share->refs, 1, memory_order_relaxed);
	return share;
}

struct pool_share *pool_share_unref(struct pool_share *share)
{
	if (!share || atomic_fetch_sub_explicit(&share->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	assert(!share->running && !share->ready.first);
	free(share);
	return NULL;
}

/* ── the pool; *_locked: with pool->lock held ──────────────────────────────────────────────── */

static void *pool_thread(void *argument);

/* Without a new thread the job waits for one that lives: there is always one. */
static void pool_grow_locked(struct pool *pool)
{
	sigset_t all, saved;

	if (pool->n_sleeping >= pool->n_ring || pool->n_threads >= pool->threads_max)
		return;
	/* Signals are the main thread's. SIGBUS of a guarded read is synchronous and must arrive.
	 */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	if (!pthread_create(&pool->threads[pool->n_threads], NULL, pool_thread, pool))
		pool->n_threads++;
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

/* Into the ring, at its end, if one of its jobs may run. */
static void share_line_up_locked(struct pool *pool, struct pool_share *share)
{
	if (share->in_ring || !share->ready.first || share->running >= share->running_max)
		return;
	share->in_ring = true;
	pool->n_ring++;
	share->next = NULL;
	*pool->ring_end = share;
	pool->ring_end = &share->next;
	pool_grow_locked(pool);
	pthread_cond_signal(&pool->work);
}

static void pool_push_locked(struct pool *pool, struct pool_job *job)
{
	struct pool_share *share = job->share ? job->share : &pool->common;

	job_list_append(&share->ready, job);
	pool->n_ready++;
	share_line_up_locked(pool, share);
}

static void pool_push(struct pool *pool, struct pool_job *job)
{
	pthread_mutex_lock(&pool->lock);
	pool_push_locked(pool, job);
	pthread_mutex_unlock(&pool->lock);
}

/* The next job of the share whose turn it is, which goes behind all others; NULL: nothing may run.
 * So who has many jobs waits for its own, whoever has few for as many as there are tenants. */
static struct pool_job *ring_take_locked(struct pool *pool)
{
	struct pool_share *share = pool->ring;
	struct pool_job *job;

	if (!share)
		return NULL;
	pool->ring = share->next;
	if (!pool->ring)
		pool->ring_end = &pool->ring;
	share->in_ring = false;
	pool->n_ring--;
	job = job_list_pop(&share->ready);
	pool->n_ready--;
	share->running++;
	share_line_up_locked(pool, share);
	return job;
}

static void share_give_locked(struct pool *pool, struct pool_share *share)
{
	if (!share)
		share = &pool->common;
	share->running--;
	share_line_up_locked(pool, share);
}

static void share_give(struct pool *pool, struct pool_share *share)
{
	pthread_mutex_lock(&pool->lock);
	share_give_locked(pool, share);
	pthread_mutex_unlock(&pool->lock);
}

/* The next job whose share has room, with the share taken; NULL: the pool is stopping. The worker
 * gets references of its own to lane and share: once it hands the job back, another worker may run
 * it to its end. */
static struct pool_job *pool_take(struct pool *pool)
{
	struct pool_job *job = NULL;

	pthread_mutex_lock(&pool->lock);
	while (!job) {
		job = ring_take_locked(pool);
		if (job || pool->stopping)
			break;
		pool->n_sleeping++;
		pthread_cond_wait(&pool->work, &pool->lock);
		pool->n_sleeping--;
	}
	if (job && job->lane)
		pool_lane_ref(job->lane);
	if (job)
		pool_share_ref(job->share);
	pthread_mutex_unlock(&pool->lock);
	return job;
}

static void pool_ended(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	if (!--pool->outstanding)
		pthread_cond_broadcast(&pool->idle);
	pthread_mutex_unlock(&pool->lock);
}

static void lane_append(struct pool_lane *lane, struct pool_job *job)
{
	pthread_mutex_lock(&lane->lock);
	job_list_append(&lane->jobs, job);
	pthread_mutex_unlock(&lane->lock);
}

/* Run it for one slice. A job that ends may be freed by its own run(), so nothing of it is looked
 * at afterwards. */
static void pool_run(struct pool *pool, struct pool_job *job)
{
	struct pool_lane *lane = job->lane;
	struct pool_share *share = job->share;
	bool again;

	if (lane && !lane_take_for(lane, job)) {
		share_give(pool, share);
		return;
	}
	again = job->run(job);
	share_give(pool, share);
	/* Queued before the lane is left, so that nothing new slips in before the jobs that wait.
	 */
	if (again && lane)
		lane_append(lane, job);
	else if (again)
		pool_push(pool, job);
	if (lane)
		pool_lane_leave(pool, lane);
	if (again)
		return;
	pool_lane_unref(lane);
	pool_share_unref(share);
	pool_ended(pool);
}

static void *pool_thread(void *argument)
{
	struct pool *pool = argument;
	struct pool_job *job;

	while ((job = pool_take(pool))) {
		struct pool_lane *lane = job->lane;
		struct pool_share *share = job->share;

		pool_run(pool, job);
		pool_lane_unref(lane);
		pool_share_unref(share);
	}
	return NULL;
}

int pool_new(struct pool **ret, unsigned int threads_max)
{
	struct pool *pool;

	assert(threads_max >= 1 && threads_max <= POOL_THREADS_MAX);
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	pthread_cond_init(&pool->idle, NULL);
	pool->ring_end = &pool->ring;
	pool->common.running_max = threads_max;
	job_list_init(&pool->common.ready);
	pool->threads_max = threads_max;
	/* The one that always lives: made as if a job waited. */
	pthread_mutex_lock(&pool->lock);
	pool->n_ring = 1;
	pool_grow_locked(pool);
	pool->n_ring = 0;
	pthread_mutex_unlock(&pool->lock);
	if (!pool->n_threads) {
		pool_free(pool);
		return -EAGAIN;
	}
	*ret = pool;
	return 0;
}

void pool_load(struct pool *pool, struct pool_load *ret)
{
	pthread_mutex_lock(&pool->lock);
	*ret = (struct pool_load){
		.threads = pool->n_threads,
		.busy = pool->n_threads - pool->n_sleeping,
		.threads_max = pool->threads_max,
		.queued = (unsigned int)pool->n_ready,
		.outstanding = (unsigned int)pool->outstanding,
	};
	pthread_mutex_unlock(&pool->lock);
}

struct pool *pool_free(struct pool *pool)
{
	if (!pool)
		return NULL;
	pthread_mutex_lock(&pool->lock);
	while (pool->outstanding)
		pthread_cond_wait(&pool->idle, &pool->lock);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	/* Nothing is submitted any more, so n_threads stands. */
	for (unsigned int i = 0; i < pool->n_threads; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->idle);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
	return NULL;
}

void pool_submit(struct pool *pool, struct pool_job *job)
{
	if (job->lane)
		pool_lane_ref(job->lane);
	pool_share_ref(job->share);
	pthread_mutex_lock(&pool->lock);
	pool->outstanding++;
	pthread_mutex_unlock(&pool->lock);
	if (!job->lane || lane_queue(job->lane, job))
		pool_push(pool, job);
}
