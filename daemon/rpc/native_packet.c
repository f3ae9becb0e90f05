/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/native_packet.h"

#include <endian.h>
#include <errno.h>
#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "util/fd.h"

/* Tags of NativeAnswer: field number and wire type (a unit test reads the answers with
 * protobuf-c). */
#define TAG_MORE    0x08 /* 1, varint */
#define TAG_STATUS  0x12 /* 2, length-prefixed */
#define TAG_MESSAGE 0x1a /* 3, length-prefixed */

#define VARINT_BYTES_MAX 5 /* of 32 bits */
#define HEAD_BYTES_MAX   (NATIVE_HEADER_BYTES + 2 + 1 + VARINT_BYTES_MAX)
#define TAIL_BYTES_MAX   (1 + VARINT_BYTES_MAX)

/* ── receiving ────────────────────────────────────────────────────────────────────────────── */

static void take_descriptors(const struct cmsghdr *cmsg, struct native_packet *ret)
{
	size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
		/* The control buffer has room for no more; what is over would be our own bug. */
		if (ret->n_fds < RPC_DESCRIPTORS_MAX)
			ret->fds[ret->n_fds++] = fd;
		else
			fd_close(fd);
	}
}

static const char *parse_header(const uint8_t *buffer, size_t n_bytes, struct native_packet *ret)
{
	uint32_t method, reserved;
	uint64_t call;

	if (n_bytes < NATIVE_HEADER_BYTES)
		return "a packet shorter than its header";
	memcpy(&method, buffer, sizeof(method));
	memcpy(&reserved, buffer + 4, sizeof(reserved));
	memcpy(&call, buffer + 8, sizeof(call));
	if (reserved)
		return "a reserved field that is not 0";
	ret->method = le32toh(method);
	ret->call = le64toh(call);
	ret->message = buffer + NATIVE_HEADER_BYTES;
	ret->message_bytes = n_bytes - NATIVE_HEADER_BYTES;
	return NULL;
}

/* Cut data, cut control data (also for want of descriptors of our own), a bad header. */
static const char *parse(const struct msghdr *message, const uint8_t *buffer, size_t n_bytes,
			 struct native_packet *ret)
{
	if (message->msg_flags & MSG_CTRUNC)
		return "more descriptors than can be taken";
	if (message->msg_flags & MSG_TRUNC)
		return "a packet over the limit";
	return parse_header(buffer, n_bytes, ret);
}

#define SENDER_SPACE CMSG_SPACE(sizeof(struct ucred))

static void take_control(struct msghdr *message, struct native_packet *ret)
{
	struct cmsghdr *cmsg;

	for (cmsg = CMSG_FIRSTHDR(message); cmsg; cmsg = CMSG_NXTHDR(message, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET)
			continue;
		if (cmsg->cmsg_type == SCM_RIGHTS)
			take_descriptors(cmsg, ret);
		else if (cmsg->cmsg_type == SCM_CREDENTIALS)
			memcpy(&ret->sender, CMSG_DATA(cmsg), sizeof(ret->sender));
	}
}

/* sender_bytes: room for the sender's credentials, which come before descriptors. */
static enum native_received receive(int socket, uint8_t *buffer, bool takes_fds,
				    size_t sender_bytes, struct native_packet *ret,
				    const char **ret_why)
{
	alignas(struct cmsghdr)
		uint8_t control[SENDER_SPACE + CMSG_SPACE(RPC_DESCRIPTORS_MAX * sizeof(int))];
	size_t control_bytes =
		sender_bytes + (takes_fds ? CMSG_SPACE(RPC_DESCRIPTORS_MAX * sizeof(int)) : 0);
	struct iovec data = {buffer, NATIVE_PACKET_BYTES_MAX};
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control_bytes ? control : NULL,
		.msg_controllen = control_bytes,
	};
	const char *why;
	ssize_t n;

	do
		n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? NATIVE_NOTHING : NATIVE_END;
	ret->n_fds = 0;
	ret->sender.pid = 0;
	take_control(&message, ret);
	/* An empty packet cannot be told from the end; either way it is over. */
	if (!n && !ret->n_fds)
		return NATIVE_END;
	why = parse(&message, buffer, (size_t)n, ret);
	if (!why && sender_bytes && ret->sender.pid <= 0)
		why = "a sender in a pid namespace that is not seen here";
	if (!why)
		return NATIVE_PACKET;
	*ret_why = why;
	return NATIVE_MALFORMED;
}

