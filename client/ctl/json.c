/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See json.h. Members are found by the offsets of protobuf-c's descriptors. */

#include "ctl/json.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/text.h"

json_t *json_from_u64(uint64_t value)
{
	char decimal[24];

	if (value <= INT64_MAX)
		return json_integer((json_int_t)value);
	snprintf(decimal, sizeof(decimal), "%" PRIu64, value);
	return json_string(decimal);
}

json_t *json_from_handle(uint64_t value)
{
	char hex[24];

	snprintf(hex, sizeof(hex), "0x%016" PRIx64, value);
	return json_string(hex);
}

json_t *json_from_string(const char *string)
{
	json_t *json = json_string(string);

	return json != NULL ? json : json_string(text_safe(string, 0).bytes);
}

static json_t *from_bytes(const ProtobufCBinaryData *data)
{
	json_t *json;
	char *hex = malloc(data->len * 2 + 1);

	if (hex == NULL)
		return NULL;
	hex[0] = '\0';
	for (size_t i = 0; i < data->len; i++)
		snprintf(hex + 2 * i, 3, "%02x", data->data[i]);
	json = json_string(hex);
	free(hex);
	return json;
}

static json_t *from_enum(const ProtobufCFieldDescriptor *field, int value)
{
	const ProtobufCEnumValue *known =
		protobuf_c_enum_descriptor_get_value(field->descriptor, value);

	return known != NULL ? json_string(known->name) : json_integer(value);
}

static json_t *from_member(const ProtobufCFieldDescriptor *field, const void *member)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_FIXED64:
		return json_from_handle(*(const uint64_t *)member);
	case PROTOBUF_C_TYPE_UINT64:
		return json_from_u64(*(const uint64_t *)member);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return json_integer(*(const uint32_t *)member);
	case PROTOBUF_C_TYPE_INT32:
		return json_integer(*(const int32_t *)member);
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)member);
	case PROTOBUF_C_TYPE_ENUM:
		return from_enum(field, *(const int *)member);
	case PROTOBUF_C_TYPE_STRING:
		return json_from_string(*(char *const *)member);
	case PROTOBUF_C_TYPE_BYTES:
		return from_bytes(member);
	case PROTOBUF_C_TYPE_MESSAGE:
		return json_from_message(*(ProtobufCMessage *const *)member);
	default:
		return json_null();
	}
}

static size_t element_bytes(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_UINT64:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	default:
		return 4;
	}
}

/* map<string, string> is a repeated message {key, value}. */
static bool is_map(const ProtobufCFieldDescriptor *field)
{
	const ProtobufCMessageDescriptor *type = field->descriptor;

	return field->type == PROTOBUF_C_TYPE_MESSAGE && type->n_fields == 2 &&
	       strcmp(type->fields[0].name, "key") == 0 &&
	       strcmp(type->fields[1].name, "value") == 0;
}

static json_t *from_repeated(const ProtobufCFieldDescriptor *field, const uint8_t *base)
{
	size_t n = *(const size_t *)(const void *)(base + field->quantifier_offset);
	const uint8_t *elements = *(uint8_t *const *)(const void *)(base + field->offset);
	json_t *json = is_map(field) ? json_object() : json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *one = from_member(field, elements + i * element_bytes(field));

		if (is_map(field)) {
			const char *key = json_string_value(json_object_get(one, "key"));

			if (key != NULL)
				json_object_set(json, key, json_object_get(one, "value"));
			json_decref(one);
		} else {
			json_array_append_new(json, one);
		}
	}
	return json;
}

static bool is_set(const ProtobufCFieldDescriptor *field, const uint8_t *base)
{
	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)(const void *)(base + field->quantifier_offset) ==
		       field->id;
	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
		return *(void *const *)(const void *)(base + field->offset) != NULL;
	return true;
}

json_t *json_from_message(const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *type = message->descriptor;
	const uint8_t *base = (const uint8_t *)message;
	json_t *json = json_object();

	for (unsigned int i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &type->fields[i];

		if (field->label == PROTOBUF_C_LABEL_REPEATED)
			json_object_set_new(json, field->name, from_repeated(field, base));
		else if (is_set(field, base))
			json_object_set_new(json, field->name,
					    from_member(field, base + field->offset));
	}
	return json;
}

void json_print(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
}
