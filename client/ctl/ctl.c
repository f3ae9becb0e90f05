/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From the command line to the command: options of all commands, its name, its own options. */

#include <stdlib.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/text.h"

static const command_fn runs[COMMANDS_N] = {
	[COMMAND_STATUS] = command_status,
	[COMMAND_LIST] = command_list,
	[COMMAND_SHOW] = command_show,
	[COMMAND_TOP] = command_top,
	[COMMAND_MONITOR] = command_monitor,
	[COMMAND_EXPLAIN] = command_explain,
	[COMMAND_DUMP] = command_dump,
	[COMMAND_QUOTA] = command_quota,
	[COMMAND_QUOTA_EXPLAIN] = command_quota_explain,
	[COMMAND_CHECK_FIT] = command_check_fit,
	[COMMAND_CONFIG_CHECK] = command_config_check,
	[COMMAND_CONFIG_SHOW] = command_config_show,
	[COMMAND_CONFIG_RELOAD] = command_reload,
	[COMMAND_RELOAD] = command_reload,
	[COMMAND_REVOKE] = command_revoke,
	[COMMAND_DRAIN] = command_drain,
	[COMMAND_DOCTOR] = command_doctor,
	[COMMAND_METRICS] = command_metrics,
	[COMMAND_NAMES] = command_names,
};

static int bad_usage(const struct options *options, const struct command_row *row,
		     const char *mistake)
{
	char message[OPTION_MISTAKE_BYTES + 128];

	snprintf(message, sizeof(message), "%s; see iommubrokerctl %s%s--help", mistake,
		 row != NULL ? row->name : "", row != NULL ? " " : "");
	command_tell(options, EXIT_BAD_USAGE, "INVALID_ARGUMENT", message);
	return EXIT_BAD_USAGE;
}

static bool find_socket(const struct options *options, char *path, size_t path_bytes)
{
	int n;

	if (options->admin_dir != NULL)
		n = snprintf(path, path_bytes, "%s/admin.sock", options->admin_dir);
	else if (options->runtime_dir != NULL)
		n = snprintf(path, path_bytes, "%s/admin/admin.sock", options->runtime_dir);
	else
		n = snprintf(path, path_bytes, COMMAND_ADMIN_DIR "/admin.sock");
	return n > 0 && (size_t)n < path_bytes;
}

static int run(const struct command_row *row, const struct options *options, int argc, char **argv)
{
	char socket_path[4096];
	struct command_context context = {.socket_path = socket_path, .options = options};
	int r;

	if (!find_socket(options, socket_path, sizeof(socket_path)))
		return bad_usage(options, row, "the folder's name is too long");
	context.rpc = rpc_new(socket_path);
	if (context.rpc == NULL) {
		command_tell(options, EXIT_REFUSED, "RESOURCE_EXHAUSTED", "out of memory");
		return EXIT_REFUSED;
	}
	r = runs[row - command_table](&context, argc, argv);
	rpc_free(context.rpc);
	/* What could not be written was not told. */
	if (fflush(stdout) != 0 && r == EXIT_DONE) {
		command_tell(options, EXIT_REFUSED, "DATA_LOSS",
			     "standard output cannot be written");
		return EXIT_REFUSED;
	}
	return r;
}

static int run_command(struct options *options, const struct command_row *row, int argc,
		       char **argv)
{
	char mistake[OPTION_MISTAKE_BYTES];
	int first = option_parse(options, row->options, false, argc, argv, mistake);

	if (first < 0)
		return bad_usage(options, row, mistake);
	if (options->help) {
		usage_print_command(stdout, row);
		return EXIT_DONE;
	}
	argc -= first;
	if (argc < row->argc_min || argc > row->argc_max) {
		snprintf(mistake, sizeof(mistake), "%s takes %s", row->name,
			 row->argc_max == 0 ? "no argument" : row->arguments);
		return bad_usage(options, row, mistake);
	}
	return run(row, options, argc, argv + first);
}

int ctl_main(int argc, char **argv)
{
	char mistake[OPTION_MISTAKE_BYTES];
	const struct command_row *row;
	struct options options = {0};
	int first, words = 0;

	first = option_parse(&options, NULL, true, argc, argv, mistake);
	if (first < 0)
		return bad_usage(&options, NULL, mistake);
	row = command_find(argc - first, argv + first, &words);
	if (options.version) {
		puts("iommubrokerctl " IB_VERSION);
		return EXIT_DONE;
	}
	if (row == NULL && options.help) {
		if (first >= argc || !usage_print_group(stdout, argv[first]))
			usage_print(stdout);
		return EXIT_DONE;
	}
	if (first >= argc)
		return bad_usage(&options, NULL, "a command is missing");
	if (row == NULL && usage_find_group(argv[first], mistake)) {
		if (argc - first > 1 && (strcmp(argv[first + 1], "--help") == 0 ||
					 strcmp(argv[first + 1], "-h") == 0)) {
			usage_print_group(stdout, argv[first]);
			return EXIT_DONE;
		}
		return bad_usage(&options, NULL, mistake);
	}
	if (row == NULL) {
		snprintf(mistake, sizeof(mistake), "'%.180s' is no command",
			 text_safe(argv[first], 60).bytes);
		return bad_usage(&options, NULL, mistake);
	}
	first += words - 1;
	return run_command(&options, row, argc - first, argv + first);
}
