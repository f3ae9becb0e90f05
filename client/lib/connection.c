/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See connection.h: its beginning and end, and a call's way through it. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "iommubroker/v1/native.pb-c.h"
#include "lib/clock.h"
#include "lib/link.h"
#include "lib/reader.h"

/* connection_state() reads no more than this. */
#define STATE_PACKETS_MAX 64

static int epoll_add(struct connection *c, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events};

	if (fd < 0 || epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	return 0;
}

static int init_epoll(struct connection *c)
{
	int r;

	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (c->epoll_fd < 0)
		return -errno;
	c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = epoll_add(c, c->event_fd, EPOLLIN);
	if (r < 0)
		return r;
	c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	r = epoll_add(c, c->timer_fd, EPOLLIN);
	return r < 0 ? r : epoll_add(c, c->fd, 0);
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

	*c = (struct connection){.fd = consume_fd, .epoll_fd = -1, .event_fd = -1, .timer_fd = -1};
	init_locks(c);
	resume_init(&c->resume);
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

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void connection_deinit(struct connection *c)
{
	close_fd(c->fd);
	close_fd(c->epoll_fd);
	close_fd(c->event_fd);
	close_fd(c->timer_fd);
	resume_deinit(&c->resume);
	free(c->rx);
	for (size_t i = 0; i < CALLS_MAX; i++)
		pthread_cond_destroy(&c->calls[i].changed);
	pthread_cond_destroy(&c->slot_free);
	pthread_mutex_destroy(&c->lock);
}

/* ── a call that a thread waits for ───────────────────────────────────────────────────────── */

/* A failed attempt to send, out of n_sending. 0: the link fell, and what becomes of the call with
 * it. */
static int send_failed(struct connection *c, uint64_t falls, int result)
{
	pthread_mutex_lock(&c->lock);
	c->n_sending--;
	if (result == -ECONNRESET && c->falls == falls)
		link_fall(c);
	if (c->lost || c->falls != falls)
		result = 0;
	pthread_mutex_unlock(&c->lock);
	return result;
}

/* After a wait for room. false: the link fell meanwhile. */
static bool send_resumes(struct connection *c, uint64_t falls)
{
	bool same;

	pthread_mutex_lock(&c->lock);
	same = !c->lost && c->falls == falls;
	if (same)
		c->n_sending++;
	pthread_mutex_unlock(&c->lock);
	return same;
}

/* This thread is counted in n_sending, and not any more afterwards. falls: how often the link had
 * fallen when it was. */
static int send_until(struct connection *c, const struct call_request *request, uint64_t falls,
		      uint64_t deadline)
{
	int r;

	for (;;) {
		r = packet_send(c->fd, request->packet, request->n_bytes, request->borrow_fd);
		if (r == 0) {
			c->n_sending--;
			return 0;
		}
		r = send_failed(c, falls, r);
		if (r != -EAGAIN)
			return r;
		if (clock_now_ns() >= deadline)
			return -ETIMEDOUT;
		reader_wait_for_room(c, deadline);
		if (!send_resumes(c, falls))
			return 0;
	}
}

static int take_waited(struct connection *c, const struct call_request *request, uint64_t deadline,
		       struct call **ret)
{
	const struct wait wait = {.patient = request->repeats};
	int r;

	if (c->down && !request->repeats)
		reader_drain_locked(c, 1);
	r = reader_wait(c, &wait, deadline);
	if (r == 0)
		r = c->lost;
	if (r == 0 && c->down && !request->repeats)
		r = -ECONNRESET;
	if (r == 0)
		*ret = slot_take(c, CALL_WAITED, request);
	return r;
}

int call_start(struct connection *c, const struct call_request *request, const struct call_ops *ops,
	       void *sink, uint64_t deadline, struct call **ret)
{
	struct call *call = NULL;
	uint64_t falls = 0;
	bool sends = false;
	int r;

	pthread_mutex_lock(&c->lock);
	r = take_waited(c, request, deadline, &call);
	if (r == 0) {
		call->ops = ops;
		call->sink = sink;
		sends = !call->unsent;
		falls = c->falls;
		if (sends)
			c->n_sending++;
	}
	pthread_mutex_unlock(&c->lock);
	if (r < 0)
		return r;
	if (sends)
		r = send_until(c, request, falls, deadline);
	if (r < 0) {
		pthread_mutex_lock(&c->lock);
		slot_free(c, call);
		reader_hand_over(c);
		pthread_mutex_unlock(&c->lock);
		return r;
	}
	*ret = call;
	return 0;
}

int call_wait(struct connection *c, struct call *call, uint64_t deadline)
{
	const struct wait wait = {.call = call};
	int r;

	pthread_mutex_lock(&c->lock);
	r = reader_wait(c, &wait, deadline);
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
	if (call->final || call->unsent || c->lost)
		slot_free(c, call);
	else
		call->state = CALL_ABANDONED;
	reader_hand_over(c);
	pthread_mutex_unlock(&c->lock);
}

/* ── a call that nobody waits for ─────────────────────────────────────────────────────────── */

/* Under the lock; it has a slot. */
static int submit(struct connection *c, struct call *call)
{
	int r = 0;

	if (call->unsent)
		return 0;
	if (!c->down)
		r = packet_send(c->fd, call->request.packet, call->request.n_bytes,
				call->request.borrow_fd);
	if (r == -ECONNRESET) {
		link_fall(c);
		return 0;
	}
	if (c->down) {
		call->ops->lost(call->sink, -ECONNRESET);
		slot_free(c, call);
	} else if (r < 0) {
		slot_free(c, call);
	}
	return r;
}

int call_submit(struct connection *c, const struct call_request *request,
		const struct call_ops *ops, void *sink, uint64_t *ret_number)
{
	struct call *call;
	int r;

	pthread_mutex_lock(&c->lock);
	r = c->lost;
	if (r == 0 && c->n_free <= 1)
		r = -EAGAIN;
	if (r == 0) {
		call = slot_take(c, CALL_ASYNC, request);
		call->ops = ops;
		call->sink = sink;
		*ret_number = call->number;
		ops->begun(sink, call->number);
		r = submit(c, call);
		link_arm(c);
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* Has no answer, and so no slot. */
static void tell_abandoned(struct connection *c, uint64_t number)
{
	uint8_t packet[PACKET_HEADER_BYTES];

	packet_header_put(packet, IOMMUBROKER__V1__METHOD__METHOD_CANCEL_CALL, number);
	if (packet_send(c->fd, packet, sizeof(packet), -1) == -ECONNRESET)
		link_fall(c);
}

bool call_abandon(struct connection *c, uint64_t number, bool tell)
{
	struct call *call = &c->calls[number % CALLS_MAX];
	bool found;

	pthread_mutex_lock(&c->lock);
	found = call->state == CALL_ASYNC && call->number == number;
	if (found && call->unsent) {
		slot_free(c, call);
	} else if (found) {
		call->state = CALL_ABANDONED;
		c->n_async--;
		if (tell)
			tell_abandoned(c, number);
	}
	link_arm(c);
	pthread_mutex_unlock(&c->lock);
	return found;
}

int call_cancel(struct connection *c, uint64_t number, uint64_t request_id)
{
	struct call *call = &c->calls[number % CALLS_MAX];
	int r;

	pthread_mutex_lock(&c->lock);
	r = c->lost;
	if (r == 0 && call->state != CALL_FREE && call->number == number)
		call->cancels = request_id;
	if (r == 0 && !c->down && !call->unsent)
		r = link_send_cancel(c, request_id);
	if (r == -ECONNRESET && !c->lost) {
		link_fall(c);
		r = c->lost;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

int connection_state(struct connection *c)
{
	int state;

	pthread_mutex_lock(&c->lock);
	reader_drain_locked(c, STATE_PACKETS_MAX);
	state = c->lost ? c->lost : c->down ? -EAGAIN : 0;
	pthread_mutex_unlock(&c->lock);
	return state;
}
