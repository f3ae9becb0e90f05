/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the frame guard lets through, byte by byte and in one piece. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/frame_guard.h"

#define DATA_MAX 65541
#define SECOND   UINT64_C(1000000000)

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum {
	DATA,
	HEADERS,
	PRIORITY,
	RST_STREAM,
	SETTINGS,
	PUSH_PROMISE,
	PING,
	GOAWAY,
	WINDOW_UPDATE,
	CONTINUATION,
};

struct stream {
	uint8_t bytes[400000];
	size_t n;
};

static struct stream stream;

static void stream_begin(void)
{
	stream.n = 0;
	memcpy(stream.bytes, preface, 24);
	stream.n = 24;
}

/* Payload bytes look like frame headers of a CONTINUATION, to catch a guard that loses count. */
static void stream_frame(uint8_t type, uint8_t flags, uint32_t length)
{
	uint8_t header[9] = {(uint8_t)(length >> 16),
			     (uint8_t)(length >> 8),
			     (uint8_t)length,
			     type,
			     flags,
			     0,
			     0,
			     0,
			     1};

	assert_true(stream.n + 9 + length <= sizeof(stream.bytes));
	memcpy(stream.bytes + stream.n, header, 9);
	memset(stream.bytes + stream.n + 9, CONTINUATION, length);
	stream.n += 9 + length;
}

#define STREAMS_MAX 8
static uint32_t open_streams[STREAMS_MAX];

/* A frame without payload, of the server. */
static void answer(struct frame_guard *guard, uint8_t type, uint8_t flags, uint32_t id,
		   uint64_t now_ns)
{
	const uint8_t header[9] = {0, 0, 0, type, flags, 0, 0, (uint8_t)(id >> 8), (uint8_t)id};
	struct frame_cursor cursor = {0};

	frame_guard_answer(guard, &cursor, header, sizeof(header), now_ns);
}

static enum frame_verdict inspect_pieces(struct frame_guard *guard, size_t piece, uint64_t now_ns)
{
	enum frame_verdict verdict = FRAME_PASS;

	for (size_t at = 0; at < stream.n && verdict != FRAME_DROP; at += piece)
		verdict =
			frame_guard_inspect(guard, stream.bytes + at,
					    stream.n - at < piece ? stream.n - at : piece, now_ns);
	return verdict;
}

/* The same verdict and fault whatever pieces the bytes come in. */
static void expect(enum frame_verdict verdict, enum frame_fault fault)
{
	static const size_t pieces[] = {1, 2, 7, 9, 10, 4096, sizeof(stream.bytes)};

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct frame_guard guard;

		frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
		assert_int_equal(inspect_pieces(&guard, pieces[i], 5 * SECOND), verdict);
		assert_int_equal(guard.fault, fault);
	}
}

static void test_honest_client_passes(void **state)
{
	(void)state;
	stream_begin();
	stream_frame(SETTINGS, 0, 36);
	stream_frame(WINDOW_UPDATE, 0, 4);
	stream_frame(SETTINGS, 1, 0);
	for (int i = 0; i < 50; i++) {
		stream_frame(HEADERS, 4, 100);
		stream_frame(DATA, 1, 1000);
		stream_frame(PING, 0, 8);
		stream_frame(WINDOW_UPDATE, 0, 4);
	}
	stream_frame(HEADERS, 0x2c, FRAME_HEADERS_BYTES_MAX);
	stream_frame(DATA, 1, DATA_MAX);
	stream_frame(GOAWAY, 0, 8);
	expect(FRAME_PASS, FRAME_FAULT_NONE);
}

static void test_preface_is_required(void **state)
{
	(void)state;
	for (size_t at = 0; at < 24; at++) {
		stream_begin();
		stream_frame(SETTINGS, 0, 0);
		stream.bytes[at] ^= 1;
		expect(FRAME_DROP, FRAME_FAULT_PREFACE);
	}
	stream_begin();
	stream.n = 23;
	expect(FRAME_PASS, FRAME_FAULT_NONE);
}

