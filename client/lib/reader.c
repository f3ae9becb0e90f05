/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See reader.h and connection.h. */

#include "lib/reader.h"

#include <errno.h>
#include <poll.h>

#include "lib/clock.h"
#include "lib/link.h"

/* A full socket is looked at again this often while another thread reads. */
#define SEND_RETRY_NS 1000000u

static void wake(struct call *call)
{
	call->news = true;
	if (call->sleeping)
		pthread_cond_signal(&call->changed);
}

static int deliver(struct connection *c, struct call *call, const struct answer *answer,
		   struct packet *packet)
{
	int r = 0;

	if (answer->method != call->request.method || call->final)
		return -EBADMSG;
	if (call->state != CALL_ABANDONED)
		r = call->ops->take(call->sink, answer, packet);
	if (r < 0)
		return r;
	call->final = !answer->more;
	if (call->state == CALL_WAITED)
		wake(call);
	else if (call->final)
		slot_free(c, call);
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

/* Called with the lock and as the reader; gives the lock up while it reads. 0, -EAGAIN, or what
 * took the link down. */
static int read_one(struct connection *c)
{
	struct packet packet = {.bytes = c->rx};
	uint64_t falls = c->falls;
	int r;

	pthread_mutex_unlock(&c->lock);
	r = packet_receive(c->fd, &packet);
	pthread_mutex_lock(&c->lock);
	if (c->lost || c->falls != falls) {
		/* Somebody else saw the link fall: what came is going to come again. */
		packet_close_fds(&packet);
		return -EAGAIN;
	}
	if (r == 0)
		r = dispatch(c, &packet);
	if (r == -ECONNRESET)
		link_fall(c);
	else if (r < 0 && r != -EAGAIN)
		link_lose(c, r);
	return r;
}

static void reading_begin(struct connection *c)
{
	c->reading = true;
	link_arm(c);
}

void reader_hand_over(struct connection *c)
{
	if (c->reading)
		return;
	link_arm(c);
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

static bool satisfied(const struct connection *c, const struct wait *wait)
{
	if (c->lost)
		return true;
	if (wait->call != NULL)
		return wait->call->news;
	return c->n_free > 1 || (c->down && !wait->patient);
}

static void read_ready(struct connection *c, short ready)
{
	if (c->down) {
		link_step(c);
		return;
	}
	if (ready & ~POLLOUT)
		read_one(c);
	if (c->n_unsent > 0 && !c->down)
		link_flush(c);
}

/* As the reader, one turn. 0 or -ETIMEDOUT. */
static int lead_once(struct connection *c, uint64_t deadline)
{
	uint64_t until = c->down && c->resume.next_ns < deadline ? c->resume.next_ns : deadline;
	short events = !c->down && c->n_unsent > 0 ? POLLIN | POLLOUT : POLLIN;
	int fd = c->down ? c->resume.fd : c->fd;
	short ready;

	pthread_mutex_unlock(&c->lock);
	ready = clock_poll(fd, events, until);
	pthread_mutex_lock(&c->lock);
	if (ready == 0 && until == deadline)
		return -ETIMEDOUT;
	read_ready(c, ready);
	return 0;
}

static int lead(struct connection *c, const struct wait *wait, uint64_t deadline)
{
	int r = 0;

	reading_begin(c);
	while (!satisfied(c, wait) && r == 0)
		r = lead_once(c, deadline);
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

int reader_wait(struct connection *c, const struct wait *wait, uint64_t deadline)
{
	int r = 0;

	while (!satisfied(c, wait) && r == 0)
		r = c->reading ? follow(c, wait->call, deadline) : lead(c, wait, deadline);
	reader_hand_over(c);
	return satisfied(c, wait) ? 0 : r;
}

void reader_wait_for_room(struct connection *c, uint64_t deadline)
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
	read_ready(c, ready);
	c->reading = false;
	reader_hand_over(c);
	pthread_mutex_unlock(&c->lock);
}

void reader_drain_locked(struct connection *c, unsigned int max)
{
	if (c->reading || c->lost)
		return;
	reading_begin(c);
	if (!c->down)
		while (max-- > 0 && !c->lost && !c->down && read_one(c) == 0)
			;
	/* Also if it has just been found to be down. */
	if (c->down)
		link_step(c);
	if (!c->down && !c->lost && c->n_unsent > 0)
		link_flush(c);
	c->reading = false;
	reader_hand_over(c);
}

void reader_drain(struct connection *c, unsigned int max)
{
	pthread_mutex_lock(&c->lock);
	reader_drain_locked(c, max);
	pthread_mutex_unlock(&c->lock);
}
