/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Completion for bash: tables of words, and a function that looks into them. Names of guests and
 * tenants, which clients choose, are asked for while it completes; "names" tells none that a shell
 * could take for more than a word, and they are never expanded.
 */

#include <ctype.h>
#include <string.h>

#include "ctl/command_table.h"
#include "ctl/doc.h"

static void print_words(FILE *to, const struct option_row *row)
{
	for (; row != NULL && row->name != NULL; row++)
		fprintf(to, " --%s", row->name);
}

/* What the argument of an option is, by which it is completed. */
static void print_values(FILE *to, const struct option_row *row)
{
	for (; row != NULL && row->name != NULL; row++)
		if (row->argument != NULL)
			fprintf(to, "\t[--%s]=%s\n", row->name, row->argument);
}

/* "guest|tenant|device WHAT": the words in lower case; of "GUEST IOVA" what the tool can name. */
static void print_arguments(FILE *to, const char *arguments)
{
	if (strstr(arguments, "GUEST") != NULL && strstr(arguments, "guest") == NULL)
		fputs(" GUEST", to);
	for (const char *c = arguments; *c != '\0' && !isupper((unsigned char)*c); c++)
		fputc(*c == '|' ? ' ' : *c == '[' ? ' ' : *c, to);
}

/* Sub-commands follow their first word. */
static void print_first_words(FILE *to)
{
	const char *last = "";

	for (size_t i = 0; i < COMMANDS_N; i++) {
		const char *name = command_table[i].name;
		size_t n = strcspn(name, " ");

		if (strncmp(name, last, n) != 0 || (last[n] != '\0' && last[n] != ' '))
			fprintf(to, " %.*s", (int)n, name);
		last = name;
	}
}

static void print_second_words(FILE *to)
{
	for (size_t i = 0; i < COMMANDS_N; i++) {
		const char *name = command_table[i].name;
		const char *blank = strchr(name, ' ');

		if (blank != NULL)
			fprintf(to, "_iommubrokerctl_second[%.*s]+=' %s'\n", (int)(blank - name),
				name, blank + 1);
	}
}

static void print_tables(FILE *to)
{
	fputs("_iommubrokerctl_first='", to);
	print_first_words(to);
	fputs("'\ndeclare -gA _iommubrokerctl_second=()\n", to);
	print_second_words(to);
	fputs("declare -gA _iommubrokerctl_options=(\n\t[--]='", to);
	print_words(to, global_options);
	fputs("'\n", to);
	for (size_t i = 0; i < COMMANDS_N; i++) {
		fprintf(to, "\t['%s']='", command_table[i].name);
		print_words(to, command_table[i].options);
		fputs("'\n", to);
	}
	fputs(")\ndeclare -gA _iommubrokerctl_arguments=(\n", to);
	for (size_t i = 0; i < COMMANDS_N; i++) {
		fprintf(to, "\t['%s']='", command_table[i].name);
		print_arguments(to, command_table[i].arguments);
		fputs("'\n", to);
	}
	fputs(")\ndeclare -gA _iommubrokerctl_values=(\n", to);
	print_values(to, global_options);
	for (size_t i = 0; i < COMMANDS_N; i++)
		print_values(to, command_table[i].options);
	fputs(")\n\n", to);
}

