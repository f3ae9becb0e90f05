/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/utf8.h"

#include <string.h>

static bool is_continuation(uint8_t byte)
{
	return (byte & 0xc0) == 0x80;
}

/* The second byte's range is narrower after E0, ED, F0 and F4 (RFC 3629, section 4). */
static bool second_is_valid(uint8_t first, uint8_t second)
{
	switch (first) {
	case 0xe0:
		return second >= 0xa0 && second <= 0xbf;
	case 0xed:
		return second >= 0x80 && second <= 0x9f;
	case 0xf0:
		return second >= 0x90 && second <= 0xbf;
	case 0xf4:
		return second >= 0x80 && second <= 0x8f;
	default:
		return is_continuation(second);
	}
}

size_t utf8_character(const uint8_t *text, size_t bytes)
{
	size_t n;

	if (!bytes)
		return 0;
	if (text[0] < 0x80)
		return 1;
	if (text[0] < 0xc2 || text[0] > 0xf4)
		return 0;
	n = text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
	if (bytes < n || !second_is_valid(text[0], text[1]))
		return 0;
	for (size_t i = 2; i < n; i++)
		if (!is_continuation(text[i]))
			return 0;
	return n;
}

bool utf8_is_text(const uint8_t *text, size_t bytes)
{
	while (bytes) {
		size_t n = utf8_character(text, bytes);

		if (!n || !*text)
			return false;
		text += n;
		bytes -= n;
	}
	return true;
}

void utf8_repair(char *text)
{
	uint8_t *at = (uint8_t *)text;
	size_t left = strlen(text);

	while (left) {
		size_t n = utf8_character(at, left);

		if (!n) {
			*at = '?';
			n = 1;
		}
		at += n;
		left -= n;
	}
}
