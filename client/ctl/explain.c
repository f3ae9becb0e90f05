/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl explain: from an IOVA through the guest's tables to what the device sees. */

#include <inttypes.h>
#include <stdio.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__Explanation Explanation;

static void print_steps(const Explanation *explanation)
{
	if (explanation->n_steps == 0)
		return;
	printf("%-13s %-18s %-18s %s\n", "TABLE", "ENTRY AT", "ENTRY", "IT IS");
	for (size_t i = 0; i < explanation->n_steps; i++) {
		const Iommubroker__V1__Explanation__Step *step = explanation->steps[i];

		printf("%-13s 0x%-16" PRIx64 " 0x%016" PRIx64 " %s\n", text_level(step->level),
		       step->entry_gpa, step->entry, text_safe(step->note, 27).bytes);
	}
	putchar('\n');
}

static void print_side(const char *side, bool there, uint64_t gpa, int access)
{
	if (there)
		printf("%-14s 0x%" PRIx64 ", %s\n", side, gpa, text_access(access));
	else
		printf("%-14s nothing\n", side);
}

static void print_text(const Explanation *explanation)
{
	printf("IOVA 0x%" PRIx64 "\n\n", explanation->iova);
	print_steps(explanation);
	print_side("guest's tables", explanation->present, explanation->gpa, explanation->access);
	if (explanation->present && !explanation->in_guest_memory)
		printf("%-14s that is not in guest memory\n", "");
	if (explanation->fault != NULL)
		printf("%-14s walk error, event code %u: %s\n", "", explanation->fault->event_code,
		       text_safe(explanation->fault->text, 40).bytes);
	print_side("device sees", explanation->installed, explanation->installed_gpa,
		   explanation->installed_access);
	printf("%-14s %s\n", "", explanation->consistent ? "both agree" : "they differ");
	if (explanation->text[0] != '\0') {
		putchar('\n');
		text_print_wrapped(explanation->text);
	}
}

static bool print_explanation(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__ExplainTranslationResponse *response = (const void *)message;
	const struct command_context *context = user_data;
	json_t *json;

	if (response->explanation == NULL)
		return true;
	if (!context->options->json) {
		print_text(response->explanation);
		return true;
	}
	json = json_from_message(&response->explanation->base);
	json_print(json);
	json_decref(json);
	return true;
}

int command_explain(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__ExplainRequest request = IOMMUBROKER__V1__EXPLAIN_REQUEST__INIT;
	const struct options *options = context->options;
	struct rpc_status status;

	if (options->function_id.given == options->nested.given)
		return command_bad_usage(context,
					 "explain needs --fid or --nested, and one of them only");
	if (!option_number(argv[1], 0, UINT64_MAX, &request.iova))
		return command_bad_usage(context, "the second argument is no address");
	request.guest = argv[0];
	request.function_id = (uint32_t)options->function_id.value;
	request.nested = options->nested.value;
	rpc_call(context->rpc, "Explain", &request.base,
		 &iommubroker__v1__explain_translation_response__descriptor, print_explanation,
		 context, &status);
	return command_outcome(context, &status);
}
