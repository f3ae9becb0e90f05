/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The manual page: texts of the tables, with what mdoc takes for itself escaped. */

#include <string.h>

#include "ctl/command_table.h"
#include "ctl/doc.h"
#include "ctl/doctor.h"
#include "ctl/exit_status.h"

/* A text of any number of lines; a new sentence begins a line, as mdoc wants it. */
static void print_text(FILE *to, const char *text)
{
	bool at_start = true;

	for (const char *c = text; *c != '\0'; c++) {
		if (at_start && (*c == '.' || *c == '\''))
			fputs("\\&", to);
		if (*c == '\\')
			fputs("\\e", to);
		else if (*c == '-' && c[1] == '-')
			fputs("\\-", to);
		else
			fputc(*c, to);
		at_start = *c == '\n';
		if (*c == '.' && c[1] == ' ' && c[2] >= 'A' && c[2] <= 'Z') {
			fputc('\n', to);
			at_start = true;
			c++;
		}
	}
	fputc('\n', to);
}

static void print_options(FILE *to, const struct option_row *row)
{
	fputs(".Bl -tag -width Ds\n", to);
	for (; row->name != NULL; row++) {
		fprintf(to, ".It Fl -%s", row->name);
		if (row->argument != NULL)
			fprintf(to, " Ar %s", row->argument);
		fputc('\n', to);
		print_text(to, row->summary);
	}
	fputs(".El\n", to);
}

static void print_command(FILE *to, const struct command_row *row)
{
	fprintf(to, ".It Cm %s", row->name);
	if (row->options != NULL)
		fputs(" Oo Ar option ... Oc", to);
	if (row->arguments[0] == '[')
		fprintf(to, " Op Ar %.*s", (int)strlen(row->arguments) - 2, row->arguments + 1);
	else if (row->arguments[0] != '\0')
		fprintf(to, " Ar %s", row->arguments);
	fputc('\n', to);
	print_text(to, row->text);
	if (row->options != NULL)
		print_options(to, row->options);
}

static void print_checks(FILE *to)
{
	fputs(".Sh WHAT DOCTOR LOOKS AT\n"
	      "Each finding is\n.Cm ok , note , warning\nor\n.Cm serious ,\n"
	      "and has one of these ids:\n.Bl -tag -width kernel-charge -compact\n",
	      to);
#define X(name, what)                                \
	fputs(".It Cm ", to);                        \
	for (const char *c = #name; *c != '\0'; c++) \
		fputc(*c == '_' ? '-' : *c, to);     \
	fprintf(to, "\n%s\n", what);
	DOCTOR_CHECKS(X)
#undef X
	fputs(".El\n", to);
}

static void print_exit_statuses(FILE *to)
{
	fputs(".Sh EXIT STATUS\n.Bl -tag -width Ds -compact\n", to);
#define X(name, value, text) fprintf(to, ".It %d\n%s\n", value, text);
	EXIT_STATUSES(X)
#undef X
	fputs(".El\n", to);
}

static void print_examples(FILE *to)
{
	fputs(".Sh EXAMPLES\n", to);
	for (const struct command_example *one = command_examples; one->command != NULL; one++) {
		if (one->text != NULL) {
			print_text(to, one->text);
			fputs(".Pp\n", to);
		}
		fputs(".Dl # ", to);
		print_text(to, one->command);
		if (one[1].command != NULL && one[1].text != NULL)
			fputs(".Pp\n", to);
	}
}

void doc_print_manual(FILE *to)
{
	fputs(".\\\" SPDX-License-Identifier: LGPL-2.1-or-later\n"
	      ".\\\" Made from the tables of commands, options, checks and statuses.\n"
	      ".Dd November 23, 2026\n.Dt IOMMUBROKERCTL 1\n.Os\n.Sh NAME\n.Nm iommubrokerctl\n"
	      ".Nd show and steer what iommubrokerd does\n.Sh SYNOPSIS\n.Nm\n.Op Ar option ...\n"
	      ".Ar command\n.Op Ar option ...\n.Op Ar argument ...\n.Sh DESCRIPTION\n.Nm\nasks\n"
	      ".Xr iommubrokerd 8\nover its administration socket, which only root and the "
	      "daemon's own user may use.\n.Bl -tag -width Ds\n",
	      to);
	for (size_t i = 0; i < COMMANDS_N; i++)
		print_command(to, &command_table[i]);
	fputs(".El\n.Pp\n.Ar GUEST\nis a handle as\n.Cm list\nshows it, a UUID, or a name if only "
	      "one guest has it.\n.Pp\nOptions of all commands, which may also stand before the "
	      "command:\n",
	      to);
	print_options(to, global_options);
	fputs(".Pp\nNames and labels were chosen by clients, and are shown with control characters "
	      "and anything that is not\nplain text as\n.Li \\exNN .\n"
	      ".Sh JSON\nWith\n.Fl -json\nmessages have the names of the API.\nHandles are strings "
	      "in hex.\nNumbers above 2^63 - 1, such as a limit that there is not, are strings in "
	      "decimal.\nAn error is an object on standard error:\n"
	      "a member\n.Li error\nwith\n.Li exit_status , code , message , reason\nand\n"
	      ".Li metadata ,\nthe last two if the daemon gave them.\n",
	      to);
	print_checks(to);
	print_exit_statuses(to);
	print_examples(to);
	fputs(".Sh SEE ALSO\n.Xr iommubroker-replay 1 ,\n.Xr libiommubroker 3 ,\n"
	      ".Xr iommubrokerd.conf 5 ,\n.Xr iommubrokerd 8\n",
	      to);
}
