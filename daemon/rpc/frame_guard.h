/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_FRAME_GUARD_H
#define IB_RPC_FRAME_GUARD_H

/*
 * What a client's HTTP/2 stream may look like before gRPC core gets to see it.
 *
 * A pure function over bytes: no sockets, no clock, no allocation. It reads the connection preface
 * and the 9-byte frame headers and nothing else (RFC 9113, sections 3.4 and 4.1). gRPC 1.51 can be
 * made to hold gigabytes or to stand still for seconds by frames that no gRPC client sends:
 *
 * - CONTINUATION, or HEADERS without END_HEADERS: header blocks without end;
 * - HEADERS over 4 KiB: header compression bombs;
 * - DATA over the message limit, any other frame over 16 KiB, PUSH_PROMISE from a client;
 * - floods of PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown frames and empty DATA ("control
 *   frames"), of which a second's window holds 64, and 4 more for each HEADERS or DATA frame in
 *   either direction: honest clients probe the bandwidth when data flows;
 * - floods of RST_STREAM, which have a window of their own of 256 a second: a HEADERS frame in
 * front of each would otherwise pay for them (rapid reset), while an honest client may well give up
 * many calls at once;
 * - more open streams than the limit that the server announced allows: gRPC takes streams of a
 *   client that never acknowledges its SETTINGS without end, before it tells us of a single call,
 *   and does not tell of those that it refuses by itself. A stream is open from the client's
 *   HEADERS to an END_STREAM or RST_STREAM of the server, or a RST_STREAM of the client.
 *
 * Over its window a connection is held: read no more until the window has passed. At ten times the
 * window it is dropped.
 */

#include <stddef.h>
#include <stdint.h>

#define FRAME_HEADERS_BYTES_MAX  4096
#define FRAME_OTHER_BYTES_MAX    16384
#define FRAME_CONTROL_PER_WINDOW 64
#define FRAME_RESETS_PER_WINDOW  256
#define FRAME_CONTROL_PER_FRAME  4
#define FRAME_FLOOD_FACTOR       10
#define FRAME_WINDOW_NS          UINT64_C(1000000000)

enum frame_verdict {
	FRAME_PASS, /* hand the bytes on */
	FRAME_HOLD, /* hand the bytes on, then read no more for frame_guard_hold_ns() */
	FRAME_DROP, /* end the connection; guard->fault says why */
};

enum frame_fault {
	FRAME_FAULT_NONE,
	FRAME_FAULT_PREFACE,
	FRAME_FAULT_CONTINUATION,
	FRAME_FAULT_HEADERS_BYTES,
	FRAME_FAULT_HEADERS_SPLIT,
	FRAME_FAULT_DATA_BYTES,
	FRAME_FAULT_OTHER_BYTES,
	FRAME_FAULT_PUSH,
	FRAME_FAULT_CONTROL_FLOOD,
	FRAME_FAULT_RESET_FLOOD,
	FRAME_FAULT_STREAMS,
};

/* Where in a stream of frames we are. */
struct frame_cursor {
	uint8_t header[9];
	uint8_t header_bytes;   /* of it that were seen */
	uint32_t payload_bytes; /* still to come */
};

struct frame_guard {
	struct frame_cursor cursor;
	uint32_t data_bytes_max;
	uint8_t preface_bytes; /* that were seen */
	enum frame_fault fault;
	uint64_t window_start_ns;
	uint32_t control, resets, earned; /* in the window */
	uint32_t *streams;                /* ids of the open ones */
	uint32_t n_streams, streams_max;
};

/* data_bytes_max: of one DATA frame's payload. borrow_streams: room for streams_max ids, as long as
 * the guard is used; one open stream more drops the connection. */
void frame_guard_init(struct frame_guard *guard, uint32_t data_bytes_max, uint32_t *borrow_streams,
		      uint32_t streams_max);
/* The next bytes of the client. now_ns never goes back. After FRAME_DROP always FRAME_DROP. */
enum frame_verdict frame_guard_inspect(struct frame_guard *guard, const uint8_t *bytes,
				       size_t n_bytes, uint64_t now_ns);
/* How long a held connection waits yet, 0: read on. */
uint64_t frame_guard_hold_ns(const struct frame_guard *guard, uint64_t now_ns);
/* The next bytes of the server, which has no preface: its HEADERS and DATA frames earn control
 * frames, too, and the streams that it ends are open no more. cursor: of this direction. */
void frame_guard_answer(struct frame_guard *guard, struct frame_cursor *cursor,
			const uint8_t *bytes, size_t n_bytes, uint64_t now_ns);
const char *frame_fault_name(enum frame_fault fault);

#endif
