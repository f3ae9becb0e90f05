/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A frame of top: four lines of totals, a heading, then a line for each tenant and guest. No line
 * is longer than TOP_COLUMNS, whatever clients call themselves and however large a number is.
 */

#include <inttypes.h>
#include <string.h>

#include "ctl/json.h"
#include "ctl/text.h"
#include "ctl/top.h"

#define HEAD_LINES   6
#define NAME_COLUMNS 22

/* "812", "12.3k", "4M", at most 5 columns; "-" if it is not known. */
static struct text count_text(double value)
{
	static const char units[] = " kMGTPE";
	struct text text;
	size_t unit = 0;

	if (value < 0) {
		strcpy(text.bytes, "-");
		return text;
	}
	while (value >= 999.5 && unit + 2 < sizeof(units)) {
		value /= 1000;
		unit++;
	}
	if (unit == 0)
		snprintf(text.bytes, sizeof(text.bytes), "%.0f", value);
	else
		snprintf(text.bytes, sizeof(text.bytes), value < 9.95 ? "%.1f%c" : "%.0f%c", value,
			 units[unit]);
	return text;
}

static uint64_t time_between(const struct top_sample *sample, const struct top_sample *before)
{
	return before != NULL ? sample->time_ns - before->time_ns : 0;
}

static double rate_of(const struct top_sample *sample, const struct top_sample *before,
		      uint64_t now, uint64_t then)
{
	return top_rate(now, then, time_between(sample, before));
}

static void print_head(FILE *to, const struct top_sample *sample, const struct top_sample *before,
		       enum top_sort sort)
{
	const struct top_sample *then = before != NULL ? before : sample;

	fprintf(to, "iommubrokerd %s, %s, up %s; by %s\n", text_safe(sample->version, 16).bytes,
		text_safe(sample->backend, 10).bytes, text_duration(sample->uptime_seconds).bytes,
		top_sort_names[sort]);
	fprintf(to, "guests %-6u devices %-6u sessions %-6u connections %u\n", sample->guests,
		sample->devices, sample->sessions, sample->connections);
	fprintf(to, "pinned %s of %s, mappings %s\n", text_size(sample->pinned_bytes).bytes,
		sample->pinned_max == UINT64_MAX ? "no limit" : text_size(sample->pinned_max).bytes,
		count_text((double)sample->mappings).bytes);
	fprintf(to, "calls %s/s, ",
		count_text(rate_of(sample, before, sample->calls, then->calls)).bytes);
	fprintf(to, "refreshes %s/s, ",
		count_text(rate_of(sample, before, sample->refreshes, then->refreshes)).bytes);
	fprintf(to, "refused %s/s, %s in all\n\n",
		count_text(rate_of(sample, before, sample->refused, then->refused)).bytes,
		count_text((double)sample->refused).bytes);
	fprintf(to, "%-*s %8s %8s %6s %4s %4s %6s %7s %6s\n", NAME_COLUMNS, "TENANT, GUEST",
		"PINNED", "OF", "MAPS", "DEV", "NEST", "CALL/S", "REFR/S", "REFUSD");
}

static void print_name(FILE *to, const struct top_row *row)
{
	char handle[24];

	if (!row->is_guest) {
		fputs(text_column(row->name, NAME_COLUMNS).bytes, to);
		return;
	}
	snprintf(handle, sizeof(handle), "%016" PRIx64, row->guest);
	fprintf(to, "  %s",
		text_column(row->name[0] != '\0' ? row->name : handle, NAME_COLUMNS - 2).bytes);
}

static void print_row(FILE *to, const struct top_sample *sample, const struct top_sample *before,
		      const struct top_row *row)
{
	const struct top_row *then = top_row_before(before, row);
	double calls = then != NULL ? rate_of(sample, before, row->calls, then->calls) : -1;
	double refreshes =
		then != NULL ? rate_of(sample, before, row->refreshes, then->refreshes) : -1;

	print_name(to, row);
	fprintf(to, " %8s %8s", text_size(row->pinned_bytes).bytes,
		row->is_guest                   ? ""
		: row->pinned_max == UINT64_MAX ? "none"
						: text_size(row->pinned_max).bytes);
	fprintf(to, " %6s %4s %4s", count_text((double)row->mappings).bytes,
		count_text(row->devices).bytes, count_text(row->nested).bytes);
	fprintf(to, " %6s", row->is_guest ? "" : count_text(calls).bytes);
	fprintf(to, " %7s %6s\n", count_text(refreshes).bytes,
		count_text((double)row->refused).bytes);
}

