/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_STATE_RECORD_H
#define IB_STATE_RECORD_H

/*
 * A sequence of records in one stretch of bytes: what a successor of this process reads, which may
 * be of the next or of the previous version.
 *
 * A record has a type, a fixed part and a tail. The fixed part is a plain struct of fixed-width
 * fields in host byte order, which grows at its end only: a reader that knows a shorter struct
 * ignores the rest, one that knows a longer struct finds zeros there, and zero always means what
 * it was before the field came. The tail is bytes of any number. A type that a reader does not
 * know is skipped, unless it was written with RECORD_MUST_KNOW: then what the record belongs to
 * cannot be restored by this version.
 *
 * For tests of this version as the previous one: where the build has crash points
 * (-Dcrash_points=true) and $IOMMUBROKER_STATE_NEXT is set, what is written is what the next
 * version may write, longer structs and records of types that nobody knows yet.
 *
 * Records are whole multiples of 8 bytes and begin on such. A reader trusts nothing: lengths are
 * checked before they are used, and what does not fit ends the sequence with an error.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_MUST_KNOW 1u

/* Bytes in the making, on the heap. Zeroed: empty. */
struct record_writer {
	uint8_t *bytes;
	size_t n, capacity;
	bool failed; /* no memory: all that follows is dropped */
};

void record_put(struct record_writer *writer, uint16_t type, uint16_t flags, const void *fixed,
		uint32_t fixed_bytes, const void *tail, uint32_t tail_bytes);
/* Keep the memory for the next time. */
void record_writer_clear(struct record_writer *writer);
void record_writer_free(struct record_writer *writer);

struct record {
	uint16_t type, flags;
	uint32_t fixed_bytes, tail_bytes;
	const uint8_t *fixed, *tail; /* within the bytes that are read */
};

struct record_reader {
	const uint8_t *bytes; /* 8-byte aligned */
	size_t n, at;
};

/* 1: *ret is the next one; 0: the end, exactly; -EBADMSG: what follows is no record. */
int record_next(struct record_reader *reader, struct record *ret);
/* The fixed part as a struct of so many bytes: cut or filled up with zeros. */
void record_get(const struct record *record, void *ret_fixed, size_t fixed_bytes);

#endif
