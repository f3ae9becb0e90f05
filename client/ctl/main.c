/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl: what iommubrokerd does, for operators. See iommubrokerctl(1). */

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/command.h"
#include "ctl/text.h"

#define ADMIN_DIR_DEFAULT "/run/iommubroker-admin"

struct command {
	const char *name;
	const char *arguments;
	int argc_min, argc_max;
	int (*run)(struct command_context *context, int argc, char **argv);
	const char *summary;
};

static const struct command commands[] = {
	{"status", "", 0, 0, command_status, "the daemon, its totals, and who uses what"},
	{"list", "", 0, 0, command_list, "all guests, one a line"},
	{"show", "[GUEST]", 0, 1, command_show, "a guest in full, or all of them"},
	{"explain", "GUEST IOVA", 2, 2, command_explain,
	 "walk a guest's tables for an address (--fid, --nested)"},
	{"dump", "", 0, 0, command_dump, "everything, as JSON"},
	{"reload", "", 0, 0, command_reload, "read the configuration again, and take it"},
	{"config", "check", 1, 1, command_config, "read it, tell mistakes, change nothing"},
};

static void usage(FILE *to)
{
	fputs("usage: iommubrokerctl [OPTION...] COMMAND\n\n", to);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(to, "  %-8s %-11s %s\n", commands[i].name, commands[i].arguments,
			commands[i].summary);
	fputs("\n"
	      "  --admin-dir DIR    folder of admin.sock (" ADMIN_DIR_DEFAULT ")\n"
	      "  --runtime-dir DIR  the same as --admin-dir DIR/admin\n"
	      "  --json             print JSON\n"
	      "  --fid N            explain: by zPCI function id\n"
	      "  --nested HANDLE    explain: by nested domain, in hex\n"
	      "\n"
	      "GUEST is a handle, a UUID or a name.\n"
	      "Exit status: 0 done, 1 refused or not found, 2 wrong usage, 3 no daemon.\n",
	      to);
}

static bool parse_number(const char *text, int base, uint64_t max, uint64_t *ret)
{
	char *after;

	errno = 0;
	*ret = strtoull(text, &after, base);
	return errno == 0 && after != text && *after == '\0' && text[0] != '-' && *ret <= max;
}

static bool parse_option(int option, struct command_context *context, char *socket_path, size_t n)
{
	uint64_t number;

	switch (option) {
	case 'a':
		return (size_t)snprintf(socket_path, n, "%s/admin.sock", optarg) < n;
	case 'r':
		return (size_t)snprintf(socket_path, n, "%s/admin/admin.sock", optarg) < n;
	case 'j':
		context->json = true;
		return true;
	case 'f':
		context->has_function_id = parse_number(optarg, 0, UINT32_MAX, &number);
		context->function_id = number;
		return context->has_function_id;
	case 'n':
		context->has_nested = parse_number(optarg, 16, UINT64_MAX, &number);
		context->nested = number;
		return context->has_nested && number != 0;
	case 'h':
		usage(stdout);
		exit(EXIT_SUCCESS);
	default:
		return false;
	}
}

static const struct command *find_command(int argc, char **argv)
{
	for (size_t i = 0; argc > 0 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(argv[0], commands[i].name) == 0 && argc - 1 >= commands[i].argc_min &&
		    argc - 1 <= commands[i].argc_max)
			return &commands[i];
	return NULL;
}

int command_outcome(const struct command_context *context, const struct rpc_status *status)
{
	if (status->code == 0)
		return EXIT_SUCCESS;
	if (status->code == RPC_UNAVAILABLE) {
		bool denied = access(context->socket_path, W_OK) != 0 && errno == EACCES;

		fprintf(stderr, "iommubrokerctl: %s %s\n",
			denied ? "only root and the daemon's user may connect to"
			       : "no daemon answers at",
			text_safe(context->socket_path, 0).bytes);
		return EXIT_NO_DAEMON;
	}
	fprintf(stderr, "iommubrokerctl: %s\n", text_safe(status->message, 0).bytes);
	return EXIT_REFUSED;
}

int main(int argc, char **argv)
{
	static const struct option table[] = {
		{"admin-dir", required_argument, NULL, 'a'},
		{"runtime-dir", required_argument, NULL, 'r'},
		{"json", no_argument, NULL, 'j'},
		{"fid", required_argument, NULL, 'f'},
		{"nested", required_argument, NULL, 'n'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	char socket_path[4096] = ADMIN_DIR_DEFAULT "/admin.sock";
	struct command_context context = {.socket_path = socket_path};
	const struct command *command;
	int option, r;

	while ((option = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (!parse_option(option, &context, socket_path, sizeof(socket_path))) {
			usage(stderr);
			return EXIT_BAD_USAGE;
		}
	}
	command = find_command(argc - optind, argv + optind);
	if (command == NULL) {
		usage(stderr);
		return EXIT_BAD_USAGE;
	}
	context.rpc = rpc_new(socket_path);
	if (context.rpc == NULL)
		return EXIT_REFUSED;
	r = command->run(&context, argc - optind - 1, argv + optind + 1);
	rpc_free(context.rpc);
	return r;
}
