/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_PACKET_H
#define IB_CLIENT_PACKET_H

/*
 * One packet of the native transport (proto/iommubroker/v1/native.proto): a header, a message, a
 * few descriptors.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_BYTES_MAX    65536
#define PACKET_HEADER_BYTES 16
#define PACKET_FDS_MAX      8

struct packet {
	uint8_t *bytes; /* room for PACKET_BYTES_MAX, borrowed */
	size_t n_bytes;
	int fds[PACKET_FDS_MAX]; /* owned; -1: given away */
	size_t n_fds;
};

/* A packet from the daemon, taken apart; points into the packet. */
struct answer {
	uint32_t method;
	uint64_t call;
	bool more;
	int32_t code;          /* gRPC status; 0: OK */
	const uint8_t *status; /* google.rpc.Status, or NULL */
	size_t n_status;
	const uint8_t *message; /* of the method; not NULL */
	size_t n_message;
};

void packet_header_put(uint8_t *to, uint32_t method, uint64_t call);

/* Never blocks, never raises SIGPIPE. borrow_fd: -1, or rides along. 0, -EAGAIN: no room now, or
 * the errno of sendmsg(2). */
int packet_send(int fd, const uint8_t *bytes, size_t n_bytes, int borrow_fd);

/* Never blocks. 0: *packet was filled, its descriptors are the caller's and close-on-exec. -EAGAIN:
 * nothing there. -ECONNRESET: the other side is gone. -EBADMSG: a packet or its descriptors were
 * cut short. */
int packet_receive(int fd, struct packet *packet);

/* Close the descriptors that nobody took. */
void packet_close_fds(struct packet *packet);

/* 0 or -EBADMSG. */
int packet_parse(const struct packet *packet, struct answer *ret);

#endif
