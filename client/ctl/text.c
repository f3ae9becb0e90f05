/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See text.h. */

#include "ctl/text.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "ctl/text_flow.h"

#define CUT "\xe2\x80\xa6" /* an ellipsis: three bytes, one column */

/* Length of the UTF-8 character at s, 0 if there is none; *ret is the code point. */
static size_t utf8_take(const uint8_t *s, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;
	uint32_t point = n == 1 ? s[0] : s[0] & (0x7f >> n);

	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (s[i] & 0x3f);
	}
	if (n == 0 || point < least[n] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
		return 0;
	*ret = point;
	return n;
}

/* Neither a control character nor one that changes how its neighbours are shown. */
static bool is_plain(uint32_t point)
{
	if (point < 0x20 || point == '\\' || (point >= 0x7f && point < 0xa0))
		return false;
	if (point == 0xad || point == 0x61c || point == 0xfeff)
		return false;
	return !(point >= 0x200b && point <= 0x200f) && !(point >= 0x2028 && point <= 0x202e) &&
	       !(point >= 0x2060 && point <= 0x206f) && point < 0xe0000;
}

/* Shown on two columns, by most terminals. */
static bool is_wide(uint32_t point)
{
	static const uint32_t ranges[][2] = {
		{0x1100, 0x115f},   {0x231a, 0x231b},   {0x2329, 0x232a},   {0x23e9, 0x23ec},
		{0x25fd, 0x25fe},   {0x2600, 0x27bf},   {0x2b1b, 0x2b1c},   {0x2b50, 0x2b55},
		{0x2e80, 0xa4cf},   {0xa960, 0xa97f},   {0xac00, 0xd7a3},   {0xf900, 0xfaff},
		{0xfe10, 0xfe19},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},   {0xffe0, 0xffe6},
		{0x16fe0, 0x1b2ff}, {0x1d300, 0x1d37f}, {0x1f000, 0x1faff}, {0x20000, 0x3fffd},
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (point >= ranges[i][0] && point <= ranges[i][1])
			return true;
	return false;
}

static struct text text_measured(const char *string, size_t width, size_t *ret_columns)
{
	const uint8_t *s = (const uint8_t *)string;
	size_t columns = 0, n_used = 0;
	struct text text = {0};
	char piece[8];

	while (*s != '\0') {
		uint32_t point = 0;
		size_t n = utf8_take(s, &point);
		bool plain = n > 0 && is_plain(point);
		size_t piece_columns = !plain ? 4 : is_wide(point) ? 2 : 1;

		if (plain) {
			memcpy(piece, s, n);
			piece[n] = '\0';
		} else {
			snprintf(piece, sizeof(piece), "\\x%02x", *s);
			n = 1;
		}
		if (n_used + strlen(piece) + sizeof(CUT) > sizeof(text.bytes) ||
		    (width > 0 && columns + piece_columns > width - (s[n] != '\0'))) {
			strcpy(text.bytes + n_used, CUT);
			columns++;
			break;
		}
		strcpy(text.bytes + n_used, piece);
		n_used += strlen(piece);
		columns += piece_columns;
		s += n;
	}
	if (ret_columns != NULL)
		*ret_columns = columns;
	return text;
}

struct text text_safe(const char *string, size_t width)
{
	return text_measured(string, width, NULL);
}

struct text text_column(const char *string, size_t width)
{
	size_t columns;
	struct text text = text_measured(string, width, &columns);
	size_t n = strlen(text.bytes);

	while (columns++ < width && n + 1 < sizeof(text.bytes))
		text.bytes[n++] = ' ';
	text.bytes[n] = '\0';
	return text;
}

size_t text_character(const char *safe, size_t *ret_columns)
{
	uint32_t point = 0;
	size_t n = utf8_take((const uint8_t *)safe, &point);

	*ret_columns = n > 0 && is_wide(point) ? 2 : 1;
	return n > 0 ? n : 1;
}

void text_print_wrapped(const char *string)
{
	text_print_indented(string, 0);
}

void text_print_indented(const char *string, size_t indent)
{
	struct text_flow flow =
		text_flow_begin(stdout, (size_t)printf("%*s", (int)indent, ""), indent);

	text_flow_put(&flow, text_safe(string, 0).bytes);
	text_flow_end(&flow);
}

struct text text_size(uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	struct text text;
	size_t unit = 0;
	uint64_t rest = 0;

	while (bytes >= 1024 && unit < 6) {
		rest = bytes % 1024;
		bytes /= 1024;
		unit++;
	}
	if (rest == 0 || bytes >= 100)
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64 " %s", bytes, units[unit]);
	else
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64 ".%" PRIu64 " %s", bytes,
			 rest * 10 / 1024, units[unit]);
	return text;
}

struct text text_amount(const char *resource, uint64_t amount)
{
	size_t n = strlen(resource);
	struct text text;

	if (amount == UINT64_MAX)
		snprintf(text.bytes, sizeof(text.bytes), "none");
	else if (n >= 5 && strcmp(resource + n - 5, "bytes") == 0)
		return text_size(amount);
	else
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64, amount);
	return text;
}

struct text text_duration(uint64_t seconds)
{
	struct text text;

	if (seconds >= 86400)
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64 " d %" PRIu64 " h",
			 seconds / 86400, seconds / 3600 % 24);
	else if (seconds >= 3600)
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64 " h %" PRIu64 " min",
			 seconds / 3600, seconds / 60 % 60);
	else if (seconds >= 60)
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64 " min %" PRIu64 " s",
			 seconds / 60, seconds % 60);
	else
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64 " s", seconds);
	return text;
}

struct text text_uuid(const uint8_t *bytes, size_t n)
{
	struct text text = {0};
	size_t n_used = 0;

	for (size_t i = 0; i < n && n_used + 4 < sizeof(text.bytes); i++) {
		if (n == 16 && (i == 4 || i == 6 || i == 8 || i == 10))
			text.bytes[n_used++] = '-';
		n_used += snprintf(text.bytes + n_used, sizeof(text.bytes) - n_used, "%02x",
				   bytes[i]);
	}
	return text;
}

static const char *name_of(const char *const *names, size_t n, int value)
{
	return value >= 0 && (size_t)value < n ? names[value] : "?";
}

const char *text_level(int level)
{
	static const char *const names[] = {
		"-", "anchor", "region-first", "region-second", "region-third", "segment", "page"};

	return name_of(names, sizeof(names) / sizeof(names[0]), level);
}

const char *text_access(int access)
{
	static const char *const names[] = {"none", "read", "read-write"};

	return name_of(names, sizeof(names) / sizeof(names[0]), access);
}

const char *text_attachment(int attachment)
{
	static const char *const names[] = {"-", "blocked", "parent", "relaxed", "nested"};

	return name_of(names, sizeof(names) / sizeof(names[0]), attachment);
}
