/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Update rings: made and given back here; what goes through them does not come this way. */
#include "rpc/handler.h"

#include "iommubroker/v1/fastpath.pb-c.h"
#include "rpc/check.h"
#include "rpc/descriptor.h"
#include "rpc/dispatcher.h"

#define LANES_MAX (RPC_RING_FDS_MAX - 2)

typedef Iommubroker__V1__CreateUpdateRingRequest CreateRequest;

static int check_served(struct call *call)
{
	if (call->dispatcher->ring_ops)
		return 0;
	return refuse_unimplemented(&call->refusal, "UPDATE_RING",
				    "update rings are not served here");
}

static int check_entries(struct call *call, const char *field, uint32_t entries)
{
	const struct ring_ops *ops = call->dispatcher->ring_ops;

	if (!entries || entries & (entries - 1))
		return refuse_field(&call->refusal, field, "%s: %u is no power of two", field,
				    entries);
	if (ops && entries > ops->entries_max)
		return refuse_field(&call->refusal, field, "%s: %u, at most %u", field, entries,
				    ops->entries_max);
	return 0;
}

int check_ring_shape(struct call *call, const char *lanes_field, uint32_t lanes,
		     const char *entries_field, uint32_t entries)
{
	int status = check_count(call, lanes_field, lanes, 1, LANES_MAX);

	if (!status)
		status = check_entries(call, entries_field, entries);
	return status ? status : check_served(call);
}

int prepare_create_update_ring(struct call *call)
{
	const CreateRequest *request = (const CreateRequest *)call->request;
	int status = check_owned(call, "guest", "guest", request->guest);

	return status ? status
		      : check_ring_shape(call, "lanes", request->lanes, "entries",
					 request->entries);
}

static int create_answer(struct call *call, uint64_t ring, const int *consume_fds, uint32_t lanes)
{
	Iommubroker__V1__CreateUpdateRingResponse response =
		IOMMUBROKER__V1__CREATE_UPDATE_RING_RESPONSE__INIT;
	Iommubroker__V1__DescriptorRef refs[RPC_RING_FDS_MAX], *doorbells[LANES_MAX];
	size_t without_descriptors;
	int status;

	response.ring = ring;
	without_descriptors =
		iommubroker__v1__create_update_ring_response__get_packed_size(&response);
	status = descriptors_answer(call, consume_fds, 2 + lanes, refs);
	if (status)
		return status;
	for (uint32_t i = 0; i < lanes; i++)
		doorbells[i] = &refs[2 + i];
	response.memory = &refs[0];
	response.submit_doorbell = &refs[1];
	response.n_complete_doorbells = lanes;
	response.complete_doorbells = doorbells;
	status = call_answer(call, &response.base);
	/* As of OpenDevice: a repeated request is not told of what is not there any more. */
	if (!status)
		call->repeat_bytes = without_descriptors;
	return status;
}

int handle_create_update_ring(struct call *call)
{
	const CreateRequest *request = (const CreateRequest *)call->request;
	const struct dispatcher *dispatcher = call->dispatcher;
	int status = descriptors_reserve(call, 2 + request->lanes);
	int fds[RPC_RING_FDS_MAX];
	struct refusal ignored;
	uint64_t ring;

	if (status)
		return status;
	status = dispatcher->ring_ops->create(dispatcher->ring_context, call_session(call),
					      request->guest, request->lanes, request->entries,
					      &ring, fds, &call->refusal);
	if (status) {
		descriptors_unreserve(call, 2 + request->lanes);
		return status;
	}
	status = create_answer(call, ring, fds, request->lanes);
	if (status) /* who is not told of it cannot give it back */
		dispatcher->ring_ops->destroy(dispatcher->ring_context, call_session(call), ring,
					      &ignored);
	return status;
}

int prepare_destroy_update_ring(struct call *call)
{
	const Iommubroker__V1__DestroyUpdateRingRequest *request =
		(const Iommubroker__V1__DestroyUpdateRingRequest *)call->request;
	int status = check_handle(call, "ring", request->ring);

	return status ? status : check_served(call);
}

int handle_destroy_update_ring(struct call *call)
{
	const Iommubroker__V1__DestroyUpdateRingRequest *request =
		(const Iommubroker__V1__DestroyUpdateRingRequest *)call->request;
	Iommubroker__V1__DestroyUpdateRingResponse response =
		IOMMUBROKER__V1__DESTROY_UPDATE_RING_RESPONSE__INIT;
	const struct dispatcher *dispatcher = call->dispatcher;
	int status = call_answer(call, &response.base);

	return status ? status
		      : dispatcher->ring_ops->destroy(dispatcher->ring_context, call_session(call),
						      request->ring, &call->refusal);
}
