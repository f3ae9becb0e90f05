/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/convert.h"
#include "rpc/dispatcher.h"

#define API_VERSION  1
#define FEATURES_MAX 5

typedef Iommubroker__V1__GetUsageResponse__Usage Usage;

int convert_usage(struct call *call, const struct usage_report *report,
		  Iommubroker__V1__GetUsageResponse *ret)
{
	iommubroker__v1__get_usage_response__init(ret);
	ret->tenant = (char *)report->tenant;
	ret->calls = report->calls;
	ret->n_usage = LEDGER_RESOURCES;
	ret->usage = CONVERT_ARRAY(call, LEDGER_RESOURCES, Usage,
				   iommubroker__v1__get_usage_response__usage__init);
	if (!ret->usage)
		return call_refuse_memory(call);
	for (size_t i = 0; i < LEDGER_RESOURCES; i++) {
		ret->usage[i]->resource = (char *)ledger_resource_name((enum ledger_resource)i);
		ret->usage[i]->current = report->usage[i].current;
		ret->usage[i]->max = report->usage[i].max;
		ret->usage[i]->peak = report->usage[i].peak;
		ret->usage[i]->events = report->usage[i].events;
	}
	return 0;
}

static size_t convert_features(const struct iommu_features *features, char **ret)
{
	size_t n = 0;

	if (features->map_file)
		ret[n++] = (char *)"map-file";
	if (features->cut)
		ret[n++] = (char *)"cut";
	if (features->change_process)
		ret[n++] = (char *)"change-process";
	if (features->nest_parent)
		ret[n++] = (char *)"nest-parent";
	if (features->dirty_tracking)
		ret[n++] = (char *)"dirty-tracking";
	return n;
}

int convert_info(struct call *call, Iommubroker__V1__GetInfoResponse *ret)
{
	static const char *const formats[] = {"s390", "managed"};
	struct iommu_features features;

	iommubroker__v1__get_info_response__init(ret);
	ret->features = call_array(call, FEATURES_MAX, sizeof(*ret->features));
	if (!ret->features)
		return call_refuse_memory(call);
	broker_features(call_broker(call), &features);
	ret->n_features = convert_features(&features, ret->features);
	ret->n_formats = 2;
	ret->formats = (char **)formats;
	ret->version = (char *)IB_VERSION;
	ret->api_version = API_VERSION;
	ret->ring_version = call->dispatcher->ring_ops ? call->dispatcher->ring_ops->version : 0;
	ret->state_version = broker_state_version(call_broker(call));
	ret->backend = (char *)broker_backend_name(call_broker(call));
	ret->message_bytes_max = RPC_MESSAGE_BYTES_MAX;
	ret->map_ranges_max = BROKER_MAP_RANGES_MAX;
	ret->refresh_ranges_max = BROKER_REFRESH_RANGES_MAX;
	ret->managed_entries_max = BROKER_MANAGED_ENTRIES_MAX;
	ret->descriptors_max = RPC_DESCRIPTORS_MAX;
	return 0;
}
