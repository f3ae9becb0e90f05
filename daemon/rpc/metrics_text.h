/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METRICS_TEXT_H
#define IB_RPC_METRICS_TEXT_H

/*
 * Writes OpenMetrics text: families, samples, labels.
 *
 * The text grows up to a bound. Beyond it, or without memory, nothing more is written and failed
 * is set: half a text is never given out.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/metrics.h"
#include "rpc/metrics_table.h"

#define METRICS_TEXT_BYTES_MAX (960u * 1024) /* with its envelope it fits an answer of 1 MiB */
#define METRICS_LABEL_BYTES    320           /* a value, escaped */

struct metrics_text {
	char *bytes;
	size_t n, room;
	bool failed;
	enum metric metric; /* the family that samples are written for */
	bool labelled;      /* the sample has a label already */
};

/* The lines that say what a family is; its samples follow. */
void metrics_text_family(struct metrics_text *text, enum metric metric);
/* A sample: begin, labels, and one of the values. suffix: "_total", "_bucket", "". */
void metrics_text_begin(struct metrics_text *text, const char *suffix);
void metrics_text_label(struct metrics_text *text, const char *name, const char *value);
void metrics_text_number(struct metrics_text *text, uint64_t value);
void metrics_text_seconds(struct metrics_text *text, uint64_t ns);
/* The samples of a histogram. label_name NULL: no label. */
void metrics_text_histogram(struct metrics_text *text, const struct metrics_histogram *histogram,
			    const char *label_name, const char *label_value);
/* # EOF, and a zero that does not count. */
void metrics_text_end(struct metrics_text *text);

/* A label's value as it is written, without its quotes: cut at ret_bytes. */
void metrics_label_escape(char *ret, size_t ret_bytes, const char *value);

#endif
