/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_DESCRIPTOR_INDEX_H
#define IB_RPC_DESCRIPTOR_INDEX_H

/*
 * Finding one's way in a packed google.protobuf.FileDescriptorSet without unpacking it.
 *
 * Only names and nesting are looked at (descriptor.proto's field numbers). All reads are bounded:
 * bytes that are no protobuf end the search, they are never an error of memory.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A stretch of packed bytes, borrowed. */
struct wire_span {
	const uint8_t *bytes;
	size_t n_bytes;
};

/* The next length-delimited field with that number is cut off the front of *rest into *ret. */
bool wire_next(struct wire_span *rest, uint32_t number, struct wire_span *ret);
bool wire_equals(struct wire_span span, const char *text, size_t text_bytes);

/* The files of a set, in the order in which they stand there. */
bool descriptor_next_file(struct wire_span *set, struct wire_span *ret_file);
/* By its name. false: there is none. */
bool descriptor_find_file(struct wire_span set, struct wire_span name, struct wire_span *ret_file);
/* The file that declares a message, enum, service (or a field, value or method of one) by its full
 * name without a leading dot. */
bool descriptor_find_symbol(struct wire_span set, const char *symbol, struct wire_span *ret_file);
/* The next file that this one imports. rest starts as the file. */
bool descriptor_next_import(struct wire_span *rest, struct wire_span *ret_name);
struct wire_span descriptor_file_name(struct wire_span file);
struct wire_span descriptor_file_package(struct wire_span file);
/* The services of a file, and the methods of a service; rest starts as the one around. */
bool descriptor_next_service(struct wire_span *rest, struct wire_span *ret_service);
bool descriptor_next_method(struct wire_span *rest, struct wire_span *ret_method);
/* Of a service or a method. */
struct wire_span descriptor_name(struct wire_span declaration);

#endif
