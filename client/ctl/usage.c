/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What --help says; made from the tables. */

#include <string.h>

#include "ctl/command.h"
#include "ctl/text_flow.h"

#define SUMMARY_COLUMN 22

/* printed: of the line, as fprintf() says it. */
static void print_summary(FILE *to, int printed, const char *summary)
{
	struct text_flow flow;
	int blanks = printed < SUMMARY_COLUMN ? SUMMARY_COLUMN - printed : 1;

	fprintf(to, "%*s", blanks, "");
	flow = text_flow_begin(to, (size_t)(printed + blanks), SUMMARY_COLUMN);
	text_flow_put(&flow, summary);
	text_flow_end(&flow);
}

static void print_options(FILE *to, const struct option_row *row)
{
	for (; row != NULL && row->name != NULL; row++)
		print_summary(to,
			      fprintf(to, "  --%s%s%s", row->name, row->argument != NULL ? " " : "",
				      row->argument != NULL ? row->argument : ""),
			      row->summary);
}

static void print_exit_statuses(FILE *to)
{
	fputs("\nExit status:\n", to);
#define X(name, value, text) fprintf(to, "  %d  %s\n", value, text);
	EXIT_STATUSES(X)
#undef X
}

static void print_text(FILE *to, const char *text)
{
	struct text_flow flow = text_flow_begin(to, 0, 0);

	text_flow_put(&flow, text);
	text_flow_end(&flow);
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

/* What follows group in a command of two words; NULL: it is another command. */
static const char *second_word(const struct command_row *row, const char *group)
{
	size_t n = strlen(group);

	return n > 0 && strncmp(row->name, group, n) == 0 && row->name[n] == ' ' ? row->name + n + 1
										 : NULL;
}

bool usage_find_group(const char *word, char mistake[OPTION_MISTAKE_BYTES])
{
	size_t n = 0;

	for (size_t i = 0; i < COMMANDS_N; i++) {
		const char *second = second_word(&command_table[i], word);

		if (second == NULL)
			continue;
		if (n == 0)
			n = (size_t)snprintf(mistake, OPTION_MISTAKE_BYTES, "%s takes %s", word,
					     second);
		else
			n += (size_t)snprintf(mistake + n, OPTION_MISTAKE_BYTES - n, " or %s",
					      second);
	}
	return n > 0;
}

bool usage_print_group(FILE *to, const char *word)
{
	char mistake[OPTION_MISTAKE_BYTES];

	if (!usage_find_group(word, mistake))
		return false;
	for (size_t i = 0; i < COMMANDS_N; i++)
		if (second_word(&command_table[i], word) != NULL)
			print_summary(to, fprintf(to, "  %s", command_table[i].name),
				      command_table[i].summary);
	return true;
}

void usage_print_command(FILE *to, const struct command_row *row)
{
	fprintf(to, "usage: iommubrokerctl %s%s%s%s\n\n", row->name,
		row->options != NULL ? " [OPTION...]" : "", row->arguments[0] != '\0' ? " " : "",
		row->arguments);
	print_text(to, row->text);
	if (row->options != NULL) {
		fputs("\nOptions:\n", to);
		print_options(to, row->options);
	}
	fputs("\nOptions of all commands:\n", to);
	print_options(to, global_options);
}
