/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The gRPC transport with clients that mean harm: each is cut off or held, nothing of it stays, and
 * an honest client beside it is served all the time.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <grpc/status.h>

#include "grpc_fixture.h"
#include "http2_raw.h"
#include "rpc/frame_guard.h"
#include "rpc/grpc_call.h"
#include "util/clock.h"

#define PATIENT_MS 60000

static struct grpc_fixture fixture;
static struct grpc_client *honest;
static struct http2_out out;
static size_t fds_before;

static void expect_served(void)
{
	struct client_request request = {
		.path = "/test.Echo/Unary", .bytes = (const uint8_t *)"honest", .n_bytes = 6};
	struct client_answer answer;

	grpc_client_unary(honest, &request, &answer);
	assert_int_equal(answer.code, 0);
	assert_int_equal(answer.n_bytes, 6);
	assert_memory_equal(answer.bytes, "honest", 6);
	client_answer_clear(&answer);
}

/* The first request. On a slow machine it comes later than an impatient server waits for it, and
 * the client connects again; once it came the server waits for as long as it takes. */
static void expect_served_at_last(void)
{
	struct client_request request = {
		.path = "/test.Echo/Unary", .bytes = (const uint8_t *)"first", .n_bytes = 5};
	struct client_answer answer;
	int code = GRPC_STATUS_UNAVAILABLE;

	for (int i = 0; code == GRPC_STATUS_UNAVAILABLE && i < 100; i++) {
		grpc_client_unary(honest, &request, &answer);
		code = answer.code;
		client_answer_clear(&answer);
	}
	assert_int_equal(code, 0);
}

static int open_with(unsigned int first_request_ms)
{
	grpc_fixture_open(&fixture, first_request_ms, RPC_DOOR_CLIENT);
	honest = grpc_fixture_client(&fixture);
	expect_served_at_last();
	grpc_fixture_await_exactly(&fixture, fake_connections, 1);
	fds_before = open_fds();
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return open_with(PATIENT_MS);
}

static int setup_impatient(void **state)
{
	(void)state;
	return open_with(100);
}

static int teardown(void **state)
{
	(void)state;
	http2_clear(&out);
	expect_served();
	grpc_client_free(honest);
	grpc_fixture_close(&fixture);
	return 0;
}

/* Only the honest client is left, and nothing of the other. */
static void expect_nothing_left(void)
{
	grpc_fixture_await_exactly(&fixture, fake_connections, 1);
	grpc_fixture_await_exactly(&fixture, fake_held, 0);
	await_open_fds(fds_before);
}

/* Send what is in out: the connection must end. */
static void expect_cut_off(void)
{
	int fd = http2_dial(fixture.path);

	http2_send(fd, &out);
	http2_await_end(fd);
	close(fd);
	expect_nothing_left();
	http2_clear(&out);
}

