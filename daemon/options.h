/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_OPTIONS_H
#define IB_OPTIONS_H

/* The command line of iommubrokerd. */

#include <stdbool.h>
#include <stddef.h>

#define OPTIONS_CONFIG_DIRS_MAX 8

struct options {
	bool emulated;
	bool check_config; /* read the configuration, tell all mistakes, and do nothing else */
	const char *runtime_dir; /* of argv, or static */
	/* of argv, the highest precedence first; none: the system's */
	const char *config_dirs[OPTIONS_CONFIG_DIRS_MAX];
	size_t n_config_dirs;
	char admin_dir[256];
	int exit_status; /* if options_parse() answered false */
};

/* false: nothing more to do (--help, --version, or a mistake that was told on stderr). */
bool options_parse(struct options *ret, int argc, char **argv);

#endif
