/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl reload, and config: what the daemon reads, and what holds. */

#include <string.h>
#include <unistd.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__ShowConfigurationResponse Setting;

static bool print_notes(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__ConfigureResponse *response = (const void *)message;
	const struct command_context *context = user_data;

	if (context->options->json)
		return command_print_json(NULL, message);
	puts("no mistakes in any file");
	for (size_t i = 0; i < response->n_notes; i++)
		puts(text_safe(response->notes[i], 0).bytes);
	return true;
}

static void configure(struct command_context *context, bool check_only, struct rpc_status *ret)
{
	Iommubroker__V1__ConfigureRequest request = IOMMUBROKER__V1__CONFIGURE_REQUEST__INIT;

	request.check_only = check_only;
	rpc_call(context->rpc, "Configure", &request.base,
		 &iommubroker__v1__configure_response__descriptor, print_notes, context, ret);
}

int command_reload(struct command_context *context, int argc, char **argv)
{
	struct rpc_status status;

	configure(context, false, &status);
	return command_outcome(context, &status);
}

/* Becomes the daemon's program, which reads everything as a start would, and serves nobody. */
static int check_without_daemon(struct command_context *context)
{
	const struct options *options = context->options;
	const char *program = options->daemon != NULL ? options->daemon : IB_DAEMON;
	const char *arguments[] = {program, "--check-config", NULL, NULL, NULL};
	char message[600];

	if (options->config_dir != NULL) {
		arguments[2] = "--config-dir";
		arguments[3] = options->config_dir;
	}
	fflush(stdout);
	execv(program, (char **)arguments);
	snprintf(message, sizeof(message), "no daemon answers, and %.500s cannot be run: %m",
		 program);
	command_tell(options, EXIT_NO_DAEMON, "UNAVAILABLE", message);
	return EXIT_NO_DAEMON;
}

int command_config_check(struct command_context *context, int argc, char **argv)
{
	struct rpc_status status;

	if (context->options->config_dir != NULL || context->options->daemon != NULL)
		return check_without_daemon(context);
	configure(context, true, &status);
	if (status.code == RPC_UNAVAILABLE && status.details_bytes == 0)
		return check_without_daemon(context);
	return command_outcome(context, &status);
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
