/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_TEXT_FLOW_H
#define IB_CTL_TEXT_FLOW_H

/* Words that go on, on as many lines of at most TEXT_LINE_COLUMNS columns as they need. */

#include <stddef.h>
#include <stdio.h>

#define TEXT_LINE_COLUMNS 79 /* the last one of a terminal stays free: some wrap there */

struct text_flow {
	FILE *to;
	size_t indent; /* of each line but the one that is begun */
	size_t column; /* where that one is */
	size_t start;  /* where its words begin: the first of them has no blank before it */
};

/* column: what the caller has printed of the line. */
struct text_flow text_flow_begin(FILE *to, size_t column, size_t indent);
/* Words, parted by blanks and newlines, that are safe to print (see text_safe()). One that is
 * longer than a line is broken. */
void text_flow_put(struct text_flow *flow, const char *words);
/* What follows begins a line of its own, indented. */
void text_flow_newline(struct text_flow *flow);
/* The end of the line. */
void text_flow_end(struct text_flow *flow);

#endif
