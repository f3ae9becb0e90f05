/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_TOP_H
#define IB_CTL_TOP_H

/*
 * iommubrokerctl top: samples of what the daemon says, frames that show the last of them and what
 * grew since the one before.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "ctl/rpc.h"

#define TOP_COLUMNS 80

struct top_row {
	char *name, *tenant; /* as clients chose them; of a tenant the same */
	bool is_guest;
	uint64_t guest;
	uint64_t pinned_bytes, pinned_max, mappings;
	uint64_t refreshes, refused; /* since it is there */
	uint64_t calls;              /* of a tenant, since it is there */
	size_t n_guests;             /* of a tenant */
	uint32_t devices, nested;
	size_t tenant_index; /* of its tenant's row, until the sample is sorted */
	uint64_t weight;     /* what it is sorted by */
};

struct top_sample {
	uint64_t time_ns;
	char *version, *backend;
	uint64_t uptime_seconds, calls, refused, pinned_bytes, pinned_max, mappings, refreshes;
	uint32_t connections, sessions, guests, devices;
	struct top_row *rows;
	size_t n_rows,
		n_sorted; /* the first so many are tenants by their names, until it is sorted */
	size_t *by_name;  /* indexes of rows; see top_sample_index() */
};

enum top_sort { TOP_PINNED, TOP_MAPPINGS, TOP_REFRESHES, TOP_REFUSED, TOP_NAME, TOP_SORTS };

/* The name that --sort takes, its key on the keyboard is its first letter ('f': refused). */
extern const char *const top_sort_names[TOP_SORTS];
/* false: no such name. */
bool top_sort_find(const char *name, enum top_sort *ret);

/* *ret is set in every case, and is the caller's to free. */
void top_sample_take(struct rpc *rpc, struct top_sample **ret, struct rpc_status *ret_status);
struct top_sample *top_sample_free(struct top_sample *sample);

/* For top_row_before(): anew when rows have come or moved. */
void top_sample_index(struct top_sample *sample);
/* Once: tenants in the order of sort, each followed by its guests in the same order. before: the
 * sample before, for what follows a growth; or NULL. */
void top_sample_sort(struct top_sample *sample, const struct top_sample *before,
		     enum top_sort sort);

/* A growth a second; negative: not known yet. */
double top_rate(uint64_t now, uint64_t before, uint64_t time_ns);
/* The row of the same tenant or guest in the sample before, or NULL. */
const struct top_row *top_row_before(const struct top_sample *before, const struct top_row *row);

/* At most n_lines lines of at most TOP_COLUMNS columns. before may be NULL. */
void top_frame_print(FILE *to, const struct top_sample *sample, const struct top_sample *before,
		     enum top_sort sort, size_t n_lines);
/* A new reference. */
json_t *top_frame_json(const struct top_sample *sample, const struct top_sample *before);

/* ── the terminal ─────────────────────────────────────────────────────────────────────────── */

/* Take standard input and output over, before any thread is there: no echo, no lines, signals are
 * told by top_terminal_wait(). false: they are no terminal. */
bool top_terminal_open(void);
/* As it was. Does nothing if it is not open. */
void top_terminal_close(void);
size_t top_terminal_lines(void);
/* Until a key, a signal or so many milliseconds: the key; 0: show a frame again; -1: end. */
int top_terminal_wait(uint64_t milliseconds);

#endif
