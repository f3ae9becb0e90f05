/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The pump between a client's socket and gRPC's: both ends in the test's hands, one thread. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/frame_pump.h"
#include "util/clock.h"

#define FLOW_BYTES (4 * 1024 * 1024)

struct fixture {
	struct loop *loop;
	struct frame_pump pump;
	int client, grpc; /* our ends */
	int ended;
	const char *why;
};

static void on_ended(struct frame_pump *pump, const char *why)
{
	struct fixture *f = (struct fixture *)((char *)pump - offsetof(struct fixture, pump));

	f->ended++;
	f->why = why;
	frame_pump_close(pump);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int client[2], grpc[2];

	assert_non_null(f);
	assert_int_equal(loop_new(&f->loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, client), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, grpc), 0);
	f->client = client[0];
	f->grpc = grpc[0];
	assert_int_equal(
		frame_pump_open(&f->pump, f->loop, client[1], grpc[1], 65541, 64, on_ended), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	frame_pump_close(&f->pump);
	frame_pump_deinit(&f->pump);
	close(f->client);
	close(f->grpc);
	loop_free(f->loop);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	event_base_loop(loop_base(f->loop), EVLOOP_NONBLOCK);
}

static void turn_until_ended(struct fixture *f)
{
	while (!f->ended)
		event_base_loop(loop_base(f->loop), EVLOOP_ONCE);
	assert_int_equal(f->ended, 1);
}

/* DATA frames of 16 KiB; their bytes tell where they belong. */
static uint8_t *flow_make(bool preface)
{
	uint8_t *flow = malloc(FLOW_BYTES);
	size_t at = 0;

	assert_non_null(flow);
	for (size_t i = 0; i < FLOW_BYTES; i++)
		flow[i] = (uint8_t)(i * 7 + i / 4096);
	if (preface) {
		memcpy(flow, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
		at = 24;
	}
	for (; at + 9 < FLOW_BYTES; at += 9 + 16384)
		memcpy(flow + at, "\0\x40\0\0\0\0\0\0\1", 9);
	return flow;
}

static size_t push(int fd, const uint8_t *flow, size_t at)
{
	ssize_t n = send(fd, flow + at, FLOW_BYTES - at, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n > 0 ? at + (size_t)n : at;
}

static size_t pull(int fd, const uint8_t *flow, size_t at)
{
	static uint8_t bytes[50000];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n <= 0)
		return at;
	assert_true(at + (size_t)n <= FLOW_BYTES);
	assert_memory_equal(bytes, flow + at, (size_t)n);
	return at + (size_t)n;
}

/* As long as nobody reads only so much is taken; then all of it arrives, in order. */
static void flow_test(struct fixture *f, int from, int to, bool preface)
{
	uint8_t *flow = flow_make(preface);
	size_t sent = 0, stuck, received = 0;

	do {
		stuck = sent;
		sent = push(from, flow, sent);
		turn(f);
	} while (sent != stuck);
	assert_in_range(sent, 1, FLOW_BYTES / 2);
	for (int i = 0; i < 100; i++)
		turn(f); /* idle, not spinning over the full socket for ever */
	while (received < FLOW_BYTES) {
		sent = push(from, flow, sent);
		turn(f);
		received = pull(to, flow, received);
	}
	assert_int_equal(f->ended, 0);
	free(flow);
}

static void test_client_to_grpc_waits(void **state)
{
	struct fixture *f = *state;

	flow_test(f, f->client, f->grpc, true);
}

static void test_grpc_to_client_waits(void **state)
{
	struct fixture *f = *state;

	flow_test(f, f->grpc, f->client, false);
}

/* Without a turn of the loop, and in order with what the loop carries. */
static void test_flush_carries_at_once(void **state)
{
	struct fixture *f = *state;
	uint8_t *flow = flow_make(false);
	size_t sent = 0, received = 0;

	for (int i = 0; i < 20; i++) {
		send(f->grpc, flow + sent, 1000, 0);
		sent += 1000;
		if (i % 3)
			frame_pump_flush(&f->pump);
		else
			turn(f);
		received = pull(f->client, flow, received);
		assert_int_equal(received, sent);
	}
	free(flow);
}

static void *flush_main(void *context)
{
	struct fixture *f = context;

	for (int i = 0; i < 20000; i++)
		frame_pump_flush(&f->pump);
	return NULL;
}

/* A flush that finds the client full leaves the rest to the loop. */
static void test_flush_from_another_thread(void **state)
{
	struct fixture *f = *state;
	uint8_t *flow = flow_make(false);
	size_t sent = 0, received = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, flush_main, f), 0);
	while (received < FLOW_BYTES) {
		sent = push(f->grpc, flow, sent);
		turn(f);
		received = pull(f->client, flow, received);
	}
	pthread_join(thread, NULL);
	assert_int_equal(f->ended, 0);
	free(flow);
}

