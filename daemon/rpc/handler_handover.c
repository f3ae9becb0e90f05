/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A guest from one process to the next. */

#include "rpc/handler.h"

#include "iommubroker/v1/guests.pb-c.h"
#include "rpc/check.h"

typedef Iommubroker__V1__PrepareHandoverRequest PrepareRequest;
typedef Iommubroker__V1__ResumeGuestRequest ResumeRequest;

int prepare_prepare_handover(struct call *call)
{
	const PrepareRequest *request = (const PrepareRequest *)call->request;
	int status = check_handle(call, "guest", request->guest);

	if (!status && !request->seconds)
		status = refuse_field(&call->refusal, "seconds", "seconds: must not be 0");
	if (!status && request->seconds > BROKER_HANDOVER_SECONDS_MAX)
		status = refuse_field(&call->refusal, "seconds", "seconds: %u, at most %u",
				      request->seconds, BROKER_HANDOVER_SECONDS_MAX);
	return status;
}

int handle_prepare_handover(struct call *call)
{
	const PrepareRequest *request = (const PrepareRequest *)call->request;
	Iommubroker__V1__PrepareHandoverResponse response =
		IOMMUBROKER__V1__PREPARE_HANDOVER_RESPONSE__INIT;
	int status = guest_prepare_handover(call_broker(call), call_session(call), request->guest,
					    request->seconds, request->block_dma, &call->refusal);

	return status ? status : call_answer(call, &response.base);
}

int prepare_resume_guest(struct call *call)
{
	const ResumeRequest *request = (const ResumeRequest *)call->request;

	return check_bytes(call, "secret", &request->secret, BROKER_SECRET_BYTES, false);
}

struct pool_lane *lane_resume_guest(struct call *call)
{
	const ResumeRequest *request = (const ResumeRequest *)call->request;

	return broker_lane_of_secret(call_broker(call), request->secret.data);
}

/* Without a lane there was no such guest a moment ago, and if it is there now, nobody has its
 * secret. */
int handle_resume_guest(struct call *call)
{
	const ResumeRequest *request = (const ResumeRequest *)call->request;
	Iommubroker__V1__ResumeGuestResponse response =
		IOMMUBROKER__V1__RESUME_GUEST_RESPONSE__INIT;
	int status;

	if (!call->lane)
		return refuse_not_found(&call->refusal, "guest");
	status = guest_resume(call_broker(call), call_session(call), request->secret.data,
			      &response.guest, &call->refusal);
	if (status)
		return status;
	call_settles(call, response.guest);
	return call_answer(call, &response.base);
}
