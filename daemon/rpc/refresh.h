/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_REFRESH_H
#define IB_RPC_REFRESH_H

/*
 * RefreshNested, the hot path: a guest's CPU stands still until it is answered. Everything that
 * such a call may need, up to the longest batch, lies in one block that is used again and again;
 * of a short batch only the first pages of it are ever touched.
 */

#include "rpc/call.h"

struct call *refresh_call_new(void); /* NULL: no memory */
int prepare_refresh_nested(struct call *call);
uint64_t refresh_call_ranges(const struct call *call); /* once prepared */
int handle_refresh_nested(struct call *call);

#endif
