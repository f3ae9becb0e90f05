/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/metrics_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"

#define NS_PER_S UINT64_C(1000000000)

static const struct {
	const char *name, *type, *unit, *help;
} families[] = {
#define X(id, name, type, unit, labels, help) [METRIC_##id] = {name, type, unit, help},
	METRICS_TABLE(X)
#undef X
};

/* ── bytes ────────────────────────────────────────────────────────────────────────────────── */

static bool text_room(struct metrics_text *text, size_t more)
{
	size_t room = text->room ? text->room : 16384;
	char *grown;

	if (text->failed)
		return false;
	while (room < METRICS_TEXT_BYTES_MAX && room - text->n < more)
		room *= 2;
	if (room > METRICS_TEXT_BYTES_MAX)
		room = METRICS_TEXT_BYTES_MAX;
	text->failed = room - text->n < more;
	if (text->failed || room == text->room)
		return !text->failed;
	grown = realloc(text->bytes, room);
	text->failed = !grown;
	if (grown) {
		text->bytes = grown;
		text->room = room;
	}
	return grown;
}

static void __attribute__((format(printf, 2, 3)))
text_add(struct metrics_text *text, const char *format, ...)
{
	char line[METRICS_LABEL_BYTES + 256];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= sizeof(line)) {
		text->failed = true;
		return;
	}
	if (!text_room(text, (size_t)n))
		return;
	memcpy(text->bytes + text->n, line, (size_t)n);
	text->n += (size_t)n;
}

/* ── families and samples ─────────────────────────────────────────────────────────────────── */

void metrics_text_family(struct metrics_text *text, enum metric metric)
{
	const char *name = families[metric].name;

	text->metric = metric;
	text_add(text, "# TYPE iommubroker_%s %s\n", name, families[metric].type);
	if (families[metric].unit[0])
		text_add(text, "# UNIT iommubroker_%s %s\n", name, families[metric].unit);
	text_add(text, "# HELP iommubroker_%s %s\n", name, families[metric].help);
}

void metrics_text_begin(struct metrics_text *text, const char *suffix)
{
	text->labelled = false;
	text_add(text, "iommubroker_%s%s", families[text->metric].name, suffix);
}

/* Control characters and what is not UTF-8 are shown first as the log shows them. */
void metrics_label_escape(char *ret, size_t ret_bytes, const char *value)
{
	char shown[METRICS_LABEL_BYTES / 2];
	size_t n = 0;

	log_escape(shown, sizeof(shown), value);
	for (const char *at = shown; *at && n + 2 < ret_bytes; at++) {
		if (*at == '\\' || *at == '"')
			ret[n++] = '\\';
		ret[n++] = *at;
	}
	ret[n] = '\0';
}

void metrics_text_label(struct metrics_text *text, const char *name, const char *value)
{
	char escaped[METRICS_LABEL_BYTES];

	metrics_label_escape(escaped, sizeof(escaped), value);
	text_add(text, "%s%s=\"%s\"", text->labelled ? "," : "{", name, escaped);
	text->labelled = true;
}

void metrics_text_number(struct metrics_text *text, uint64_t value)
{
	text_add(text, "%s %" PRIu64 "\n", text->labelled ? "}" : "", value);
}

/* As the standard writes numbers: no zero at the end but the first. */
static void seconds_write(char ret[32], uint64_t ns)
{
	int n = snprintf(ret, 32, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);

	while (n > 2 && ret[n - 1] == '0' && ret[n - 2] != '.')
		ret[--n] = '\0';
}

void metrics_text_seconds(struct metrics_text *text, uint64_t ns)
{
	char seconds[32];

	seconds_write(seconds, ns);
	text_add(text, "%s %s\n", text->labelled ? "}" : "", seconds);
}

/* ── histograms ───────────────────────────────────────────────────────────────────────────── */

static void histogram_bucket(struct metrics_text *text, unsigned int i, uint64_t below,
			     const char *label_name, const char *label_value)
{
	char bound[32] = "+Inf";

	if (i < METRICS_BUCKETS - 1)
		seconds_write(bound, UINT64_C(1) << (METRICS_BUCKET_SHIFT + i));
	metrics_text_begin(text, "_bucket");
	if (label_name)
		metrics_text_label(text, label_name, label_value);
	metrics_text_label(text, "le", bound);
	metrics_text_number(text, below);
}

void metrics_text_histogram(struct metrics_text *text, const struct metrics_histogram *histogram,
			    const char *label_name, const char *label_value)
{
	uint64_t sum_ns = metrics_get(&histogram->sum_ns), count = 0;

	for (unsigned int i = 0; i < METRICS_BUCKETS; i++) {
		count += metrics_get(&histogram->buckets[i]);
		histogram_bucket(text, i, count, label_name, label_value);
	}
	metrics_text_begin(text, "_count");
	if (label_name)
		metrics_text_label(text, label_name, label_value);
	metrics_text_number(text, count);
	metrics_text_begin(text, "_sum");
	if (label_name)
		metrics_text_label(text, label_name, label_value);
	metrics_text_seconds(text, sum_ns);
}

void metrics_text_end(struct metrics_text *text)
{
	text_add(text, "# EOF\n");
	if (text_room(text, 1))
		text->bytes[text->n] = '\0';
}
