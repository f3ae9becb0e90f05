/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/clock.h"
#include "util/log.h"

void fixture_init(struct rpc_fixture *f)
{
	memset(f, 0, sizeof(*f));
	f->settings = (struct rpc_settings){
		.calls_per_connection_max = 64,
		.descriptors_waiting_max = 16,
		.first_request_ms = 60000,
		.descriptor_wait_ms = 60000,
		.rate_delay_ms = 1000,
	};
}

/* What is logged is another test's subject. */
static void no_log(enum log_level level, const char *text, const char (*fields)[LOG_FIELD_BYTES],
		   size_t n_fields)
{
	(void)level;
	(void)text;
	(void)fields;
	(void)n_fields;
}

static void *serve(void *context)
{
	struct rpc_fixture *f = context;

	f->loop_status = loop_run(f->loop);
	return NULL;
}

void fixture_start(struct rpc_fixture *f)
{
	f->broker = fake_broker_new();
	f->joined = false;
	log_set_sink(no_log);
	assert_int_equal(loop_new(&f->loop), 0);
	assert_int_equal(dispatcher_new(&f->dispatcher, f->broker, f->loop, &f->settings), 0);
	assert_int_equal(native_transport_new(&f->native, f->dispatcher, f->loop), 0);
	f->peer = (struct peer){.pid = getpid(), .uid = geteuid(), .gid = getegid()};
	f->peer.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	assert_true(f->peer.pidfd >= 0);
	assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
}

void fixture_stop(struct rpc_fixture *f)
{
	loop_exit(f->loop, 0);
	if (!f->joined)
		pthread_join(f->thread, NULL);
	native_transport_free(f->native);
	dispatcher_free(f->dispatcher);
	broker_free(f->broker);
	loop_free(f->loop);
	close(f->peer.pidfd);
	/* Whatever a test did, every session's memory is given back. */
	assert_int_equal(fake.sessions, 0);
	assert_int_equal(fake.watches, 0);
	assert_int_equal(fake.tenants, 0);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		assert_int_equal(fake.used[i], 0);
}

struct on_loop {
	struct loop_post post;
	void (*function)(void *context);
	void *context;
	sem_t done;
};

static void on_loop_run(struct loop_post *post)
{
	struct on_loop *on_loop = (struct on_loop *)post;

	on_loop->function(on_loop->context);
	sem_post(&on_loop->done);
}

struct rpc_fixture fixture;

int fixture_setup(void **state)
{
	(void)state;
	fixture_init(&fixture);
	fixture_start(&fixture);
	return 0;
}

int fixture_teardown(void **state)
{
	(void)state;
	fixture_stop(&fixture);
	return 0;
}

void fixture_on_loop(struct rpc_fixture *f, void (*function)(void *context), void *context)
{
	struct on_loop on_loop = {.post.function = on_loop_run};

	on_loop.function = function;
	on_loop.context = context;
	sem_init(&on_loop.done, 0, 0);
	loop_post(f->loop, &on_loop.post);
	while (sem_wait(&on_loop.done) && errno == EINTR)
		;
	sem_destroy(&on_loop.done);
}

/* ── native clients ───────────────────────────────────────────────────────────────────────── */

struct accept {
	struct rpc_fixture *f;
	const struct peer *peer;
	int fd;
};

static void accept_on_loop(void *context)
{
	struct accept *accept = context;

	native_transport_accept(accept->f->native, accept->fd, accept->peer);
}

int fixture_connect_as(struct rpc_fixture *f, const struct peer *peer)
{
	struct accept accept = {.f = f, .peer = peer};
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	accept.fd = ends[0];
	fixture_on_loop(f, accept_on_loop, &accept);
	return ends[1];
}

int fixture_connect(struct rpc_fixture *f)
{
	return fixture_connect_as(f, &f->peer);
}

int fixture_open_session(struct rpc_fixture *f, uint8_t ret_secret[BROKER_SECRET_BYTES])
{
	Iommubroker__V1__OpenSessionRequest request = IOMMUBROKER__V1__OPEN_SESSION_REQUEST__INIT;
	int socket = fixture_connect(f);
	Iommubroker__V1__OpenSessionResponse *response;
	struct reply reply;

	client_call(socket, M(OPEN_SESSION), &request, &reply,
		    &iommubroker__v1__open_session_response__descriptor);
	assert_false(reply.ended);
	assert_int_equal(reply.code, 0);
	response = reply.message;
	assert_int_equal(response->secret.len, BROKER_SECRET_BYTES);
	if (ret_secret)
		memcpy(ret_secret, response->secret.data, BROKER_SECRET_BYTES);
	reply_clear(&reply);
	return socket;
}

