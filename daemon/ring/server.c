/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The threads that serve rings.
 *
 * A thread goes round its rings that may have work, a turn each, and takes from this round those
 * that had none: their clients are told that it sleeps, and if after that there is still nothing,
 * their doorbells bring them back. With no ring left in the round it sleeps in epoll.
 *
 * A ring belongs to the one thread that it was given to, the one with the fewest.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utlist.h>

#include "ring/ring_internal.h"
#include "util/fd.h"

#define EVENTS 32

void thread_wake(struct ring_thread *thread)
{
	const uint64_t one = 1;
	ssize_t n = write(thread->event_fd, &one, sizeof(one));

	(void)n; /* it is full: it wakes anyway */
}

/* ── one ring ─────────────────────────────────────────────────────────────────────────────── */

static void ring_activate(struct ring *ring)
{
	if (ring->is_active)
		return;
	ring->is_active = true;
	queue_set_sleeping(&ring->queue, false);
	DL_APPEND2(ring->thread->active, ring, active_prev, active_next);
}

static void ring_deactivate(struct ring *ring)
{
	ring->is_active = false;
	DL_DELETE2(ring->thread->active, ring, active_prev, active_next);
}

static bool ring_turn(struct ring *ring)
{
	size_t budget = RING_BUDGET;
	bool worked = false;

	for (uint32_t i = 0; i < ring->queue.lanes && budget; i++) {
		if (lane_turn(&ring->lanes[ring->next_lane], &budget))
			worked = true;
		ring->next_lane = (ring->next_lane + 1) % ring->queue.lanes;
	}
	return worked;
}

/* Nothing was to be done: out of the round, unless something came meanwhile. */
static void ring_sleep(struct ring *ring)
{
	queue_set_sleeping(&ring->queue, true);
	if (ring_turn(ring))
		queue_set_sleeping(&ring->queue, false);
	else
		ring_deactivate(ring);
}

static void ring_leave_thread(struct ring *ring)
{
	struct ring_thread *thread = ring->thread;

	if (ring->is_active)
		ring_deactivate(ring);
	DL_DELETE(thread->rings, ring);
	atomic_fetch_sub(&thread->n_rings, 1);
	if (!ring->hung_up)
		epoll_ctl(thread->epoll_fd, EPOLL_CTL_DEL, ring->submit_fd, NULL);
	queue_end(&ring->queue);
	ring_unref(ring);
}

static void ring_serve(struct ring *ring)
{
	bool worked = ring_turn(ring);

	if (ring->ending && !ring->n_running)
		ring_leave_thread(ring);
	else if (!worked)
		ring_sleep(ring);
}

/* One read a turn: who rings on and on is served like everybody. */
static void ring_heard(struct ring *ring, uint32_t events)
{
	char bytes[4096];
	ssize_t n;

	if (!ring->entered) /* what brings it waits, too */
		return;
	n = read(ring->submit_fd, bytes, sizeof(bytes));
	if (n <= 0 && (events & (EPOLLHUP | EPOLLERR))) {
		epoll_ctl(ring->thread->epoll_fd, EPOLL_CTL_DEL, ring->submit_fd, NULL);
		ring->hung_up = true;
	}
	ring_activate(ring);
}

/* ── one thread ───────────────────────────────────────────────────────────────────────────── */

static void ring_enter_thread(struct ring *ring)
{
	DL_APPEND(ring->thread->rings, ring);
	ring->entered = true;
	ring_activate(ring);
}

static void take_incoming(struct ring_thread *thread)
{
	struct ring *ring, *next, *incoming;

	pthread_mutex_lock(&thread->lock);
	incoming = thread->incoming;
	thread->incoming = NULL;
	pthread_mutex_unlock(&thread->lock);
	DL_FOREACH_SAFE(incoming, ring, next)
	ring_enter_thread(ring);
}

/* Somebody finished work, or ends or brings a ring: it is not said which. */
static void thread_woken(struct ring_thread *thread)
{
	struct ring *ring;
	uint64_t count;
	ssize_t n = read(thread->event_fd, &count, sizeof(count));

	(void)n;
	take_incoming(thread);
	DL_FOREACH (thread->rings, ring)
		if (ring->n_running || ring->ending)
			ring_activate(ring);
}

