/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The frame guard over any bytes: whatever pieces a stream comes in, the verdict is the same, and a
 * stream that passes has only frames that a slow and simple reading of it allows.
 *
 * Input: a byte of flags (1: put the preface in front), a byte of piece length, then the stream.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/frame_guard.h"

#define DATA_MAX   65541
#define NOW_NS     UINT64_C(7000000000)
#define STREAM_MAX (1 << 17)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void inspect(struct frame_guard *guard, const uint8_t *bytes, size_t n_bytes, size_t piece)
{
	static uint32_t streams[64];

	frame_guard_init(guard, DATA_MAX, streams, 64);
	for (size_t at = 0; at < n_bytes; at += piece) {
		size_t n = n_bytes - at < piece ? n_bytes - at : piece;
		enum frame_verdict verdict = frame_guard_inspect(guard, bytes + at, n, NOW_NS);

		if ((verdict == FRAME_DROP) != (guard->fault != FRAME_FAULT_NONE))
			abort();
		if ((verdict == FRAME_HOLD) !=
		    (!guard->fault && frame_guard_hold_ns(guard, NOW_NS) > 0))
			abort();
	}
}

static void answer(struct frame_guard *guard, const uint8_t *bytes, size_t n_bytes, size_t piece)
{
	struct frame_cursor cursor = {0};

	memset(guard, 0, sizeof(*guard));
	inspect(guard, (const uint8_t *)preface, sizeof(preface) - 1, sizeof(preface) - 1);
	for (size_t at = 0; at < n_bytes; at += piece)
		frame_guard_answer(guard, &cursor, bytes + at,
				   n_bytes - at < piece ? n_bytes - at : piece, NOW_NS);
}

/* Whether every frame header in the stream, read one after the other, is one that may pass. */
static bool plainly_fine(const uint8_t *bytes, size_t n_bytes)
{
	size_t at = 24;

	if (memcmp(bytes, preface, n_bytes < 24 ? n_bytes : 24))
		return false;
	while (at + 9 <= n_bytes) {
		uint32_t length =
			(uint32_t)bytes[at] << 16 | (uint32_t)bytes[at + 1] << 8 | bytes[at + 2];
		uint8_t type = bytes[at + 3], flags = bytes[at + 4];

		if (type == 9 || type == 5 || (type == 1 && (length > 4096 || !(flags & 4))) ||
		    (type == 0 && length > DATA_MAX) || (type > 1 && length > 16384))
			return false;
		at += 9 + length;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t stream[STREAM_MAX + 24];
	struct frame_guard whole, pieces;
	size_t n = 0, piece;

	if (size < 2 || size > STREAM_MAX)
		return 0;
	if (data[0] & 1)
		n = 24;
	memcpy(stream, preface, n);
	memcpy(stream + n, data + 2, size - 2);
	n += size - 2;
	piece = (size_t)data[1] + 1;
	inspect(&whole, stream, n, n ? n : 1);
	inspect(&pieces, stream, n, piece);
	if (whole.fault != pieces.fault)
		abort();
	if (!whole.fault && memcmp(&whole, &pieces, sizeof(whole)))
		abort();
	if (!whole.fault && !plainly_fine(stream, n))
		abort();
	answer(&whole, stream, n, n ? n : 1);
	answer(&pieces, stream, n, piece);
	if (memcmp(&whole, &pieces, sizeof(whole)))
		abort();
	return 0;
}
