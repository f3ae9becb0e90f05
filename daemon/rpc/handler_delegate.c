/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Delegate and RevokeDelegation: a session for somebody else, and a socket as the way in to it. */

#include "rpc/handler.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "iommubroker/v1/guests.pb-c.h"
#include "rpc/check.h"
#include "rpc/delegate.h"
#include "rpc/descriptor.h"
#include "rpc/descriptor_drop.h"
#include "rpc/dispatcher.h"
#include "rpc/peer_pidfd.h"
#include "rpc/rpc_session.h"
#include "util/fd.h"

typedef Iommubroker__V1__DelegateRequest DelegateRequest;

/* ── form ──────────────────────────────────────────────────────────────────────────────────── */

static int prepare_rights(struct call *call, const DelegateRequest *request,
			  struct delegation_request *plain)
{
	int status = check_count(call, "rights", request->n_rights, 1, 6);

	for (size_t i = 0; !status && i < request->n_rights; i++) {
		if (request->rights[i] == IOMMUBROKER__V1__RIGHT__RIGHT_UNSPECIFIED)
			status = refuse_field(&call->refusal, "rights",
					      "rights: RIGHT_UNSPECIFIED is none");
		else
			plain->rights |= 1u << request->rights[i];
	}
	return status;
}

static int prepare_devices(struct call *call, const DelegateRequest *request,
			   struct delegation_request *plain)
{
	int status = check_count(call, "devices", request->n_devices, 0, DELEGATION_DEVICES_MAX);

	for (size_t i = 0; !status && i < request->n_devices; i++) {
		status = check_owned(call, "devices", "device", request->devices[i]);
		plain->devices[i] = request->devices[i];
	}
	plain->n_devices = request->n_devices;
	return status;
}

int prepare_delegate(struct call *call)
{
	const DelegateRequest *request = (const DelegateRequest *)call->request;
	struct delegation_request *plain = call_array(call, 1, sizeof(*plain));
	int status;

	if (!plain)
		return call_refuse_memory(call);
	status = check_owned(call, "guest", "guest", request->guest);
	if (!status)
		status = prepare_rights(call, request, plain);
	if (!status)
		status = prepare_devices(call, request, plain);
	if (!status && request->peer)
		status = descriptor_check(call, request->peer, "peer");
	if (!status && request->listening_socket)
		status = descriptor_check(call, request->listening_socket, "listening_socket");
	plain->guest = request->guest;
	if (request->limits) {
		plain->pinned_bytes_max = request->limits->pinned_bytes_max;
		plain->mappings_max = request->limits->mappings_max;
	}
	call->plain = plain;
	return status;
}

/* ── Delegate ──────────────────────────────────────────────────────────────────────────────── */

/* What the request's descriptors are, while it is carried out. -1: none. */
struct delegate_ends {
	struct peer peer; /* its pidfd is a client's */
	int served;       /* the daemon's end, or the socket that listens; a client's then */
	int given;        /* the delegate's end */
};

static int socket_option(int fd, int option)
{
	int value;
	socklen_t length = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &length) ? -errno : value;
}

static int check_listening(struct call *call, int fd)
{
	if (socket_option(fd, SO_DOMAIN) != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_SEQPACKET)
		return refuse_field(&call->refusal, "listening_socket",
				    "listening_socket: a unix socket of type SOCK_SEQPACKET is "
				    "wanted");
	if (socket_option(fd, SO_ACCEPTCONN) != 1)
		return refuse_field(&call->refusal, "listening_socket",
				    "listening_socket: it does not listen");
	return 0;
}

static int ends_connect(struct call *call, struct delegate_ends *ends)
{
	int pair[2], on = 1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return refuse_errno(&call->refusal, errno, "a connected socket");
	ends->served = pair[0];
	ends->given = pair[1];
	/* Before anybody has the other end: what is sent without it does not tell its sender. */
	if (!setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) &&
	    !fcntl(pair[0], F_SETFL, O_NONBLOCK))
		return 0;
	return refuse_errno(&call->refusal, errno, "a connected socket");
}

static int ends_make(struct call *call, const DelegateRequest *request, struct delegate_ends *ends)
{
	int status = 0;

	if (request->peer)
		status = descriptor_take(call, request->peer, "peer", &ends->peer.pidfd);
	if (!status && request->peer)
		status = peer_of_pidfd(ends->peer.pidfd, "peer", &ends->peer, &call->refusal);
	if (status || !request->listening_socket)
		return status ? status : ends_connect(call, ends);
	status =
		descriptor_take(call, request->listening_socket, "listening_socket", &ends->served);
	return status ? status : check_listening(call, ends->served);
}

/* A client's descriptor is not closed here: that could take as long as it likes. */
static void ends_drop(struct call *call, struct delegate_ends *ends)
{
	const int fds[] = {ends->peer.pidfd, ends->served};

	descriptors_drop(call->dispatcher, call->session, call->uid, fds, 2);
	fd_close(ends->given);
}

