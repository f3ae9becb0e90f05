/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See link.h and connection.h. */

#include "lib/link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "iommubroker/v1/native.pb-c.h"
#include "lib/clock.h"
#include "lib/wire.h"

#define SECOND_NS 1000000000u
/* Until whoever sends on the old socket has noticed. */
#define SENDERS_WAIT_NS 100000u

/* ── what an event loop polls ─────────────────────────────────────────────────────────────── */

static void arm_socket(struct connection *c)
{
	uint32_t wanted = 0;
	struct epoll_event event = {0};

	if (!c->reading && c->n_async > 0)
		wanted |= EPOLLIN;
	if (!c->reading && c->n_unsent > 0)
		wanted |= EPOLLOUT;
	if (c->down || wanted == c->armed)
		return;
	c->armed = wanted;
	event.events = wanted;
	epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

/* It leaves the set when it is closed. */
static void arm_joining(struct connection *c)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (c->resume.fd >= 0)
		epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->resume.fd, &event);
}

static void arm_timer(struct connection *c)
{
	uint64_t at = c->down && !c->reading ? c->resume.next_ns : 0;
	struct itimerspec timer = {.it_value = {at / SECOND_NS, at % SECOND_NS}};

	timerfd_settime(c->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
}

void link_arm(struct connection *c)
{
	arm_socket(c);
	if (c->down)
		arm_timer(c);
}

/* ── slots ────────────────────────────────────────────────────────────────────────────────── */

static void set_unsent(struct connection *c, struct call *call, bool unsent)
{
	if (call->unsent == unsent)
		return;
	call->unsent = unsent;
	if (unsent)
		c->n_unsent++;
	else
		c->n_unsent--;
}

void slot_free(struct connection *c, struct call *call)
{
	if (call->state == CALL_ASYNC)
		c->n_async--;
	set_unsent(c, call, false);
	call->state = CALL_FREE;
	c->free_slots[c->n_free++] = call - c->calls;
	if (c->n_starved > 0)
		pthread_cond_signal(&c->slot_free);
}

struct call *slot_take(struct connection *c, enum call_state state,
		       const struct call_request *request)
{
	struct call *call = &c->calls[c->free_slots[--c->n_free]];

	call->number += CALLS_MAX;
	call->order = ++c->order;
	call->state = state;
	call->request = *request;
	call->cancels = 0;
	call->sleeping = call->news = call->final = false;
	call->result = 0;
	packet_header_put(request->packet, request->method, call->number);
	if (state == CALL_ASYNC)
		c->n_async++;
	/* Not before those that wait already. */
	set_unsent(c, call, request->repeats && (c->down || c->n_unsent > 0));
	call->times = !call->unsent;
	return call;
}

/* No answer comes for it any more. */
static void drop_call(struct connection *c, struct call *call, int result)
{
	set_unsent(c, call, false);
	if (call->state == CALL_WAITED) {
		if (!call->final)
			call->result = result;
		call->final = call->news = true;
		if (call->sleeping)
			pthread_cond_signal(&call->changed);
	} else if (call->state != CALL_FREE) {
		if (call->state == CALL_ASYNC)
			call->ops->lost(call->sink, result);
		slot_free(c, call);
	}
}

/* ── down ─────────────────────────────────────────────────────────────────────────────────── */

static void tell(struct connection *c)
{
	if (c->changed != NULL)
		c->changed(c->changed_context);
}

void link_lose(struct connection *c, int result)
{
	if (c->lost)
		return;
	c->lost = result;
	c->down = false;
	arm_timer(c);
	shutdown(c->fd, SHUT_RDWR);
	resume_deinit(&c->resume);
	for (size_t i = 0; i < CALLS_MAX; i++)
		drop_call(c, &c->calls[i], result);
	pthread_cond_broadcast(&c->slot_free);
	/* Readable from now on. */
	epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = 0});
	tell(c);
}

