/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See connection.h. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/connection.h"

/* A full socket is looked at again this often while another thread reads. */
#define SEND_RETRY_NS 1000000u

static int init_epoll(struct connection *c)
{
	struct epoll_event socket_event = {.events = 0};
	struct epoll_event queue_event = {.events = EPOLLIN};

	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->epoll_fd < 0 || c->event_fd < 0)
		return -errno;
	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->fd, &socket_event) < 0)
		return -errno;
	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->event_fd, &queue_event) < 0)
		return -errno;
	return 0;
}

static void init_locks(struct connection *c)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->slot_free, &monotonic);
	for (size_t i = 0; i < CALLS_MAX; i++)
		pthread_cond_init(&c->calls[i].changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

int connection_init(struct connection *c, int consume_fd)
{
	int r;

	*c = (struct connection){.fd = consume_fd, .epoll_fd = -1, .event_fd = -1};
	init_locks(c);
	for (size_t i = 0; i < CALLS_MAX; i++) {
		c->calls[i].number = i;
		c->free_slots[c->n_free++] = CALLS_MAX - 1 - i;
	}
	c->rx = malloc(PACKET_BYTES_MAX);
	r = c->rx != NULL ? init_epoll(c) : -ENOMEM;
	if (r == 0 && fcntl(c->fd, F_SETFD, FD_CLOEXEC) < 0)
		r = -errno;
	if (r < 0)
		connection_deinit(c);
	return r;
}

void connection_deinit(struct connection *c)
{
	close(c->fd);
	if (c->epoll_fd >= 0)
		close(c->epoll_fd);
	if (c->event_fd >= 0)
		close(c->event_fd);
	free(c->rx);
	for (size_t i = 0; i < CALLS_MAX; i++)
		pthread_cond_destroy(&c->calls[i].changed);
	pthread_cond_destroy(&c->slot_free);
	pthread_mutex_destroy(&c->lock);
}

/* All below up to read_one(): under the lock. */

static void arm(struct connection *c)
{
	bool wanted = c->n_async > 0 && !c->reading;
	struct epoll_event event = {.events = wanted ? EPOLLIN : 0};

	if (wanted == c->armed)
		return;
	c->armed = wanted;
	epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void free_slot(struct connection *c, struct call *call)
{
	if (call->state == CALL_ASYNC)
		c->n_async--;
	call->state = CALL_FREE;
	c->free_slots[c->n_free++] = call - c->calls;
	if (c->n_starved > 0)
		pthread_cond_signal(&c->slot_free);
}

/* The last free slot is for who takes no answer. */
static struct call *take_slot(struct connection *c, enum call_state state, uint32_t method)
{
	struct call *call = &c->calls[c->free_slots[--c->n_free]];

	call->number += CALLS_MAX;
	call->state = state;
	call->method = method;
	call->sleeping = call->news = call->final = false;
	call->result = 0;
	if (state == CALL_ASYNC)
		c->n_async++;
	return call;
}

static void wake(struct call *call)
{
	call->news = true;
	if (call->sleeping)
		pthread_cond_signal(&call->changed);
}

static void lose(struct connection *c, int result)
{
	if (c->lost)
		return;
	c->lost = result;
	shutdown(c->fd, SHUT_RDWR);
	for (size_t i = 0; i < CALLS_MAX; i++) {
		struct call *call = &c->calls[i];

		if (call->state == CALL_WAITED) {
			if (!call->final)
				call->result = result;
			call->final = true;
			wake(call);
		} else if (call->state != CALL_FREE) {
			if (call->state == CALL_ASYNC)
				call->ops->lost(call->sink, result);
			free_slot(c, call);
		}
	}
	pthread_cond_broadcast(&c->slot_free);
}

static int deliver(struct connection *c, struct call *call, const struct answer *answer,
		   struct packet *packet)
{
	int r = 0;

	if (answer->method != call->method || call->final)
		return -EBADMSG;
	if (call->state != CALL_ABANDONED)
		r = call->ops->take(call->sink, answer, packet);
	if (r < 0)
		return r;
	call->final = !answer->more;
	if (call->state == CALL_WAITED)
		wake(call);
	else if (call->final)
		free_slot(c, call);
	return 0;
}

static int dispatch(struct connection *c, struct packet *packet)
{
	struct answer answer;
	struct call *call;
	int r;

	r = packet_parse(packet, &answer);
	if (r == 0) {
		call = &c->calls[answer.call % CALLS_MAX];
		if (call->state != CALL_FREE && call->number == answer.call)
			r = deliver(c, call, &answer, packet);
	}
	packet_close_fds(packet);
	return r;
}

/* Called with the lock and as the reader; gives the lock up while it reads. 0, -EAGAIN, or lost. */
static int read_one(struct connection *c)
{
	struct packet packet = {.bytes = c->rx};
	int r;

	pthread_mutex_unlock(&c->lock);
	r = packet_receive(c->fd, &packet);
	pthread_mutex_lock(&c->lock);
	if (r == 0)
		r = dispatch(c, &packet);
	if (r < 0 && r != -EAGAIN)
		lose(c, r);
	return r;
}

static void reading_begin(struct connection *c)
{
	c->reading = true;
	arm(c);
}

/* Somebody who waits must read on: whoever leaves a wait calls this. */
static void hand_over(struct connection *c)
{
	if (c->reading)
		return;
	arm(c);
	if (c->n_sleeping > 0) {
		for (size_t i = 0; i < CALLS_MAX; i++) {
			struct call *call = &c->calls[i];

			if (call->state == CALL_WAITED && call->sleeping && !call->news) {
				pthread_cond_signal(&call->changed);
				return;
			}
		}
	}
	if (c->n_starved > 0)
		pthread_cond_signal(&c->slot_free);
}

/* What a waiter waits for: news of its call, or without one a slot. */
static bool satisfied(const struct connection *c, const struct call *call)
{
	return c->lost || (call != NULL ? call->news : c->n_free > 1);
}

static int lead(struct connection *c, const struct call *call, uint64_t deadline)
{
	int r = 0;

	reading_begin(c);
	while (!satisfied(c, call)) {
		pthread_mutex_unlock(&c->lock);
		r = clock_poll(c->fd, POLLIN, deadline) == 0 ? -ETIMEDOUT : 0;
		pthread_mutex_lock(&c->lock);
		if (r < 0)
			break;
		read_one(c);
	}
	c->reading = false;
	return r;
}

static int follow(struct connection *c, struct call *call, uint64_t deadline)
{
	size_t *n_waiting = call != NULL ? &c->n_sleeping : &c->n_starved;
	int r;

	(*n_waiting)++;
	if (call != NULL)
		call->sleeping = true;
	r = clock_cond_wait(call != NULL ? &call->changed : &c->slot_free, &c->lock, deadline);
	if (call != NULL)
		call->sleeping = false;
	(*n_waiting)--;
	return r == ETIMEDOUT ? -ETIMEDOUT : 0;
}

/* Called with the lock. 0 when satisfied, or -ETIMEDOUT. */
static int wait_until(struct connection *c, struct call *call, uint64_t deadline)
{
	int r = 0;

	while (!satisfied(c, call) && r == 0)
		r = c->reading ? follow(c, call, deadline) : lead(c, call, deadline);
	hand_over(c);
	return satisfied(c, call) ? 0 : r;
}

int call_begin(struct connection *c, enum call_state state, uint32_t method,
	       const struct call_ops *ops, void *sink, uint64_t deadline, struct call **ret)
{
	struct call *call = NULL;
	int r;

	pthread_mutex_lock(&c->lock);
	r = wait_until(c, NULL, deadline);
	if (r == 0)
		r = c->lost;
	if (r == 0) {
		call = take_slot(c, state, method);
		call->ops = ops;
		call->sink = sink;
		if (ops->begun != NULL)
			ops->begun(sink, call->number);
		arm(c);
	}
	pthread_mutex_unlock(&c->lock);
	if (r == 0)
		*ret = call;
	return r;
}

/* The socket is full. The daemon may itself wait for us to take answers, so read if nobody does. */
static void wait_for_room(struct connection *c, uint64_t deadline)
{
	uint64_t retry = clock_deadline(SEND_RETRY_NS);
	bool reader;
	short ready;

	pthread_mutex_lock(&c->lock);
	reader = !c->reading;
	if (reader)
		reading_begin(c);
	pthread_mutex_unlock(&c->lock);
	if (!reader && retry < deadline)
		deadline = retry;
	ready = clock_poll(c->fd, reader ? POLLIN | POLLOUT : POLLOUT, deadline);
	if (!reader)
		return;
	pthread_mutex_lock(&c->lock);
	if (ready & ~POLLOUT)
		read_one(c);
	c->reading = false;
	hand_over(c);
	pthread_mutex_unlock(&c->lock);
}

static int send_until(struct connection *c, const uint8_t *packet, size_t n_bytes, int borrow_fd,
		      uint64_t deadline)
{
	for (;;) {
		int r = packet_send(c->fd, packet, n_bytes, borrow_fd);

		if (r == -ECONNRESET) {
			pthread_mutex_lock(&c->lock);
			lose(c, r);
			r = c->lost;
			pthread_mutex_unlock(&c->lock);
		}
		if (r != -EAGAIN || deadline == 0)
			return r;
		if (clock_now_ns() >= deadline)
			return -ETIMEDOUT;
		wait_for_room(c, deadline);
	}
}

int call_send(struct connection *c, struct call *call, uint8_t *packet, size_t n_bytes,
	      int borrow_fd, uint64_t deadline)
{
	uint64_t number = call->number;
	int r;

	packet_header_put(packet, call->method, number);
	r = send_until(c, packet, n_bytes, borrow_fd, deadline);
	if (r == 0)
		return 0;
	pthread_mutex_lock(&c->lock);
	if (call->state != CALL_FREE && call->number == number)
		free_slot(c, call);
	hand_over(c);
	pthread_mutex_unlock(&c->lock);
	return r;
}

int call_wait(struct connection *c, struct call *call, uint64_t deadline)
{
	int r;

	pthread_mutex_lock(&c->lock);
	r = wait_until(c, call, deadline);
	if (call->news) {
		call->news = false;
		r = call->result;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

void call_end(struct connection *c, struct call *call)
{
	pthread_mutex_lock(&c->lock);
	if (call->final || c->lost)
		free_slot(c, call);
	else
		call->state = CALL_ABANDONED;
	hand_over(c);
	pthread_mutex_unlock(&c->lock);
}

bool call_abandon(struct connection *c, uint64_t number)
{
	struct call *call = &c->calls[number % CALLS_MAX];
	bool found;

	pthread_mutex_lock(&c->lock);
	found = call->state == CALL_ASYNC && call->number == number;
	if (found) {
		call->state = CALL_ABANDONED;
		c->n_async--;
		arm(c);
	}
	pthread_mutex_unlock(&c->lock);
	return found;
}

int call_send_only(struct connection *c, uint32_t method, uint8_t *packet, size_t n_bytes)
{
	struct call *call = NULL;
	int r;

	pthread_mutex_lock(&c->lock);
	r = c->lost;
	if (r == 0 && c->n_free == 0)
		r = -EAGAIN;
	if (r == 0)
		call = take_slot(c, CALL_ABANDONED, method);
	pthread_mutex_unlock(&c->lock);
	return r == 0 ? call_send(c, call, packet, n_bytes, -1, 0) : r;
}

int connection_send_raw(struct connection *c, uint32_t method, uint64_t number)
{
	uint8_t packet[PACKET_HEADER_BYTES];

	packet_header_put(packet, method, number);
	return send_until(c, packet, sizeof(packet), -1, 0);
}

void connection_drain(struct connection *c, unsigned int max)
{
	pthread_mutex_lock(&c->lock);
	if (!c->reading) {
		reading_begin(c);
		while (max-- > 0 && !c->lost && read_one(c) == 0)
			;
		c->reading = false;
		hand_over(c);
	}
	pthread_mutex_unlock(&c->lock);
}
