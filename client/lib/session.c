/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Sessions: connect, introduce ourselves, and end. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/async.h"
#include "lib/session.h"
#include "lib/wire.h"

#define DEFAULT_PATH "/run/iommubroker/fd.sock"

static int connect_to(const char *path, int *ret_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, r;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static int introduce(struct iommubroker_session *session, const char *name,
		     struct iommubroker_error **ret_error)
{
	Iommubroker__V1__OpenSessionRequest request = IOMMUBROKER__V1__OPEN_SESSION_REQUEST__INIT;
	Iommubroker__V1__OpenSessionResponse *response;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_OPEN_SESSION,
		.request = &request.base,
		.response = &iommubroker__v1__open_session_response__descriptor,
	};
	ProtobufCMessage *message = NULL;
	int r;

	if (name != NULL)
		request.name = (char *)name;
	r = exchange_run(session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (void *)message;
	snprintf(session->tenant, sizeof(session->tenant), "%s", response->tenant);
	if (response->secret.len == sizeof(session->secret))
		memcpy(session->secret, response->secret.data, sizeof(session->secret));
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

static struct iommubroker_session *session_new(int consume_fd, int *ret_result)
{
	struct iommubroker_session *session = calloc(1, sizeof(*session));

	if (session == NULL) {
		close(consume_fd);
		*ret_result = -ENOMEM;
		return NULL;
	}
	session->timeout_ns = IOMMUBROKER_NO_TIMEOUT;
	session->ready_end = &session->ready;
	*ret_result = connection_init(&session->connection, consume_fd);
	if (*ret_result < 0) {
		free(session);
		return NULL;
	}
	return session;
}

int iommubroker_session_open_fd(int consume_fd, const char *name,
				struct iommubroker_session **ret_session,
				struct iommubroker_error **ret_error)
{
	struct iommubroker_session *session;
	int r;

	session = session_new(consume_fd, &r);
	if (session == NULL)
		return error_local(r, ret_error, "cannot set up a session: %s",
				   strerrordesc_np(-r));
	r = introduce(session, name, ret_error);
	if (r < 0) {
		iommubroker_session_free(session);
		return r;
	}
	*ret_session = session;
	return 0;
}

int iommubroker_session_open(const char *path, const char *name,
			     struct iommubroker_session **ret_session,
			     struct iommubroker_error **ret_error)
{
	int fd = -1;
	int r;

	if (path == NULL)
		path = DEFAULT_PATH;
	r = connect_to(path, &fd);
	if (r < 0)
		return error_local(r, ret_error, "cannot connect to %s: %s", path,
				   strerrordesc_np(-r));
	return iommubroker_session_open_fd(fd, name, ret_session, ret_error);
}

void iommubroker_session_set_timeout(struct iommubroker_session *session, uint64_t timeout_ns)
{
	session->timeout_ns = timeout_ns;
}

const uint8_t *iommubroker_session_secret(const struct iommubroker_session *session)
{
	return session->secret;
}

const char *iommubroker_session_tenant(const struct iommubroker_session *session)
{
	return session->tenant;
}

int iommubroker_session_state(struct iommubroker_session *session)
{
	int lost;

	pthread_mutex_lock(&session->connection.lock);
	lost = session->connection.lost;
	pthread_mutex_unlock(&session->connection.lock);
	return lost;
}

int iommubroker_session_fd(const struct iommubroker_session *session)
{
	return session->connection.epoll_fd;
}

int iommubroker_session_close(struct iommubroker_session *session,
			      struct iommubroker_error **ret_error)
{
	Iommubroker__V1__CloseSessionRequest request = IOMMUBROKER__V1__CLOSE_SESSION_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_CLOSE_SESSION,
		.request = &request.base,
		.response = &iommubroker__v1__close_session_response__descriptor,
	};

	return exchange_run_only(session, &exchange, ret_error);
}

struct iommubroker_session *iommubroker_session_free(struct iommubroker_session *session)
{
	if (session == NULL)
		return NULL;
	async_drop_all(session);
	connection_deinit(&session->connection);
	free(session);
	return NULL;
}

uint64_t session_request_id(struct iommubroker_session *session)
{
	return ++session->next_request_id;
}

int session_cancel(struct iommubroker_session *session, uint64_t request_id)
{
	uint8_t packet[PACKET_HEADER_BYTES + 1 + WIRE_VARINT_BYTES_MAX];
	uint8_t *end;

	end = wire_put_tag(packet + PACKET_HEADER_BYTES, 1, WIRE_VARINT);
	end = wire_put_varint(end, request_id);
	return call_send_only(&session->connection,
			      IOMMUBROKER__V1__METHOD__METHOD_CANCEL_OPERATION, packet,
			      end - packet);
}
