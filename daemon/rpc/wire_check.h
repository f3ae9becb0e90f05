/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_WIRE_CHECK_H
#define IB_RPC_WIRE_CHECK_H

/*
 * What protobuf-c does not look at, checked on the bytes before they are unpacked.
 *
 * protobuf-c 1.4.1 passes unknown enum values and invalid UTF-8 through and cuts a string at an
 * embedded NUL, all of which can only be told from the wire. So every message is first walked
 * beside its descriptor: wire types, lengths, strings, enum values. What is wrong is refused with
 * the path of its field ("map[3].access"). Unknown fields are skipped, as proto3 has it.
 */

#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "util/refusal.h"

/* 0 or REFUSED. Takes no memory; nesting deeper than any of our messages is refused. */
int wire_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes, size_t n_bytes,
	       struct refusal *refusal);

#endif