static void one_frame(uint8_t type, uint8_t flags, uint32_t length, enum frame_fault fault)
{
	stream_begin();
	stream_frame(SETTINGS, 0, 0);
	stream_frame(type, flags, length);
	stream_frame(HEADERS, 4, 10);
	expect(fault ? FRAME_DROP : FRAME_PASS, fault);
}

static void test_frames_are_judged(void **state)
{
	(void)state;
	one_frame(CONTINUATION, 4, 0, FRAME_FAULT_CONTINUATION);
	one_frame(PUSH_PROMISE, 4, 4, FRAME_FAULT_PUSH);
	one_frame(HEADERS, 4, FRAME_HEADERS_BYTES_MAX, FRAME_FAULT_NONE);
	one_frame(HEADERS, 4, FRAME_HEADERS_BYTES_MAX + 1, FRAME_FAULT_HEADERS_BYTES);
	one_frame(HEADERS, 0xff & ~4, 10, FRAME_FAULT_HEADERS_SPLIT);
	one_frame(DATA, 0, DATA_MAX, FRAME_FAULT_NONE);
	one_frame(DATA, 0, DATA_MAX + 1, FRAME_FAULT_DATA_BYTES);
	one_frame(SETTINGS, 0, FRAME_OTHER_BYTES_MAX, FRAME_FAULT_NONE);
	one_frame(SETTINGS, 0, FRAME_OTHER_BYTES_MAX + 1, FRAME_FAULT_OTHER_BYTES);
	one_frame(RST_STREAM, 0, FRAME_OTHER_BYTES_MAX + 1, FRAME_FAULT_OTHER_BYTES);
	one_frame(0xee, 0, FRAME_OTHER_BYTES_MAX + 1, FRAME_FAULT_OTHER_BYTES);
	one_frame(0xee, 0, 5, FRAME_FAULT_NONE);
}

static void test_fault_is_final(void **state)
{
	struct frame_guard guard;

	(void)state;
	stream_begin();
	stream_frame(CONTINUATION, 4, 0);
	frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
	assert_int_equal(inspect_pieces(&guard, 1000, SECOND), FRAME_DROP);
	stream_frame(HEADERS, 4, 10);
	assert_int_equal(frame_guard_inspect(&guard, stream.bytes, 1, 9 * SECOND), FRAME_DROP);
	assert_int_equal(guard.fault, FRAME_FAULT_CONTINUATION);
}

/* So many frames of a kind after the preface, in one chunk. */
static enum frame_verdict flood(struct frame_guard *guard, uint8_t type, uint32_t length, int n,
				uint64_t now_ns)
{
	frame_guard_init(guard, DATA_MAX, open_streams, STREAMS_MAX);
	stream_begin();
	while (n--)
		stream_frame(type, 0, length);
	return inspect_pieces(guard, sizeof(stream.bytes), now_ns);
}

static void expect_rate(uint8_t kind, int rate, enum frame_fault fault)
{
	struct frame_guard guard;

	assert_int_equal(flood(&guard, kind, 0, rate, 3 * SECOND), FRAME_PASS);
	assert_int_equal(frame_guard_hold_ns(&guard, 3 * SECOND), 0);
	assert_int_equal(flood(&guard, kind, 0, rate + 1, 3 * SECOND), FRAME_HOLD);
	assert_int_equal(frame_guard_hold_ns(&guard, 3 * SECOND), SECOND);
	assert_int_equal(frame_guard_hold_ns(&guard, 3 * SECOND + SECOND / 4), SECOND * 3 / 4);
	assert_int_equal(frame_guard_hold_ns(&guard, 4 * SECOND), 0);
	assert_int_equal(flood(&guard, kind, 0, 10 * rate - 1, 3 * SECOND), FRAME_HOLD);
	assert_int_equal(flood(&guard, kind, 0, 10 * rate, 3 * SECOND), FRAME_DROP);
	assert_int_equal(guard.fault, fault);
}

