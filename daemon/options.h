/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_OPTIONS_H
#define IB_OPTIONS_H

/* The command line of iommubrokerd. */

#include <stdbool.h>
#include <stddef.h>

struct options {
	bool emulated;
	const char *runtime_dir, *config_dir; /* of argv, or static; config_dir may be NULL */
	char admin_dir[256];
	int exit_status; /* if options_parse() answered false */
};

/* false: nothing more to do (--help, --version, or a mistake that was told on stderr). */
bool options_parse(struct options *ret, int argc, char **argv);

#endif
