/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_OPTION_H
#define IB_CTL_OPTION_H

/* Options of the command line: tables of rows, each of which says where its value goes. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct number {
	bool given;
	uint64_t value;
};

/* Values of all commands' options. Texts are of argv. */
struct options {
	bool json, help, version;
	const char *admin_dir, *runtime_dir;
	bool cancel, changed, wait;
	const char *config_dir, *daemon, *reason, *root, *sort, *tenant, *unit, *user;
	struct number count, interval_ms, timeout_ms;
	struct number function_id, nested, pid;
	struct number guests, pinned_bytes, memory_files, regions, devices, nested_domains,
		mappings, rings, ring_lanes, ring_entries;
};

enum option_kind {
	OPTION_FLAG,    /* bool */
	OPTION_TEXT,    /* const char * */
	OPTION_NUMBER,  /* struct number: decimal, or hex with 0x */
	OPTION_ID,      /* the same, of 32 bits */
	OPTION_HEX,     /* struct number: hex, not 0 */
	OPTION_SIZE,    /* struct number: bytes, or with K, M, G, T, P, E */
	OPTION_SECONDS, /* struct number of milliseconds: "2", "0.5" */
};

struct option_row {
	const char *name;     /* NULL ends a table */
	const char *argument; /* NULL: it takes none */
	enum option_kind kind;
	size_t offset; /* in struct options */
	const char *summary;
};

extern const struct option_row global_options[];

#define OPTION_MISTAKE_BYTES 256

/*
 * Take options of both tables out of argv, of which argv[0] is not looked at. in_order: stop at the
 * first word that is no option; otherwise words may stand between options. Returns the index of the
 * first word in argv, which is put into order; or -1, with what was wrong.
 */
int option_parse(struct options *options, const struct option_row *own, bool in_order, int argc,
		 char **argv, char mistake[OPTION_MISTAKE_BYTES]);

/* "12", "0xc". */
bool option_number(const char *text, int base, uint64_t max, uint64_t *ret);
/* "4096", "64G", "64GiB". */
bool option_size(const char *text, uint64_t *ret_bytes);
/* "2", "0.5"; at most a year. */
bool option_seconds(const char *text, uint64_t *ret_ms);

#endif
