/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl metrics, monitor, names: what other programs read. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/status_ask.h"
#include "ctl/text.h"
#include "ctl/text_flow.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__MonitorEvent Event;

static bool print_metrics(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__GetMetricsResponse *response = (const void *)message;

	fputs(response->text, stdout);
	return true;
}

int command_metrics(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__GetMetricsRequest request = IOMMUBROKER__V1__GET_METRICS_REQUEST__INIT;
	struct rpc_status status;

	rpc_call(context->rpc, "GetMetrics", &request.base,
		 &iommubroker__v1__get_metrics_response__descriptor,
		 context->options->json ? command_print_json : print_metrics, NULL, &status);
	return command_outcome(context, &status);
}

/* ── monitor ──────────────────────────────────────────────────────────────────────────────── */

#define KIND_COLUMNS 16

struct monitor {
	bool json, limited;
	uint64_t left;
};

static void put_value(struct text_flow *flow, const char *name, const char *value)
{
	char word[TEXT_BYTES_MAX + 16];

	if (value[0] == '\0')
		return;
	snprintf(word, sizeof(word), "%s=%s", name, text_safe(value, 0).bytes);
	text_flow_put(flow, word);
}

static void put_numbers(struct text_flow *flow, const Event *event)
{
	char words[80];

	if (event->pid == 0)
		return;
	snprintf(words, sizeof(words), "pid=%" PRIu64 " uid=%" PRIu64, event->pid, event->uid);
	text_flow_put(flow, words);
}

static void put_guest(struct text_flow *flow, const Event *event)
{
	char handle[24];

	snprintf(handle, sizeof(handle), "%016" PRIx64, event->guest);
	if (event->guest != 0)
		put_value(flow, "guest", handle);
	put_value(flow, "name", event->guest_name);
}

static void put_lost(struct text_flow *flow, uint64_t lost)
{
	char words[40];

	snprintf(words, sizeof(words), "%" PRIu64 " events", lost);
	if (lost > 0)
		text_flow_put(flow, words);
}

/* A line that begins with the time, and what it has no room for on others, indented. */
static void print_event(const Event *event)
{
	time_t seconds = (time_t)(event->time_ns / 1000000000);
	struct text_flow flow;
	char when[32] = "";
	struct tm tm;

	if (localtime_r(&seconds, &tm) != NULL)
		strftime(when, sizeof(when), "%F %T", &tm);
	printf("%s.%03u %s ", when, (unsigned int)(event->time_ns / 1000000 % 1000),
	       text_column(event->kind, KIND_COLUMNS).bytes);
	flow = text_flow_begin(stdout, strlen(when) + sizeof(".000 ") + KIND_COLUMNS, 4);
	put_lost(&flow, event->lost);
	put_value(&flow, "tenant", event->tenant);
	put_guest(&flow, event);
	put_numbers(&flow, event);
	text_flow_put(&flow, text_safe(event->text, 0).bytes);
	text_flow_end(&flow);
}

static bool take_event(void *user_data, const ProtobufCMessage *message)
{
	struct monitor *monitor = user_data;

	if (monitor->json)
		command_print_json_line(NULL, message);
	else
		print_event((const void *)message);
	if (fflush(stdout) != 0)
		return false;
	return !monitor->limited || --monitor->left > 0;
}

int command_monitor(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__MonitorRequest request = IOMMUBROKER__V1__MONITOR_REQUEST__INIT;
	const struct number *count = &context->options->count;
	struct monitor monitor = {context->options->json, count->given, count->value};
	struct rpc_status status;

	if (count->given && count->value == 0)
		return EXIT_DONE;
	rpc_set_patience(context->rpc, RPC_FOREVER);
	rpc_call(context->rpc, "Monitor", &request.base,
		 &iommubroker__v1__monitor_event__descriptor, take_event, &monitor, &status);
	/* It is us who cancelled. */
	if (monitor.limited && monitor.left == 0)
		return EXIT_DONE;
	return command_outcome(context, &status);
}

/* ── names ────────────────────────────────────────────────────────────────────────────────── */

/* Nothing that a shell could take for more than a word. */
static bool is_plain(const char *name)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:@+-";

	return name[0] != '\0' && name[0] != '-' && name[strspn(name, plain)] == '\0';
}

static void append_name(json_t *names, const char *name)
{
	if (is_plain(name))
		json_array_append_new(names, json_string(name));
}

static bool take_guests(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__ListAllResponse *list = (const void *)message;
	char handle[24];

	for (size_t i = 0; i < list->n_guests; i++) {
		snprintf(handle, sizeof(handle), "%016" PRIx64, list->guests[i]->guest);
		append_name(user_data, handle);
		append_name(user_data, list->guests[i]->name);
	}
	return true;
}

static bool take_tenants(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__GetStatusResponse *status = (const void *)message;

	/* The first is the host. */
	for (size_t i = 1; i < status->n_usage; i++)
		append_name(user_data, status->usage[i]->tenant);
	return true;
}

static void ask_names(struct command_context *context, bool guests, json_t *names,
		      struct rpc_status *ret)
{
	Iommubroker__V1__ListAllRequest list = IOMMUBROKER__V1__LIST_ALL_REQUEST__INIT;

	if (guests)
		rpc_call(context->rpc, "ListAll", &list.base,
			 &iommubroker__v1__list_all_response__descriptor, take_guests, names, ret);
	else
		status_ask(context->rpc, take_tenants, names, ret);
}

int command_names(struct command_context *context, int argc, char **argv)
{
	bool guests = strcmp(argv[0], "guests") == 0;
	struct rpc_status status;
	json_t *names, *name;
	size_t i;

	if (!guests && strcmp(argv[0], "tenants") != 0)
		return command_bad_usage(context, "names takes guests or tenants");
	names = json_array();
	ask_names(context, guests, names, &status);
	if (status.code == 0 && context->options->json)
		json_print(names);
	if (status.code == 0 && !context->options->json)
		json_array_foreach(names, i, name) puts(json_string_value(name));
	json_decref(names);
	return command_outcome(context, &status);
}