void top_frame_print(FILE *to, const struct top_sample *sample, const struct top_sample *before,
		     enum top_sort sort, size_t n_lines)
{
	size_t n_rows = n_lines > HEAD_LINES ? n_lines - HEAD_LINES : 0;

	print_head(to, sample, before, sort);
	/* One line says how many rows did not fit. */
	if (sample->n_rows > n_rows && n_rows > 0)
		n_rows--;
	for (size_t i = 0; i < sample->n_rows && i < n_rows; i++)
		print_row(to, sample, before, &sample->rows[i]);
	if (sample->n_rows > n_rows)
		fprintf(to, "and %zu more\n", sample->n_rows - n_rows);
}

/* ── JSON ─────────────────────────────────────────────────────────────────────────────────── */

static json_t *json_rate(double rate)
{
	return rate < 0 ? json_null() : json_real(rate);
}

/* What guests have not. */
static void json_tenant(json_t *json, const struct top_sample *sample,
			const struct top_sample *before, const struct top_row *row)
{
	const struct top_row *then = top_row_before(before, row);

	json_object_set_new(json, "pinned_max", json_from_u64(row->pinned_max));
	json_object_set_new(json, "calls", json_from_u64(row->calls));
	json_object_set_new(
		json, "calls_per_second",
		json_rate(then != NULL ? rate_of(sample, before, row->calls, then->calls) : -1));
}

static json_t *json_row(const struct top_sample *sample, const struct top_sample *before,
			const struct top_row *row)
{
	const struct top_row *then = top_row_before(before, row);
	json_t *json = json_object();

	json_object_set_new(json, "level", json_string(row->is_guest ? "guest" : "tenant"));
	json_object_set_new(json, "tenant", json_from_string(row->tenant));
	json_object_set_new(json, "name", json_from_string(row->name));
	if (row->is_guest)
		json_object_set_new(json, "guest", json_from_handle(row->guest));
	else
		json_tenant(json, sample, before, row);
	json_object_set_new(json, "pinned_bytes", json_from_u64(row->pinned_bytes));
	json_object_set_new(json, "mappings", json_from_u64(row->mappings));
	json_object_set_new(json, "devices", json_integer(row->devices));
	json_object_set_new(json, "nested_domains", json_integer(row->nested));
	json_object_set_new(json, "refreshes", json_from_u64(row->refreshes));
	json_object_set_new(
		json, "refreshes_per_second",
		json_rate(then != NULL ? rate_of(sample, before, row->refreshes, then->refreshes)
				       : -1));
	json_object_set_new(json, "refused", json_from_u64(row->refused));
	return json;
}

json_t *top_frame_json(const struct top_sample *sample, const struct top_sample *before)
{
	const struct top_sample *then = before != NULL ? before : sample;
	json_t *json = json_object(), *rows = json_array();

	json_object_set_new(json, "uptime_seconds", json_from_u64(sample->uptime_seconds));
	json_object_set_new(json, "pinned_bytes", json_from_u64(sample->pinned_bytes));
	json_object_set_new(json, "pinned_max", json_from_u64(sample->pinned_max));
	json_object_set_new(json, "mappings", json_from_u64(sample->mappings));
	json_object_set_new(json, "guests", json_integer(sample->guests));
	json_object_set_new(json, "sessions", json_integer(sample->sessions));
	json_object_set_new(json, "connections", json_integer(sample->connections));
	json_object_set_new(json, "calls_per_second",
			    json_rate(rate_of(sample, before, sample->calls, then->calls)));
	json_object_set_new(json, "refreshes_per_second",
			    json_rate(rate_of(sample, before, sample->refreshes, then->refreshes)));
	json_object_set_new(json, "refused", json_from_u64(sample->refused));
	for (size_t i = 0; i < sample->n_rows; i++)
		json_array_append_new(rows, json_row(sample, before, &sample->rows[i]));
	json_object_set_new(json, "rows", rows);
	return json;
}
