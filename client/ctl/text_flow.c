/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See text_flow.h. */

#include "ctl/text_flow.h"

#include <string.h>

#include "ctl/text.h"

struct text_flow text_flow_begin(FILE *to, size_t column, size_t indent)
{
	return (struct text_flow){.to = to, .indent = indent, .column = column, .start = column};
}

void text_flow_newline(struct text_flow *flow)
{
	fprintf(flow->to, "\n%*s", (int)flow->indent, "");
	flow->column = flow->start = flow->indent;
}

static size_t word_columns(const char *word, size_t n)
{
	size_t columns = 0, one;

	for (size_t i = 0; i < n; columns += one)
		i += text_character(word + i, &one);
	return columns;
}

/* Character by character, onto the next line where this one ends. */
static void put_broken(struct text_flow *flow, const char *word, size_t n)
{
	size_t columns;

	for (size_t i = 0; i < n;) {
		size_t n_bytes = text_character(word + i, &columns);

		if (flow->column + columns > TEXT_LINE_COLUMNS)
			text_flow_newline(flow);
		fwrite(word + i, 1, n_bytes, flow->to);
		flow->column += columns;
		i += n_bytes;
	}
}

static void put_word(struct text_flow *flow, const char *word, size_t n)
{
	size_t columns = word_columns(word, n);

	if (flow->column > flow->start) {
		if (flow->column + 1 + columns > TEXT_LINE_COLUMNS) {
			text_flow_newline(flow);
		} else {
			fputc(' ', flow->to);
			flow->column++;
		}
	} else if (flow->column + columns > TEXT_LINE_COLUMNS && flow->start > flow->indent) {
		text_flow_newline(flow);
	}
	put_broken(flow, word, n);
}

void text_flow_put(struct text_flow *flow, const char *words)
{
	static const char blanks[] = " \n";

	for (words += strspn(words, blanks); *words != '\0'; words += strspn(words, blanks)) {
		size_t n = strcspn(words, blanks);

		put_word(flow, words, n);
		words += n;
	}
}

void text_flow_end(struct text_flow *flow)
{
	fputc('\n', flow->to);
	flow->column = flow->start = 0;
}
