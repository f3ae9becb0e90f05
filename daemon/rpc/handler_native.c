/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The methods that only the native transport has: its session, and descriptors beside gRPC. */

#include "rpc/handler.h"

#include "iommubroker/v1/native.pb-c.h"
#include "rpc/check.h"
#include "rpc/delegate.h"
#include "rpc/descriptor.h"
#include "rpc/dispatcher.h"
#include "rpc/rpc_session.h"

int prepare_join_session(struct call *call)
{
	if (call->session)
		return refuse(&call->refusal, REFUSAL_PRECONDITION, "SESSION_OPEN",
			      "this connection is a session already");
	return 0;
}

/* A secret of the wrong length is a wrong secret: one answer for all of them. */
int handle_join_session(struct call *call)
{
	const Iommubroker__V1__JoinSessionRequest *request =
		(const Iommubroker__V1__JoinSessionRequest *)call->request;
	Iommubroker__V1__JoinSessionResponse response =
		IOMMUBROKER__V1__JOIN_SESSION_RESPONSE__INIT;
	struct rpc_session *session;
	int status = call_answer(call, &response.base);

	if (!status)
		status =
			rpc_session_find(&session, call->dispatcher, call->rpc->peer,
					 request->secret.data, request->secret.len, &call->refusal);
	if (status)
		return status;
	/* A delegation's socket leads to one session only. */
	if (call->rpc->delegate && !delegate_leads_to(call->rpc->delegate, session))
		status = refuse_unauthenticated(&call->refusal);
	else
		status = rpc_session_claim(session, &call->refusal);
	if (status)
		rpc_session_unref(session);
	else
		call->rpc->session = session;
	return status;
}

int prepare_send_descriptor(struct call *call)
{
	if (call->n_fds == 1)
		return 0;
	return refuse_field(&call->refusal, "", "%zu descriptors are attached, one is wanted",
			    call->n_fds);
}

int handle_send_descriptor(struct call *call)
{
	Iommubroker__V1__SendDescriptorResponse response =
		IOMMUBROKER__V1__SEND_DESCRIPTOR_RESPONSE__INIT;
	int fd = call->fds[0];
	int status = rpc_session_reserve_descriptor(call->session, &call->refusal);

	if (status)
		return status;
	call->fds[0] = -1;
	status = rpc_session_put_descriptor(call->session, fd, false, &response.token);
	return status ? status : call_answer(call, &response.base);
}

/* Never one that a client sent: its closing, once the answer is away, could wait for that client.
 */
int handle_take_descriptor(struct call *call)
{
	const Iommubroker__V1__TakeDescriptorRequest *request =
		(const Iommubroker__V1__TakeDescriptorRequest *)call->request;
	Iommubroker__V1__TakeDescriptorResponse response =
		IOMMUBROKER__V1__TAKE_DESCRIPTOR_RESPONSE__INIT;
	int status = call_answer(call, &response.base);

	if (status)
		return status;
	call->answer_fd = rpc_session_take_descriptor(call->session, request->token, true);
	return call->answer_fd >= 0 ? 0 : refuse_not_found(&call->refusal, "waiting descriptor");
}
