/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See bench_script.h. */

#include "bench_script.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/input.h"
#include "replay/zpci.h"

/* tests/data/traces/README.md */
#define RECORD_BYTES 40u
#define REGISTERED   1u
#define REFRESHED    3u
#define LEAF         4u

#define IOTA_REGION_THIRD UINT64_C(0x804)

void bench_die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("bench_kernel: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

void *bench_alloc(size_t n, size_t bytes)
{
	void *memory = calloc(n ? n : 1, bytes);

	if (!memory)
		bench_die("no memory");
	return memory;
}

/* ── made up ───────────────────────────────────────────────────────────────────────────────── */

static struct bench_script *script_single(struct bench_scripts *ret, size_t n_pages, size_t n_steps)
{
	struct bench_script *script = bench_alloc(1, sizeof(*script));

	script->iota = IOTA_REGION_THIRD;
	script->first = BENCH_DMA_FIRST;
	script->last = script->first + n_pages * BENCH_PAGE_BYTES - 1;
	script->steps = bench_alloc(n_steps, sizeof(*script->steps));
	script->writes = bench_alloc(2 * n_pages, sizeof(*script->writes));
	script->changes = bench_alloc(2 * n_pages, sizeof(*script->changes));
	*ret = (struct bench_scripts){script, 1};
	return script;
}

static struct bench_step *step_begin(struct bench_script *script, uint64_t start, uint64_t length)
{
	struct bench_step *step = &script->steps[script->n_steps++];

	*step = (struct bench_step){
		.start = start,
		.length = length,
		.first_write = script->n_writes,
		.first_change = script->n_changes,
	};
	return step;
}

static void step_write(struct bench_script *script, struct bench_step *step,
		       const struct bench_leaf *leaf)
{
	script->writes[script->n_writes++] = *leaf;
	step->n_writes++;
}

static void step_change(struct bench_script *script, struct bench_step *step,
			const struct bench_leaf *leaf)
{
	script->changes[script->n_changes++] = *leaf;
	step->n_changes++;
	if (leaf->access != ZPCI_LEAF_NONE)
		script->mapped++;
	else
		script->unmapped++;
}

static struct bench_leaf leaf_map(const struct bench_script *script, size_t page, size_t frame)
{
	return (struct bench_leaf){
		.iova = script->first + page * BENCH_PAGE_BYTES,
		.gpa = frame * BENCH_PAGE_BYTES,
		.access = ZPCI_LEAF_READ_WRITE,
	};
}

static struct bench_leaf leaf_unmap(const struct bench_script *script, size_t page)
{
	return (struct bench_leaf){
		.iova = script->first + page * BENCH_PAGE_BYTES,
		.access = ZPCI_LEAF_NONE,
		.was_mapped = true,
	};
}

void bench_scripts_lazy(struct bench_scripts *ret, size_t n_frames, size_t n_places)
{
	size_t n_pages = n_frames * n_places;
	struct bench_script *script = script_single(ret, n_pages, n_pages + 1);
	struct bench_step *step;
	struct bench_leaf leaf;

	for (size_t page = 0; page < n_pages; page++) {
		leaf = leaf_map(script, page, page % n_frames);
		step = step_begin(script, leaf.iova, BENCH_PAGE_BYTES);
		step_write(script, step, &leaf);
		step_change(script, step, &leaf);
		if (page < n_frames)
			continue;
		leaf = leaf_unmap(script, page - n_frames);
		step_write(script, step, &leaf);
	}
	step = step_begin(script, script->first, script->last - script->first + 1);
	for (size_t page = 0; page < n_pages; page++) {
		leaf = leaf_unmap(script, page);
		if (page >= n_pages - n_frames)
			step_write(script, step, &leaf);
		step_change(script, step, &leaf);
	}
}

void bench_scripts_filled(struct bench_scripts *ret, size_t n_frames, size_t n_places)
{
	size_t n_pages = n_frames * n_places;
	struct bench_script *script = script_single(ret, n_pages, 1);
	struct bench_step *step =
		step_begin(script, script->first, script->last - script->first + 1);

	/* Downwards in guest address: nothing joins. */
	for (size_t page = 0; page < n_pages; page++) {
		struct bench_leaf leaf = leaf_map(script, page, n_frames - 1 - page % n_frames);

		step_write(script, step, &leaf);
		step_change(script, step, &leaf);
	}
}

/* ── recorded ──────────────────────────────────────────────────────────────────────────────── */

struct record {
	uint32_t type, function_id;
	uint64_t a, b, c;
};

static struct record record_at(const struct input *trace, size_t i)
{
	const uint8_t *from = trace->bytes + i * RECORD_BYTES;

	return (struct record){
		.type = input_le32(from + 8),
		.function_id = input_le32(from + 12),
		.a = input_le64(from + 16),
		.b = input_le64(from + 24),
		.c = input_le64(from + 32),
	};
}

/* What is mapped in a window, for who keeps it page by page. */
struct window {
	uint64_t *entries; /* gpa | access; 0: nothing */
	size_t n_pages;
};

static uint64_t *window_entry(const struct window *window, const struct bench_script *script,
			      uint64_t iova)
{
	uint64_t page = (iova - script->first) / BENCH_PAGE_BYTES;

	if (iova < script->first || page >= window->n_pages)
		bench_die("a recorded leaf lies outside its window");
	return &window->entries[page];
}

/* A leaf that is as it was is written again, and is no change. */
static void recorded_leaf(struct bench_script *script, struct bench_step *step,
			  const struct window *window, const struct record *record)
{
	uint64_t *entry = window_entry(window, script, record->a);
	uint64_t now = record->c == ZPCI_LEAF_NONE ? 0 : record->b | record->c;
	struct bench_leaf leaf = {
		.iova = record->a,
		.gpa = record->b,
		.access = (unsigned int)record->c,
		.was_mapped = *entry != 0,
	};

	step_write(script, step, &leaf);
	if (*entry == now)
		return;
	step_change(script, step, &leaf);
	*entry = now;
}

/* From the registration at i to its end. */
static void recorded_fill(struct bench_script *script, const struct input *trace, size_t i)
{
	size_t n_records = trace->n_bytes / RECORD_BYTES;
	struct record record = record_at(trace, i);
	uint32_t function_id = record.function_id;
	struct bench_step *step = NULL;
	struct window window;

	script->iota = record.a;
	script->first = record.b;
	script->last = record.c;
	window.n_pages = (script->last - script->first) / BENCH_PAGE_BYTES + 1;
	window.entries = bench_alloc(window.n_pages, sizeof(*window.entries));
	for (i++; i < n_records; i++) {
		record = record_at(trace, i);
		if (record.function_id != function_id)
			continue;
		if (record.type == REFRESHED)
			step = step_begin(script, record.a, record.b);
		else if (record.type == LEAF && step)
			recorded_leaf(script, step, &window, &record);
		else
			break;
	}
	free(window.entries);
}

static void recorded_load(struct bench_script *script, const struct input *trace, size_t i)
{
	size_t n_records = trace->n_bytes / RECORD_BYTES - i;

	script->steps = bench_alloc(n_records, sizeof(*script->steps));
	script->writes = bench_alloc(n_records, sizeof(*script->writes));
	script->changes = bench_alloc(n_records, sizeof(*script->changes));
	recorded_fill(script, trace, i);
}

void bench_scripts_load(struct bench_scripts *ret, const char *path)
{
	struct input trace;
	size_t n_records;
	int r = input_read(path, &trace);

	if (r < 0)
		bench_die("%s: %s", path, strerror(-r));
	n_records = trace.n_bytes / RECORD_BYTES;
	if (!n_records || trace.n_bytes % RECORD_BYTES)
		bench_die("%s: not a trace", path);
	ret->n = 0;
	for (size_t i = 0; i < n_records; i++)
		ret->n += record_at(&trace, i).type == REGISTERED;
	ret->scripts = bench_alloc(ret->n, sizeof(*ret->scripts));
	for (size_t i = 0, n = 0; i < n_records; i++)
		if (record_at(&trace, i).type == REGISTERED)
			recorded_load(&ret->scripts[n++], &trace, i);
	input_free(&trace);
}

/* ── invalidated early ─────────────────────────────────────────────────────────────────────── */

#define NONE SIZE_MAX

static size_t *indices_new(size_t n)
{
	size_t *indices = bench_alloc(n, sizeof(*indices));

	for (size_t i = 0; i < n; i++)
		indices[i] = NONE;
	return indices;
}

/* For each change: the next one of the same page. */
static size_t *changes_next(const struct bench_script *script)
{
	size_t n_pages = (script->last - script->first) / BENCH_PAGE_BYTES + 1;
	size_t *next = indices_new(script->n_changes), *of_page = indices_new(n_pages);

	for (size_t i = script->n_changes; i-- > 0;) {
		size_t page = (script->changes[i].iova - script->first) / BENCH_PAGE_BYTES;

		next[i] = of_page[page];
		of_page[page] = i;
	}
	free(of_page);
	return next;
}

static size_t frames_of(const struct bench_script *script)
{
	uint64_t last = 0;

	for (size_t i = 0; i < script->n_changes; i++)
		if (script->changes[i].gpa > last)
			last = script->changes[i].gpa;
	return last / BENCH_PAGE_BYTES + 1;
}

/* Writes of one step: the recorded ones, then those of places whose frame it maps anew. A place
 * that was mapped by the same step, is gone already, or is not unmapped next, stays. */
static void step_invalidate(struct bench_script *script, struct bench_step *step,
			    const struct bench_leaf *recorded, const size_t *next, size_t *shown_by)
{
	size_t first = step->first_write, n = step->n_writes;

	step->first_write = script->n_writes;
	step->n_writes = 0;
	for (size_t i = 0; i < n; i++)
		step_write(script, step, &recorded[first + i]);
	for (size_t i = step->first_change; i < step->first_change + step->n_changes; i++) {
		const struct bench_leaf *leaf = &script->changes[i];
		size_t frame = leaf->gpa / BENCH_PAGE_BYTES, before;
		struct bench_leaf gone = {.access = ZPCI_LEAF_NONE};

		if (leaf->access == ZPCI_LEAF_NONE)
			continue;
		before = shown_by[frame];
		shown_by[frame] = i;
		if (before == NONE || before >= step->first_change || next[before] == NONE ||
		    next[before] < step->first_change + step->n_changes ||
		    script->changes[next[before]].access != ZPCI_LEAF_NONE)
			continue;
		gone.iova = script->changes[before].iova;
		step_write(script, step, &gone);
	}
}

void bench_scripts_invalidate_early(struct bench_scripts *scripts)
{
	for (size_t s = 0; s < scripts->n; s++) {
		struct bench_script *script = &scripts->scripts[s];
		struct bench_leaf *recorded = script->writes;
		size_t *next = changes_next(script), *shown_by = indices_new(frames_of(script));

		script->writes =
			bench_alloc(script->n_writes + script->n_changes, sizeof(*script->writes));
		script->n_writes = 0;
		for (size_t i = 0; i < script->n_steps; i++)
			step_invalidate(script, &script->steps[i], recorded, next, shown_by);
		free(recorded);
		free(next);
		free(shown_by);
	}
}

void bench_scripts_free(struct bench_scripts *scripts)
{
	for (size_t i = 0; i < scripts->n; i++) {
		free(scripts->scripts[i].steps);
		free(scripts->scripts[i].writes);
		free(scripts->scripts[i].changes);
	}
	free(scripts->scripts);
}
