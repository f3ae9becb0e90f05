/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Descriptors that a client attaches are never received: recvmsg() is given no room for them, so
 * the kernel drops them before they have a number here and says MSG_CTRUNC. Receiving and closing
 * them would let a client run its file system's flush on our thread.
 *
 * The loop watches a direction only while it can move, so that a descriptor in an error state that
 * nobody reads from cannot make the loop spin. (EV_CLOSED is not used: libevent does not deliver it
 * once EPOLLERR is set.)
 */

#include "rpc/frame_pump.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/crash_point.h"

#define CHUNK_BYTES    16384
#define CHUNKS_AT_ONCE 4    /* then other connections have their turn */
#define LINGER_MS      1000 /* for the last bytes to the client after the end from it */

static void pump_over(struct frame_pump *pump, const char *why)
{
	if (pump->over)
		return;
	pump->over = true;
	pump->why = why;
}

/* The last act of each of the loop's callbacks: the pump may be gone afterwards. */
static void pump_tell(struct frame_pump *pump)
{
	if (pump->over)
		pump->ended(pump, pump->why);
}

/* ── rests ────────────────────────────────────────────────────────────────────────────────── */

static bool rest_keep(struct frame_rest *rest, const uint8_t *bytes, size_t n_bytes)
{
	rest->bytes = malloc(n_bytes);
	if (!rest->bytes)
		return false;
	memcpy(rest->bytes, bytes, n_bytes);
	rest->first = 0;
	rest->n_bytes = n_bytes;
	return true;
}

static void rest_drop(struct frame_rest *rest)
{
	free(rest->bytes);
	*rest = (struct frame_rest){0};
}

