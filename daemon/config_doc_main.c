/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Run at build time: writes the default file or the manual page of the configuration. */

#include <string.h>

#include "config.h"

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "default"))
		config_print_default(stdout);
	else if (argc == 2 && !strcmp(argv[1], "manual"))
		config_print_manual(stdout);
	else
		return 2;
	return fflush(stdout) ? 1 : 0;
}
