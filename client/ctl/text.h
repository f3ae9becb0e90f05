/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_TEXT_H
#define IB_CTL_TEXT_H

/* Numbers and strings for people's eyes and terminals. */

#include <stddef.h>
#include <stdint.h>

#define TEXT_BYTES_MAX 512

struct text {
	char bytes[TEXT_BYTES_MAX];
};

/* A string of a client or a guest, safe to print: control characters, direction marks and what is
 * not UTF-8 become \xNN. At most width columns, with an ellipsis where it was cut; 0: as many as
 * fit. */
struct text text_safe(const char *string, size_t width);
/* The same, filled up with blanks to width columns. */
struct text text_column(const char *string, size_t width);

/* Bytes and columns of the first character of a text that is safe, and not empty. */
size_t text_character(const char *safe, size_t *ret_columns);

/* A sentence, made safe, on as many lines of at most 79 columns as it needs. */
void text_print_wrapped(const char *string);
/* The same, each line after so many blanks. */
void text_print_indented(const char *string, size_t indent);

/* "384 MiB", "1.5 GiB", "4 KiB", "12 B"; rounded to what is shown. */
struct text text_size(uint64_t bytes);
/* The same, or the plain number if the resource is not in bytes; "none" for UINT64_MAX. */
struct text text_amount(const char *resource, uint64_t amount);
/* "3 d 4 h", "12 s". */
struct text text_duration(uint64_t seconds);
/* 16 bytes as a UUID, others in hex. */
struct text text_uuid(const uint8_t *bytes, size_t n);

const char *text_level(int level);
const char *text_access(int access);
const char *text_attachment(int attachment);

#endif