static void test_bad_preface(void **state)
{
	(void)state;
	http2_put(&out, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 35);
	expect_cut_off();
	http2_put(&out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", 24);
	expect_cut_off();
}

static void test_continuation(void **state)
{
	(void)state;
	http2_begin(&out);
	http2_frame(&out, HTTP2_HEADERS, 0, 1, "\x83", 1);
	for (int i = 0; i < 1000; i++)
		http2_frame(&out, HTTP2_CONTINUATION, 0, 1, NULL, 1000);
	expect_cut_off();
	http2_begin(&out);
	http2_frame(&out, HTTP2_CONTINUATION, HTTP2_END_HEADERS, 1, "\x83", 1);
	expect_cut_off();
}

static void test_oversized_frames(void **state)
{
	(void)state;
	http2_begin(&out);
	http2_frame(&out, HTTP2_HEADERS, HTTP2_END_HEADERS, 1, NULL, 4097);
	expect_cut_off();
	http2_begin(&out);
	http2_request(&out, 1, "/test.Echo/Unary");
	http2_frame(&out, HTTP2_DATA, 0, 1, NULL, RPC_MESSAGE_BYTES_MAX + 6);
	expect_cut_off();
	http2_begin(&out);
	http2_frame(&out, HTTP2_PUSH_PROMISE, HTTP2_END_HEADERS, 1, NULL, 4);
	expect_cut_off();
}

static void flood_of(uint8_t type, const void *payload, uint32_t payload_bytes)
{
	http2_begin(&out);
	for (int i = 0; i < 2000; i++)
		http2_frame(&out, type, 0, 0, payload, payload_bytes);
	expect_cut_off();
}

static void test_floods(void **state)
{
	(void)state;
	flood_of(HTTP2_PING, NULL, 8);
	flood_of(HTTP2_SETTINGS, NULL, 0);
	flood_of(0xbe, NULL, 0);
}

/* As much as the connection takes while nobody waits for its answers: held or cut off, but it
 * delays nobody. */
static void test_rapid_reset(void **state)
{
	int fd = http2_dial(fixture.path);

	(void)state;
	http2_begin(&out);
	for (uint32_t i = 0; i < 20000; i++) {
		http2_request(&out, 2 * i + 1, "/test.Echo/Hold");
		http2_frame(&out, HTTP2_RST_STREAM, 0, 2 * i + 1, NULL, 4);
	}
	send(fd, out.bytes, out.n_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	for (int i = 0; i < 20; i++)
		expect_served();
	close(fd);
	expect_nothing_left();
}

/* One who is over the rate but far from ten times it waits for the window to pass, and then is
 * served. (However slow the machine: it cannot be sooner.) */
static void test_too_many_pings_are_held(void **state)
{
	uint64_t start_ns = clock_monotonic_ns(); /* the window begins with the first frame */
	int fd = http2_dial(fixture.path);

	(void)state;
	http2_begin(&out);
	for (int i = 0; i < 200; i++)
		http2_frame(&out, HTTP2_PING, 0, 0, NULL, 8);
	assert_true(http2_send(fd, &out));
	assert_true(http2_await(fd, HTTP2_PING, 1, 0) == 8); /* the guard has seen them */
	http2_clear(&out);
	http2_request(&out, 1, "/test.Echo/Unary");
	http2_message(&out, 1, "later", 5);
	assert_true(http2_send(fd, &out));
	expect_served();
	assert_int_equal(http2_await(fd, HTTP2_DATA, 0, 1), 10);
	assert_true(clock_monotonic_ns() - start_ns >= FRAME_WINDOW_NS);
	close(fd);
	expect_nothing_left();
}

/* 400 messages, then 900 pings: true if all of them were answered. */
static bool ping_after_a_stream(void)
{
	uint32_t numbers[2] = {400, 4};
	int fd = http2_dial(fixture.path), answered = 0;

	http2_begin(&out);
	http2_request(&out, 1, "/test.Echo/Stream");
	http2_message(&out, 1, numbers, sizeof(numbers));
	assert_true(http2_send(fd, &out));
	assert_true(http2_await(fd, HTTP2_HEADERS, HTTP2_END_STREAM, 1) > 0);
	http2_clear(&out);
	for (int i = 0; i < 900; i++)
		http2_frame(&out, HTTP2_PING, 0, 0, NULL, 8);
	http2_send(fd, &out);
	while (answered < 900 && http2_await(fd, HTTP2_PING, 1, 0) == 8)
		answered++;
	http2_clear(&out);
	close(fd);
	expect_nothing_left();
	return answered == 900;
}

/* Who is sent much may acknowledge much: every frame of ours earns control frames. On a machine so
 * slow that a window ends in between they are lost again: then another try. */
static void test_answers_earn_control_frames(void **state)
{
	int tries = 1;

	(void)state;
	while (!ping_after_a_stream())
		assert_true(++tries <= 20);
}

/* Everything that a client may attach, at the start and in the middle. */
static void send_with_fds(int fd, const void *bytes, size_t n_bytes, int n_fds)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * 100)];
	} control = {0};
	struct iovec vector = {.iov_base = (void *)bytes, .iov_len = n_bytes};
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n_fds),
	};
	int fds[100];

	for (int i = 0; i < n_fds; i++)
		fds[i] = STDERR_FILENO;
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n_fds);
	memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * (size_t)n_fds);
	assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), n_bytes);
}

