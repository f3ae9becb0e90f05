/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Sessions: connect, introduce ourselves, and end. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/async.h"
#include "lib/session.h"

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
	if (response->secret.len == sizeof(session->secret)) {
		memcpy(session->secret, response->secret.data, sizeof(session->secret));
		pthread_mutex_lock(&session->connection.lock);
		resume_set_secret(&session->connection.resume, session->secret);
		pthread_mutex_unlock(&session->connection.lock);
	}
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

/* Where to find the daemon again over a socket that somebody else connected: where it listened, if
 * that has a name. */
static void find_path(struct iommubroker_session *session)
{
	struct sockaddr_un address = {.sun_family = AF_UNSPEC};
	socklen_t n_bytes = sizeof(address) - 1; /* a terminator stays */

	if (getpeername(session->connection.fd, (struct sockaddr *)&address, &n_bytes) == 0 &&
	    address.sun_family == AF_UNIX && address.sun_path[0] == '/')
		resume_set_path(&session->connection.resume, address.sun_path);
}

/* Apart from the ids that the same process may use over gRPC, in the same session. */
static uint64_t first_request_id(void)
{
	uint64_t first = 0;

	if (getrandom(&first, sizeof(first), GRND_NONBLOCK) != sizeof(first))
		first = 0;
	return first;
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
	session->next_request_id = first_request_id();
	*ret_result = connection_init(&session->connection, consume_fd);
	if (*ret_result < 0) {
		free(session);
		return NULL;
	}
	session->connection.changed = async_link_changed;
	session->connection.changed_context = session;
	return session;
}

/* path NULL: not known. */
static int session_open(int consume_fd, const char *path, const char *name,
			struct iommubroker_session **ret_session,
			struct iommubroker_error **ret_error)
{
	struct iommubroker_session *session;
	int r;

	session = session_new(consume_fd, &r);
	if (session == NULL)
		return error_local(r, ret_error, "cannot set up a session: %s",
				   strerrordesc_np(-r));
	if (path == NULL)
		find_path(session);
	else
		resume_set_path(&session->connection.resume, path);
	r = introduce(session, name, ret_error);
	if (r < 0) {
		iommubroker_session_free(session);
		return r;
	}
	*ret_session = session;
	return 0;
}

int iommubroker_session_open_fd(int consume_fd, const char *name,
				struct iommubroker_session **ret_session,
				struct iommubroker_error **ret_error)
{
	return session_open(consume_fd, NULL, name, ret_session, ret_error);
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
	return session_open(fd, path, name, ret_session, ret_error);
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
	return connection_state(&session->connection);
}

void iommubroker_session_set_reconnect_limit(struct iommubroker_session *session, uint64_t limit_ns)
{
	pthread_mutex_lock(&session->connection.lock);
	session->connection.resume.limit_ns = limit_ns;
	pthread_mutex_unlock(&session->connection.lock);
}

int iommubroker_session_set_reconnect_path(struct iommubroker_session *session, const char *path)
{
	int r;

	pthread_mutex_lock(&session->connection.lock);
	r = resume_set_path(&session->connection.resume, path);
	pthread_mutex_unlock(&session->connection.lock);
	return r;
}

void iommubroker_session_on_state(struct iommubroker_session *session,
				  iommubroker_state_fn function, void *user_data)
{
	pthread_mutex_lock(&session->connection.lock);
	session->on_state = function;
	session->on_state_data = user_data;
	session->state_changed = false;
	pthread_mutex_unlock(&session->connection.lock);
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

	struct iommubroker_error *error = NULL;
	int r = exchange_run_only(session, &exchange, &error);

	/* Its answer was lost with the daemon, or the daemon let go of it by itself: it has ended.
	 */
	if (r == -EPERM && connection_state(&session->connection) == -EPERM)
		r = 0;
	if (r < 0 && ret_error != NULL)
		*ret_error = error;
	else
		iommubroker_error_free(error);
	return r;
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

uint64_t session_losses(struct iommubroker_session *session)
{
	uint64_t losses;

	pthread_mutex_lock(&session->connection.lock);
	losses = session->connection.falls;
	pthread_mutex_unlock(&session->connection.lock);
	return losses;
}

uint64_t session_request_id(struct iommubroker_session *session)
{
	uint64_t id;

	do {
		id = ++session->next_request_id;
	} while (id == 0);
	return id;
}
