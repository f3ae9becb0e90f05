/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_NATIVE_PACKET_H
#define IB_RPC_NATIVE_PACKET_H

/* Packets of the native transport, see proto/iommubroker/v1/native.proto. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/socket.h>

#include "rpc/dispatch.h"

#define NATIVE_PACKET_BYTES_MAX 65536
#define NATIVE_HEADER_BYTES     16
#define NATIVE_CALLS_MAX        64 /* in flight on one connection, whatever the setting says */

struct native_packet {
	uint32_t method;
	uint64_t call;
	const uint8_t *message; /* in the buffer */
	size_t message_bytes;
	int fds[RPC_DESCRIPTORS_MAX];
	size_t n_fds;
	struct ucred sender; /* native_receive_from() only */
};

enum native_received {
	NATIVE_PACKET,   /* *ret is filled; its descriptors are the caller's */
	NATIVE_NOTHING,  /* none now */
	NATIVE_END,      /* the client closed its end */
	NATIVE_MALFORMED /* *ret_why says what; only the descriptors of *ret are set, and yours */
};

/* Receive one packet, without waiting, into buffer[NATIVE_PACKET_BYTES_MAX]. Descriptors come
 * close-on-exec; without takes_fds the kernel drops them before they have a number here, and the
 * packet is malformed. */
enum native_received native_receive(int socket, uint8_t *buffer, bool takes_fds,
				    struct native_packet *ret, const char **ret_why);
/* The same from a socket with SO_PASSCRED: a packet without a sender is malformed. */
enum native_received native_receive_from(int socket, uint8_t *buffer, bool takes_fds,
					 struct native_packet *ret, const char **ret_why);

struct native_answer {
	uint32_t method;
	uint64_t call;
	bool more;
	const struct rpc_status *status; /* code 0: OK */
	const uint8_t *message;          /* NULL: none */
	size_t message_bytes;
	const int *fds; /* borrowed */
	size_t n_fds;
};

/* Send it without waiting. 0, or the positive errno. */
int native_send(int socket, const struct native_answer *answer);
/* Its bytes in one piece, for later: what native_send_bytes() sends. *ret_bytes at most
 * native_answer_bytes_max(). */
size_t native_answer_bytes_max(const struct native_answer *answer);
size_t native_answer_pack(const struct native_answer *answer, uint8_t *ret);
int native_send_bytes(int socket, const uint8_t *bytes, size_t n_bytes, const int *fds,
		      size_t n_fds);

#endif
