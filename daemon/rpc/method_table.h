/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METHOD_TABLE_H
#define IB_RPC_METHOD_TABLE_H

/*
 * Every method of every service, for both transports: a row says where it runs and what it needs
 * before its handler is called, so that no handler can forget it. A unit test holds the table to
 * the descriptors of the services.
 */

#include "rpc/dispatch.h"

struct call;

enum method_place {
	PLACE_INLINE,  /* on the thread that decoded it: short, never waits */
	PLACE_POOL,    /* on any worker */
	PLACE_LANE,    /* on a worker that holds the lane of the guest that the handle belongs to */
	PLACE_REFRESH, /* on the thread that decoded it, as broker_refresh_run() sees fit */
};

#define METHOD_CLIENT     1u /* to be called through the client sockets */
#define METHOD_ADMIN      2u /* through the admin socket */
#define METHOD_NO_SESSION 4u
#define METHOD_MUTATION   8u /* has a request_id, runs to its end */
#define METHOD_STREAM     16u
#define METHOD_GIVES_BACK 32u /* only that: not refused for being one too many in a second */
#define METHOD_REPEATABLE \
	64u /* a mutation that can as well be done twice: nothing is written down */

struct method {
	const char *path; /* NULL: native only */
	size_t path_bytes;
	uint32_t number; /* 0: gRPC only */
	unsigned int flags;
	/* What a session that was delegated a guest must have been given; 0, of METHOD_NO_SESSION:
	 * nothing. One that says nothing else is for no such session. */
	enum guest_right right;
	enum method_place place;
	const ProtobufCMessageDescriptor *request;
	size_t request_id_offset; /* in the unpacked request; 0: none */
	/* Of the 64-bit handle of the guest, or of something of it, that pays for the call and
	 * whose lane it runs on, if it runs on one; 0: none. */
	size_t handle_offset;
	/* Of PLACE_LANE without a handle: the lane, a reference; NULL: none. */
	struct pool_lane *(*lane)(struct call *call);
	uint32_t descriptors_max; /* that may be attached to a native request */
	/* Checks the form of the request and turns it into plain structs, on the thread that
	 * decoded it: call->plain. May be NULL. 0 or REFUSED. */
	int (*prepare)(struct call *call);
	/* How many refreshes it is, by its rate: ranges, entries. Once it is prepared. NULL: none,
	 * as most. */
	uint64_t (*refreshes)(const struct call *call);
	/* 0 (after call_answer()), REFUSED, CALL_PENDING or negative. */
	int (*handle)(struct call *call);
};

/* All rows, for tests and for lookups. */
const struct method *method_table(size_t *ret_n);
/* Whether it may be called through this door at all. */
bool method_behind(const struct method *method, enum rpc_door door);

#endif
