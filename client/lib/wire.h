/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_WIRE_H
#define IB_CLIENT_WIRE_H

/*
 * The protobuf wire format, read and written in place: no allocation, no copies. For the refresh
 * path and for the envelope of every answer; everything else goes through protobuf-c.
 * (protobuf.dev/programming-guides/encoding)
 */

#include <stddef.h>
#include <stdint.h>

#define WIRE_VARINT  0
#define WIRE_FIXED64 1
#define WIRE_BYTES   2
#define WIRE_FIXED32 5

#define WIRE_VARINT_BYTES_MAX 10

struct wire_reader {
	const uint8_t *at;
	size_t n_left;
};

struct wire_field {
	uint32_t number;
	uint32_t type;        /* WIRE_... */
	uint64_t value;       /* unless WIRE_BYTES */
	const uint8_t *bytes; /* WIRE_BYTES: within what is read */
	size_t n_bytes;
};

/* 1: *ret is the next field. 0: the end. -EBADMSG: not protobuf (cut short, groups, field 0). */
int wire_next(struct wire_reader *reader, struct wire_field *ret);

/* Each writes at to, which has room, and returns the byte after. */
uint8_t *wire_put_varint(uint8_t *to, uint64_t value);
uint8_t *wire_put_tag(uint8_t *to, uint32_t number, uint32_t type);
uint8_t *wire_put_fixed32(uint8_t *to, uint32_t value);
uint8_t *wire_put_fixed64(uint8_t *to, uint64_t value);

uint32_t wire_get_fixed32(const uint8_t *from);
uint64_t wire_get_fixed64(const uint8_t *from);

#endif