static void test_descriptors_are_not_received(void **state)
{
	static const int counts[] = {1, 2, 100};
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		fd = http2_dial(fixture.path);
		send_with_fds(fd, "PRI", 3, counts[i]);
		http2_await_end(fd);
		close(fd);
		expect_nothing_left();
		fd = http2_dial(fixture.path);
		http2_begin(&out);
		http2_request(&out, 1, "/test.Echo/Unary");
		http2_message(&out, 1, "first", 5);
		assert_true(http2_send(fd, &out));
		assert_int_equal(http2_await(fd, HTTP2_DATA, 0, 1), 10);
		http2_clear(&out);
		http2_frame(&out, HTTP2_PING, 0, 0, NULL, 8);
		send_with_fds(fd, out.bytes, out.n_bytes, counts[i]);
		http2_await_end(fd);
		http2_clear(&out);
		close(fd);
		expect_nothing_left();
	}
}

/* A client that does not acknowledge SETTINGS is not bound by MAX_CONCURRENT_STREAMS. */
static void test_too_many_calls(void **state)
{
	int fd = http2_dial(fixture.path);

	(void)state;
	http2_begin(&out);
	for (uint32_t i = 0; i < FIXTURE_CALLS_MAX / 2; i++) {
		http2_request(&out, 2 * i + 1, "/test.Echo/Hold");
		http2_message(&out, 2 * i + 1, "x", 1);
	}
	assert_true(http2_send(fd, &out));
	grpc_fixture_await(&fixture, fake_held, FIXTURE_CALLS_MAX / 2);
	http2_clear(&out);
	for (uint32_t i = FIXTURE_CALLS_MAX / 2; i < 3 * FIXTURE_CALLS_MAX; i++) {
		http2_request(&out, 2 * i + 1, "/test.Echo/Hold");
		http2_message(&out, 2 * i + 1, "x", 1);
	}
	http2_send(fd, &out);
	http2_await_end(fd);
	close(fd);
	expect_nothing_left();
	assert_true(fake_calls(fixture.dispatcher) <= FIXTURE_CALLS_MAX + 1 /* the honest one */);
	assert_int_equal(fake_cancelled(fixture.dispatcher), fake_calls(fixture.dispatcher) - 1);
}

/* Requests without a message hold a call each and no more. */
static void test_calls_without_messages(void **state)
{
	int fd = http2_dial(fixture.path);

	(void)state;
	http2_begin(&out);
	for (uint32_t i = 0; i < 4 * FIXTURE_CALLS_MAX; i++)
		http2_request(&out, 2 * i + 1, "/test.Echo/Unary");
	http2_send(fd, &out);
	http2_await_end(fd);
	close(fd);
	expect_nothing_left();
	assert_int_equal(fake_calls(fixture.dispatcher), 1);
}

static void test_silence_is_cut_off(void **state)
{
	static const size_t lengths[] = {0, 10, 24, 33};

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		http2_begin(&out);
		out.n_bytes = lengths[i];
		expect_cut_off();
	}
	/* Half a request is none. */
	http2_begin(&out);
	http2_request(&out, 1, "/test.Echo/Unary");
	http2_frame(&out, HTTP2_DATA, 0, 1, "\0\0\0\0\x09half", 9);
	expect_cut_off();
	assert_int_equal(fake_calls(fixture.dispatcher), 1);
}

/* A connection that has made its first request in time, however slow the machine. */
static int open_in_time(void)
{
	for (int i = 0; i < 100; i++) {
		int fd = http2_dial(fixture.path);

		http2_clear(&out);
		http2_begin(&out);
		http2_request(&out, 1, "/test.Echo/Unary");
		http2_message(&out, 1, "first", 5);
		if (http2_send(fd, &out) && http2_await(fd, HTTP2_DATA, 0, 1) == 10)
			return fd;
		close(fd);
	}
	fail_msg("no request came in time");
	return -1;
}

/* After a first request the connection may be silent for longer than that. */
static void test_silence_after_a_request(void **state)
{
	int fd = open_in_time();

	(void)state;
	clock_sleep_ns(400000000);
	http2_clear(&out);
	http2_request(&out, 3, "/test.Echo/Unary");
	http2_message(&out, 3, "second", 6);
	assert_true(http2_send(fd, &out));
	assert_int_equal(http2_await(fd, HTTP2_DATA, 0, 3), 11);
	close(fd);
	expect_nothing_left();
}

