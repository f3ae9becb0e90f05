/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl quota explain: which rule is for someone, and why. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__ExplainQuotaRequest Request;
typedef Iommubroker__V1__ExplainQuotaResponse Response;

struct explanation {
	const struct options *options;
	bool served;
};

static bool is_unit(const char *name)
{
	static const char *const kinds[] = {".service", ".scope", ".slice", ".socket", ".mount"};
	size_t n = strlen(name);

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		size_t n_kind = strlen(kinds[i]);

		if (n > n_kind && strcmp(name + n - n_kind, kinds[i]) == 0)
			return true;
	}
	return false;
}

/* A number is a process, what ends as units do is a unit, all else is a user. */
static void set_by_form(Request *request, char *name)
{
	if (option_number(name, 10, UINT64_MAX, &request->pid))
		return;
	if (is_unit(name))
		request->unit = name;
	else
		request->user = name;
}

static bool set_request(Request *request, const struct options *options, int argc, char **argv)
{
	if ((options->user != NULL) + (options->unit != NULL) + options->pid.given + argc != 1)
		return false;
	if (argc == 1)
		set_by_form(request, argv[0]);
	if (options->user != NULL)
		request->user = (char *)options->user;
	if (options->unit != NULL)
		request->unit = (char *)options->unit;
	request->pid = options->pid.given ? options->pid.value : request->pid;
	return true;
}

static void print_considered(const Response *response)
{
	if (response->n_considered == 0)
		return;
	printf("\n%-24s %s\n", "RULE", "WHY");
	for (size_t i = 0; i < response->n_considered; i++)
		printf("%-24s %s\n", text_safe(response->considered[i]->rule, 24).bytes,
		       text_safe(response->considered[i]->why, 0).bytes);
}

static void print_limits(const Response *response)
{
	if (response->n_limits == 0)
		return;
	printf("\n%-8s %-24s %12s %s\n", "LEVEL", "RESOURCE", "MAX", "RULE");
	for (size_t i = 0; i < response->n_limits; i++) {
		const Iommubroker__V1__ExplainQuotaResponse__Limit *limit = response->limits[i];

		printf("%-8s %-24s %12s %s\n", text_safe(limit->level, 8).bytes,
		       text_safe(limit->resource, 24).bytes,
		       text_amount(limit->resource, limit->max).bytes,
		       text_safe(limit->rule, 0).bytes);
	}
}

static void print_text(const Response *response)
{
	printf("%s: %s\n", response->served ? "served" : "not served",
	       text_safe(response->reason, 0).bytes);
	printf("client   uid %" PRIu64 "%s%s\n", response->uid,
	       response->cgroup[0] != '\0' ? ", cgroup " : "",
	       text_safe(response->cgroup, 0).bytes);
	if (response->tenant[0] != '\0')
		printf("tenant   %s%s\n", text_safe(response->tenant, 0).bytes,
		       response->manager ? ", a manager" : "");
	if (response->rule[0] != '\0')
		printf("rule     %s, %s\n", text_safe(response->rule, 0).bytes,
		       text_safe(response->rule_file, 0).bytes);
	print_considered(response);
	print_limits(response);
}

static bool take(void *user_data, const ProtobufCMessage *message)
{
	const Response *response = (const void *)message;
	struct explanation *explanation = user_data;

	explanation->served = response->served;
	if (explanation->options->json)
		return command_print_json(NULL, message);
	print_text(response);
	return true;
}

int command_quota_explain(struct command_context *context, int argc, char **argv)
{
	Request request = IOMMUBROKER__V1__EXPLAIN_QUOTA_REQUEST__INIT;
	struct explanation explanation = {.options = context->options};
	struct rpc_status status;
	int r;

	if (!set_request(&request, context->options, argc, argv))
		return command_bad_usage(context, "quota explain takes one user, unit or process");
	rpc_call(context->rpc, "ExplainQuota", &request.base,
		 &iommubroker__v1__explain_quota_response__descriptor, take, &explanation, &status);
	r = command_outcome(context, &status);
	return r == EXIT_DONE && !explanation.served ? EXIT_REFUSED : r;
}
