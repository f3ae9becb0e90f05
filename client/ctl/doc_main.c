/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Run at build time: writes the manual page or the shell's completion of iommubrokerctl. */

#include <stdio.h>
#include <string.h>

#include "ctl/doc.h"

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "manual") == 0)
		doc_print_manual(stdout);
	else if (argc == 2 && strcmp(argv[1], "bash") == 0)
		doc_print_bash(stdout);
	else
		return 2;
	return fflush(stdout) != 0;
}