/* How many bytes went; fewer than n_bytes: the other side is full. -1: it is gone. */
static ssize_t socket_give(int fd, const uint8_t *bytes, size_t n_bytes)
{
	size_t given = 0;

	while (given < n_bytes) {
		ssize_t n = send(fd, bytes + given, n_bytes - given, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n >= 0) {
			given += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			return -1;
		break;
	}
	return (ssize_t)given;
}

/* false: the other side is gone, or there is no memory to keep what it did not take. */
static bool rest_give(struct frame_rest *rest, int fd, const uint8_t *bytes, size_t n_bytes)
{
	ssize_t given = socket_give(fd, bytes, n_bytes);

	if (given < 0)
		return false;
	if ((size_t)given < n_bytes)
		return rest_keep(rest, bytes + given, n_bytes - (size_t)given);
	return true;
}

/* Another try. false: the other side is gone. */
static bool rest_retry(struct frame_rest *rest, int fd)
{
	ssize_t given = socket_give(fd, rest->bytes + rest->first, rest->n_bytes);

	if (given < 0)
		return false;
	rest->first += (size_t)given;
	rest->n_bytes -= (size_t)given;
	if (!rest->n_bytes)
		rest_drop(rest);
	return true;
}

/* ── what the loop watches ────────────────────────────────────────────────────────────────── */

static void watch(struct event *event, bool on)
{
	bool pending = event_pending(event, EV_READ | EV_WRITE, NULL);

	if (on && !pending)
		event_add(event, NULL);
	else if (!on && pending)
		event_del(event);
}

static void watch_in(struct frame_pump *pump)
{
	watch(pump->client_read, !pump->held && !pump->in_over && !pump->in.bytes);
	watch(pump->grpc_write, !pump->in_over && pump->in.bytes);
}

/* Nothing more comes from the client: what is left for it has a bounded time. */
static void pump_linger(struct frame_pump *pump)
{
	struct timeval limit = {.tv_sec = LINGER_MS / 1000};

	if (pump->lingering)
		return;
	pump->lingering = true;
	event_add(pump->linger, &limit);
}

static void on_linger(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	pump_over(context, NULL);
	pump_tell(context);
}

/* ── from the client ──────────────────────────────────────────────────────────────────────── */

/* No more comes from this client, or is taken by gRPC. gRPC sees the end, closes its side and so
 * ends the other direction, too. */
static void in_end(struct frame_pump *pump)
{
	pump->in_over = true;
	rest_drop(&pump->in);
	shutdown(pump->grpc_fd, SHUT_WR);
	pump_linger(pump);
}

static void in_hold(struct frame_pump *pump, uint64_t hold_ns)
{
	struct timeval wait = {.tv_sec = (time_t)(hold_ns / 1000000000),
			       .tv_usec = (suseconds_t)(hold_ns % 1000000000 / 1000) + 1};

	pump->held = true;
	event_add(pump->hold, &wait);
}

/* libevent reckons from the time at which its round began: a timer can come early by as long as the
 * round took until it was set, and the window counts by the real clock. */
static void on_hold_passed(evutil_socket_t fd, short what, void *context)
{
	struct frame_pump *pump = context;
	uint64_t hold_ns;

	(void)fd;
	(void)what;
	pthread_mutex_lock(&pump->lock);
	hold_ns = frame_guard_hold_ns(&pump->guard, clock_monotonic_ns());
	pthread_mutex_unlock(&pump->lock);
	if (hold_ns) {
		in_hold(pump, hold_ns);
		return;
	}
	pump->held = false;
	watch_in(pump);
}

/* > 0: so many bytes. 0: no more for now; the direction may be over, the connection ended. */
static size_t in_read(struct frame_pump *pump, uint8_t *chunk)
{
	struct iovec vector = {.iov_base = chunk, .iov_len = CHUNK_BYTES};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
	ssize_t n;

	do
		n = recvmsg(pump->client_fd, &message, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0 && message.msg_flags & MSG_CTRUNC) {
		pump_over(pump, "descriptors in the HTTP/2 stream");
		return 0;
	}
	if (n > 0) {
		CRASH_POINT(BYTES_READ);
		return (size_t)n;
	}
	if (n == 0)
		in_end(pump);
	else if (errno != EAGAIN && errno != EWOULDBLOCK)
		pump_over(pump, NULL);
	return 0;
}

static void in_carry(struct frame_pump *pump, const uint8_t *chunk, size_t n_bytes)
{
	enum frame_verdict verdict;
	uint64_t now, hold_ns;

	pthread_mutex_lock(&pump->lock);
	now = clock_monotonic_ns(); /* under the lock: the guard's time never goes back */
	verdict = frame_guard_inspect(&pump->guard, chunk, n_bytes, now);
	hold_ns = frame_guard_hold_ns(&pump->guard, now);
	pthread_mutex_unlock(&pump->lock);
	if (verdict == FRAME_DROP) {
		pump_over(pump, frame_fault_name(pump->guard.fault));
		return;
	}
	if (!rest_give(&pump->in, pump->grpc_fd, chunk, n_bytes))
		in_end(pump);
	if (verdict == FRAME_HOLD)
		in_hold(pump, hold_ns);
}

static void on_client_readable(evutil_socket_t fd, short what, void *context)
{
	struct frame_pump *pump = context;
	uint8_t chunk[CHUNK_BYTES];

	(void)fd;
	(void)what;
	for (int i = 0; i < CHUNKS_AT_ONCE; i++) {
		size_t n_bytes = in_read(pump, chunk);

		if (!n_bytes)
			break;
		in_carry(pump, chunk, n_bytes);
		if (n_bytes < CHUNK_BYTES || pump->over || pump->in.bytes || pump->held)
			break;
	}
	watch_in(pump);
	pump_tell(pump);
}

static void on_grpc_writable(evutil_socket_t fd, short what, void *context)
{
	struct frame_pump *pump = context;

	(void)fd;
	(void)what;
	if (!rest_retry(&pump->in, pump->grpc_fd))
		in_end(pump);
	watch_in(pump);
	pump_tell(pump);
}

/* ── to the client ────────────────────────────────────────────────────────────────────────── */

/* Under the lock. false: nothing more can move now. */
static bool out_carry_chunk(struct frame_pump *pump)
{
	uint8_t chunk[CHUNK_BYTES];
	ssize_t n;

	do
		n = recv(pump->grpc_fd, chunk, sizeof(chunk), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n <= 0) {
		pump->out_over = n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
		return false;
	}
	frame_guard_answer(&pump->guard, &pump->out_cursor, chunk, (size_t)n, clock_monotonic_ns());
	if (!rest_give(&pump->out, pump->client_fd, chunk, (size_t)n))
		pump->out_broken = true;
	return (size_t)n == sizeof(chunk);
}

/* Under the lock. */
static void out_carry(struct frame_pump *pump)
{
	if (pump->out.bytes && !rest_retry(&pump->out, pump->client_fd))
		pump->out_broken = true;
	for (int i = 0; i < CHUNKS_AT_ONCE; i++)
		if (pump->out.bytes || pump->out_broken || pump->out_over || !out_carry_chunk(pump))
			break;
}

/* Draw the conclusions that only the loop's thread may draw. */
static void out_attend(struct frame_pump *pump)
{
	bool full, over, broken;

	pthread_mutex_lock(&pump->lock);
	full = pump->out.bytes;
	over = pump->out_over;
	broken = pump->out_broken;
	pthread_mutex_unlock(&pump->lock);
	watch(pump->grpc_read, !full && !over && !broken);
	watch(pump->client_write, full && !broken);
	/* What gRPC closed is seen when the client has taken all that came before. */
	if (broken || (over && !full))
		pump_over(pump, NULL);
}

static void on_out_ready(evutil_socket_t fd, short what, void *context)
{
	struct frame_pump *pump = context;

	(void)fd;
	(void)what;
	pthread_mutex_lock(&pump->lock);
	out_carry(pump);
	pthread_mutex_unlock(&pump->lock);
	out_attend(pump);
	pump_tell(pump);
}

static void on_attend(struct loop_post *post)
{
	struct frame_pump *pump =
		(struct frame_pump *)((char *)post - offsetof(struct frame_pump, attend));

	atomic_store(&pump->attending, false);
	out_attend(pump);
	pump_tell(pump);
}

void frame_pump_flush(struct frame_pump *pump)
{
	bool attend;

	/* Whoever holds the lock carries; what comes after its last look wakes the loop. */
	if (pthread_mutex_trylock(&pump->lock))
		return;
	if (!pump->closed)
		out_carry(pump);
	attend = !pump->closed && (pump->out.bytes || pump->out_over || pump->out_broken) &&
		 !atomic_exchange(&pump->attending, true);
	/* Under the lock: frame_pump_close() takes it before it takes the post back. */
	if (attend)
		loop_post(pump->loop, &pump->attend);
	pthread_mutex_unlock(&pump->lock);
}

/* ── opening and closing ──────────────────────────────────────────────────────────────────── */

static int pump_watch(struct frame_pump *pump)
{
	struct event_base *base = loop_base(pump->loop);

	pump->client_read =
		event_new(base, pump->client_fd, EV_READ | EV_PERSIST, on_client_readable, pump);
	pump->client_write =
		event_new(base, pump->client_fd, EV_WRITE | EV_PERSIST, on_out_ready, pump);
	pump->grpc_read = event_new(base, pump->grpc_fd, EV_READ | EV_PERSIST, on_out_ready, pump);
	pump->grpc_write =
		event_new(base, pump->grpc_fd, EV_WRITE | EV_PERSIST, on_grpc_writable, pump);
	pump->hold = event_new(base, -1, 0, on_hold_passed, pump);
	pump->linger = event_new(base, -1, 0, on_linger, pump);
	if (!pump->client_read || !pump->client_write || !pump->grpc_read || !pump->grpc_write ||
	    !pump->hold || !pump->linger)
		return -ENOMEM;
	if (event_add(pump->client_read, NULL) || event_add(pump->grpc_read, NULL))
		return -ENOMEM;
	return 0;
}

int frame_pump_open(struct frame_pump *pump, struct loop *loop, int consume_client_fd,
		    int consume_grpc_fd, uint32_t data_bytes_max, uint32_t streams_max,
		    frame_pump_ended_fn ended)
{
	int status;

	memset(pump, 0, sizeof(*pump));
	pump->loop = loop;
	pump->ended = ended;
	pump->attend.function = on_attend;
	pump->client_fd = consume_client_fd;
	pump->grpc_fd = consume_grpc_fd;
	pump->streams = calloc(streams_max, sizeof(*pump->streams));
	frame_guard_init(&pump->guard, data_bytes_max, pump->streams, streams_max);
	pthread_mutex_init(&pump->lock, NULL);
	status = pump->streams ? pump_watch(pump) : -ENOMEM;
	if (status) {
		frame_pump_close(pump);
		frame_pump_deinit(pump);
	}
	return status;
}

static void event_drop(struct event **event)
{
	if (*event)
		event_free(*event);
	*event = NULL;
}

void frame_pump_close(struct frame_pump *pump)
{
	if (pump->closed)
		return;
	event_drop(&pump->client_read);
	event_drop(&pump->client_write);
	event_drop(&pump->grpc_read);
	event_drop(&pump->grpc_write);
	event_drop(&pump->hold);
	event_drop(&pump->linger);
	pthread_mutex_lock(&pump->lock);
	pump->closed = true;
	close(pump->client_fd);
	close(pump->grpc_fd);
	rest_drop(&pump->out);
	pthread_mutex_unlock(&pump->lock);
	rest_drop(&pump->in);
	loop_unpost(pump->loop, &pump->attend);
}

void frame_pump_deinit(struct frame_pump *pump)
{
	pthread_mutex_destroy(&pump->lock);
	free(pump->streams);
	pump->streams = NULL;
}
