/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the daemon is, what there is room for, and what is used. */

#include <errno.h>
#include <stdlib.h>

#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/session.h"

int iommubroker_host_info(struct iommubroker_session *session,
			  struct iommubroker_host_info **ret_info,
			  struct iommubroker_error **ret_error)
{
	Iommubroker__V1__GetInfoRequest request = IOMMUBROKER__V1__GET_INFO_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_GET_INFO,
		.request = &request.base,
		.response = &iommubroker__v1__get_info_response__descriptor,
	};
	const Iommubroker__V1__GetInfoResponse *response;
	struct iommubroker_host_info *info;
	ProtobufCMessage *message = NULL;
	int r;

	r = exchange_run(session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	info = holder_new(sizeof(*info), message);
	if (info == NULL)
		return error_transport(-ENOMEM, ret_error);
	*info = (struct iommubroker_host_info){
		.version = response->version,
		.api_version = response->api_version,
		.ring_version = response->ring_version,
		.state_version = response->state_version,
		.backend = response->backend,
		.n_features = response->n_features,
		.features = (const char *const *)response->features,
		.n_formats = response->n_formats,
		.formats = (const char *const *)response->formats,
		.message_bytes_max = response->message_bytes_max,
		.map_ranges_max = response->map_ranges_max,
		.refresh_ranges_max = response->refresh_ranges_max,
		.managed_entries_max = response->managed_entries_max,
	};
	*ret_info = info;
	return 0;
}

struct iommubroker_host_info *iommubroker_host_info_free(struct iommubroker_host_info *info)
{
	return holder_free(info);
}

static struct iommubroker_fit *fit_new(ProtobufCMessage *consume_message)
{
	const Iommubroker__V1__CheckFitResponse *response = (const void *)consume_message;
	size_t n = response->n_missing;
	struct iommubroker_missing *missing;
	struct iommubroker_fit *fit;

	fit = holder_new(sizeof(*fit) + n * sizeof(*missing), consume_message);
	if (fit == NULL)
		return NULL;
	missing = (struct iommubroker_missing *)(fit + 1);
	for (size_t i = 0; i < n; i++)
		missing[i] = (struct iommubroker_missing){
			.resource = response->missing[i]->resource,
			.limit = response->missing[i]->limit,
			.used = response->missing[i]->used,
			.requested = response->missing[i]->requested,
			.missing = response->missing[i]->missing,
			.rule = response->missing[i]->rule,
		};
	fit->fits = response->fits;
	fit->n_missing = n;
	fit->missing = missing;
	return fit;
}

int iommubroker_check_fit(struct iommubroker_session *session,
			  const struct iommubroker_demand *demand, struct iommubroker_fit **ret_fit,
			  struct iommubroker_error **ret_error)
{
	Iommubroker__V1__CheckFitRequest request = IOMMUBROKER__V1__CHECK_FIT_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_CHECK_FIT,
		.request = &request.base,
		.response = &iommubroker__v1__check_fit_response__descriptor,
	};
	ProtobufCMessage *message = NULL;
	struct iommubroker_fit *fit;
	int r;

	request.guests = demand->guests;
	request.pinned_bytes = demand->pinned_bytes;
	request.regions = demand->regions;
	request.devices = demand->devices;
	request.nested_domains = demand->nested_domains;
	request.mappings = demand->mappings;
	request.update_rings = demand->update_rings;
	request.ring_lanes = demand->ring_lanes;
	request.ring_entries = demand->ring_entries;
	r = exchange_run(session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	fit = fit_new(message);
	if (fit == NULL)
		return error_transport(-ENOMEM, ret_error);
	*ret_fit = fit;
	return 0;
}

struct iommubroker_fit *iommubroker_fit_free(struct iommubroker_fit *fit)
{
	return holder_free(fit);
}

static struct iommubroker_usage *usage_new(ProtobufCMessage *consume_message)
{
	const Iommubroker__V1__GetUsageResponse *response = (const void *)consume_message;
	size_t n = response->n_usage;
	struct iommubroker_usage_entry *entries;
	struct iommubroker_usage *usage;

	usage = holder_new(sizeof(*usage) + n * sizeof(*entries), consume_message);
	if (usage == NULL)
		return NULL;
	entries = (struct iommubroker_usage_entry *)(usage + 1);
	for (size_t i = 0; i < n; i++)
		entries[i] = (struct iommubroker_usage_entry){
			.resource = response->usage[i]->resource,
			.current = response->usage[i]->current,
			.max = response->usage[i]->max,
			.peak = response->usage[i]->peak,
			.events = response->usage[i]->events,
		};
	usage->tenant = response->tenant;
	usage->n_entries = n;
	usage->entries = entries;
	return usage;
}

int iommubroker_usage(struct iommubroker_session *session, struct iommubroker_usage **ret_usage,
		      struct iommubroker_error **ret_error)
{
	Iommubroker__V1__GetUsageRequest request = IOMMUBROKER__V1__GET_USAGE_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_GET_USAGE,
		.request = &request.base,
		.response = &iommubroker__v1__get_usage_response__descriptor,
	};
	ProtobufCMessage *message = NULL;
	struct iommubroker_usage *usage;
	int r;

	r = exchange_run(session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	usage = usage_new(message);
	if (usage == NULL)
		return error_transport(-ENOMEM, ret_error);
	*ret_usage = usage;
	return 0;
}

struct iommubroker_usage *iommubroker_usage_free(struct iommubroker_usage *usage)
{
	return holder_free(usage);
}
