/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_LOG_H
#define IB_UTIL_LOG_H

/*
 * One line for the operator, with fields for machines.
 *
 * Where stderr is connected to the journal (JOURNAL_STREAM names its very inode) an entry goes
 * there with its fields; elsewhere it is one line on stderr and the fields are left out: whatever
 * an operator must know stands in the text. Nothing that comes from a client reaches the line as it
 * is: control characters, those that turn the direction of text, and bytes that are not UTF-8, are
 * written as \xNN, and both text and fields are cut at a fixed length.
 *
 * Only rpc/ and main log; layers below return. Any thread. errno is kept.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/log_message.h"

#define LOG_TEXT_BYTES  1024
#define LOG_FIELD_BYTES 192
#define LOG_FIELDS_MAX  16

/* Once, before any other thread exists. name: the journal's SYSLOG_IDENTIFIER and the prefix on
 * stderr; borrowed for ever. Without this call the name is "iommubrokerd" and entries go to
 * stderr. */
void log_init(const char *name);

void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* An entry with fields: begin, any number of fields, end. It lives on the stack. Its message, if it
 * is of a kind that has an identity, is set between. */
enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
};
struct log_entry {
	enum log_level level;
	enum log_message message; /* LOG_MESSAGE_NONE after log_begin() */
	uint32_t suppressed;      /* entries not logged before this one; told if not 0 */
	size_t n_fields;
	char fields[LOG_FIELDS_MAX][LOG_FIELD_BYTES]; /* "NAME=value", escaped */
};
void log_begin(struct log_entry *entry, enum log_level level);
/* name: upper case, as the journal wants it. A field over the limit is dropped. */
void log_field(struct log_entry *entry, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void log_end(struct log_entry *entry, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* One without fields, of a kind that has an identity. */
void log_as(enum log_level level, enum log_message message, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The value of an entry's field, or NULL. Borrowed from the entry. */
const char *log_field_value(const struct log_entry *entry, const char *name);

/* Copy text, bounded and with everything but printable UTF-8 written as \xNN. Always ends with a
 * zero; ret_bytes > 0. */
void log_escape(char *ret, size_t ret_bytes, const char *text);

/*
 * How often something that a client can cause may be logged: burst entries at once, then one every
 * interval. Zeroed memory is a full bucket. Not locked: the owner's lock, or one thread.
 */
struct log_rate {
	uint64_t refilled_ns; /* when spent was last worked off */
	uint32_t spent;
	uint32_t suppressed; /* since the last entry that was allowed */
};
#define LOG_RATE_BURST       10
#define LOG_RATE_INTERVAL_NS 1000000000ull

/* true: log it, and *ret_suppressed entries were not logged before it. now_ns: monotonic. */
bool log_rate_allow(struct log_rate *rate, uint64_t now_ns, uint32_t *ret_suppressed);
/* The same with other numbers, each at least 1. */
bool log_rate_allow_more(struct log_rate *rate, uint32_t burst, uint64_t interval_ns,
			 uint64_t now_ns, uint32_t *ret_suppressed);

/* Somebody who is shown every entry, wherever it goes: from the thread that logs, and not any more
 * when log_set_observer(NULL, NULL) has returned. It must not log, nor wait for anything. */
typedef void (*log_observer_fn)(void *context, const struct log_entry *entry, const char *text);
void log_set_observer(log_observer_fn observer, void *context);

/* Where entries go, for tests: level, text, n fields. NULL: back to normal. */
typedef void (*log_sink_fn)(enum log_level level, const char *text,
			    const char (*fields)[LOG_FIELD_BYTES], size_t n_fields);
void log_set_sink(log_sink_fn sink);

#endif