static const char functions[] =
	"# Words that begin as the current one does. Nothing of them is expanded.\n"
	"_iommubrokerctl_offer()\n"
	"{\n"
	"\tlocal word\n"
	"\tfor word in \"$@\"; do\n"
	"\t\t[[ $word == \"$current\"* ]] && COMPREPLY+=(\"$word\")\n"
	"\tdone\n"
	"}\n"
	"\n"
	"# guests or tenants, as the daemon knows them now; none if it does not answer.\n"
	"_iommubrokerctl_names()\n"
	"{\n"
	"\tlocal names=()\n"
	"\tmapfile -t names < <(timeout 2 \"${COMP_WORDS[0]}\" \"${where[@]}\" names \"$1\" "
	"2>/dev/null)\n"
	"\t_iommubrokerctl_offer \"${names[@]}\"\n"
	"}\n"
	"\n"
	"# The value of an option, or an argument, by what the tables call it.\n"
	"_iommubrokerctl_value()\n"
	"{\n"
	"\tcase $1 in\n"
	"\tGUEST) _iommubrokerctl_names guests ;;\n"
	"\tTENANT) _iommubrokerctl_names tenants ;;\n"
	"\tKEY) _iommubrokerctl_offer pinned mappings refreshes refused name ;;\n"
	"\tDIR) mapfile -t COMPREPLY < <(compgen -d -- \"$current\") ;;\n"
	"\tFILE) mapfile -t COMPREPLY < <(compgen -f -- \"$current\") ;;\n"
	"\tesac\n"
	"}\n"
	"\n"
	"_iommubrokerctl()\n"
	"{\n"
	"\tlocal current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
	"\tlocal words=() where=() name='' word i\n"
	"\tCOMPREPLY=()\n"
	"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	"\t\tword=${COMP_WORDS[i]}\n"
	"\t\tif [[ $word == --admin-dir || $word == --runtime-dir ]]; then\n"
	"\t\t\twhere=(\"$word\" \"${COMP_WORDS[i + 1]}\")\n"
	"\t\tfi\n"
	"\t\tif [[ $word != -* ]]; then\n"
	"\t\t\twords+=(\"$word\")\n"
	"\t\telif [[ ${_iommubrokerctl_values[$word]-} ]]; then\n"
	"\t\t\ti=$((i + 1))\n"
	"\t\tfi\n"
	"\tdone\n"
	"\tif [[ $previous == --* && ${_iommubrokerctl_values[$previous]-} ]]; then\n"
	"\t\t_iommubrokerctl_value \"${_iommubrokerctl_values[$previous]-}\"\n"
	"\t\treturn\n"
	"\tfi\n"
	"\tname=${words[0]-}\n"
	"\t[[ ${words[1]-} && ${_iommubrokerctl_options[\"$name ${words[1]-}\"]+known} ]] && "
	"name+=\" ${words[1]-}\"\n"
	"\tif [[ $current == -* ]]; then\n"
	"\t\t# shellcheck disable=SC2086 # words of the table\n"
	"\t\t_iommubrokerctl_offer ${name:+${_iommubrokerctl_options[$name]}} "
	"${_iommubrokerctl_options[--]}\n"
	"\telif [[ ! $name ]]; then\n"
	"\t\t# shellcheck disable=SC2086\n"
	"\t\t_iommubrokerctl_offer $_iommubrokerctl_first\n"
	"\telif [[ $name != *' '* && ${_iommubrokerctl_second[$name]-} && ${#words[@]} -eq 1 ]]; "
	"then\n"
	"\t\t# shellcheck disable=SC2086\n"
	"\t\t_iommubrokerctl_offer ${_iommubrokerctl_second[$name]-}\n"
	"\telif [[ $name == revoke && ${#words[@]} -eq 2 ]]; then\n"
	"\t\t[[ ${words[1]-} == device ]] || _iommubrokerctl_names \"${words[1]}s\"\n"
	"\telif [[ ${_iommubrokerctl_arguments[$name]-} == ' GUEST'* ]]; then\n"
	"\t\t[[ ${#words[@]} -eq 1 ]] && _iommubrokerctl_names guests\n"
	"\telif [[ ${#words[@]} -eq 1 ]]; then\n"
	"\t\t# shellcheck disable=SC2086\n"
	"\t\t_iommubrokerctl_offer ${_iommubrokerctl_arguments[$name]-}\n"
	"\tfi\n"
	"\treturn 0\n"
	"}\n"
	"complete -F _iommubrokerctl iommubrokerctl\n";

void doc_print_bash(FILE *to)
{
	fputs("# SPDX-License-Identifier: LGPL-2.1-or-later\n"
	      "# shellcheck shell=bash\n"
	      "# Completion for iommubrokerctl; made from its table of commands.\n\n",
	      to);
	print_tables(to);
	fputs(functions, to);
}
