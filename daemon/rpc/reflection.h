/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_REFLECTION_H
#define IB_RPC_REFLECTION_H

/*
 * grpc.reflection.v1alpha.ServerReflection: what grpcurl and the like ask for first.
 *
 * Requests and answers are packed messages; nothing here knows a transport. Services are listed
 * when the dispatch table has one of their methods behind the caller's door.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/dispatch.h"

#define REFLECTION_PATH              "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
#define REFLECTION_REQUEST_BYTES_MAX 1024

/* Answer one request: *ret_bytes is malloc()ed. false: it is no ServerReflectionRequest, or there
 * is no memory. */
bool reflection_answer(enum rpc_door door, const uint8_t *request, size_t request_bytes,
		       uint8_t **ret_bytes, size_t *ret_n_bytes);

#endif
