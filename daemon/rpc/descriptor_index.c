/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/descriptor_index.h"

#include <string.h>

/* Field numbers of google/protobuf/descriptor.proto. */
#define SET_FILE        1
#define FILE_NAME       1
#define FILE_PACKAGE    2
#define FILE_DEPENDENCY 3
#define FILE_MESSAGE    4
#define FILE_ENUM       5
#define FILE_SERVICE    6
#define NAME            1 /* of every declaration */
#define MESSAGE_FIELD   2
#define MESSAGE_NESTED  3
#define MESSAGE_ENUM    4
#define ENUM_VALUE      2
#define SERVICE_METHOD  2

#define NESTING_MAX 32 /* of messages within messages */

/* ── the wire ─────────────────────────────────────────────────────────────────────────────── */

enum wire_type {
	WIRE_VARINT = 0,
	WIRE_64 = 1,
	WIRE_LENGTH = 2,
	WIRE_32 = 5,
};

static bool wire_skip(struct wire_span *rest, uint64_t n_bytes)
{
	if (n_bytes > rest->n_bytes)
		return false;
	rest->bytes += n_bytes;
	rest->n_bytes -= (size_t)n_bytes;
	return true;
}

static bool wire_varint(struct wire_span *rest, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned int shift = 0; shift < 64 && rest->n_bytes; shift += 7) {
		uint8_t byte = *rest->bytes;

		wire_skip(rest, 1);
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		*ret = value;
		return true;
	}
	return false;
}

/* One field off the front; ret is its content if it has a length. */
static bool wire_field(struct wire_span *rest, uint64_t *ret_tag, struct wire_span *ret)
{
	uint64_t value;

	if (!wire_varint(rest, ret_tag))
		return false;
	switch (*ret_tag & 7) {
	case WIRE_VARINT:
		return wire_varint(rest, &value);
	case WIRE_64:
		return wire_skip(rest, 8);
	case WIRE_32:
		return wire_skip(rest, 4);
	case WIRE_LENGTH:
		if (!wire_varint(rest, &value))
			return false;
		ret->bytes = rest->bytes;
		ret->n_bytes = (size_t)value;
		return wire_skip(rest, value);
	default:
		return false;
	}
}

bool wire_next(struct wire_span *rest, uint32_t number, struct wire_span *ret)
{
	struct wire_span content = {0};
	uint64_t tag;

	while (rest->n_bytes && wire_field(rest, &tag, &content))
		if (tag == ((uint64_t)number << 3 | WIRE_LENGTH)) {
			*ret = content;
			return true;
		}
	return false;
}

bool wire_equals(struct wire_span span, const char *text, size_t text_bytes)
{
	return span.n_bytes == text_bytes && !memcmp(span.bytes, text, text_bytes);
}

static struct wire_span wire_first(struct wire_span message, uint32_t number)
{
	struct wire_span value = {.bytes = (const uint8_t *)""};

	wire_next(&message, number, &value);
	return value;
}

/* ── declarations ─────────────────────────────────────────────────────────────────────────── */

bool descriptor_next_file(struct wire_span *set, struct wire_span *ret_file)
{
	return wire_next(set, SET_FILE, ret_file);
}

struct wire_span descriptor_file_name(struct wire_span file)
{
	return wire_first(file, FILE_NAME);
}

struct wire_span descriptor_file_package(struct wire_span file)
{
	return wire_first(file, FILE_PACKAGE);
}

bool descriptor_next_import(struct wire_span *rest, struct wire_span *ret_name)
{
	return wire_next(rest, FILE_DEPENDENCY, ret_name);
}

bool descriptor_next_service(struct wire_span *rest, struct wire_span *ret_service)
{
	return wire_next(rest, FILE_SERVICE, ret_service);
}

bool descriptor_next_method(struct wire_span *rest, struct wire_span *ret_method)
{
	return wire_next(rest, SERVICE_METHOD, ret_method);
}

struct wire_span descriptor_name(struct wire_span declaration)
{
	return wire_first(declaration, NAME);
}

bool descriptor_find_file(struct wire_span set, struct wire_span name, struct wire_span *ret_file)
{
	struct wire_span file;

	while (descriptor_next_file(&set, &file)) {
		if (!wire_equals(descriptor_file_name(file), (const char *)name.bytes,
				 name.n_bytes))
			continue;
		*ret_file = file;
		return true;
	}
	return false;
}

/* ── symbols ──────────────────────────────────────────────────────────────────────────────── */

/* symbol, less "prefix." at its front; NULL if that is not there. */
static const char *symbol_below(const char *symbol, struct wire_span prefix)
{
	if (!prefix.n_bytes)
		return symbol;
	if (strncmp(symbol, (const char *)prefix.bytes, prefix.n_bytes) ||
	    symbol[prefix.n_bytes] != '.')
		return NULL;
	return symbol + prefix.n_bytes + 1;
}

static bool names_symbol(struct wire_span declaration, const char *symbol)
{
	return wire_equals(descriptor_name(declaration), symbol, strlen(symbol));
}

/* Among the declarations of one kind: the name itself, or a member (member_number) of one. */
static bool kind_has(struct wire_span around, uint32_t number, uint32_t member_number,
		     const char *symbol)
{
	struct wire_span declaration, member;

	while (wire_next(&around, number, &declaration)) {
		const char *below = symbol_below(symbol, descriptor_name(declaration));

		if (names_symbol(declaration, symbol))
			return true;
		while (below && wire_next(&declaration, member_number, &member))
			if (names_symbol(member, below))
				return true;
	}
	return false;
}

static bool messages_have(struct wire_span around, uint32_t number, const char *symbol,
			  unsigned int depth)
{
	struct wire_span message;

	if (depth > NESTING_MAX)
		return false;
	if (kind_has(around, number, MESSAGE_FIELD, symbol))
		return true;
	while (wire_next(&around, number, &message)) {
		const char *below = symbol_below(symbol, descriptor_name(message));

		if (below && (kind_has(message, MESSAGE_ENUM, ENUM_VALUE, below) ||
			      messages_have(message, MESSAGE_NESTED, below, depth + 1)))
			return true;
	}
	return false;
}

static bool file_has(struct wire_span file, const char *symbol)
{
	const char *below = symbol_below(symbol, descriptor_file_package(file));

	return below && *below &&
	       (kind_has(file, FILE_SERVICE, SERVICE_METHOD, below) ||
		kind_has(file, FILE_ENUM, ENUM_VALUE, below) ||
		messages_have(file, FILE_MESSAGE, below, 0));
}

bool descriptor_find_symbol(struct wire_span set, const char *symbol, struct wire_span *ret_file)
{
	struct wire_span file;

	while (descriptor_next_file(&set, &file)) {
		if (!file_has(file, symbol))
			continue;
		*ret_file = file;
		return true;
	}
	return false;
}
