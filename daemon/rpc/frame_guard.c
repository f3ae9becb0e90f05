/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/frame_guard.h"

#include <stdbool.h>
#include <string.h>

/* RFC 9113, section 6. */
enum frame_type {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_RST_STREAM = 3,
	FRAME_PUSH_PROMISE = 5,
	FRAME_CONTINUATION = 9,
};

#define FLAG_END_STREAM  0x1
#define FLAG_END_HEADERS 0x4

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_BYTES (sizeof(preface) - 1)

void frame_guard_init(struct frame_guard *guard, uint32_t data_bytes_max, uint32_t *borrow_streams,
		      uint32_t streams_max)
{
	memset(guard, 0, sizeof(*guard));
	guard->data_bytes_max = data_bytes_max;
	guard->streams = borrow_streams;
	guard->streams_max = streams_max;
}

static enum frame_type cursor_type(const struct frame_cursor *cursor)
{
	return cursor->header[3];
}

static uint8_t cursor_flags(const struct frame_cursor *cursor)
{
	return cursor->header[4];
}

static uint32_t cursor_length(const struct frame_cursor *cursor)
{
	return (uint32_t)cursor->header[0] << 16 | (uint32_t)cursor->header[1] << 8 |
	       cursor->header[2];
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Takes bytes from *bytes up to the end of the next frame header. true: there it is. */
static bool cursor_next(struct frame_cursor *cursor, const uint8_t **bytes, size_t *n_bytes)
{
	size_t skip = smaller(cursor->payload_bytes, *n_bytes), take;

	cursor->payload_bytes -= (uint32_t)skip;
	take = smaller(sizeof(cursor->header) - cursor->header_bytes, *n_bytes - skip);
	memcpy(cursor->header + cursor->header_bytes, *bytes + skip, take);
	cursor->header_bytes += (uint8_t)take;
	*bytes += skip + take;
	*n_bytes -= skip + take;
	if (cursor->header_bytes < sizeof(cursor->header))
		return false;
	cursor->header_bytes = 0;
	cursor->payload_bytes = cursor_length(cursor);
	return true;
}

/* The reserved bit apart. */
static uint32_t cursor_stream(const struct frame_cursor *cursor)
{
	const uint8_t *id = cursor->header + 5;

	return ((uint32_t)id[0] & 0x7f) << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 |
	       id[3];
}

/* ── streams ──────────────────────────────────────────────────────────────────────────────── */

static uint32_t stream_find(const struct frame_guard *guard, uint32_t stream)
{
	uint32_t i = 0;

	while (i < guard->n_streams && guard->streams[i] != stream)
		i++;
	return i;
}

static enum frame_fault stream_open(struct frame_guard *guard, uint32_t stream)
{
	if (stream_find(guard, stream) < guard->n_streams)
		return FRAME_FAULT_NONE; /* trailers */
	if (guard->n_streams == guard->streams_max)
		return FRAME_FAULT_STREAMS;
	guard->streams[guard->n_streams++] = stream;
	return FRAME_FAULT_NONE;
}

static void stream_close(struct frame_guard *guard, uint32_t stream)
{
	uint32_t i = stream_find(guard, stream);

	if (i < guard->n_streams)
		guard->streams[i] = guard->streams[--guard->n_streams];
}

/* ── windows ──────────────────────────────────────────────────────────────────────────────── */

/* Counters saturate: what they are compared with is far below. */
static void count_up(uint32_t *counter, uint32_t by)
{
	*counter = *counter > UINT32_MAX / 2 - by ? UINT32_MAX / 2 : *counter + by;
}

static uint32_t control_allowed(const struct frame_guard *guard)
{
	return FRAME_CONTROL_PER_WINDOW + guard->earned;
}

static void window_move(struct frame_guard *guard, uint64_t now_ns)
{
	if (now_ns - guard->window_start_ns < FRAME_WINDOW_NS)
		return;
	guard->window_start_ns = now_ns;
	guard->control = guard->resets = guard->earned = 0;
}

void frame_guard_answer(struct frame_guard *guard, struct frame_cursor *cursor,
			const uint8_t *bytes, size_t n_bytes, uint64_t now_ns)
{
	window_move(guard, now_ns);
	while (cursor_next(cursor, &bytes, &n_bytes)) {
		bool data = cursor_type(cursor) == FRAME_DATA;
		bool headers = cursor_type(cursor) == FRAME_HEADERS;

		if (data || headers)
			count_up(&guard->earned, FRAME_CONTROL_PER_FRAME);
		if (cursor_type(cursor) == FRAME_RST_STREAM ||
		    ((data || headers) && cursor_flags(cursor) & FLAG_END_STREAM))
			stream_close(guard, cursor_stream(cursor));
	}
}

static enum frame_fault count_control(struct frame_guard *guard)
{
	count_up(&guard->control, 1);
	/* Not multiplied: what was earned has no bound of its own. */
	return guard->control / FRAME_FLOOD_FACTOR >= control_allowed(guard)
		       ? FRAME_FAULT_CONTROL_FLOOD
		       : FRAME_FAULT_NONE;
}

static enum frame_fault count_reset(struct frame_guard *guard)
{
	count_up(&guard->resets, 1);
	return guard->resets / FRAME_FLOOD_FACTOR >= FRAME_RESETS_PER_WINDOW
		       ? FRAME_FAULT_RESET_FLOOD
		       : FRAME_FAULT_NONE;
}

static enum frame_fault data_judge(struct frame_guard *guard, uint32_t length, uint8_t flags)
{
	if (length > guard->data_bytes_max)
		return FRAME_FAULT_DATA_BYTES;
	if (!length && !(flags & FLAG_END_STREAM))
		return count_control(guard);
	count_up(&guard->earned, FRAME_CONTROL_PER_FRAME);
	return FRAME_FAULT_NONE;
}

static enum frame_fault headers_judge(struct frame_guard *guard, uint32_t length, uint8_t flags)
{
	if (length > FRAME_HEADERS_BYTES_MAX)
		return FRAME_FAULT_HEADERS_BYTES;
	if (!(flags & FLAG_END_HEADERS))
		return FRAME_FAULT_HEADERS_SPLIT;
	count_up(&guard->earned, FRAME_CONTROL_PER_FRAME);
	return stream_open(guard, cursor_stream(&guard->cursor));
}

static enum frame_fault frame_judge(struct frame_guard *guard)
{
	uint32_t length = cursor_length(&guard->cursor);
	uint8_t flags = cursor_flags(&guard->cursor);

	switch (cursor_type(&guard->cursor)) {
	case FRAME_DATA:
		return data_judge(guard, length, flags);
	case FRAME_HEADERS:
		return headers_judge(guard, length, flags);
	case FRAME_CONTINUATION:
		return FRAME_FAULT_CONTINUATION;
	case FRAME_PUSH_PROMISE:
		return FRAME_FAULT_PUSH;
	case FRAME_RST_STREAM:
		stream_close(guard, cursor_stream(&guard->cursor));
		return length > FRAME_OTHER_BYTES_MAX ? FRAME_FAULT_OTHER_BYTES
						      : count_reset(guard);
	default:
		return length > FRAME_OTHER_BYTES_MAX ? FRAME_FAULT_OTHER_BYTES
						      : count_control(guard);
	}
}

static enum frame_fault preface_judge(struct frame_guard *guard, const uint8_t **bytes,
				      size_t *n_bytes)
{
	size_t take = smaller(PREFACE_BYTES - guard->preface_bytes, *n_bytes);

	if (memcmp(*bytes, preface + guard->preface_bytes, take))
		return FRAME_FAULT_PREFACE;
	guard->preface_bytes += (uint8_t)take;
	*bytes += take;
	*n_bytes -= take;
	return FRAME_FAULT_NONE;
}

enum frame_verdict frame_guard_inspect(struct frame_guard *guard, const uint8_t *bytes,
				       size_t n_bytes, uint64_t now_ns)
{
	window_move(guard, now_ns);
	if (!guard->fault)
		guard->fault = preface_judge(guard, &bytes, &n_bytes);
	while (!guard->fault && cursor_next(&guard->cursor, &bytes, &n_bytes))
		guard->fault = frame_judge(guard);
	if (guard->fault)
		return FRAME_DROP;
	return frame_guard_hold_ns(guard, now_ns) ? FRAME_HOLD : FRAME_PASS;
}

uint64_t frame_guard_hold_ns(const struct frame_guard *guard, uint64_t now_ns)
{
	uint64_t passed = now_ns - guard->window_start_ns;

	if (passed >= FRAME_WINDOW_NS)
		return 0;
	if (guard->control <= control_allowed(guard) && guard->resets <= FRAME_RESETS_PER_WINDOW)
		return 0;
	return FRAME_WINDOW_NS - passed;
}

const char *frame_fault_name(enum frame_fault fault)
{
	static const char *const names[] = {
		[FRAME_FAULT_NONE] = "no fault",
		[FRAME_FAULT_PREFACE] = "no HTTP/2 preface",
		[FRAME_FAULT_CONTINUATION] = "a CONTINUATION frame",
		[FRAME_FAULT_HEADERS_BYTES] = "a HEADERS frame over the limit",
		[FRAME_FAULT_HEADERS_SPLIT] = "a HEADERS frame without END_HEADERS",
		[FRAME_FAULT_DATA_BYTES] = "a DATA frame over the limit",
		[FRAME_FAULT_OTHER_BYTES] = "a control frame over the limit",
		[FRAME_FAULT_PUSH] = "a PUSH_PROMISE frame",
		[FRAME_FAULT_CONTROL_FLOOD] = "a flood of control frames",
		[FRAME_FAULT_RESET_FLOOD] = "a flood of stream resets",
		[FRAME_FAULT_STREAMS] = "more open streams than may be",
	};

	return names[fault];
}
