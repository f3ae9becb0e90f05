/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_CHECK_H
#define IB_RPC_CHECK_H

/* Checks of single fields that several requests share. Each: 0 or REFUSED. path: of the field. */

#include <protobuf-c/protobuf-c.h>

#include "rpc/call.h"

/* At most max_bytes - 1 bytes; copied with its terminating zero into ret[max_bytes]. */
int check_text(struct call *call, const char *path, const char *text, char *ret, size_t max_bytes);
/* Exactly n bytes, or none if it may be empty. */
int check_bytes(struct call *call, const char *path, const ProtobufCBinaryData *bytes, size_t n,
		bool may_be_empty);
/* min .. max elements. */
int check_count(struct call *call, const char *path, size_t n, size_t min, size_t max);
/* Not 0: no handle is. */
int check_handle(struct call *call, const char *path, uint64_t handle);
/* A handle of this session's: for methods that refuse before the broker would look. what: guest,
 * device, nested domain. */
int check_owned(struct call *call, const char *path, const char *what, uint64_t handle);
/* "dddd:bb:ss.f" in lower or upper case hex, copied in lower case into ret[16]. */
int check_pci_address(struct call *call, const char *path, const char *text, char ret[16]);

#endif
