/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl check-fit: whether guests would be accepted. */

#include <stdio.h>

#include "ctl/command.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__CheckFitResponse Response;

struct fit {
	const struct options *options;
	bool fits;
};

static void print_missing(const Iommubroker__V1__CheckFitResponse__Missing *missing)
{
	printf("%s: %s missing, for %s of %s are used and %s wanted; %s\n",
	       text_safe(missing->resource, 40).bytes,
	       text_amount(missing->resource, missing->missing).bytes,
	       text_amount(missing->resource, missing->used).bytes,
	       text_amount(missing->resource, missing->limit).bytes,
	       text_amount(missing->resource, missing->requested).bytes,
	       text_safe(missing->rule, 0).bytes);
}

static bool take(void *user_data, const ProtobufCMessage *message)
{
	const Response *response = (const void *)message;
	struct fit *fit = user_data;

	fit->fits = response->fits;
	if (fit->options->json)
		return command_print_json(NULL, message);
	puts(response->fits ? "it fits" : "it does not fit");
	for (size_t i = 0; i < response->n_missing; i++)
		print_missing(response->missing[i]);
	return true;
}

/* Without any of it the answer would be that nothing fits into what there is. */
static bool is_told_what(const struct options *options)
{
	return options->guests.given || options->pinned_bytes.given ||
	       options->memory_files.given || options->regions.given || options->devices.given ||
	       options->nested_domains.given || options->mappings.given || options->rings.given;
}

/* What is no 32-bit number is none of a ring either, and the daemon says so. */
static uint32_t shape_of(const struct number *option)
{
	return option->value > UINT32_MAX ? UINT32_MAX : (uint32_t)option->value;
}

int command_check_fit(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__CheckTenantFitRequest request =
		IOMMUBROKER__V1__CHECK_TENANT_FIT_REQUEST__INIT;
	Iommubroker__V1__CheckFitRequest wanted = IOMMUBROKER__V1__CHECK_FIT_REQUEST__INIT;
	const struct options *options = context->options;
	struct fit fit = {.options = options};
	struct rpc_status status;
	int r;

	if (!is_told_what(options))
		return command_bad_usage(
			context,
			"check-fit needs to be told how much: --guests, --pinned, --devices, "
			"...; see iommubrokerctl check-fit --help");
	if (options->tenant != NULL)
		request.tenant = (char *)options->tenant;
	request.fit = &wanted;
	wanted.guests = options->guests.value;
	wanted.pinned_bytes = options->pinned_bytes.value;
	wanted.memory_files = options->memory_files.value;
	wanted.regions = options->regions.value;
	wanted.devices = options->devices.value;
	wanted.nested_domains = options->nested_domains.value;
	wanted.mappings = options->mappings.value;
	wanted.update_rings = options->rings.value;
	wanted.ring_lanes = shape_of(&options->ring_lanes);
	wanted.ring_entries = shape_of(&options->ring_entries);
	rpc_call(context->rpc, "CheckTenantFit", &request.base,
		 &iommubroker__v1__check_fit_response__descriptor, take, &fit, &status);
	r = command_outcome(context, &status);
	return r == EXIT_DONE && !fit.fits ? EXIT_REFUSED : r;
}