void client_send_bytes(int socket, const void *bytes, size_t n_bytes, const int *fds, size_t n_fds)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(64 * sizeof(int))] = {0};
	struct iovec data = {(void *)bytes, n_bytes};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

	if (n_fds) {
		struct cmsghdr *cmsg = (struct cmsghdr *)control;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	/* A connection that has ended meanwhile is seen by what is received next. */
	if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		assert_true(errno == EPIPE || errno == ECONNRESET);
}

void client_send_raw(int socket, uint32_t method, uint64_t call, const void *bytes, size_t n_bytes,
		     const int *fds, size_t n_fds)
{
	uint8_t *packet = malloc(16 + n_bytes);

	for (size_t i = 0; i < 4; i++) {
		packet[i] = (uint8_t)(method >> 8 * i);
		packet[4 + i] = 0;
	}
	for (size_t i = 0; i < 8; i++)
		packet[8 + i] = (uint8_t)(call >> 8 * i);
	if (n_bytes)
		memcpy(packet + 16, bytes, n_bytes);
	client_send_bytes(socket, packet, 16 + n_bytes, fds, n_fds);
	free(packet);
}

void client_send(int socket, uint32_t method, uint64_t call, const void *request)
{
	size_t n_bytes = protobuf_c_message_get_packed_size(request);
	uint8_t *bytes = malloc(n_bytes + 1);

	protobuf_c_message_pack(request, bytes);
	client_send_raw(socket, method, call, bytes, n_bytes, NULL, 0);
	free(bytes);
}

static void take_fds(struct msghdr *message, struct reply *ret)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg;
	     cmsg = CMSG_NXTHDR(message, cmsg)) {
		size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		assert_true(ret->n_fds + n <= RPC_DESCRIPTORS_MAX);
		memcpy(ret->fds + ret->n_fds, CMSG_DATA(cmsg), n * sizeof(int));
		ret->n_fds += n;
	}
}

static void parse_reply(const uint8_t *packet, size_t n_bytes, struct reply *ret,
			const ProtobufCMessageDescriptor *response)
{
	Iommubroker__V1__NativeAnswer *answer;

	assert_true(n_bytes >= 16);
	for (size_t i = 0; i < 4; i++) {
		ret->method |= (uint32_t)packet[i] << 8 * i;
		assert_int_equal(packet[4 + i], 0);
	}
	for (size_t i = 0; i < 8; i++)
		ret->call |= (uint64_t)packet[8 + i] << 8 * i;
	answer = iommubroker__v1__native_answer__unpack(NULL, n_bytes - 16, packet + 16);
	assert_non_null(answer);
	assert_int_equal(answer->base.n_unknown_fields, 0);
	ret->more = answer->more;
	if (answer->status) {
		size_t n = google__rpc__status__get_packed_size(answer->status);
		uint8_t *bytes = malloc(n + 1);

		google__rpc__status__pack(answer->status, bytes);
		ret->status = google__rpc__status__unpack(NULL, n, bytes);
		ret->code = ret->status->code;
		free(bytes);
	}
	if (!ret->code && response) {
		ret->message = protobuf_c_message_unpack(response, NULL, answer->message.len,
							 answer->message.data);
		assert_non_null(ret->message);
	}
	iommubroker__v1__native_answer__free_unpacked(answer, NULL);
}

void client_receive(int socket, struct reply *ret, const ProtobufCMessageDescriptor *response)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(RPC_DESCRIPTORS_MAX * sizeof(int))];
	uint8_t *packet = malloc(70000);
	struct iovec data = {packet, 70000};
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);

	memset(ret, 0, sizeof(*ret));
	if (n <= 0) {
		ret->ended = true;
		ret->code = -1; /* none, not even OK */
	} else {
		assert_int_equal(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC), 0);
		take_fds(&message, ret);
		parse_reply(packet, (size_t)n, ret, response);
	}
	free(packet);
}

void reply_clear(struct reply *reply)
{
	if (reply->status)
		google__rpc__status__free_unpacked(reply->status, NULL);
	if (reply->message)
		protobuf_c_message_free_unpacked(reply->message, NULL);
	for (size_t i = 0; i < reply->n_fds; i++)
		close(reply->fds[i]);
	memset(reply, 0, sizeof(*reply));
}

void client_call(int socket, uint32_t method, const void *request, struct reply *ret,
		 const ProtobufCMessageDescriptor *response)
{
	static uint64_t call = 1000;

	client_send(socket, method, ++call, request);
	client_receive(socket, ret, response);
	if (ret->ended)
		return;
	assert_int_equal(ret->call, call);
	assert_int_equal(ret->method, method);
}

