/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records: a header of 16 bytes, the fixed part, the tail, each filled up with zeros to a multiple
 * of 8 bytes.
 */
#include "state/record.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 512

struct header {
	uint16_t type, flags;
	uint32_t fixed_bytes, tail_bytes;
	uint32_t zero;
};

_Static_assert(sizeof(struct header) == 16, "what follows it begins on a multiple of 8 bytes");

/* In 64 bits no sum of a few 32-bit lengths can overflow. */
static uint64_t padded(uint64_t n)
{
	return (n + 7) & ~UINT64_C(7);
}

/* ── writing ───────────────────────────────────────────────────────────────────────────────── */

static uint8_t *append(struct record_writer *writer, size_t n)
{
	size_t capacity = writer->capacity ? writer->capacity : CAPACITY_MIN;
	uint8_t *bytes = writer->bytes;

	if (writer->failed)
		return NULL;
	while (capacity < writer->n + n)
		capacity *= 2;
	if (capacity != writer->capacity)
		bytes = realloc(bytes, capacity);
	if (!bytes) {
		writer->failed = true;
		return NULL;
	}
	writer->bytes = bytes;
	writer->capacity = capacity;
	bytes += writer->n;
	writer->n += n;
	return bytes;
}

static uint8_t *put_padded(uint8_t *at, const void *bytes, uint32_t n)
{
	if (n)
		memcpy(at, bytes, n);
	memset(at + n, 0, padded(n) - n);
	return at + padded(n);
}

static void put_one(struct record_writer *writer, uint16_t type, uint16_t flags, const void *fixed,
		    uint32_t fixed_bytes, const void *tail, uint32_t tail_bytes)
{
	const struct header header = {
		.type = type,
		.flags = flags,
		.fixed_bytes = fixed_bytes,
		.tail_bytes = tail_bytes,
	};
	uint8_t *at = append(writer, sizeof(header) + padded(fixed_bytes) + padded(tail_bytes));

	if (!at)
		return;
	memcpy(at, &header, sizeof(header));
	put_padded(put_padded(at + sizeof(header), fixed, fixed_bytes), tail, tail_bytes);
}

#ifdef IB_CRASH_POINTS

#define NEXT_BYTES    20u /* that a struct has grown by: no multiple of 8 */
#define NEXT_TYPES    50000u
#define FIXED_MAX     4096u
#define NEXT_PATTERN  0xa5
#define NEXT_VARIABLE "IOMMUBROKER_STATE_NEXT"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool next_wanted;

static void next_choose(void)
{
	next_wanted = getenv(NEXT_VARIABLE);
}

/* Every struct has grown, and behind every record is one that came with the next version. */
static void put_as_next(struct record_writer *writer, uint16_t type, uint16_t flags,
			const void *fixed, uint32_t fixed_bytes, const void *tail,
			uint32_t tail_bytes)
{
	uint8_t longer[FIXED_MAX + NEXT_BYTES];

	assert(fixed_bytes <= FIXED_MAX);
	if (fixed_bytes)
		memcpy(longer, fixed, fixed_bytes);
	memset(longer + fixed_bytes, NEXT_PATTERN, NEXT_BYTES);
	put_one(writer, type, flags, longer, fixed_bytes + NEXT_BYTES, tail, tail_bytes);
	put_one(writer, (uint16_t)(NEXT_TYPES + type), 0, longer + fixed_bytes, type % NEXT_BYTES,
		longer, fixed_bytes / 2);
}

void record_put(struct record_writer *writer, uint16_t type, uint16_t flags, const void *fixed,
		uint32_t fixed_bytes, const void *tail, uint32_t tail_bytes)
{
	pthread_once(&once, next_choose);
	(next_wanted ? put_as_next : put_one)(writer, type, flags, fixed, fixed_bytes, tail,
					      tail_bytes);
}

#else

void record_put(struct record_writer *writer, uint16_t type, uint16_t flags, const void *fixed,
		uint32_t fixed_bytes, const void *tail, uint32_t tail_bytes)
{
	put_one(writer, type, flags, fixed, fixed_bytes, tail, tail_bytes);
}

#endif

void record_writer_clear(struct record_writer *writer)
{
	writer->n = 0;
	writer->failed = false;
}

void record_writer_free(struct record_writer *writer)
{
	free(writer->bytes);
	*writer = (struct record_writer){0};
}

/* ── reading ───────────────────────────────────────────────────────────────────────────────── */

int record_next(struct record_reader *reader, struct record *ret)
{
	const uint8_t *at = reader->bytes + reader->at;
	uint64_t left = reader->n - reader->at, fixed, tail;
	struct header header;

	if (!left)
		return 0;
	if (left < sizeof(header))
		return -EBADMSG;
	memcpy(&header, at, sizeof(header));
	left -= sizeof(header);
	fixed = padded(header.fixed_bytes);
	tail = padded(header.tail_bytes);
	if (header.zero || fixed > left || tail > left - fixed)
		return -EBADMSG;
	at += sizeof(header);
	reader->at += sizeof(header) + fixed + tail;
	*ret = (struct record){
		.type = header.type,
		.flags = header.flags,
		.fixed_bytes = header.fixed_bytes,
		.tail_bytes = header.tail_bytes,
		.fixed = at,
		.tail = at + fixed,
	};
	return 1;
}

void record_get(const struct record *record, void *ret_fixed, size_t fixed_bytes)
{
	size_t n = record->fixed_bytes < fixed_bytes ? record->fixed_bytes : fixed_bytes;

	memcpy(ret_fixed, record->fixed, n);
	memset((uint8_t *)ret_fixed + n, 0, fixed_bytes - n);
}
