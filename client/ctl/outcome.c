/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How a command ends: exit status, and what stderr says. With --json that is one object,
 * {"error": {"exit_status", "code", "message"}}, and of a refusal "reason" and "metadata", as the
 * API's ErrorInfo has them.
 */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"

static const char *code_name(int code)
{
	static const char *const names[] = {
		"OK",
		"CANCELLED",
		"UNKNOWN",
		"INVALID_ARGUMENT",
		"DEADLINE_EXCEEDED",
		"NOT_FOUND",
		"ALREADY_EXISTS",
		"PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED",
		"FAILED_PRECONDITION",
		"ABORTED",
		"OUT_OF_RANGE",
		"UNIMPLEMENTED",
		"INTERNAL",
		"UNAVAILABLE",
		"DATA_LOSS",
		"UNAUTHENTICATED",
	};

	return code >= 0 && (size_t)code < sizeof(names) / sizeof(names[0]) ? names[code]
									    : "UNKNOWN";
}

/* Of the details, what programs can go by. */
static void add_details(json_t *error, const struct rpc_status *status)
{
	Google__Rpc__Status *all =
		google__rpc__status__unpack(NULL, status->details_bytes, status->details);

	for (size_t i = 0; all != NULL && i < all->n_details; i++) {
		const ProtobufCBinaryData *value = &all->details[i]->value;
		const char *type = strrchr(all->details[i]->type_url, '/');
		Google__Rpc__ErrorInfo *info;
		json_t *json;

		if (type == NULL || strcmp(type, "/google.rpc.ErrorInfo") != 0)
			continue;
		info = google__rpc__error_info__unpack(NULL, value->len, value->data);
		if (info == NULL)
			continue;
		json = json_from_message(&info->base);
		json_object_set(error, "reason", json_object_get(json, "reason"));
		json_object_set(error, "metadata", json_object_get(json, "metadata"));
		json_decref(json);
		google__rpc__error_info__free_unpacked(info, NULL);
	}
	if (all != NULL)
		google__rpc__status__free_unpacked(all, NULL);
}

static void tell(const struct options *options, enum exit_status exit_status, const char *code,
		 const char *message, const struct rpc_status *status)
{
	const struct text safe = text_safe(message, 0);
	json_t *error;

	if (!options->json) {
		fprintf(stderr, "iommubrokerctl: %s\n", safe.bytes);
		return;
	}
	error = json_pack("{s:{s:i, s:s, s:s}}", "error", "exit_status", (int)exit_status, "code",
			  code, "message", safe.bytes);
	if (status != NULL && status->details_bytes > 0)
		add_details(json_object_get(error, "error"), status);
	json_dumpf(error, stderr, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	fputc('\n', stderr);
	json_decref(error);
}

void command_tell(const struct options *options, enum exit_status exit_status, const char *code,
		  const char *message)
{
	tell(options, exit_status, code, message, NULL);
}

int command_bad_usage(const struct command_context *context, const char *message)
{
	command_tell(context->options, EXIT_BAD_USAGE, "INVALID_ARGUMENT", message);
	return EXIT_BAD_USAGE;
}

static int tell_no_daemon(const struct command_context *context)
{
	bool denied = access(context->socket_path, W_OK) != 0 && errno == EACCES;
	char message[600];

	snprintf(message, sizeof(message), "%s %.500s",
		 denied ? "only root and the daemon's user may connect to" : "no daemon answers at",
		 context->socket_path);
	command_tell(context->options, EXIT_NO_DAEMON, denied ? "PERMISSION_DENIED" : "UNAVAILABLE",
		     message);
	return EXIT_NO_DAEMON;
}

int command_outcome(const struct command_context *context, const struct rpc_status *status)
{
	if (status->code == 0)
		return EXIT_DONE;
	if (status->code == RPC_UNAVAILABLE && status->details_bytes == 0)
		return tell_no_daemon(context);
	tell(context->options, EXIT_REFUSED, code_name(status->code), status->message, status);
	return EXIT_REFUSED;
}

bool command_print_json(void *user_data, const ProtobufCMessage *message)
{
	json_t *json = json_from_message(message);

	json_print(json);
	json_decref(json);
	return true;
}

bool command_print_json_line(void *user_data, const ProtobufCMessage *message)
{
	json_t *json = json_from_message(message);

	json_dumpf(json, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(json);
	return fflush(stdout) == 0;
}