enum native_received native_receive(int socket, uint8_t *buffer, bool takes_fds,
				    struct native_packet *ret, const char **ret_why)
{
	return receive(socket, buffer, takes_fds, 0, ret, ret_why);
}

enum native_received native_receive_from(int socket, uint8_t *buffer, bool takes_fds,
					 struct native_packet *ret, const char **ret_why)
{
	return receive(socket, buffer, takes_fds, SENDER_SPACE, ret, ret_why);
}

/* ── sending ──────────────────────────────────────────────────────────────────────────────── */

static size_t put_varint(uint8_t *ret, size_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		ret[n++] = (uint8_t)(value | 0x80);
	ret[n++] = (uint8_t)value;
	return n;
}

/* The header and what of the NativeAnswer stands before the status. */
static size_t put_head(const struct native_answer *answer, uint8_t ret[HEAD_BYTES_MAX])
{
	uint32_t method = htole32(answer->method), reserved = 0;
	uint64_t call = htole64(answer->call);
	size_t n = NATIVE_HEADER_BYTES;

	memcpy(ret, &method, sizeof(method));
	memcpy(ret + 4, &reserved, sizeof(reserved));
	memcpy(ret + 8, &call, sizeof(call));
	if (answer->more) {
		ret[n++] = TAG_MORE;
		ret[n++] = 1;
	}
	if (answer->status->code) {
		ret[n++] = TAG_STATUS;
		n += put_varint(ret + n, answer->status->details_bytes);
	}
	return n;
}

/* What stands between the status and the message. */
static size_t put_tail(const struct native_answer *answer, uint8_t ret[TAIL_BYTES_MAX])
{
	if (!answer->message)
		return 0;
	ret[0] = TAG_MESSAGE;
	return 1 + put_varint(ret + 1, answer->message_bytes);
}

static int send_parts(int socket, struct iovec *parts, size_t n_parts, const int *fds, size_t n_fds)
{
	alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(RPC_DESCRIPTORS_MAX * sizeof(int))];
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = n_parts};
	struct cmsghdr *cmsg;
	ssize_t n;

	if (n_fds) {
		memset(control, 0, sizeof(control));
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&message);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? errno : 0;
}

int native_send(int socket, const struct native_answer *answer)
{
	uint8_t head[HEAD_BYTES_MAX], tail[TAIL_BYTES_MAX];
	struct iovec parts[4];

	parts[0] = (struct iovec){head, put_head(answer, head)};
	parts[1] = (struct iovec){(void *)answer->status->details,
				  answer->status->code ? answer->status->details_bytes : 0};
	parts[2] = (struct iovec){tail, put_tail(answer, tail)};
	parts[3] = (struct iovec){(void *)answer->message,
				  answer->message ? answer->message_bytes : 0};
	return send_parts(socket, parts, 4, answer->fds, answer->n_fds);
}

int native_send_bytes(int socket, const uint8_t *bytes, size_t n_bytes, const int *fds,
		      size_t n_fds)
{
	struct iovec part = {(void *)bytes, n_bytes};

	return send_parts(socket, &part, 1, fds, n_fds);
}

size_t native_answer_bytes_max(const struct native_answer *answer)
{
	return HEAD_BYTES_MAX + (answer->status->code ? answer->status->details_bytes : 0) +
	       TAIL_BYTES_MAX + (answer->message ? answer->message_bytes : 0);
}

size_t native_answer_pack(const struct native_answer *answer, uint8_t *ret)
{
	size_t n = put_head(answer, ret);

	if (answer->status->code) {
		memcpy(ret + n, answer->status->details, answer->status->details_bytes);
		n += answer->status->details_bytes;
	}
	n += put_tail(answer, ret + n);
	if (answer->message && answer->message_bytes) {
		memcpy(ret + n, answer->message, answer->message_bytes);
		n += answer->message_bytes;
	}
	return n;
}
