/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_STATUS_H
#define IB_RPC_STATUS_H

/* google.rpc.Code, which are gRPC's numbers (google/rpc/code.proto). */
enum rpc_code {
	RPC_OK = 0,
	RPC_CANCELLED = 1,
	RPC_INVALID_ARGUMENT = 3,
	RPC_NOT_FOUND = 5,
	RPC_ALREADY_EXISTS = 6,
	RPC_PERMISSION_DENIED = 7,
	RPC_RESOURCE_EXHAUSTED = 8,
	RPC_FAILED_PRECONDITION = 9,
	RPC_UNIMPLEMENTED = 12,
	RPC_INTERNAL = 13,
	RPC_UNAVAILABLE = 14,
	RPC_UNAUTHENTICATED = 16,
};

/* "INVALID_ARGUMENT"; those that we never answer are "UNKNOWN". */
const char *rpc_code_name(int code);

#define RPC_ERROR_DOMAIN "iommubroker"

#endif
