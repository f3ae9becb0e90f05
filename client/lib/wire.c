/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See wire.h. Input comes from another process: every length is compared with what is left. */

#include <errno.h>

#include "lib/wire.h"

static int take_varint(struct wire_reader *reader, uint64_t *ret)
{
	uint64_t value = 0;

	for (size_t i = 0; i < WIRE_VARINT_BYTES_MAX && i < reader->n_left; i++) {
		value |= (uint64_t)(reader->at[i] & 0x7f) << (7 * i);
		if (!(reader->at[i] & 0x80)) {
			reader->at += i + 1;
			reader->n_left -= i + 1;
			*ret = value;
			return 0;
		}
	}
	return -EBADMSG;
}

static int take_bytes(struct wire_reader *reader, uint64_t n, const uint8_t **ret)
{
	if (n > reader->n_left)
		return -EBADMSG;
	*ret = reader->at;
	reader->at += n;
	reader->n_left -= n;
	return 0;
}

static int take_value(struct wire_reader *reader, struct wire_field *field)
{
	const uint8_t *bytes;
	uint64_t n;

	switch (field->type) {
	case WIRE_VARINT:
		return take_varint(reader, &field->value);
	case WIRE_FIXED64:
		if (take_bytes(reader, 8, &bytes) < 0)
			return -EBADMSG;
		field->value = wire_get_fixed64(bytes);
		return 0;
	case WIRE_FIXED32:
		if (take_bytes(reader, 4, &bytes) < 0)
			return -EBADMSG;
		field->value = wire_get_fixed32(bytes);
		return 0;
	case WIRE_BYTES:
		if (take_varint(reader, &n) < 0 || take_bytes(reader, n, &field->bytes) < 0)
			return -EBADMSG;
		field->n_bytes = n;
		return 0;
	default:
		return -EBADMSG;
	}
}

int wire_next(struct wire_reader *reader, struct wire_field *ret)
{
	struct wire_field field = {0};
	uint64_t tag;

	if (reader->n_left == 0)
		return 0;
	if (take_varint(reader, &tag) < 0 || tag > UINT32_MAX || tag >> 3 == 0)
		return -EBADMSG;
	field.number = tag >> 3;
	field.type = tag & 7;
	if (take_value(reader, &field) < 0)
		return -EBADMSG;
	*ret = field;
	return 1;
}

uint8_t *wire_put_varint(uint8_t *to, uint64_t value)
{
	while (value >= 0x80) {
		*to++ = (uint8_t)value | 0x80;
		value >>= 7;
	}
	*to++ = value;
	return to;
}

uint8_t *wire_put_tag(uint8_t *to, uint32_t number, uint32_t type)
{
	return wire_put_varint(to, (uint64_t)number << 3 | type);
}

uint8_t *wire_put_fixed32(uint8_t *to, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		*to++ = value >> (8 * i);
	return to;
}

uint8_t *wire_put_fixed64(uint8_t *to, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		*to++ = value >> (8 * i);
	return to;
}

uint32_t wire_get_fixed32(const uint8_t *from)
{
	return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

uint64_t wire_get_fixed64(const uint8_t *from)
{
	return wire_get_fixed32(from) | (uint64_t)wire_get_fixed32(from + 4) << 32;
}
