/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Delegations, from both ends: for managers that hand guests on, and for whom they are handed to.
 */

#include <errno.h>
#include <stdlib.h>

#include "iommubroker/v1/guests.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/session.h"

#define RIGHTS 6

typedef Iommubroker__V1__DelegateRequest DelegateRequest;

static size_t list_rights(uint32_t set, Iommubroker__V1__Right ret[RIGHTS])
{
	size_t n = 0;

	for (unsigned int right = 1; right <= RIGHTS; right++)
		if (set & 1u << right)
			ret[n++] = (Iommubroker__V1__Right)right;
	return n;
}

static int check_options(const struct iommubroker_delegation_options *options,
			 struct iommubroker_error **ret_error)
{
	if (options->struct_bytes != sizeof(*options))
		return error_field(ret_error, "struct_bytes", "struct_bytes is %zu, not %zu",
				   options->struct_bytes, sizeof(*options));
	if (options->rights & ~(uint32_t)IOMMUBROKER_RIGHTS_ALL)
		return error_field(ret_error, "rights", "rights has bits that are no right");
	return 0;
}

/* The one descriptor of a request is a pidfd or a socket that listens. ret_socket NULL: it is. */
static int delegate(struct iommubroker_guest *guest, DelegateRequest *request,
		    const struct iommubroker_delegation_options *options, int borrow_fd,
		    uint64_t *ret_delegation, int *ret_socket, struct iommubroker_error **ret_error)
{
	Iommubroker__V1__CreateGuestRequest__Limits limits =
		IOMMUBROKER__V1__CREATE_GUEST_REQUEST__LIMITS__INIT;
	Iommubroker__V1__Right rights[RIGHTS];
	struct descriptors fds = {.n = 0};
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_DELEGATE,
		.request = &request->base,
		.response = &iommubroker__v1__delegate_response__descriptor,
		.has_fd = borrow_fd >= 0,
		.fd = borrow_fd,
		.ret_fds = &fds,
	};
	const Iommubroker__V1__DelegateResponse *response;
	ProtobufCMessage *message = NULL;
	uint64_t losses = session_losses(guest->session);
	int fd = -1, r;

	request->request_id = session_request_id(guest->session);
	request->guest = guest->handle;
	request->n_rights = list_rights(options->rights, rights);
	request->rights = rights;
	limits.pinned_bytes_max = options->pinned_bytes_max;
	limits.mappings_max = options->mappings_max;
	request->limits = &limits;
	request->n_devices = options->n_devices;
	request->devices = (uint64_t *)options->devices;
	r = exchange_run(guest->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const Iommubroker__V1__DelegateResponse *)(const void *)message;
	if (ret_socket && response->socket)
		fd = descriptors_take(&fds, response->socket->attached);
	descriptors_close(&fds);
	if (ret_socket && !response->socket && session_losses(guest->session) != losses) {
		/* Of a request that was repeated: nobody can claim it any more. */
		iommubroker_delegation_revoke(guest->session, response->delegation, NULL);
		r = error_local(-EAGAIN, ret_error,
				"the delegation's socket went with the daemon that made it: "
				"delegate again");
	} else if (ret_socket && fd < 0)
		r = error_local(-EBADMSG, ret_error, "the answer has no socket");
	else
		*ret_delegation = response->delegation;
	if (ret_socket && fd >= 0)
		*ret_socket = fd;
	protobuf_c_message_free_unpacked(message, NULL);
	return r;
}

int iommubroker_guest_delegate(struct iommubroker_guest *guest,
			       const struct iommubroker_delegation_options *options,
			       uint64_t *ret_delegation, int *ret_socket,
			       struct iommubroker_error **ret_error)
{
	DelegateRequest request = IOMMUBROKER__V1__DELEGATE_REQUEST__INIT;
	Iommubroker__V1__DescriptorRef peer = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	int r = check_options(options, ret_error);

	if (r < 0)
		return r;
	peer.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	if (options->peer_pidfd >= 0)
		request.peer = &peer;
	return delegate(guest, &request, options, options->peer_pidfd, ret_delegation, ret_socket,
			ret_error);
}

int iommubroker_guest_delegate_listening(struct iommubroker_guest *guest,
					 const struct iommubroker_delegation_options *options,
					 int borrow_socket, uint64_t *ret_delegation,
					 struct iommubroker_error **ret_error)
{
	DelegateRequest request = IOMMUBROKER__V1__DELEGATE_REQUEST__INIT;
	Iommubroker__V1__DescriptorRef socket = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	int r = check_options(options, ret_error);

	if (r < 0)
		return r;
	if (options->peer_pidfd >= 0)
		return error_field(ret_error, "peer", "whoever can connect to it may");
	if (borrow_socket < 0)
		return error_field(ret_error, "listening_socket", "%d is no descriptor",
				   borrow_socket);
	socket.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	request.listening_socket = &socket;
	return delegate(guest, &request, options, borrow_socket, ret_delegation, NULL, ret_error);
}

int iommubroker_delegation_revoke(struct iommubroker_session *session, uint64_t delegation,
				  struct iommubroker_error **ret_error)
{
	Iommubroker__V1__RevokeDelegationRequest request =
		IOMMUBROKER__V1__REVOKE_DELEGATION_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_REVOKE_DELEGATION,
		.request = &request.base,
		.response = &iommubroker__v1__revoke_delegation_response__descriptor,
		.takes_away = true,
	};

	request.request_id = session_request_id(session);
	request.delegation = delegation;
	return exchange_run_only(session, &exchange, ret_error);
}

/* ── the other end ────────────────────────────────────────────────────────────────────────── */

int iommubroker_session_guest(struct iommubroker_session *session,
			      struct iommubroker_guest **ret_guest,
			      struct iommubroker_error **ret_error)
{
	Iommubroker__V1__ListGuestsRequest request = IOMMUBROKER__V1__LIST_GUESTS_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_LIST_GUESTS,
		.request = &request.base,
		.response = &iommubroker__v1__list_guests_response__descriptor,
	};
	const Iommubroker__V1__ListGuestsResponse *response;
	struct iommubroker_guest *guest = malloc(sizeof(*guest));
	ProtobufCMessage *message = NULL;
	int r;

	if (guest == NULL)
		return error_transport(-ENOMEM, ret_error);
	r = exchange_run(session, &exchange, &message, ret_error);
	if (r < 0) {
		free(guest);
		return r;
	}
	response = (const Iommubroker__V1__ListGuestsResponse *)(const void *)message;
	if (response->n_guests) {
		*guest = (struct iommubroker_guest){
			.session = session,
			.handle = response->guests[0]->guest,
		};
		*ret_guest = guest;
	} else {
		free(guest);
		r = error_local(-ENOENT, ret_error, "the session has no guest");
	}
	protobuf_c_message_free_unpacked(message, NULL);
	return r;
}

int iommubroker_guest_device(struct iommubroker_guest *guest, uint64_t handle,
			     struct iommubroker_device **ret_device)
{
	struct iommubroker_device *device = malloc(sizeof(*device));

	if (device == NULL)
		return -ENOMEM;
	*device = (struct iommubroker_device){guest->session, handle};
	*ret_device = device;
	return 0;
}
