/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_RPC_H
#define IB_CTL_RPC_H

/* Synchronous calls of the Admin service over gRPC core. */

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rpc;

struct rpc_status {
	int code; /* of gRPC; 0: OK */
	char message[512];
	size_t details_bytes; /* of a google.rpc.Status; 0: the answer is not the daemon's own */
	uint8_t details[4096];
};
#define RPC_UNAVAILABLE 14

/* Called for each message of an answer. false: no more are wanted. */
typedef bool (*rpc_message_fn)(void *user_data, const ProtobufCMessage *message);

/* socket_path: of admin.sock. NULL: no memory. Nothing is connected before the first call. */
struct rpc *rpc_new(const char *socket_path);
/* NULL is fine. Returns NULL. */
struct rpc *rpc_free(struct rpc *rpc);

/* How long a call may take, 30 s if nothing is said. */
#define RPC_FOREVER UINT32_MAX
void rpc_set_patience(struct rpc *rpc, uint32_t seconds);

/* One request, one answer of any number of messages. */
void rpc_call(struct rpc *rpc, const char *method, const ProtobufCMessage *request,
	      const ProtobufCMessageDescriptor *response, rpc_message_fn function, void *user_data,
	      struct rpc_status *ret_status);

#endif
