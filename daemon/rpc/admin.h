/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_ADMIN_H
#define IB_RPC_ADMIN_H

/* What the methods for operators share. */

#include "rpc/call.h"

/* The guest that an operator names by handle, uuid or name. 0, or REFUSED: none, or several. */
int admin_find_guest(struct call *call, const char *text, uint64_t *ret_guest);

#endif
