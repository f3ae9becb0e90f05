/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_JSON_H
#define IB_CTL_JSON_H

/*
 * Any message as JSON, by its descriptor: field names as in the .proto, enum values by name,
 * handles (fixed64) as "0x..." strings, bytes in hex, maps as objects. Numbers above 2^63 - 1 are
 * strings, as JSON libraries would round them.
 */

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

/* A new reference, or NULL without memory. */
json_t *json_from_message(const ProtobufCMessage *message);
/* Parts of it: new references. A string that is not UTF-8 has escapes in place of what is not. */
json_t *json_from_u64(uint64_t value);
json_t *json_from_handle(uint64_t value);
json_t *json_from_string(const char *string);
/* Indented, ASCII, a newline. */
void json_print(const json_t *json);

#endif
