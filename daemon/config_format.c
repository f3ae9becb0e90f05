/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Values of settings as text: what config_value.c reads. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "config_table.h"

/* "64G"; with the largest suffix that says it exactly. */
static void bytes_format(uint64_t value, char *text, size_t text_bytes)
{
	static const char suffixes[] = "KMGTPE";
	unsigned int n = 0;

	if (value == UINT64_MAX) {
		snprintf(text, text_bytes, "infinity");
		return;
	}
	while (value && n < sizeof(suffixes) - 1 && value % 1024 == 0) {
		value /= 1024;
		n++;
	}
	snprintf(text, text_bytes, "%" PRIu64 "%.*s", value, n ? 1 : 0, n ? suffixes + n - 1 : "");
}

static void count_format(uint64_t value, char *text, size_t text_bytes)
{
	if (value == UINT64_MAX)
		snprintf(text, text_bytes, "infinity");
	else
		snprintf(text, text_bytes, "%" PRIu64, value);
}

static void rate_format(uint64_t value, char *text, size_t text_bytes)
{
	if (value == UINT64_MAX)
		snprintf(text, text_bytes, "infinity");
	else
		snprintf(text, text_bytes, "%" PRIu64 "/s", value);
}

static void milliseconds_format(uint32_t value, char *text, size_t text_bytes)
{
	if (value % 1000)
		snprintf(text, text_bytes, "%" PRIu32 "ms", value);
	else
		snprintf(text, text_bytes, "%" PRIu32 "s", value / 1000);
}

static void ids_format(const uint32_t *ids, size_t n, char *text, size_t text_bytes)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < n && used + 12 < text_bytes; i++)
		used += (size_t)snprintf(text + used, text_bytes - used, "%s%" PRIu32, i ? " " : "",
					 ids[i]);
}

static void designations_format(uint32_t set, char *text, size_t text_bytes)
{
	static const char *const names[] = {"ST", "RT", "RS", "RF"};

	text[0] = '\0';
	for (unsigned int i = 0; i < 4; i++)
		if (set & 1u << i)
			snprintf(text + strlen(text), text_bytes - strlen(text), "%s%s",
				 text[0] ? " " : "", names[i]);
}

void setting_format(const struct setting *setting, const void *target, size_t n, char *text,
		    size_t text_bytes)
{
	switch (setting->type) {
	case SETTING_BYTES:
		return bytes_format(*(const uint64_t *)target, text, text_bytes);
	case SETTING_COUNT64:
		return count_format(*(const uint64_t *)target, text, text_bytes);
	case SETTING_RATE:
		return rate_format(*(const uint64_t *)target, text, text_bytes);
	case SETTING_COUNT32:
		return (void)snprintf(text, text_bytes, "%" PRIu32, *(const uint32_t *)target);
	case SETTING_MILLISECONDS:
		return milliseconds_format(*(const uint32_t *)target, text, text_bytes);
	case SETTING_CHOICE:
		return (void)snprintf(text, text_bytes, "%s",
				      setting->choices[*(const int *)target]);
	case SETTING_BOOL:
		return (void)snprintf(text, text_bytes, "%s", *(const bool *)target ? "yes" : "no");
	case SETTING_HEX64:
		return (void)snprintf(text, text_bytes, "0x%" PRIx64, *(const uint64_t *)target);
	case SETTING_HEX16:
		return (void)snprintf(text, text_bytes, "0x%04x", *(const uint16_t *)target);
	case SETTING_DESIGNATIONS:
		return designations_format(*(const uint32_t *)target, text, text_bytes);
	case SETTING_USERS:
	case SETTING_GROUPS:
		return ids_format(target, n, text, text_bytes);
	case SETTING_PCI_ADDRESS:
		return (void)snprintf(text, text_bytes, "%s", (const char *)target);
	}
}
