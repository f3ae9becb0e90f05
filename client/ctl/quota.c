/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl quota: what is used under which limits. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "ctl/text_flow.h"
#include "iommubroker/v1/admin.pb-c.h"

#define RULE_INDENT 17

typedef Iommubroker__V1__ShowQuotaResponse Account;

struct quota {
	json_t *accounts; /* --json */
	size_t n;
};

static void print_heading(const Account *account)
{
	struct text_flow flow = text_flow_begin(stdout, 0, 2);
	char handle[24];

	text_flow_put(&flow, text_safe(account->level, 20).bytes);
	if (strcmp(account->level, "guest") == 0) {
		snprintf(handle, sizeof(handle), "%016" PRIx64, account->guest);
		text_flow_put(&flow, handle);
		text_flow_put(&flow, text_safe(account->name, 30).bytes);
		text_flow_put(&flow, "of");
	}
	text_flow_put(&flow, text_safe(account->tenant, 60).bytes);
	if (account->rule[0] != '\0') {
		text_flow_put(&flow, "by rule");
		text_flow_put(&flow, text_safe(account->rule, 40).bytes);
	}
	if (account->stranger)
		text_flow_put(&flow, "(no rule is for it any more)");
	if (account->idle)
		text_flow_put(&flow, "(nobody is connected)");
	text_flow_end(&flow);
}

/* Neither limited nor ever used: left out, but with --json. */
static bool is_idle(const Iommubroker__V1__ShowQuotaResponse__Limit *limit)
{
	return limit->max == UINT64_MAX && limit->high == UINT64_MAX && limit->peak == 0 &&
	       limit->current == 0 && limit->events == 0;
}

static bool ends_with(const char *string, const char *end)
{
	size_t n = strlen(string), n_end = strlen(end);

	return n >= n_end && strcmp(string + n - n_end, end) == 0;
}

/* What a row of numbers leaves of its line; a rule that is longer has the next one. A limit that is
 * nobody's choice needs no place: 'config show' tells its key. */
static void print_rest(const char *rule, bool over, int printed)
{
	struct text_flow flow = text_flow_begin(stdout, (size_t)printed, RULE_INDENT);

	flow.start = 0;
	if (over)
		text_flow_put(&flow, "OVER");
	if (ends_with(rule, "(default)"))
		rule = "default";
	if (flow.column + 1 + strlen(rule) > TEXT_LINE_COLUMNS)
		text_flow_newline(&flow);
	text_flow_put(&flow, text_safe(rule, 0).bytes);
	text_flow_end(&flow);
}

/* In a column: what would be wider is rounded, "1.84e+19". */
static struct text cell(const char *resource, uint64_t amount, size_t columns)
{
	struct text text = text_amount(resource, amount);

	if (strlen(text.bytes) > columns)
		snprintf(text.bytes, sizeof(text.bytes), columns < 9 ? "%.0e" : "%.3g",
			 (double)amount);
	return text;
}

static void print_limit(const Iommubroker__V1__ShowQuotaResponse__Limit *limit)
{
	print_rest(limit->rule, limit->over,
		   printf("  %-14s %9s %9s %9s %9s %6s", text_safe(limit->resource, 20).bytes,
			  cell(limit->resource, limit->current, 9).bytes,
			  cell(limit->resource, limit->high, 9).bytes,
			  cell(limit->resource, limit->max, 9).bytes,
			  cell(limit->resource, limit->peak, 9).bytes,
			  cell("", limit->events, 6).bytes));
	if (limit->events_high > 0)
		printf("  %-14s rose above high %" PRIu64 " times\n", "", limit->events_high);
}

static void print_limits(const Account *account)
{
	if (account->n_limits == 0)
		return;
	printf("  %-14s %9s %9s %9s %9s %6s %s\n", "RESOURCE", "CURRENT", "HIGH", "MAX", "PEAK",
	       "EVENTS", "RULE");
	for (size_t i = 0; i < account->n_limits; i++)
		if (!is_idle(account->limits[i]))
			print_limit(account->limits[i]);
}

static void print_rates(const Account *account)
{
	if (account->n_rates == 0)
		return;
	printf("  %-14s %9s %9s %9s %9s %s\n", "RATE", "A SECOND", "BURST", "WAITED", "REFUSED",
	       "RULE");
	for (size_t i = 0; i < account->n_rates; i++) {
		const Iommubroker__V1__ShowQuotaResponse__Rate *rate = account->rates[i];

		print_rest(rate->rule, false,
			   printf("  %-14s %9s %9s %9s %9s", text_safe(rate->resource, 20).bytes,
				  cell("", rate->per_second, 9).bytes,
				  cell("", rate->burst, 9).bytes, cell("", rate->delayed, 9).bytes,
				  cell("", rate->refused, 9).bytes));
	}
}

static bool take_account(void *user_data, const ProtobufCMessage *message)
{
	const Account *account = (const void *)message;
	struct quota *quota = user_data;

	if (quota->accounts != NULL) {
		json_array_append_new(quota->accounts, json_from_message(message));
		return true;
	}
	if (quota->n++ > 0)
		putchar('\n');
	print_heading(account);
	print_limits(account);
	print_rates(account);
	return true;
}

int command_quota(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__ShowQuotaRequest request = IOMMUBROKER__V1__SHOW_QUOTA_REQUEST__INIT;
	struct quota quota = {.accounts = context->options->json ? json_array() : NULL};
	struct rpc_status status;

	if (context->options->tenant != NULL)
		request.tenant = (char *)context->options->tenant;
	rpc_call(context->rpc, "ShowQuota", &request.base,
		 &iommubroker__v1__show_quota_response__descriptor, take_account, &quota, &status);
	if (status.code == 0 && quota.accounts != NULL)
		json_print(quota.accounts);
	json_decref(quota.accounts);
	return command_outcome(context, &status);
}
