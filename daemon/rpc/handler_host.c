/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include <string.h>

#include "rpc/check.h"
#include "rpc/convert.h"
#include "rpc/dispatcher.h"
#include "rpc/delegate.h"
#include "rpc/rpc_session.h"

int handle_get_info(struct call *call)
{
	Iommubroker__V1__GetInfoResponse response;
	int status = convert_info(call, &response);

	return status ? status : call_answer(call, &response.base);
}

int prepare_open_session(struct call *call)
{
	const Iommubroker__V1__OpenSessionRequest *request =
		(const Iommubroker__V1__OpenSessionRequest *)call->request;
	int status;

	call->plain = call_array(call, 1, BROKER_NAME_MAX);
	if (!call->plain)
		return call_refuse_memory(call);
	status = check_text(call, "name", request->name, call->plain, BROKER_NAME_MAX);
	if (!status && call->session)
		status = refuse(&call->refusal, REFUSAL_PRECONDITION, "SESSION_OPEN",
				"this connection is a session already");
	return status;
}

/* The session is a native connection's from its first moment on. */
static int session_claim(struct call *call, struct rpc_session *consume_session)
{
	int status;

	if (!call->rpc->native) {
		rpc_session_unref(consume_session);
		return 0;
	}
	status = rpc_session_claim(consume_session, &call->refusal);
	if (status)
		rpc_session_unref(consume_session);
	else
		call->rpc->session = consume_session;
	return status;
}

/* Through a delegation's socket its session is given out, once. */
static int open_delegated(struct call *call)
{
	Iommubroker__V1__OpenSessionResponse response =
		IOMMUBROKER__V1__OPEN_SESSION_RESPONSE__INIT;
	struct rpc_session *session =
		delegate_claim(call->rpc->delegate, call->rpc->peer, &call->refusal);
	uint8_t secret[BROKER_SECRET_BYTES];
	int status;

	if (!session)
		return REFUSED;
	session_secret(rpc_session_broker(session), secret);
	response.secret = (ProtobufCBinaryData){sizeof(secret), secret};
	response.tenant = (char *)session_tenant(rpc_session_broker(session));
	status = call_answer(call, &response.base);
	explicit_bzero(secret, sizeof(secret));
	if (status)
		rpc_session_unclaim(session);
	else
		call->rpc->session = rpc_session_ref(session);
	return status;
}

int handle_open_session(struct call *call)
{
	Iommubroker__V1__OpenSessionResponse response =
		IOMMUBROKER__V1__OPEN_SESSION_RESPONSE__INIT;
	uint8_t secret[BROKER_SECRET_BYTES];
	struct rpc_session *session;
	int status;

	if (call->rpc->delegate)
		return open_delegated(call);
	status = rpc_session_open(&session, call->dispatcher, call->rpc->peer, call->plain, secret,
				  &call->refusal);
	if (status)
		return status;
	response.secret = (ProtobufCBinaryData){sizeof(secret), secret};
	response.tenant = (char *)session_tenant(rpc_session_broker(session));
	status = call_answer(call, &response.base);
	explicit_bzero(secret, sizeof(secret));
	if (!status)
		return session_claim(call, session);
	/* A session whose secret nobody has heard. */
	rpc_session_end(session, "its opening could not be answered", NULL, NULL);
	rpc_session_unref(session);
	return status;
}

static void on_session_closed(void *context)
{
	call_finish(context, 0);
}

int handle_close_session(struct call *call)
{
	Iommubroker__V1__CloseSessionResponse response =
		IOMMUBROKER__V1__CLOSE_SESSION_RESPONSE__INIT;
	int status = call_answer(call, &response.base);

	if (status)
		return status;
	rpc_session_end(call->session, "its client closed it", on_session_closed, call);
	return CALL_PENDING;
}

int handle_check_fit(struct call *call)
{
	const Iommubroker__V1__CheckFitRequest *request =
		(const Iommubroker__V1__CheckFitRequest *)call->request;
	struct fit_missing missing[FIT_MISSING_MAX];
	struct fit_request fit;
	size_t n = 0;
	int status = convert_fit_request(call, request, &fit);

	if (!status)
		status = check_fit(call_broker(call), call_session(call), &fit, missing, &n,
				   &call->refusal);
	return status ? status : answer_fit(call, missing, n);
}

int handle_get_usage(struct call *call)
{
	Iommubroker__V1__GetUsageResponse response;
	struct usage_report report;
	int status = usage_report(call_broker(call), call_session(call), &report, &call->refusal);

	if (!status)
		status = convert_usage(call, &report, &response);
	return status ? status : call_answer(call, &response.base);
}

int prepare_cancel_operation(struct call *call)
{
	const Iommubroker__V1__CancelOperationRequest *request =
		(const Iommubroker__V1__CancelOperationRequest *)call->request;

	if (request->request_id)
		return 0;
	return refuse_field(&call->refusal, "request_id",
			    "request_id: must be set; a mutation without one cannot be cancelled");
}

int handle_cancel_operation(struct call *call)
{
	const Iommubroker__V1__CancelOperationRequest *request =
		(const Iommubroker__V1__CancelOperationRequest *)call->request;
	Iommubroker__V1__CancelOperationResponse response =
		IOMMUBROKER__V1__CANCEL_OPERATION_RESPONSE__INIT;

	if (!request_table_cancel(rpc_session_requests(call->session), request->request_id))
		return refuse_not_found(&call->refusal, "running operation");
	return call_answer(call, &response.base);
}