static void test_rest_after_a_flush_is_carried(void **state)
{
	struct fixture *f = *state;
	uint8_t *flow = flow_make(false);
	size_t sent = 0, stuck, received = 0;

	do {
		stuck = sent;
		sent = push(f->grpc, flow, sent);
		frame_pump_flush(&f->pump);
	} while (sent != stuck);
	/* Nothing but the loop from here, and nothing new. */
	while (received < sent) {
		received = pull(f->client, flow, received);
		event_base_loop(loop_base(f->loop), EVLOOP_NONBLOCK);
	}
	free(flow);
}

static void expect_end_of(int fd)
{
	uint8_t bytes[100];

	assert_int_equal(recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT), 0);
}

static void test_end_of_client(void **state)
{
	struct fixture *f = *state;

	send(f->client, "PRI", 3, 0);
	shutdown(f->client, SHUT_WR);
	while (recv(f->grpc, (char[4]){0}, 4, MSG_DONTWAIT) != 3)
		turn(f);
	turn(f);
	expect_end_of(f->grpc);
	assert_int_equal(f->ended, 0);
	/* gRPC may still say something. */
	send(f->grpc, "goodbye", 7, 0);
	shutdown(f->grpc, SHUT_WR);
	turn_until_ended(f);
	assert_null(f->why);
	assert_int_equal(recv(f->client, (char[8]){0}, 8, 0), 7);
	expect_end_of(f->client);
}

static void test_end_of_grpc_after_its_last_bytes(void **state)
{
	struct fixture *f = *state;
	uint8_t *flow = flow_make(false);
	size_t sent = 0, stuck, received = 0;

	do {
		stuck = sent;
		sent = push(f->grpc, flow, sent);
		turn(f);
	} while (sent != stuck);
	shutdown(f->grpc, SHUT_WR);
	while (!f->ended) {
		received = pull(f->client, flow, received);
		turn(f);
	}
	while (received < sent)
		received = pull(f->client, flow, received);
	expect_end_of(f->client);
	assert_null(f->why);
	free(flow);
}

/* A client that says no more and takes nothing is not waited for. */
static void test_linger_is_bounded(void **state)
{
	struct fixture *f = *state;
	uint8_t *flow = flow_make(false);
	size_t sent = 0, stuck;

	do {
		stuck = sent;
		sent = push(f->grpc, flow, sent);
		turn(f);
	} while (sent != stuck);
	shutdown(f->client, SHUT_WR);
	turn_until_ended(f);
	assert_null(f->why);
	free(flow);
}

static void test_client_gone(void **state)
{
	struct fixture *f = *state;

	close(f->client);
	f->client = -1;
	send(f->grpc, "anything", 8, 0);
	turn_until_ended(f);
	assert_null(f->why);
}

static void test_fault_is_named(void **state)
{
	struct fixture *f = *state;

	send(f->client, "GET", 3, 0);
	turn_until_ended(f);
	assert_string_equal(f->why, frame_fault_name(FRAME_FAULT_PREFACE));
	expect_end_of(f->client);
	expect_end_of(f->grpc); /* and saw nothing of it */
	frame_pump_flush(&f->pump);
}

/* The loop is late: it looked at the clock, then something else took its time. */
struct late {
	struct loop_post post;
	struct fixture *f;
	uint64_t sent_ns;
};

static void on_late(struct loop_post *post)
{
	struct late *late = (struct late *)post;
	uint8_t pings[24 + 17 * 200] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

	for (size_t i = 0; i < 200; i++)
		memcpy(pings + 24 + 17 * i, "\0\0\10\6\0\0\0\0\0", 9);
	clock_sleep_ns(200000000);
	late->sent_ns = clock_monotonic_ns();
	assert_int_equal(send(late->f->client, pings, sizeof(pings), 0), sizeof(pings));
	/* Within this very round of the loop. */
	event_active(late->f->pump.client_read, EV_READ, 0);
}

/* Who is held is held for the whole window, also where the loop's own clock was behind. */
static void test_hold_lasts_for_the_window(void **state)
{
	struct fixture *f = *state;
	struct late late = {.post.function = on_late, .f = f};
	uint8_t bytes[8192];

	loop_post(f->loop, &late.post);
	while (!f->pump.held)
		event_base_loop(loop_base(f->loop), EVLOOP_ONCE);
	assert_true(recv(f->grpc, bytes, sizeof(bytes), MSG_DONTWAIT) > 0);
	send(f->client, "\0\0\0\1\5\0\0\0\1", 9, 0);
	while (recv(f->grpc, bytes, sizeof(bytes), MSG_DONTWAIT) != 9)
		event_base_loop(loop_base(f->loop), EVLOOP_ONCE);
	assert_true(clock_monotonic_ns() - late.sent_ns >= FRAME_WINDOW_NS);
	assert_int_equal(f->ended, 0);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_client_to_grpc_waits),
		CASE(test_grpc_to_client_waits),
		CASE(test_flush_carries_at_once),
		CASE(test_flush_from_another_thread),
		CASE(test_rest_after_a_flush_is_carried),
		CASE(test_end_of_client),
		CASE(test_end_of_grpc_after_its_last_bytes),
		CASE(test_linger_is_bounded),
		CASE(test_client_gone),
		CASE(test_fault_is_named),
		CASE(test_hold_lasts_for_the_window),
	};

	return cmocka_run_group_tests_name("frame_pump", tests, NULL, NULL);
}