static int open_hold(void)
{
	int fd = http2_dial(fixture.path);

	http2_begin(&out);
	http2_request(&out, 1, "/test.Echo/Watch");
	http2_message(&out, 1, "x", 1);
	assert_true(http2_send(fd, &out));
	grpc_fixture_await(&fixture, fake_held, 1);
	return fd;
}

static void test_sudden_end_cancels(void **state)
{
	int fd = open_hold();

	(void)state;
	close(fd);
	grpc_fixture_await(&fixture, fake_cancelled, 1);
	expect_nothing_left();
}

/* HTTP/2 has no half-open connections: no more from the client means the end. */
static void test_half_close_ends(void **state)
{
	int fd = open_hold();

	(void)state;
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	http2_await_end(fd);
	grpc_fixture_await(&fixture, fake_cancelled, 1);
	close(fd);
	expect_nothing_left();
}

/* A client that lets nothing be sent has a bound for all its calls together; what is over it is
 * refused, and refusals need no window. */
static void test_answers_do_not_pile_up(void **state)
{
	uint32_t numbers[2] = {1, 1 << 20};
	int fd = http2_dial(fixture.path);

	(void)state;
	http2_begin(&out);
	http2_frame(&out, HTTP2_SETTINGS, 0, 0, "\0\x04\0\0\0\0", 6); /* windows of 0 bytes */
	for (uint32_t stream = 1; stream < 2 * GRPC_HELD_BYTES_MAX / numbers[1]; stream += 2) {
		http2_request(&out, stream, "/test.Echo/Stream");
		http2_message(&out, stream, numbers, sizeof(numbers));
	}
	assert_true(http2_send(fd, &out));
	grpc_fixture_await(&fixture, fake_calls, 1 + GRPC_HELD_BYTES_MAX / numbers[1]);
	http2_clear(&out);
	http2_request(&out, 99, "/test.Echo/Unary");
	http2_message(&out, 99, "x", 1);
	assert_true(http2_send(fd, &out));
	assert_true(http2_await(fd, HTTP2_HEADERS, HTTP2_END_STREAM, 99) > 0);
	close(fd);
	expect_nothing_left();
}

/* Asks for much, acknowledges much and reads nothing: it fills its own buffers, and stopping the
 * daemon does not wait for it. */
static void test_who_never_reads(void **state)
{
	uint32_t numbers[2] = {100000, 60000};
	int fd = http2_dial(fixture.path);

	(void)state;
	http2_begin(&out);
	http2_frame(&out, HTTP2_WINDOW_UPDATE, 0, 0, "\x7f\0\0\0", 4);
	http2_request(&out, 1, "/test.Echo/Stream");
	http2_frame(&out, HTTP2_WINDOW_UPDATE, 0, 1, "\x7f\0\0\0", 4);
	http2_message(&out, 1, numbers, sizeof(numbers));
	assert_true(http2_send(fd, &out));
	grpc_fixture_await(&fixture, fake_refused_sends, 1);
	expect_served();
	grpc_fixture_stop(&fixture);
	assert_int_equal(fake_connections(fixture.dispatcher), 0);
	assert_int_equal(fake_cancelled(fixture.dispatcher), 1);
	close(fd);
	/* teardown asks for service: give it some. */
	grpc_client_free(honest);
	grpc_fixture_close(&fixture);
	open_with(PATIENT_MS);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
#define CASE_IMPATIENT(function) \
	cmocka_unit_test_setup_teardown(function, setup_impatient, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_bad_preface),
		CASE(test_continuation),
		CASE(test_oversized_frames),
		CASE(test_floods),
		CASE(test_rapid_reset),
		CASE(test_too_many_pings_are_held),
		CASE(test_answers_earn_control_frames),
		CASE(test_descriptors_are_not_received),
		CASE(test_too_many_calls),
		CASE(test_calls_without_messages),
		CASE_IMPATIENT(test_silence_is_cut_off),
		CASE_IMPATIENT(test_silence_after_a_request),
		CASE(test_sudden_end_cancels),
		CASE(test_half_close_ends),
		CASE(test_answers_do_not_pile_up),
		CASE(test_who_never_reads),
	};

	return cmocka_run_group_tests_name("grpc_hostile", tests, NULL, NULL);
}