static void test_control_frames_have_a_rate(void **state)
{
	static const uint8_t kinds[] = {DATA, PRIORITY, SETTINGS, PING, WINDOW_UPDATE, 0xee};

	(void)state;
	for (size_t i = 0; i < sizeof(kinds); i++)
		expect_rate(kinds[i], 64, FRAME_FAULT_CONTROL_FLOOD);
	expect_rate(RST_STREAM, 256, FRAME_FAULT_RESET_FLOOD);
}

static void test_window_passes(void **state)
{
	struct frame_guard guard;

	(void)state;
	assert_int_equal(flood(&guard, PING, 8, 65, 3 * SECOND), FRAME_HOLD);
	stream.n = 0;
	for (int i = 0; i < 64; i++)
		stream_frame(PING, 0, 8);
	assert_int_equal(inspect_pieces(&guard, 100000, 4 * SECOND), FRAME_PASS);
	assert_int_equal(inspect_pieces(&guard, 100000, 4 * SECOND + SECOND / 2), FRAME_HOLD);
	assert_int_equal(inspect_pieces(&guard, 100000, 5 * SECOND), FRAME_PASS);
}

/* 64 and 4 for each frame that carries something, in either direction. */
static void test_data_earns_control_frames(void **state)
{
	struct frame_guard guard;

	(void)state;
	frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
	stream_begin();
	stream_frame(HEADERS, 4, 10);
	stream_frame(DATA, 0, 10);
	for (int i = 0; i < 72; i++)
		stream_frame(PING, 0, 8);
	assert_int_equal(inspect_pieces(&guard, 100000, 3 * SECOND), FRAME_PASS);
	stream.n = 0;
	stream_frame(PING, 0, 8);
	assert_int_equal(inspect_pieces(&guard, 100000, 3 * SECOND), FRAME_HOLD);
	answer(&guard, DATA, 0, 1, 3 * SECOND);
	assert_int_equal(frame_guard_hold_ns(&guard, 3 * SECOND), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(inspect_pieces(&guard, 100000, 3 * SECOND), FRAME_PASS);
	assert_int_equal(inspect_pieces(&guard, 100000, 3 * SECOND), FRAME_HOLD);
}

/* HEADERS must not pay for the RST_STREAM that undoes them. */
static void test_resets_are_not_earned(void **state)
{
	struct frame_guard guard;

	(void)state;
	frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
	stream_begin();
	for (int i = 0; i < 257; i++) {
		stream_frame(HEADERS, 4, 10);
		stream_frame(RST_STREAM, 0, 4);
	}
	assert_int_equal(inspect_pieces(&guard, sizeof(stream.bytes), SECOND), FRAME_HOLD);
	for (int i = 257; i < 2560; i++) {
		stream_frame(HEADERS, 4, 10);
		stream_frame(RST_STREAM, 0, 4);
	}
	frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
	assert_int_equal(inspect_pieces(&guard, sizeof(stream.bytes), SECOND), FRAME_DROP);
	assert_int_equal(guard.fault, FRAME_FAULT_RESET_FLOOD);
}

/* Empty DATA frames carry nothing unless they end the stream. */
static void test_empty_data_earns_nothing(void **state)
{
	struct frame_guard guard;

	(void)state;
	frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
	stream_begin();
	for (int i = 0; i < 1000; i++)
		stream_frame(DATA, 1, 0);
	assert_int_equal(inspect_pieces(&guard, sizeof(stream.bytes), SECOND), FRAME_PASS);
	assert_int_equal(flood(&guard, DATA, 0, 640, SECOND), FRAME_DROP);
}

static void test_answers_are_counted(void **state)
{
	static const size_t pieces[] = {1, 5, 9, 100000};

	(void)state;
	stream.n = 0;
	stream_frame(SETTINGS, 0, 18);
	stream_frame(HEADERS, 4, 30);
	stream_frame(DATA, 0, 1000);
	stream_frame(DATA, 0, 0);
	stream_frame(HEADERS, 5, 10);
	stream_frame(PING, 1, 8);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct frame_cursor cursor = {0};
		struct frame_guard guard;

		frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
		for (size_t at = 0; at < stream.n; at += pieces[i])
			frame_guard_answer(&guard, &cursor, stream.bytes + at,
					   stream.n - at < pieces[i] ? stream.n - at : pieces[i],
					   SECOND);
		assert_int_equal(guard.earned, 4 * FRAME_CONTROL_PER_FRAME);
	}
}

