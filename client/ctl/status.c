/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl status, list, dump: the daemon and its guests at a glance. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/status_ask.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__GetStatusResponse Status;
typedef Iommubroker__V1__GetUsageResponse Usage;
typedef Iommubroker__V1__ListAllResponse List;

static void print_usage(const Usage *usage)
{
	printf("\nUsage of %s\n", text_safe(usage->tenant, 60).bytes);
	printf("  %-24s %12s %12s %12s %10s\n", "RESOURCE", "CURRENT", "MAX", "PEAK", "REFUSALS");
	for (size_t i = 0; i < usage->n_usage; i++) {
		const Iommubroker__V1__GetUsageResponse__Usage *one = usage->usage[i];

		printf("  %-24s %12s %12s %12s %10" PRIu64 "\n", text_safe(one->resource, 24).bytes,
		       text_amount(one->resource, one->current).bytes,
		       text_amount(one->resource, one->max).bytes,
		       text_amount(one->resource, one->peak).bytes, one->events);
	}
}

static void print_store(const Status *status)
{
	const Iommubroker__V1__GetStatusResponse__Takeover *takeover = status->takeover;

	if (status->stored_descriptors_max == 0)
		printf("stored       nothing: guests end with the daemon\n");
	else
		printf("stored       %" PRIu64 " of %" PRIu64 " descriptors\n",
		       status->stored_descriptors, status->stored_descriptors_max);
	if (takeover != NULL)
		printf("taken over   %u guests in %" PRIu64 " ms, %u released\n", takeover->guests,
		       takeover->nanoseconds / 1000000, takeover->released);
}

static bool print_status(void *user_data, const ProtobufCMessage *message)
{
	const Status *status = (const void *)message;

	if (status->info != NULL)
		printf("iommubrokerd %s, backend %s, API %u\n",
		       text_safe(status->info->version, 30).bytes,
		       text_safe(status->info->backend, 20).bytes, status->info->api_version);
	printf("running      %s, pid %" PRIu64 "\n", text_duration(status->uptime_seconds).bytes,
	       status->pid);
	if (status->draining)
		printf("draining     yes: nothing new is accepted\n");
	printf("calls        %" PRIu64 ", %" PRIu64 " refused\n", status->calls, status->refusals);
	printf("connections  %u, sessions %u\n", status->connections, status->sessions);
	printf("guests       %u, devices %u, nested domains %u\n", status->guests, status->devices,
	       status->nested_domains);
	printf("pinned       %s\n", text_size(status->pinned_bytes).bytes);
	printf("mappings     %" PRIu64 " installed, %" PRIu64 " reserved\n",
	       status->mappings_installed, status->mappings_reserved);
	print_store(status);
	for (size_t i = 0; i < status->n_usage; i++)
		print_usage(status->usage[i]);
	return true;
}

int command_status(struct command_context *context, int argc, char **argv)
{
	struct rpc_status status;

	status_ask(context->rpc, context->options->json ? command_print_json : print_status, NULL,
		   &status);
	return command_outcome(context, &status);
}

static bool print_list(void *user_data, const ProtobufCMessage *message)
{
	const List *list = (const void *)message;

	printf("%-16s %-14s %7s %-10s %3s %4s %8s %3s %7s\n", "GUEST", "NAME", "PID", "TENANT",
	       "DEV", "NEST", "MEMORY", "PIN", "LEAVES");
	for (size_t i = 0; i < list->n_guests; i++) {
		const Iommubroker__V1__ListAllResponse__Guest *guest = list->guests[i];

		printf("%016" PRIx64 " %s %7" PRIu64 " %s %3u %4u %8s %3s %7" PRIu64 "\n",
		       guest->guest, text_column(guest->name, 14).bytes, guest->pid,
		       text_column(guest->tenant, 10).bytes, guest->devices, guest->nested_domains,
		       text_size(guest->region_bytes).bytes, guest->pinned ? "yes" : "no",
		       guest->live_leaves);
	}
	return true;
}

int command_list(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__ListAllRequest request = IOMMUBROKER__V1__LIST_ALL_REQUEST__INIT;
	struct rpc_status status;

	rpc_call(context->rpc, "ListAll", &request.base,
		 &iommubroker__v1__list_all_response__descriptor,
		 context->options->json ? command_print_json : print_list, NULL, &status);
	return command_outcome(context, &status);
}

static bool set_status(void *user_data, const ProtobufCMessage *message)
{
	json_object_set_new(user_data, "status", json_from_message(message));
	return true;
}

static bool append_guest(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__ShowGuestResponse *response = (const void *)message;

	if (response->description != NULL)
		json_array_append_new(json_object_get(user_data, "guests"),
				      json_from_message(&response->description->base));
	return true;
}

int command_dump(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__ShowGuestRequest show_request = IOMMUBROKER__V1__SHOW_GUEST_REQUEST__INIT;
	json_t *dump = json_pack("{s:{}, s:[]}", "status", "guests");
	struct rpc_status status;

	status_ask(context->rpc, set_status, dump, &status);
	if (status.code == 0)
		rpc_call(context->rpc, "ShowGuest", &show_request.base,
			 &iommubroker__v1__show_guest_response__descriptor, append_guest, dump,
			 &status);
	if (status.code == 0)
		json_print(dump);
	json_decref(dump);
	return command_outcome(context, &status);
}
