/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_COMMAND_TABLE_H
#define IB_CTL_COMMAND_TABLE_H

/*
 * The one table of commands: parser, usage, manual page and completion are made from it. It knows
 * no function of theirs, so that the programs that only describe it link nothing else.
 */

#include "ctl/option.h"

enum command_id {
	COMMAND_STATUS,
	COMMAND_LIST,
	COMMAND_SHOW,
	COMMAND_TOP,
	COMMAND_MONITOR,
	COMMAND_EXPLAIN,
	COMMAND_DUMP,
	COMMAND_QUOTA,
	COMMAND_QUOTA_EXPLAIN,
	COMMAND_CHECK_FIT,
	COMMAND_CONFIG_CHECK,
	COMMAND_CONFIG_SHOW,
	COMMAND_CONFIG_RELOAD,
	COMMAND_RELOAD,
	COMMAND_REVOKE,
	COMMAND_DRAIN,
	COMMAND_DOCTOR,
	COMMAND_METRICS,
	COMMAND_NAMES,
	COMMANDS_N
};

struct command_row {
	const char *name; /* one word, or two */
	const char *
		arguments; /* for people; "GUEST", "TENANT" and words in lower case are completed */
	int argc_min, argc_max;
	const char *summary; /* for usage, at most 50 columns */
	const char *text;    /* for the manual page: sentences, one a line */
	const struct option_row *options;
};

/* By command_id. */
extern const struct command_row command_table[COMMANDS_N];

struct command_example {
	const char *text, *command;
};
/* Ends with NULLs. */
extern const struct command_example command_examples[];

/* The command that the first words of argv name, or NULL; *ret_words says how many they are. */
const struct command_row *command_find(int argc, char **argv, int *ret_words);

#endif
