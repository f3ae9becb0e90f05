/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl reload, and config check: the daemon reads its configuration again. */

#include <stdio.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

static bool print_notes(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__ConfigureResponse *response = (const void *)message;
	const struct command_context *context = user_data;
	json_t *json;

	if (context->json) {
		json = json_from_message(message);
		json_print(json);
		json_decref(json);
		return true;
	}
	puts("no mistakes in any file");
	for (size_t i = 0; i < response->n_notes; i++)
		puts(text_safe(response->notes[i], 0).bytes);
	return true;
}

static int configure(struct command_context *context, bool check_only)
{
	Iommubroker__V1__ConfigureRequest request = IOMMUBROKER__V1__CONFIGURE_REQUEST__INIT;
	struct rpc_status status;

	request.check_only = check_only;
	rpc_call(context->rpc, "Configure", &request.base,
		 &iommubroker__v1__configure_response__descriptor, print_notes, context, &status);
	return command_outcome(context, &status);
}

int command_reload(struct command_context *context, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return configure(context, false);
}

int command_config(struct command_context *context, int argc, char **argv)
{
	(void)argc;
	if (strcmp(argv[0], "check") == 0)
		return configure(context, true);
	if (strcmp(argv[0], "reload") == 0)
		return configure(context, false);
	fprintf(stderr, "iommubrokerctl: config takes check or reload\n");
	return EXIT_BAD_USAGE;
}
