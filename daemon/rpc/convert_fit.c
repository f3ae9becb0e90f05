/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What CheckFit and CheckTenantFit share. */
#include "rpc/convert.h"

#include "rpc/dispatcher.h"

typedef Iommubroker__V1__CheckFitResponse__Missing Missing;

/* Without rings: as CreateUpdateRing would be answered. */
int convert_fit_request(struct call *call, const Iommubroker__V1__CheckFitRequest *request,
			struct fit_request *ret)
{
	if (request->update_rings && !call->dispatcher->ring_ops)
		return refuse_unimplemented(&call->refusal, "UPDATE_RING",
					    "update rings come with a later version of the daemon");
	*ret = (struct fit_request){
		.guests = request->guests,
		.pinned_bytes = request->pinned_bytes,
		.regions = request->regions,
		.memory_files = request->memory_files,
		.devices = request->devices,
		.nested_domains = request->nested_domains,
		.mappings = request->mappings,
		.rings = request->update_rings,
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
