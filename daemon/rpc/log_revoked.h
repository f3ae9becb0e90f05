/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LOG_REVOKED_H
#define IB_RPC_LOG_REVOKED_H

#include "broker/broker.h"

#define REVOKED_TEXT_BYTES 512

/* What was taken away, in a sentence for the operator. */
void revoked_text(const struct revoked *revoked, char ret[REVOKED_TEXT_BYTES]);
/* The same as a line of the log, with the reason that was given or "". */
void log_revoked(const struct revoked *revoked, const char *reason);

#endif