void link_fall(struct connection *c)
{
	if (c->lost || c->down)
		return;
	if (!resume_possible(&c->resume)) {
		link_lose(c, -ECONNRESET);
		return;
	}
	c->down = true;
	c->falls++;
	shutdown(c->fd, SHUT_RDWR);
	epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	c->armed = 0;
	resume_begin(&c->resume);
	for (size_t i = 0; i < CALLS_MAX; i++) {
		struct call *call = &c->calls[i];

		if (call->state == CALL_ABANDONED || !call->request.repeats)
			drop_call(c, call, -ECONNRESET);
		else if (call->state != CALL_FREE && !call->final)
			set_unsent(c, call, true);
	}
	pthread_cond_broadcast(&c->slot_free);
	link_arm(c);
	tell(c);
}

/* ── up ───────────────────────────────────────────────────────────────────────────────────── */

static struct call *next_unsent(struct connection *c)
{
	struct call *first = NULL;

	for (size_t i = 0; i < CALLS_MAX; i++)
		if (c->calls[i].unsent && (first == NULL || c->calls[i].order < first->order))
			first = &c->calls[i];
	return first;
}

int link_send_cancel(struct connection *c, uint64_t request_id)
{
	uint8_t packet[PACKET_HEADER_BYTES + 1 + WIRE_VARINT_BYTES_MAX];
	struct call_request request = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_CANCEL_OPERATION,
		.packet = packet,
		.borrow_fd = -1,
	};
	struct call *call;
	uint8_t *end;
	int r;

	if (c->n_free == 0)
		return -EAGAIN;
	end = wire_put_tag(packet + PACKET_HEADER_BYTES, 1, WIRE_VARINT);
	end = wire_put_varint(end, request_id);
	request.n_bytes = end - packet;
	call = slot_take(c, CALL_ABANDONED, &request);
	r = packet_send(c->fd, packet, request.n_bytes, -1);
	if (r < 0)
		slot_free(c, call);
	return r;
}

static int send_again(struct connection *c, struct call *call)
{
	struct call_request *request = &call->request;
	int r;

	if (call->ops->renew != NULL)
		request->n_bytes = call->ops->renew(call->sink, request->packet);
	r = packet_send(c->fd, request->packet, request->n_bytes, request->borrow_fd);
	if (r < 0)
		return r;
	call->times++;
	set_unsent(c, call, false);
	if (call->cancels != 0)
		link_send_cancel(c, call->cancels);
	return 0;
}

void link_flush(struct connection *c)
{
	struct call *call;
	int r = 0;

	while (!c->down && !c->lost && r == 0 && (call = next_unsent(c)) != NULL) {
		r = send_again(c, call);
		if (r == -ECONNRESET) {
			link_fall(c);
		} else if (r < 0 && r != -EAGAIN) {
			drop_call(c, call, r);
			r = 0;
		}
	}
	link_arm(c);
}

/* The new socket takes the place of the old one, under its number. */
static int take_socket(struct connection *c)
{
	struct epoll_event event = {.events = 0};

	epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, c->resume.fd, NULL);
	if (dup3(c->resume.fd, c->fd, O_CLOEXEC) < 0)
		return -errno;
	close(c->resume.fd);
	c->resume.fd = -1;
	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
		return -errno;
	return 0;
}

static void rise(struct connection *c)
{
	int r = take_socket(c);

	if (r < 0) {
		link_lose(c, r);
		return;
	}
	c->down = false;
	arm_timer(c);
	tell(c);
	link_flush(c);
}

void link_step(struct connection *c)
{
	uint64_t attempts = c->resume.attempts;

	if (c->n_sending > 0) {
		c->resume.next_ns = clock_now_ns() + SENDERS_WAIT_NS;
		return;
	}
	switch (resume_step(&c->resume, c->rx)) {
	case RESUME_WAIT:
		if (c->resume.attempts != attempts)
			arm_joining(c);
		break;
	case RESUME_JOINED:
		rise(c);
		break;
	case RESUME_UNKNOWN:
		link_lose(c, -EPERM);
		break;
	case RESUME_GIVEN_UP:
		link_lose(c, -ECONNRESET);
		break;
	}
}
