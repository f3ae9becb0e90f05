/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What CheckFit and CheckTenantFit share. */
#include "rpc/convert.h"

#include "rpc/dispatcher.h"
#include "rpc/handler.h"

typedef Iommubroker__V1__CheckFitResponse__Missing Missing;

#define RING_ENTRIES_DEFAULT 64

/* As CreateUpdateRing would be answered. */
static int convert_rings(struct call *call, const Iommubroker__V1__CheckFitRequest *request,
			 uint64_t *ret_bytes)
{
	const struct ring_ops *ops = call->dispatcher->ring_ops;
	uint32_t lanes = request->ring_lanes ? request->ring_lanes : 1;
	uint32_t entries = request->ring_entries ? request->ring_entries : RING_ENTRIES_DEFAULT;
	int status;

	*ret_bytes = 0;
	if (!request->update_rings && !request->ring_lanes && !request->ring_entries)
		return 0;
	status = check_ring_shape(call, "ring_lanes", lanes, "ring_entries", entries);
	if (!status)
		*ret_bytes = ops->bytes(lanes, entries);
	return status;
}

int convert_fit_request(struct call *call, const Iommubroker__V1__CheckFitRequest *request,
			struct fit_request *ret)
{
	uint64_t ring_bytes;
	int status = convert_rings(call, request, &ring_bytes);

	if (status)
		return status;
	*ret = (struct fit_request){
		.guests = request->guests,
		.pinned_bytes = request->pinned_bytes,
		.regions = request->regions,
		.memory_files = request->memory_files,
		.devices = request->devices,
		.nested_domains = request->nested_domains,
		.mappings = request->mappings,
		.rings = request->update_rings,
		.ring_bytes = ring_bytes,
	};
	return 0;
}

static void convert_missing(const struct fit_missing *missing, Missing *ret)
{
	iommubroker__v1__check_fit_response__missing__init(ret);
	ret->resource = (char *)ledger_resource_name(missing->resource);
	ret->level = (char *)limit_level_name(missing->level);
	ret->limit = missing->limit;
	ret->used = missing->used;
	ret->requested = missing->requested;
	ret->missing = missing->missing;
	ret->rule = (char *)missing->rule;
}

int answer_fit(struct call *call, const struct fit_missing *missing, size_t n)
{
	Iommubroker__V1__CheckFitResponse response = IOMMUBROKER__V1__CHECK_FIT_RESPONSE__INIT;
	Missing messages[FIT_MISSING_MAX], *pointers[FIT_MISSING_MAX];

	for (size_t i = 0; i < n; i++) {
		convert_missing(&missing[i], &messages[i]);
		pointers[i] = &messages[i];
	}
	response.fits = !n;
	response.n_missing = n;
	response.missing = pointers;
	return call_answer(call, &response.base);
}