static int delegate_open(struct call *call, struct delegate_ends *ends,
			 struct rpc_session **ret_session, uint64_t *ret_delegation)
{
	const DelegateRequest *request = (const DelegateRequest *)call->request;
	struct delegation_request *plain = call->plain;
	struct session *session;
	struct peer nobody = {.uid = call->uid, .pidfd = -1};
	const struct peer *peer = request->peer ? &ends->peer : &nobody;
	int status;

	plain->peer = request->peer ? peer : NULL;
	plain->listener = request->listening_socket ? &ends->served : NULL;
	status = delegation_new(&session, call_broker(call), call_session(call), plain,
				ret_delegation, &call->refusal);
	plain->peer = NULL;
	plain->listener = NULL;
	if (!status)
		status = rpc_session_adopt(ret_session, call->dispatcher, session, peer, "opened",
					   &call->refusal);
	return status;
}

static int delegate_way_in(struct call *call, struct delegate_ends *ends,
			   struct rpc_session *session)
{
	const DelegateRequest *request = (const DelegateRequest *)call->request;
	struct tenant *tenant = broker_tenant_of(call_broker(call), rpc_session_broker(session));
	int fd = ends->served;

	if (!tenant)
		return refuse_not_found(&call->refusal, "guest");
	ends->served = -1;
	return delegate_new(call->dispatcher, session, tenant, fd, request->listening_socket,
			    &call->refusal);
}

static int delegate_answer(struct call *call, struct delegate_ends *ends, uint64_t delegation)
{
	Iommubroker__V1__DelegateResponse response = IOMMUBROKER__V1__DELEGATE_RESPONSE__INIT;
	Iommubroker__V1__DescriptorRef ref;
	size_t without_descriptor;
	int fd = ends->given, status;

	response.delegation = delegation;
	without_descriptor = iommubroker__v1__delegate_response__get_packed_size(&response);
	if (fd < 0)
		return call_answer(call, &response.base);
	ends->given = -1;
	status = descriptor_answer(call, fd, &ref);
	if (status)
		return status;
	response.socket = &ref;
	status = call_answer(call, &response.base);
	/* A repeated request gets the delegation and no socket that would not be there. */
	if (!status)
		call->repeat_bytes = without_descriptor;
	return status;
}

static int delegate_with(struct call *call, struct delegate_ends *ends)
{
	struct rpc_session *session;
	uint64_t delegation;
	int status = delegate_open(call, ends, &session, &delegation);

	if (status)
		return status;
	status = delegate_way_in(call, ends, session);
	if (!status)
		status = delegate_answer(call, ends, delegation);
	if (status)
		rpc_session_end(session, "its delegation could not be answered", NULL, NULL);
	rpc_session_unref(session);
	return status;
}

int handle_delegate(struct call *call)
{
	const DelegateRequest *request = (const DelegateRequest *)call->request;
	struct delegate_ends ends = {.peer.pidfd = -1, .served = -1, .given = -1};
	int status = request->listening_socket ? 0 : descriptor_reserve(call);

	if (status)
		return status;
	call_settles(call, request->guest);
	status = ends_make(call, request, &ends);
	if (!status)
		status = delegate_with(call, &ends);
	if (status && !request->listening_socket)
		descriptor_unreserve(call);
	ends_drop(call, &ends);
	return status;
}

/* ── RevokeDelegation ──────────────────────────────────────────────────────────────────────── */

int prepare_revoke_delegation(struct call *call)
{
	const Iommubroker__V1__RevokeDelegationRequest *request =
		(const Iommubroker__V1__RevokeDelegationRequest *)call->request;

	return check_handle(call, "delegation", request->delegation);
}

static void on_revoked(void *context)
{
	call_finish(context, 0);
}

/* Its own session is not ended by its guest: what a delegation held goes before the answer. */
int handle_revoke_delegation(struct call *call)
{
	const Iommubroker__V1__RevokeDelegationRequest *request =
		(const Iommubroker__V1__RevokeDelegationRequest *)call->request;
	Iommubroker__V1__RevokeDelegationResponse response =
		IOMMUBROKER__V1__REVOKE_DELEGATION_RESPONSE__INIT;
	struct session *session;
	struct rpc_session *rpc_session;
	int status = delegation_find(&session, call_broker(call), call_session(call),
				     request->delegation, &call->refusal);

	if (status)
		return status;
	rpc_session = rpc_session_of(call->dispatcher, session);
	status = rpc_session ? call_answer(call, &response.base)
			     : refuse_not_found(&call->refusal, "delegation");
	if (!status) {
		delegation_tell_revoked(session);
		rpc_session_end(rpc_session, "its delegation was revoked", on_revoked, call);
	}
	rpc_session_unref(rpc_session);
	session_unref(session);
	return status ? status : CALL_PENDING;
}
