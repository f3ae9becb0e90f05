/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl quota: what is used under which limits. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__ShowQuotaResponse Account;

struct quota {
	json_t *accounts; /* --json */
	size_t n;
};

static void print_heading(const Account *account)
{
	if (strcmp(account->level, "guest") == 0)
		printf("guest %016" PRIx64 " %s, of %s", account->guest,
		       text_safe(account->name, 30).bytes, text_safe(account->tenant, 20).bytes);
	else if (strcmp(account->level, "tenant") == 0)
		printf("tenant %s", text_safe(account->tenant, 60).bytes);
	else
		printf("%s", text_safe(account->level, 20).bytes);
	if (account->rule[0] != '\0')
		printf(", rule %s", text_safe(account->rule, 40).bytes);
	if (account->stranger)
		fputs(", no rule is for it any more", stdout);
	putchar('\n');
}

/* Neither limited nor ever used: left out, but with --json. */
static bool is_idle(const Iommubroker__V1__ShowQuotaResponse__Limit *limit)
{
	return limit->max == UINT64_MAX && limit->high == UINT64_MAX && limit->peak == 0 &&
	       limit->current == 0 && limit->events == 0;
}

static void print_limits(const Account *account)
{
	if (account->n_limits == 0)
		return;
	printf("  %-22s %10s %10s %10s %10s %7s %s\n", "RESOURCE", "CURRENT", "HIGH", "MAX", "PEAK",
	       "EVENTS", "RULE");
	for (size_t i = 0; i < account->n_limits; i++) {
		const Iommubroker__V1__ShowQuotaResponse__Limit *limit = account->limits[i];

		if (is_idle(limit))
			continue;
		printf("  %-22s %10s %10s %10s %10s %7" PRIu64 "%s%s%s\n",
		       text_safe(limit->resource, 22).bytes,
		       text_amount(limit->resource, limit->current).bytes,
		       text_amount(limit->resource, limit->high).bytes,
		       text_amount(limit->resource, limit->max).bytes,
		       text_amount(limit->resource, limit->peak).bytes, limit->events,
		       limit->over ? " OVER" : "", limit->rule[0] != '\0' ? " " : "",
		       text_safe(limit->rule, 0).bytes);
		if (limit->events_high > 0)
			printf("  %-22s rose above high %" PRIu64 " times\n", "",
			       limit->events_high);
	}
}

static void print_rates(const Account *account)
{
	if (account->n_rates == 0)
		return;
	printf("  %-22s %10s %10s %10s %10s %s\n", "RATE", "A SECOND", "BURST", "WAITED", "REFUSED",
	       "RULE");
	for (size_t i = 0; i < account->n_rates; i++) {
		const Iommubroker__V1__ShowQuotaResponse__Rate *rate = account->rates[i];

		printf("  %-22s %10s %10s %10" PRIu64 " %10" PRIu64 " %s\n",
		       text_safe(rate->resource, 22).bytes, text_amount("", rate->per_second).bytes,
		       text_amount("", rate->burst).bytes, rate->delayed, rate->refused,
		       text_safe(rate->rule, 0).bytes);
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
