/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Where this file lies is of no use to anybody who reads the journal. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "util/utf8.h"

static const char *log_name = "iommubrokerd";
static bool log_to_journal;
static _Atomic(log_sink_fn) log_sink; /* for tests, which set it while threads log */
static struct {
	atomic_bool set; /* looked at without the lock: most of the time there is none */
	pthread_mutex_t lock;
	log_observer_fn function;
	void *context;
} log_observer = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* JOURNAL_STREAM is inherited by children whose stderr may be something else: systemd.exec(5) says
 * to compare device and inode. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat stat;

	if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
		return false;
	return !fstat(STDERR_FILENO, &stat) && stat.st_dev == device && stat.st_ino == inode;
}

void log_init(const char *name)
{
	log_name = name;
	log_to_journal = stderr_is_journal();
}

void log_set_sink(log_sink_fn sink)
{
	log_sink = sink;
}

void log_set_observer(log_observer_fn observer, void *context)
{
	pthread_mutex_lock(&log_observer.lock);
	log_observer.function = observer;
	log_observer.context = context;
	atomic_store(&log_observer.set, observer);
	pthread_mutex_unlock(&log_observer.lock);
}

static void observe(const struct log_entry *entry, const char *text)
{
	if (!atomic_load_explicit(&log_observer.set, memory_order_relaxed))
		return;
	pthread_mutex_lock(&log_observer.lock);
	if (log_observer.function)
		log_observer.function(log_observer.context, entry, text);
	pthread_mutex_unlock(&log_observer.lock);
}

static uint32_t code_point(const uint8_t *at, size_t n)
{
	uint32_t code = n == 1 ? at[0] : at[0] & (0x7fu >> n);

	for (size_t i = 1; i < n; i++)
		code = code << 6 | (at[i] & 0x3f);
	return code;
}

/* What commands a terminal, ends a line, or turns the direction of what follows is not. */
static bool is_printable(uint32_t code)
{
	return code >= 0x20 && !(code >= 0x7f && code < 0xa0) &&
	       !(code >= 0x200e && code <= 0x200f) && !(code >= 0x2028 && code <= 0x202e) &&
	       !(code >= 0x2066 && code <= 0x2069);
}

void log_escape(char *ret, size_t ret_bytes, const char *text)
{
	const uint8_t *at = (const uint8_t *)text;
	size_t left = strlen(text), used = 0;

	while (left) {
		size_t n = utf8_character(at, left);

		if (n && is_printable(code_point(at, n))) {
			if (used + n >= ret_bytes)
				break;
			memcpy(ret + used, at, n);
			used += n;
		} else {
			n = 1;
			if (used + 4 >= ret_bytes)
				break;
			snprintf(ret + used, 5, "\\x%02x", *at);
			used += 4;
		}
		at += n;
		left -= n;
	}
	ret[used] = '\0';
}

static int journal_priority(enum log_level level)
{
	static const int priority[] = {
		[LOG_LEVEL_ERROR] = 3, [LOG_LEVEL_WARNING] = 4, [LOG_LEVEL_INFO] = 6};

	return priority[level];
}

static void journal_write(const struct log_entry *entry, const char *text)
{
	char message[LOG_TEXT_BYTES + 16], priority[16], identifier[64], id[64];
	struct iovec fields[LOG_FIELDS_MAX + 4];
	size_t n = 0;

	snprintf(message, sizeof(message), "MESSAGE=%s", text);
	snprintf(priority, sizeof(priority), "PRIORITY=%d", journal_priority(entry->level));
	snprintf(identifier, sizeof(identifier), "SYSLOG_IDENTIFIER=%s", log_name);
	fields[n++] = (struct iovec){message, strlen(message)};
	fields[n++] = (struct iovec){priority, strlen(priority)};
	fields[n++] = (struct iovec){identifier, strlen(identifier)};
	if (entry->message) {
		snprintf(id, sizeof(id), "MESSAGE_ID=%s", log_message_row(entry->message)->id);
		fields[n++] = (struct iovec){id, strlen(id)};
	}
	for (size_t i = 0; i < entry->n_fields; i++)
		fields[n++] = (struct iovec){(char *)entry->fields[i], strlen(entry->fields[i])};
	sd_journal_sendv(fields, (int)n);
}