void *status_detail(const Google__Rpc__Status *status, const char *type,
		    const ProtobufCMessageDescriptor *descriptor)
{
	char url[128];

	snprintf(url, sizeof(url), "type.googleapis.com/google.rpc.%s", type);
	for (size_t i = 0; i < status->n_details; i++) {
		const Google__Protobuf__Any *any = status->details[i];
		void *message;

		if (strcmp(any->type_url, url))
			continue;
		message = protobuf_c_message_unpack(descriptor, NULL, any->value.len,
						    any->value.data);
		assert_non_null(message);
		return message;
	}
	fail_msg("the status has no %s", type);
	return NULL;
}

/* ── calls without a transport ────────────────────────────────────────────────────────────── */

static void keep(struct test_call *call, const uint8_t *bytes, size_t n_bytes)
{
	call->has_message = bytes != NULL;
	call->message_bytes = n_bytes;
	if (bytes)
		memcpy(call->message, bytes, n_bytes);
}

static bool on_send(struct rpc_call *rpc, const uint8_t *bytes, size_t n_bytes)
{
	struct test_call *call = (struct test_call *)rpc;
	bool room;

	pthread_mutex_lock(&call->lock);
	room = !call->no_room;
	if (room) {
		keep(call, bytes, n_bytes);
		call->sends++;
	} else {
		call->refused_sends++;
	}
	pthread_cond_broadcast(&call->changed);
	pthread_mutex_unlock(&call->lock);
	return room;
}

static void on_finish(struct rpc_call *rpc, const struct rpc_status *status, const uint8_t *bytes,
		      size_t n_bytes, const int *consume_fds, size_t n_fds)
{
	struct test_call *call = (struct test_call *)rpc;

	pthread_mutex_lock(&call->lock);
	assert_false(call->finished);
	call->status.code = status->code;
	if (status->code)
		call->status = *status;
	keep(call, bytes, n_bytes);
	call->fd = n_fds ? consume_fds[0] : -1;
	call->finished = true;
	pthread_cond_broadcast(&call->changed);
	pthread_mutex_unlock(&call->lock);
}

static const struct rpc_call_ops test_ops = {.send = on_send, .finish = on_finish};

void test_call_init(struct test_call *call, struct rpc_fixture *f, enum rpc_door door,
		    const uint8_t *secret)
{
	memset(call, 0, sizeof(*call));
	pthread_mutex_init(&call->lock, NULL);
	pthread_cond_init(&call->changed, NULL);
	call->fd = -1;
	call->rpc.ops = &test_ops;
	call->rpc.door = door;
	call->rpc.peer = &f->peer;
	call->rpc.secret = secret;
	call->rpc.secret_bytes = secret ? BROKER_SECRET_BYTES : 0;
}

void test_call_deinit(struct test_call *call)
{
	if (call->fd >= 0)
		close(call->fd);
	pthread_cond_destroy(&call->changed);
	pthread_mutex_destroy(&call->lock);
}

void test_call_start(struct test_call *call, struct rpc_fixture *f, const char *path,
		     const void *request)
{
	const struct method *method = method_by_path(path, strlen(path), call->rpc.door);
	size_t n_bytes = protobuf_c_message_get_packed_size(request);
	uint8_t *bytes = malloc(n_bytes + 1);

	assert_non_null(method);
	protobuf_c_message_pack(request, bytes);
	call->rpc.request = bytes;
	call->rpc.request_bytes = n_bytes;
	dispatch_call(f->dispatcher, method, &call->rpc);
	free(bytes);
}

void test_call_wait(struct test_call *call)
{
	pthread_mutex_lock(&call->lock);
	while (!call->finished)
		pthread_cond_wait(&call->changed, &call->lock);
	pthread_mutex_unlock(&call->lock);
}

void test_call_wait_sends(struct test_call *call, size_t sends)
{
	pthread_mutex_lock(&call->lock);
	while (call->sends < sends)
		pthread_cond_wait(&call->changed, &call->lock);
	pthread_mutex_unlock(&call->lock);
}

int test_call_run(struct test_call *call, struct rpc_fixture *f, const char *path,
		  const void *request)
{
	test_call_start(call, f, path, request);
	test_call_wait(call);
	return call->status.code;
}

void wait_for_count(const _Atomic uint32_t *counter, uint32_t n)
{
	while (*counter != n)
		clock_sleep_ns(200000);
}
