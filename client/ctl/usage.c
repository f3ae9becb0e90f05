/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What --help says; made from the tables. */

#include <string.h>

#include "ctl/command.h"

static void print_options(FILE *to, const struct option_row *row)
{
	for (; row != NULL && row->name != NULL; row++) {
		int n = fprintf(to, "  --%s%s%s", row->name, row->argument != NULL ? " " : "",
				row->argument != NULL ? row->argument : "");

		fprintf(to, "%*s%s\n", n < 22 ? 22 - n : 1, "", row->summary);
	}
}

static void print_exit_statuses(FILE *to)
{
	fputs("\nExit status:\n", to);
#define X(name, value, text) fprintf(to, "  %d  %s\n", value, text);
	EXIT_STATUSES(X)
#undef X
}

void usage_print(FILE *to)
{
	fputs("usage: iommubrokerctl [OPTION...] COMMAND [OPTION...] [ARGUMENT...]\n\n", to);
	for (size_t i = 0; i < COMMANDS_N; i++)
		fprintf(to, "  %-14s %s\n", command_table[i].name, command_table[i].summary);
	fputs("\nOptions of all commands:\n", to);
	print_options(to, global_options);
	print_exit_statuses(to);
	fputs("\n'iommubrokerctl COMMAND --help' tells a command's own options.\n", to);
}

void usage_print_command(FILE *to, const struct command_row *row)
{
	fprintf(to, "usage: iommubrokerctl %s%s%s%s\n\n%s\n", row->name,
		row->options != NULL ? " [OPTION...]" : "", row->arguments[0] != '\0' ? " " : "",
		row->arguments, row->text);
	if (row->options != NULL) {
		fputs("\nOptions:\n", to);
		print_options(to, row->options);
	}
	fputs("\nOptions of all commands:\n", to);
	print_options(to, global_options);
}
