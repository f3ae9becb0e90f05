/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See option.h. getopt_long() is given a table that is made from the rows of the moment. */

#include "ctl/option.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/text.h"

#define OPTIONS_MAX    32
#define SECONDS_MAX    (366 * 86400)
#define OPTION_UNKNOWN 0x3f /* '?' */
#define OPTION_MISSING ':'
#define FIRST_VALUE    0x100 /* of the first row: no character */

const struct option_row global_options[] = {
	{"json", NULL, OPTION_FLAG, offsetof(struct options, json), "print JSON"},
	{"admin-dir", "DIR", OPTION_TEXT, offsetof(struct options, admin_dir),
	 "folder of admin.sock, in place of /run/iommubroker-admin"},
	{"runtime-dir", "DIR", OPTION_TEXT, offsetof(struct options, runtime_dir),
	 "the same as --admin-dir DIR/admin"},
	{"help", NULL, OPTION_FLAG, offsetof(struct options, help),
	 "tell the usage, of a command if one is named"},
	{"version", NULL, OPTION_FLAG, offsetof(struct options, version), "tell the version"},
	{0},
};

bool option_number(const char *text, int base, uint64_t max, uint64_t *ret)
{
	uint64_t value;
	char *after;

	if (!((text[0] >= '0' && text[0] <= '9') ||
	      (base == 16 && strchr("abcdefABCDEF", text[0]))))
		return false;
	errno = 0;
	value = strtoull(text, &after, base);
	if (errno != 0 || after == text || *after != '\0' || value > max)
		return false;
	*ret = value;
	return true;
}

bool option_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGTPE";
	const char *unit = NULL;
	uint64_t value;
	char *after;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	value = strtoull(text, &after, 10);
	if (errno != 0)
		return false;
	if (*after != '\0')
		unit = strchr(units, *after);
	if (unit != NULL) {
		unsigned int shift = 10 * (unsigned int)(unit - units + 1);

		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
		after++;
		if (strcmp(after, "iB") == 0)
			after += 2;
	}
	if (*after != '\0')
		return false;
	*ret_bytes = value;
	return true;
}

bool option_seconds(const char *text, uint64_t *ret_ms)
{
	uint64_t seconds, thousandths = 0, scale = 100;
	char *after;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	seconds = strtoull(text, &after, 10);
	if (errno != 0 || seconds > SECONDS_MAX)
		return false;
	if (*after == '.')
		for (after++; *after >= '0' && *after <= '9'; after++) {
			thousandths += scale * (uint64_t)(*after - '0');
			scale /= 10;
		}
	if (*after != '\0')
		return false;
	*ret_ms = seconds * 1000 + thousandths;
	return true;
}

static bool set_number(const struct option_row *row, struct number *number, const char *text)
{
	number->given = true;
	switch (row->kind) {
	case OPTION_NUMBER:
		return option_number(text, 0, UINT64_MAX, &number->value);
	case OPTION_ID:
		return option_number(text, 0, UINT32_MAX, &number->value);
	case OPTION_HEX:
		return option_number(text, 16, UINT64_MAX, &number->value) && number->value != 0;
	case OPTION_SIZE:
		return option_size(text, &number->value);
	case OPTION_SECONDS:
		return option_seconds(text, &number->value);
	default:
		return false;
	}
}

static bool set(struct options *options, const struct option_row *row, const char *text)
{
	void *value = (char *)options + row->offset;

	if (row->kind == OPTION_FLAG) {
		*(bool *)value = true;
		return true;
	}
	if (row->kind == OPTION_TEXT) {
		*(const char **)value = text;
		return true;
	}
	return set_number(row, value, text);
}

/* Rows of both tables, in the order of the values that getopt_long() answers. */
static size_t collect(const struct option_row *own, const struct option_row **rows,
		      struct option *table)
{
	const struct option_row *const tables[] = {global_options, own};
	size_t n = 0;

	for (size_t t = 0; t < 2; t++)
		for (const struct option_row *row = tables[t];
		     row != NULL && row->name != NULL && n < OPTIONS_MAX; row++, n++) {
			rows[n] = row;
			table[n] = (struct option){
				row->name, row->argument != NULL ? required_argument : no_argument,
				NULL, FIRST_VALUE + (int)n};
		}
	table[n] = (struct option){0};
	return n;
}

static void tell_unknown(char mistake[OPTION_MISTAKE_BYTES], int value, const char *word)
{
	snprintf(mistake, OPTION_MISTAKE_BYTES, "'%.180s' %s", text_safe(word, 60).bytes,
		 value == OPTION_MISSING ? "needs a value" : "is no option here");
}

int option_parse(struct options *options, const struct option_row *own, bool in_order, int argc,
		 char **argv, char mistake[OPTION_MISTAKE_BYTES])
{
	const struct option_row *rows[OPTIONS_MAX];
	struct option table[OPTIONS_MAX + 1];
	int value;

	collect(own, rows, table);
	opterr = 0;
	optind = 0; /* glibc: begin anew */
	while ((value = getopt_long(argc, argv, in_order ? "+:h" : ":h", table, NULL)) != -1) {
		if (value == 'h') {
			options->help = true;
		} else if (value < FIRST_VALUE) {
			tell_unknown(mistake, value, argv[optind - 1]);
			return -1;
		} else if (!set(options, rows[value - FIRST_VALUE], optarg)) {
			snprintf(mistake, OPTION_MISTAKE_BYTES, "'%.180s' is no value of --%s",
				 text_safe(optarg, 60).bytes, rows[value - FIRST_VALUE]->name);
			return -1;
		}
	}
	return optind;
}
