/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See packet.h. */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/packet.h"
#include "lib/wire.h"

#define ANSWER_MORE    1
#define ANSWER_STATUS  2
#define ANSWER_MESSAGE 3
#define STATUS_CODE    1

void packet_header_put(uint8_t *to, uint32_t method, uint64_t call)
{
	to = wire_put_fixed32(to, method);
	to = wire_put_fixed32(to, 0);
	wire_put_fixed64(to, call);
}

int packet_send(int fd, const uint8_t *bytes, size_t n_bytes, int borrow_fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = n_bytes};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *header;

	if (borrow_fd >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &borrow_fd, sizeof(int));
	}
	while (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (errno == EINTR)
			continue;
		return errno == EPIPE ? -ECONNRESET : -errno;
	}
	return 0;
}

/* Take the descriptors of a message over; more than a packet may have are closed. */
static void take_fds(struct msghdr *message, struct packet *packet)
{
	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
	     header = CMSG_NXTHDR(message, header)) {
		size_t n;

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
			if (packet->n_fds < PACKET_FDS_MAX)
				packet->fds[packet->n_fds++] = fd;
			else
				close(fd);
		}
	}
}

int packet_receive(int fd, struct packet *packet)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * PACKET_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_base = packet->bytes, .iov_len = PACKET_BYTES_MAX};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t n;

	do {
		n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -EAGAIN : -ECONNRESET;
	packet->n_bytes = n;
	packet->n_fds = 0;
	take_fds(&message, packet);
	if (n > 0 && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 0;
	packet_close_fds(packet);
	return n == 0 ? -ECONNRESET : -EBADMSG;
}

void packet_close_fds(struct packet *packet)
{
	for (size_t i = 0; i < packet->n_fds; i++)
		if (packet->fds[i] >= 0)
			close(packet->fds[i]);
	packet->n_fds = 0;
}

static int status_code(const uint8_t *status, size_t n_status, int32_t *ret)
{
	struct wire_reader reader = {status, n_status};
	struct wire_field field;
	int r;

	while ((r = wire_next(&reader, &field)) > 0)
		if (field.number == STATUS_CODE && field.type == WIRE_VARINT)
			*ret = (int32_t)field.value;
	return r;
}

int packet_parse(const struct packet *packet, struct answer *ret)
{
	static const uint8_t empty[1];
	struct answer answer = {.message = empty};
	struct wire_reader reader;
	struct wire_field field;
	int r;

	if (packet->n_bytes < PACKET_HEADER_BYTES || wire_get_fixed32(packet->bytes + 4) != 0)
		return -EBADMSG;
	answer.method = wire_get_fixed32(packet->bytes);
	answer.call = wire_get_fixed64(packet->bytes + 8);
	reader.at = packet->bytes + PACKET_HEADER_BYTES;
	reader.n_left = packet->n_bytes - PACKET_HEADER_BYTES;
	while ((r = wire_next(&reader, &field)) > 0) {
		if (field.number == ANSWER_MORE && field.type == WIRE_VARINT) {
			answer.more = field.value != 0;
		} else if (field.number == ANSWER_STATUS && field.type == WIRE_BYTES) {
			answer.status = field.bytes;
			answer.n_status = field.n_bytes;
		} else if (field.number == ANSWER_MESSAGE && field.type == WIRE_BYTES) {
			answer.message = field.bytes;
			answer.n_message = field.n_bytes;
		}
	}
	if (r < 0 || status_code(answer.status, answer.n_status, &answer.code) < 0)
		return -EBADMSG;
	*ret = answer;
	return 0;
}
