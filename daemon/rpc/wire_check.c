/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/wire_check.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "util/utf8.h"

#define DEPTH_MAX  6  /* the deepest message of the API has 4 levels */
#define FIELDS_MAX 32 /* of one message; a unit test holds the API to it */

/* One message on the way down, for the path of a refusal and the index in a repeated field. */
struct level {
	const ProtobufCFieldDescriptor *field;
	uint32_t index;
};

struct walk {
	struct refusal *refusal;
	size_t depth;
	struct level path[DEPTH_MAX];
};

/* Bytes not read yet. */
struct span {
	const uint8_t *at;
	size_t left;
};

static void path_text(const struct walk *walk, char *ret, size_t ret_bytes)
{
	size_t used = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < walk->depth && used < ret_bytes; i++) {
		const struct level *level = &walk->path[i];
		int n;

		if (level->field->label == PROTOBUF_C_LABEL_REPEATED)
			n = snprintf(ret + used, ret_bytes - used, "%s%s[%u]", i ? "." : "",
				     level->field->name, level->index);
		else
			n = snprintf(ret + used, ret_bytes - used, "%s%s", i ? "." : "",
				     level->field->name);
		used += n > 0 ? (size_t)n : 0;
	}
}

static int refuse_at(const struct walk *walk, const char *what)
{
	char path[64];

	path_text(walk, path, sizeof(path));
	return refuse_field(walk->refusal, path, "%s%s%s", path, path[0] ? ": " : "", what);
}

static bool read_varint(struct span *span, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned int shift = 0; shift < 64; shift += 7) {
		uint8_t byte;

		if (!span->left)
			return false;
		byte = *span->at++;
		span->left--;
		if (shift == 63 && byte > 1)
			return false;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret = value;
			return true;
		}
	}
	return false;
}

static bool skip(struct span *span, size_t n)
{
	if (span->left < n)
		return false;
	span->at += n;
	span->left -= n;
	return true;
}

static bool read_span(struct span *span, struct span *ret)
{
	uint64_t n;

	if (!read_varint(span, &n) || n > span->left)
		return false;
	*ret = (struct span){span->at, (size_t)n};
	return skip(span, (size_t)n);
}

static unsigned int wire_type_of(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT:
		return PROTOBUF_C_WIRE_TYPE_32BIT;
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return PROTOBUF_C_WIRE_TYPE_64BIT;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_BYTES:
	case PROTOBUF_C_TYPE_MESSAGE:
		return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
	default:
		return PROTOBUF_C_WIRE_TYPE_VARINT;
	}
}

static int check_enum(struct walk *walk, const ProtobufCFieldDescriptor *field, uint64_t value)
{
	/* The wire carries an enum as an int64; only what fits an int can be a known value. */
	if (value <= INT32_MAX &&
	    protobuf_c_enum_descriptor_get_value(field->descriptor, (int)value))
		return 0;
	return refuse_at(walk, "unknown enum value");
}

static int check_message(struct walk *walk, const ProtobufCMessageDescriptor *descriptor,
			 struct span span);

/* Elements of a packed repeated field: enums are looked at, numbers only have to be whole. */
static int check_packed(struct walk *walk, const ProtobufCFieldDescriptor *field, struct span span)
{
	unsigned int type = wire_type_of(field->type);
	struct level *level = &walk->path[walk->depth - 1];
	uint64_t value = 0;

	for (; span.left; level->index++) {
		bool whole = type == PROTOBUF_C_WIRE_TYPE_VARINT  ? read_varint(&span, &value)
			     : type == PROTOBUF_C_WIRE_TYPE_32BIT ? skip(&span, 4)
								  : skip(&span, 8);

		if (!whole)
			return refuse_at(walk, "not a whole number of elements");
		if (field->type == PROTOBUF_C_TYPE_ENUM) {
			int status = check_enum(walk, field, value);

			if (status)
				return status;
		}
	}
	return 0;
}

static int check_length_prefixed(struct walk *walk, const ProtobufCFieldDescriptor *field,
				 struct span *span)
{
	struct span inner;

	if (!read_span(span, &inner))
		return refuse_at(walk, "its length reaches past the end of the message");
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		if (!utf8_is_text(inner.at, inner.left))
			return refuse_at(walk, "not UTF-8 without NUL");
		return 0;
	case PROTOBUF_C_TYPE_BYTES:
		return 0;
	case PROTOBUF_C_TYPE_MESSAGE:
		return check_message(walk, field->descriptor, inner);
	default:
		if (field->label != PROTOBUF_C_LABEL_REPEATED)
			return refuse_at(walk, "wrong wire type");
		return check_packed(walk, field, inner);
	}
}

static int check_value(struct walk *walk, const ProtobufCFieldDescriptor *field,
		       unsigned int wire_type, struct span *span)
{
	uint64_t value;

	if (wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
		return check_length_prefixed(walk, field, span);
	if (wire_type != wire_type_of(field->type))
		return refuse_at(walk, "wrong wire type");
	if (wire_type == PROTOBUF_C_WIRE_TYPE_VARINT) {
		if (!read_varint(span, &value))
			return refuse_at(walk, "not a whole number");
		return field->type == PROTOBUF_C_TYPE_ENUM ? check_enum(walk, field, value) : 0;
	}
	if (!skip(span, wire_type == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8))
		return refuse_at(walk, "not a whole number");
	return 0;
}

static int skip_unknown(struct walk *walk, unsigned int wire_type, struct span *span)
{
	struct span inner;
	uint64_t value;
	bool whole;

	switch (wire_type) {
	case PROTOBUF_C_WIRE_TYPE_VARINT:
		whole = read_varint(span, &value);
		break;
	case PROTOBUF_C_WIRE_TYPE_64BIT:
		whole = skip(span, 8);
		break;
	case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
		whole = read_span(span, &inner);
		break;
	case PROTOBUF_C_WIRE_TYPE_32BIT:
		whole = skip(span, 4);
		break;
	default:
		whole = false;
	}
	return whole ? 0 : refuse_at(walk, "malformed unknown field");
}

static int check_message(struct walk *walk, const ProtobufCMessageDescriptor *descriptor,
			 struct span span)
{
	uint32_t counts[FIELDS_MAX] = {0};

	if (walk->depth == DEPTH_MAX)
		return refuse_at(walk, "nested too deeply");
	while (span.left) {
		const ProtobufCFieldDescriptor *field;
		unsigned int place;
		uint64_t key;
		int status;

		if (!read_varint(&span, &key) || key >> 3 == 0 || key >> 32)
			return refuse_at(walk, "malformed field number");
		field = protobuf_c_message_descriptor_get_field(descriptor,
								(unsigned int)(key >> 3));
		if (!field) {
			status = skip_unknown(walk, key & 7, &span);
		} else {
			place = (unsigned int)(field - descriptor->fields);
			walk->path[walk->depth++] =
				(struct level){field, place < FIELDS_MAX ? counts[place]++ : 0};
			status = check_value(walk, field, key & 7, &span);
			walk->depth--;
		}
		if (status)
			return status;
	}
	return 0;
}

int wire_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes, size_t n_bytes,
	       struct refusal *refusal)
{
	struct walk walk = {.refusal = refusal};

	return check_message(&walk, descriptor, (struct span){bytes, n_bytes});
}