static void log_write(const struct log_entry *entry, const char *raw)
{
	char text[LOG_TEXT_BYTES], line[LOG_TEXT_BYTES + 128];
	log_sink_fn sink = log_sink;
	int saved_errno = errno;

	log_escape(text, sizeof(text), raw);
	observe(entry, text);
	if (sink) {
		sink(entry->level, text, entry->fields, entry->n_fields);
	} else if (log_to_journal) {
		journal_write(entry, text);
	} else {
		static const char *const word[] = {"error: ", "warning: ", ""};
		int n = snprintf(line, sizeof(line), "%s: %s%s\n", log_name, word[entry->level],
				 text);

		/* One write, so that lines of several threads do not mix; a full or closed stderr
		 * is nobody's business. */
		if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
			errno = saved_errno;
	}
	errno = saved_errno;
}

static void log_plain(enum log_level level, enum log_message message, const char *format,
		      va_list args)
{
	struct log_entry entry;
	char raw[LOG_TEXT_BYTES];

	log_begin(&entry, level);
	entry.message = message;
	vsnprintf(raw, sizeof(raw), format, args);
	log_write(&entry, raw);
}

void log_info(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_plain(LOG_LEVEL_INFO, LOG_MESSAGE_NONE, format, args);
	va_end(args);
}

void log_warning(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_plain(LOG_LEVEL_WARNING, LOG_MESSAGE_NONE, format, args);
	va_end(args);
}

void log_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_plain(LOG_LEVEL_ERROR, LOG_MESSAGE_NONE, format, args);
	va_end(args);
}

void log_as(enum log_level level, enum log_message message, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_plain(level, message, format, args);
	va_end(args);
}

void log_begin(struct log_entry *entry, enum log_level level)
{
	entry->level = level;
	entry->message = LOG_MESSAGE_NONE;
	entry->suppressed = 0;
	entry->n_fields = 0;
}

void log_field(struct log_entry *entry, const char *name, const char *format, ...)
{
	char raw[LOG_FIELD_BYTES], *field;
	va_list args;
	int n;

	if (entry->n_fields == LOG_FIELDS_MAX)
		return;
	va_start(args, format);
	vsnprintf(raw, sizeof(raw), format, args);
	va_end(args);
	field = entry->fields[entry->n_fields];
	n = snprintf(field, LOG_FIELD_BYTES, "%s=", name);
	if (n < 0 || n >= LOG_FIELD_BYTES)
		return;
	log_escape(field + n, LOG_FIELD_BYTES - (size_t)n, raw);
	entry->n_fields++;
}

const char *log_field_value(const struct log_entry *entry, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < entry->n_fields; i++)
		if (!strncmp(entry->fields[i], name, n) && entry->fields[i][n] == '=')
			return entry->fields[i] + n + 1;
	return NULL;
}

void log_end(struct log_entry *entry, const char *format, ...)
{
	char raw[LOG_TEXT_BYTES];
	va_list args;

	int n;

	va_start(args, format);
	n = vsnprintf(raw, sizeof(raw), format, args);
	va_end(args);
	if (entry->suppressed && n >= 0 && (size_t)n < sizeof(raw))
		snprintf(raw + n, sizeof(raw) - (size_t)n, " (after %u more that are not shown)",
			 entry->suppressed);
	log_write(entry, raw);
}

bool log_rate_allow_more(struct log_rate *rate, uint32_t burst, uint64_t interval_ns,
			 uint64_t now_ns, uint32_t *ret_suppressed)
{
	uint64_t worked_off = (now_ns - rate->refilled_ns) / interval_ns;

	if (worked_off) {
		rate->spent = worked_off < rate->spent ? rate->spent - (uint32_t)worked_off : 0;
		rate->refilled_ns = now_ns;
	}
	if (rate->spent >= burst) {
		rate->suppressed++;
		return false;
	}
	rate->spent++;
	*ret_suppressed = rate->suppressed;
	rate->suppressed = 0;
	return true;
}

bool log_rate_allow(struct log_rate *rate, uint64_t now_ns, uint32_t *ret_suppressed)
{
	return log_rate_allow_more(rate, LOG_RATE_BURST, LOG_RATE_INTERVAL_NS, now_ns,
				   ret_suppressed);
}
