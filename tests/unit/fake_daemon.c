/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See fake_daemon.h. */

#include "fake_daemon.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "google/rpc/status.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"

#define HEADER_BYTES 16
#define PACKET_BYTES 65536
#define FDS_MAX      16

static void must(bool good, const char *what)
{
	if (good)
		return;
	perror(what);
	abort();
}

static uint64_t get_le(const uint8_t *from, size_t n)
{
	uint64_t value = 0;

	while (n-- > 0)
		value = value << 8 | from[n];
	return value;
}

void fake_header(uint8_t *to, uint32_t method, uint64_t call)
{
	for (int i = 0; i < 4; i++)
		to[i] = method >> (8 * i);
	memset(to + 4, 0, 4);
	for (int i = 0; i < 8; i++)
		to[8 + i] = call >> (8 * i);
}

static void serve_one(struct fake_daemon *daemon, const struct fake_request *request, bool raw)
{
	Iommubroker__V1__OpenSessionResponse opened = IOMMUBROKER__V1__OPEN_SESSION_RESPONSE__INIT;

	opened.tenant = (char *)"tenant-a";
	if (!raw && request->method == IOMMUBROKER__V1__METHOD__METHOD_OPEN_SESSION)
		fake_answer(daemon, request, &opened.base);
	else
		daemon->serve(daemon, request, daemon->user_data);
}

static size_t take_fds(struct msghdr *message, int *fds)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	size_t n;

	if (header == NULL || header->cmsg_type != SCM_RIGHTS)
		return 0;
	n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(header), n * sizeof(int));
	return n;
}

void fake_run(struct fake_daemon *daemon, bool raw)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} control;
	static _Thread_local uint8_t packet[PACKET_BYTES];
	int fds[FDS_MAX];

	for (;;) {
		struct iovec iov = {packet, sizeof(packet)};
		struct msghdr message = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.bytes,
			.msg_controllen = sizeof(control.bytes),
		};
		ssize_t n = recvmsg(daemon->fd, &message, MSG_CMSG_CLOEXEC);
		struct fake_request request = {.fds = fds};

		if (n < HEADER_BYTES)
			return;
		request.method = get_le(packet, 4);
		request.call = get_le(packet + 8, 8);
		request.message = packet + HEADER_BYTES;
		request.n_message = n - HEADER_BYTES;
		request.n_fds = take_fds(&message, fds);
		if (!daemon->dead)
			serve_one(daemon, &request, raw);
		for (size_t i = 0; i < request.n_fds; i++)
			close(fds[i]);
	}
}

static void *run_thread(void *user_data)
{
	fake_run(user_data, false);
	return NULL;
}

static void *run_raw_thread(void *user_data)
{
	fake_run(user_data, true);
	return NULL;
}

static void start(struct fake_daemon *daemon, fake_serve_fn serve, void *user_data,
		  void *(*thread)(void *))
{
	int fds[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
	*daemon = (struct fake_daemon){
		.fd = fds[0],
		.client_fd = fds[1],
		.serve = serve,
		.user_data = user_data,
	};
	must(pthread_create(&daemon->thread, NULL, thread, daemon) == 0, "pthread_create");
}

void fake_start(struct fake_daemon *daemon, fake_serve_fn serve, void *user_data)
{
	start(daemon, serve, user_data, run_thread);
}

void fake_start_raw(struct fake_daemon *daemon, fake_serve_fn serve, void *user_data)
{
	start(daemon, serve, user_data, run_raw_thread);
}

void fake_die(struct fake_daemon *daemon)
{
	daemon->dead = true;
	shutdown(daemon->fd, SHUT_RDWR);
}

void fake_stop(struct fake_daemon *daemon)
{
	fake_die(daemon);
	pthread_join(daemon->thread, NULL);
	close(daemon->fd);
}

void fake_send(struct fake_daemon *daemon, const uint8_t *bytes, size_t n_bytes, const int *fds,
	       size_t n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} control = {0};
	struct iovec iov = {(void *)bytes, n_bytes};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *header;

	if (n_fds > 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * n_fds);
	}
	(void)!sendmsg(daemon->fd, &message, MSG_NOSIGNAL);
}

static void answer(struct fake_daemon *daemon, const struct fake_request *request, bool more,
		   Google__Rpc__Status *status, const uint8_t *bytes, size_t n_bytes, int fd)
{
	Iommubroker__V1__NativeAnswer native = IOMMUBROKER__V1__NATIVE_ANSWER__INIT;
	uint8_t *packet;
	size_t n;

	native.more = more;
	native.status = status;
	native.message.data = (uint8_t *)bytes;
	native.message.len = n_bytes;
	n = HEADER_BYTES + iommubroker__v1__native_answer__get_packed_size(&native);
	packet = malloc(n);
	must(packet != NULL, "malloc");
	fake_header(packet, request->method, request->call);
	iommubroker__v1__native_answer__pack(&native, packet + HEADER_BYTES);
	fake_send(daemon, packet, n, &fd, fd >= 0 ? 1 : 0);
	free(packet);
}

static void answer_message(struct fake_daemon *daemon, const struct fake_request *request,
			   bool more, const ProtobufCMessage *message, int fd)
{
	size_t n_bytes = message != NULL ? protobuf_c_message_get_packed_size(message) : 0;
	uint8_t *bytes = malloc(n_bytes + 1);

	must(bytes != NULL, "malloc");
	if (message != NULL)
		protobuf_c_message_pack(message, bytes);
	answer(daemon, request, more, NULL, bytes, n_bytes, fd);
	free(bytes);
}

void fake_answer(struct fake_daemon *daemon, const struct fake_request *request,
		 const ProtobufCMessage *message)
{
	answer_message(daemon, request, false, message, -1);
}

void fake_answer_more(struct fake_daemon *daemon, const struct fake_request *request,
		      const ProtobufCMessage *message)
{
	answer_message(daemon, request, true, message, -1);
}

void fake_answer_fd(struct fake_daemon *daemon, const struct fake_request *request,
		    const ProtobufCMessage *message, int borrow_fd)
{
	answer_message(daemon, request, false, message, borrow_fd);
}

void fake_answer_bytes(struct fake_daemon *daemon, const struct fake_request *request,
		       const uint8_t *bytes, size_t n_bytes)
{
	answer(daemon, request, false, NULL, bytes, n_bytes, -1);
}

void fake_refuse(struct fake_daemon *daemon, const struct fake_request *request, int code,
		 const char *text, const struct fake_detail *details, size_t n_details)
{
	Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
	Google__Protobuf__Any anys[8], *pointers[8];
	char urls[8][80];

	must(n_details <= 8, "details");
	for (size_t i = 0; i < n_details; i++) {
		anys[i] = (Google__Protobuf__Any)GOOGLE__PROTOBUF__ANY__INIT;
		snprintf(urls[i], sizeof(urls[i]), "type.googleapis.com/google.rpc.%s",
			 details[i].type);
		anys[i].type_url = urls[i];
		anys[i].value.len = protobuf_c_message_get_packed_size(details[i].message);
		anys[i].value.data = malloc(anys[i].value.len + 1);
		must(anys[i].value.data != NULL, "malloc");
		protobuf_c_message_pack(details[i].message, anys[i].value.data);
		pointers[i] = &anys[i];
	}
	status.code = code;
	status.message = (char *)text;
	status.n_details = n_details;
	status.details = pointers;
	answer(daemon, request, false, &status, NULL, 0, -1);
	for (size_t i = 0; i < n_details; i++)
		free(anys[i].value.data);
}

size_t fake_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	must(dir != NULL, "/proc/self/fd");
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}
