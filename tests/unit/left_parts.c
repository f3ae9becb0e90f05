/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "left_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned int n_unexpected;

static void parts_read(struct parts *ret, struct trial *trial)
{
	struct record_reader reader = {0};
	struct part *part = ret->parts;

	ret->bytes = content_of(trial_fd(trial, FD_STATE, 0)->fd, &reader.n);
	reader.bytes = ret->bytes;
	while (record_next(&reader, &part->record) == 1) {
		assert_true(part->record.fixed_bytes <= sizeof(part->fixed));
		memset(part->fixed, 0, sizeof(part->fixed));
		memcpy(part->fixed, part->record.fixed, part->record.fixed_bytes);
		part->times = 1;
		part++;
		assert_true(part < ret->parts + RECORDS_MAX);
	}
	ret->n = (size_t)(part - ret->parts);
}

/* Into the trial's state file. */
static void parts_write(struct parts *consume, struct trial *trial)
{
	struct record_writer writer = {0};

	for (size_t i = 0; i < consume->n; i++) {
		const struct part *part = &consume->parts[i];

		for (unsigned int j = 0; j < part->times; j++)
			record_put(&writer, part->record.type, part->record.flags, part->fixed,
				   part->record.fixed_bytes, part->record.tail,
				   part->record.tail_bytes);
	}
	assert_false(writer.failed);
	content_put(trial_fd(trial, FD_STATE, 0)->fd, writer.bytes, writer.n);
	record_writer_free(&writer);
	free(consume->bytes);
}

struct part *part_of(struct parts *parts, uint16_t type, size_t i)
{
	for (size_t at = 0; at < parts->n; at++)
		if (parts->parts[at].record.type == type && !i--)
			return &parts->parts[at];
	return NULL;
}

/* ── a trial ───────────────────────────────────────────────────────────────────────────────── */

void parts_begin(struct parts *ret, struct trial *trial)
{
	trial_begin(trial);
	parts_read(ret, trial);
}

void parts_drop(struct parts *parts, struct trial *trial)
{
	free(parts->bytes);
	trial_drop(trial);
}

char parts_run(struct parts *consume, struct trial *trial)
{
	parts_write(consume, trial);
	trial_run(trial);
	return trial->taken_over ? 'T' : 'R';
}

void expect(char expected, char got, const struct trial *trial)
{
	if (expected == '.' || expected == got)
		return;
	print_error("%s: '%c', and not '%c': %s\n", trial->what, got, expected, trial->log);
	n_unexpected++;
}

void expectations_met(void)
{
	const unsigned int n = n_unexpected;

	n_unexpected = 0;
	assert_int_equal(n, 0);
}

/* ── damage ────────────────────────────────────────────────────────────────────────────────── */

static uint64_t changed(uint64_t value, size_t bytes, unsigned int change)
{
	const uint64_t max = UINT64_MAX >> (64 - 8 * bytes);
	const uint64_t values[CHANGES] = {0, max, value + 1, value - 1, value + PAGE, value - PAGE};

	return values[change] & max;
}

static uint64_t number_get(const uint8_t *at, size_t bytes)
{
	uint64_t wide;
	uint32_t half;

	memcpy(&wide, at, sizeof(wide));
	memcpy(&half, at, sizeof(half));
	return bytes == 8 ? wide : bytes == 4 ? half : *at;
}

static void number_put(uint8_t *at, size_t bytes, uint64_t value)
{
	uint32_t half = (uint32_t)value;
	uint8_t byte = (uint8_t)value;

	if (bytes == 8)
		memcpy(at, &value, bytes);
	else if (bytes == 4)
		memcpy(at, &half, bytes);
	else
		*at = byte;
}

bool field_change(struct parts *parts, struct trial *trial, const struct field *field, size_t i,
		  unsigned int change)
{
	uint8_t *at = part_of(parts, field->type, i)->fixed + field->at;
	uint64_t value = number_get(at, field->bytes);
	uint64_t other = changed(value, field->bytes, change);

	number_put(at, field->bytes, other);
	snprintf(trial->what, sizeof(trial->what), "%s %zu, way %u", field->name, i, change);
	return other != value;
}

void part_damage(struct part *part, enum way way)
{
	struct record *record = &part->record;

	switch (way) {
	case REMOVED:
	case DOUBLED:
		part->times = way == REMOVED ? 0 : 2;
		break;
	case CUT:
	case EMPTY:
		record->fixed_bytes = way == CUT ? record->fixed_bytes / 2 : 0;
		break;
	case LONGER:
		memset(part->fixed + record->fixed_bytes, 0xff, 24);
		record->fixed_bytes += 24;
		break;
	case UNKNOWN:
	case UNKNOWN_MUST:
		record->type = 999;
		record->flags = way == UNKNOWN ? 0 : RECORD_MUST_KNOW;
		break;
	case WAYS:
		break;
	}
}
