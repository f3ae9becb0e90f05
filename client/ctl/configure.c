/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl reload, and config: what the daemon reads, and what holds. */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl/configure.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__ShowConfigurationResponse Setting;

/* Of one reading. */
struct reading {
	const struct command_context *context;
	bool check_only;
	json_t *before; /* what held, if that is to be compared */
	size_t n_mistakes;
};

/* On standard error, as those that stop a start. */
static void tell_mistakes(const struct reading *reading,
			  const Iommubroker__V1__ConfigureResponse *response)
{
	json_t *mistakes, *error;

	if (!reading->context->options->json) {
		for (size_t i = 0; i < response->n_mistakes; i++)
			fprintf(stderr, "%s\n", text_safe(response->mistakes[i], 0).bytes);
		if (!reading->check_only)
			fputs("everything is kept as it was\n", stderr);
		return;
	}
	mistakes = json_array();
	for (size_t i = 0; i < response->n_mistakes; i++)
		json_array_append_new(mistakes, json_from_string(response->mistakes[i]));
	error = json_pack("{s:{s:i, s:s, s:s, s:s, s:o}}", "error", "exit_status", EXIT_REFUSED,
			  "code", "FAILED_PRECONDITION", "message",
			  text_safe(response->mistakes[0], 0).bytes, "reason", "BAD_CONFIGURATION",
			  "mistakes", mistakes);
	json_dumpf(error, stderr, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	fputc('\n', stderr);
	json_decref(error);
}

static bool take_answer(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__ConfigureResponse *response = (const void *)message;
	struct reading *reading = user_data;

	reading->n_mistakes = response->n_mistakes;
	if (response->n_mistakes > 0) {
		tell_mistakes(reading, response);
		return true;
	}
	if (reading->context->options->json)
		return command_print_json(NULL, message);
	puts(reading->check_only ? "no mistakes in any file"
				 : "no mistakes in any file; what they say holds from now on");
	for (size_t i = 0; i < response->n_notes; i++)
		puts(text_safe(response->notes[i], 0).bytes);
	return true;
}

static void configure(struct reading *reading, struct rpc_status *ret_status)
{
	Iommubroker__V1__ConfigureRequest request = IOMMUBROKER__V1__CONFIGURE_REQUEST__INIT;

	request.check_only = reading->check_only;
	request.tell_all = true;
	rpc_call(reading->context->rpc, "Configure", &request.base,
		 &iommubroker__v1__configure_response__descriptor, take_answer, reading,
		 ret_status);
}

static int outcome(const struct reading *reading, const struct rpc_status *status)
{
	if (status->code == 0 && reading->n_mistakes > 0)
		return EXIT_REFUSED;
	return command_outcome(reading->context, status);
}

int command_reload(struct command_context *context, int argc, char **argv)
{
	struct reading reading = {.context = context};
	struct rpc_status status;
	json_t *now = NULL;
	int r;

	if (!context->options->json)
		reading.before = settings_ask(context);
	configure(&reading, &status);
	r = outcome(&reading, &status);
	if (r == EXIT_DONE && reading.before != NULL)
		now = settings_ask(context);
	if (now != NULL)
		settings_print_changes(reading.before, now);
	json_decref(now);
	json_decref(reading.before);
	return r;
}

/* In a tree that was built and not installed the daemon's program stands near ours. */
static bool find_near(char *path, size_t path_bytes)
{
	static const char *const places[] = {"/../daemon/iommubrokerd", "/iommubrokerd"};
	ssize_t n =
		readlink("/proc/self/exe", path, path_bytes - sizeof("/../daemon/iommubrokerd"));
	char *end;

	if (n <= 0)
		return false;
	path[n] = '\0';
	end = strrchr(path, '/');
	for (size_t i = 0; end != NULL && i < sizeof(places) / sizeof(places[0]); i++) {
		strcpy(end, places[i]);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

/* Becomes the daemon's program, which reads everything as a start would, and serves nobody. */
static int check_without_daemon(struct command_context *context)
{
	const struct options *options = context->options;
	const char *program = options->daemon != NULL ? options->daemon : IB_DAEMON;
	const char *arguments[] = {NULL, "--check-config", NULL, NULL, NULL};
	char near[4096], message[700];

	if (options->daemon == NULL && access(program, X_OK) != 0 && find_near(near, sizeof(near)))
		program = near;
	arguments[0] = program;

	if (options->config_dir != NULL) {
		arguments[2] = "--config-dir";
		arguments[3] = options->config_dir;
	}
	fflush(stdout);
	execv(program, (char **)arguments);
	snprintf(message, sizeof(message),
		 "without a daemon that answers its program checks the files, but %.500s cannot be "
		 "run: %m; name it with --daemon",
		 program);
	command_tell(options, EXIT_NO_DAEMON, "UNAVAILABLE", message);
	return EXIT_NO_DAEMON;
}

int command_config_check(struct command_context *context, int argc, char **argv)
{
	struct reading reading = {.context = context, .check_only = true};
	struct rpc_status status;

	if (context->options->config_dir != NULL || context->options->daemon != NULL)
		return check_without_daemon(context);
	configure(&reading, &status);
	if (status.code == RPC_UNAVAILABLE && status.details_bytes == 0)
		return check_without_daemon(context);
	return outcome(&reading, &status);
}

struct config_show {
	bool changed_only;
	json_t *settings; /* --json */
	char section[TEXT_BYTES_MAX];
};

static void print_setting(struct config_show *show, const Setting *setting)
{
	char line[2 * TEXT_BYTES_MAX];

	if (strcmp(show->section, setting->section) != 0) {
		/* A rule's names its file as well: "quota.d/50-a.conf [Quota]". */
		printf(strchr(setting->section, '[') != NULL ? "%s%s\n" : "%s[%s]\n",
		       show->section[0] != '\0' ? "\n" : "", text_safe(setting->section, 0).bytes);
		snprintf(show->section, sizeof(show->section), "%s", setting->section);
	}
	snprintf(line, sizeof(line), "%s=%s", text_safe(setting->key, 40).bytes,
		 text_safe(setting->value, 0).bytes);
	printf("%-44s # %s\n", line,
	       setting->from[0] != '\0' ? text_safe(setting->from, 0).bytes : "default");
	if (setting->pending[0] != '\0')
		printf("%-44s # at the next start: %s\n", "", text_safe(setting->pending, 0).bytes);
}

static bool take_setting(void *user_data, const ProtobufCMessage *message)
{
	const Setting *setting = (const void *)message;
	struct config_show *show = user_data;

	if (show->changed_only && setting->from[0] == '\0' && setting->pending[0] == '\0')
		return true;
	if (show->settings != NULL)
		json_array_append_new(show->settings, json_from_message(message));
	else
		print_setting(show, setting);
	return true;
}

int command_config_show(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__ShowConfigurationRequest request =
		IOMMUBROKER__V1__SHOW_CONFIGURATION_REQUEST__INIT;
	struct config_show show = {
		.changed_only = context->options->changed,
		.settings = context->options->json ? json_array() : NULL,
	};
	struct rpc_status status;

	rpc_call(context->rpc, "ShowConfiguration", &request.base,
		 &iommubroker__v1__show_configuration_response__descriptor, take_setting, &show,
		 &status);
	if (status.code == 0 && show.settings != NULL)
		json_print(show.settings);
	json_decref(show.settings);
	return command_outcome(context, &status);
}