static void test_credit_saturates(void **state)
{
	struct frame_guard guard;

	(void)state;
	frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
	answer(&guard, DATA, 0, 1, SECOND);
	guard.earned = UINT32_MAX / 2 - 1;
	answer(&guard, DATA, 0, 1, SECOND);
	answer(&guard, DATA, 0, 1, SECOND);
	assert_int_equal(guard.earned, UINT32_MAX / 2);
	stream_begin();
	for (int i = 0; i < 2000; i++)
		stream_frame(PING, 0, 8);
	assert_int_equal(inspect_pieces(&guard, sizeof(stream.bytes), SECOND), FRAME_PASS);
}

/* Opens the streams from first on; what comes of it. */
static enum frame_verdict open_from(struct frame_guard *guard, uint32_t first, uint32_t n)
{
	enum frame_verdict verdict = FRAME_PASS;

	for (uint32_t i = 0; i < n && verdict != FRAME_DROP; i++) {
		const uint8_t header[9] = {0,
					   0,
					   0,
					   HEADERS,
					   4,
					   0,
					   0,
					   (uint8_t)((first + i) >> 8),
					   (uint8_t)(first + i)};

		verdict = frame_guard_inspect(guard, header, sizeof(header), SECOND);
	}
	return verdict;
}

static void test_open_streams_are_bounded(void **state)
{
	static const uint8_t reset[13] = {0, 0, 4, RST_STREAM, 0, 0, 0, 0, 3};
	struct frame_guard guard;

	(void)state;
	frame_guard_init(&guard, DATA_MAX, open_streams, STREAMS_MAX);
	stream_begin();
	assert_int_equal(inspect_pieces(&guard, 100, SECOND), FRAME_PASS);
	assert_int_equal(open_from(&guard, 1, STREAMS_MAX), FRAME_PASS);
	assert_int_equal(open_from(&guard, 1, STREAMS_MAX), FRAME_PASS); /* trailers */
	answer(&guard, HEADERS, 4, 1, SECOND);                           /* no end yet */
	assert_int_equal(guard.n_streams, STREAMS_MAX);
	answer(&guard, HEADERS, 5, 1, SECOND);
	answer(&guard, RST_STREAM, 0, 1, SECOND); /* of the same one: counts once */
	answer(&guard, RST_STREAM, 0, 2, SECOND);
	frame_guard_inspect(&guard, reset, sizeof(reset), SECOND);
	assert_int_equal(guard.n_streams, STREAMS_MAX - 3);
	assert_int_equal(open_from(&guard, 300, 3), FRAME_PASS);
	assert_int_equal(open_from(&guard, 303, 1), FRAME_DROP);
	assert_int_equal(guard.fault, FRAME_FAULT_STREAMS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_honest_client_passes),
		cmocka_unit_test(test_preface_is_required),
		cmocka_unit_test(test_frames_are_judged),
		cmocka_unit_test(test_fault_is_final),
		cmocka_unit_test(test_control_frames_have_a_rate),
		cmocka_unit_test(test_window_passes),
		cmocka_unit_test(test_data_earns_control_frames),
		cmocka_unit_test(test_resets_are_not_earned),
		cmocka_unit_test(test_empty_data_earns_nothing),
		cmocka_unit_test(test_answers_are_counted),
		cmocka_unit_test(test_credit_saturates),
		cmocka_unit_test(test_open_streams_are_bounded),
	};

	return cmocka_run_group_tests_name("frame_guard", tests, NULL, NULL);
}