static void thread_listen(struct ring_thread *thread)
{
	struct epoll_event events[EVENTS];
	int n;

	turn_end(&thread->turns);
	n = epoll_wait(thread->epoll_fd, events, EVENTS, thread->active ? 0 : -1);
	turn_begin(&thread->turns);
	for (int i = 0; i < n; i++)
		if (events[i].data.ptr)
			ring_heard(events[i].data.ptr, events[i].events);
		else
			thread_woken(thread);
}

static void *thread_run(void *context)
{
	struct ring_thread *thread = context;
	struct ring *ring, *next;

	turn_begin(&thread->turns);
	while (!thread->stop || thread->n_rings) {
		thread_listen(thread);
		DL_FOREACH_SAFE2(thread->active, ring, next, active_next)
		ring_serve(ring);
	}
	return NULL;
}

static void thread_deinit(struct ring_thread *thread)
{
	fd_close(thread->epoll_fd);
	fd_close(thread->event_fd);
	pthread_mutex_destroy(&thread->lock);
}

static int thread_start(struct ring_thread *thread)
{
	struct epoll_event event = {.events = EPOLLIN};
	sigset_t all, before;
	int error = 0;

	pthread_mutex_init(&thread->lock, NULL);
	thread->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	thread->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (thread->epoll_fd < 0 || thread->event_fd < 0 ||
	    epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, thread->event_fd, &event))
		error = errno;
	if (!error) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		error = pthread_create(&thread->id, NULL, thread_run, thread);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	if (error)
		thread_deinit(thread);
	return -error;
}

static void thread_stop(struct ring_thread *thread)
{
	thread->stop = true;
	thread_wake(thread);
	pthread_join(thread->id, NULL);
}

/* ── all of them ──────────────────────────────────────────────────────────────────────────── */

int server_serve(struct ring_server *server, struct ring *ring)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = ring};
	struct ring_thread *thread = &server->threads[0];
	int error = 0;

	for (unsigned int i = 1; i < server->n_threads; i++)
		if (server->threads[i].n_rings < thread->n_rings)
			thread = &server->threads[i];
	pthread_mutex_lock(&thread->lock);
	if (epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, ring->submit_fd, &event)) {
		error = errno;
	} else {
		atomic_fetch_add(&thread->n_rings, 1);
		__atomic_store_n(&ring->thread, thread, __ATOMIC_SEQ_CST);
		DL_APPEND(thread->incoming, ring);
	}
	pthread_mutex_unlock(&thread->lock);
	if (!error)
		thread_wake(thread);
	return error;
}

bool ring_server_hangs(struct ring_server *server)
{
	bool hangs = false;

	for (unsigned int i = 0; i < server->n_threads; i++)
		hangs |= !turns_go_on(&server->threads[i].turns);
	return hangs;
}

static uint64_t count_of(const uint64_t *count)
{
	return __atomic_load_n(count, __ATOMIC_RELAXED);
}

void ring_server_count(struct ring_server *server, struct refresh_counts *ret)
{
	*ret = (struct refresh_counts){0};
	for (unsigned int i = 0; i < server->n_threads; i++) {
		const struct refresh_counts *counts = &server->threads[i].counts;

		for (int v = 0; v <= VERDICT_GONE; v++)
			ret->verdicts[v] += count_of(&counts->verdicts[v]);
		ret->mapped += count_of(&counts->mapped);
		ret->unmapped += count_of(&counts->unmapped);
	}
}

int ring_server_new(struct ring_server **ret, struct broker *broker, unsigned int n_threads)
{
	struct ring_server *server = calloc(1, sizeof(*server));
	int status = server ? 0 : -ENOMEM;

	if (server)
		server->broker = broker;
	while (!status && server->n_threads < n_threads) {
		struct ring_thread *thread = &server->threads[server->n_threads];

		thread->server = server;
		status = thread_start(thread);
		if (!status)
			server->n_threads++;
	}
	if (status)
		ring_server_free(server);
	else
		*ret = server;
	return status;
}

struct ring_server *ring_server_free(struct ring_server *server)
{
	if (!server)
		return NULL;
	ring_release_all(server->broker);
	for (unsigned int i = 0; i < server->n_threads; i++)
		thread_stop(&server->threads[i]);
	while (atomic_load(&server->n_waking))
		sched_yield();
	for (unsigned int i = 0; i < server->n_threads; i++)
		thread_deinit(&server->threads[i]);
	free(server);
	return NULL;
}
