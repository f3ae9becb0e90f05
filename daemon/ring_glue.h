/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RING_GLUE_H
#define IB_RING_GLUE_H

/* Update rings for who dispatches calls: rpc/ and ring/ do not know each other. */

#include "ring/ring.h"
#include "rpc/dispatch.h"

extern const struct ring_ops ring_glue; /* its context is a struct ring_server */

#endif
