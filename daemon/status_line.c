/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "status_line.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "notify.h"

struct size_text {
	char bytes[32];
};

/* In the largest unit of which there is one, with a decimal if it is not whole. */
static struct size_text size_text(uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	struct size_text text;
	uint64_t rest = 0;
	size_t unit = 0;

	for (; bytes >= 1024; bytes /= 1024, unit++)
		rest = bytes % 1024;
	if (rest)
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64 ".%" PRIu64 " %s", bytes,
			 rest * 10 / 1024, units[unit]);
	else
		snprintf(text.bytes, sizeof(text.bytes), "%" PRIu64 " %s", bytes, units[unit]);
	return text;
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static void line_format(char ret[STATUS_LINE_BYTES], const struct usage *usage, bool draining)
{
	const char *serving = draining ? "Draining: serving" : "Serving";
	uint64_t guests = usage[LEDGER_GUESTS].current, devices = usage[LEDGER_DEVICES].current;

	if (!guests)
		snprintf(ret, STATUS_LINE_BYTES, "%s, no guests", draining ? "Drained" : "Ready");
	else
		snprintf(ret, STATUS_LINE_BYTES,
			 "%s %" PRIu64 " guest%s with %" PRIu64 " device%s and %s of guest memory",
			 serving, guests, plural(guests), devices, plural(devices),
			 size_text(usage[LEDGER_PINNED_BYTES].current).bytes);
}

void status_line_update(struct status_line *line, struct broker *broker)
{
	struct usage_report host;
	struct refusal refusal;
	char text[STATUS_LINE_BYTES], message[STATUS_LINE_BYTES + 16];

	if (usage_report(broker, NULL, &host, &refusal))
		return;
	line_format(text, host.usage, broker_draining(broker));
	if (!strcmp(text, line->text))
		return;
	snprintf(message, sizeof(message), "STATUS=%s", text);
	if (notify_now(message))
		memcpy(line->text, text, sizeof(text));
}
