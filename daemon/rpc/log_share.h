/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_LOG_SHARE_H
#define IB_RPC_LOG_SHARE_H

/*
 * How much of the log each tenant may fill, by what it does or is refused: a bucket (util/log.h)
 * for each kind of line, so that one who storms hides neither what others do nor its own refusals
 * of another kind.
 *
 * Bounded: whoever there is no place for shares a place with all the others that have none. A place
 * is used for somebody else once its lines are worked off. Not locked: the dispatcher's lock.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/log.h"

enum log_kind {
	LOG_KIND_LIFE,       /* it came, went, made or opened something */
	LOG_KIND_REFUSAL,    /* it was refused */
	LOG_KIND_RATE,       /* for coming too often */
	LOG_KIND_CONNECTION, /* its connection was dropped */
	LOG_KINDS
};

#define LOG_SHARES_MAX     128
#define LOG_SHARE_NAME_MAX 64 /* with the terminating zero */

struct log_share {
	char name[LOG_SHARE_NAME_MAX];
	uint64_t used_ns; /* monotonic */
	struct log_rate rates[LOG_KINDS];
};

/* All zero: empty. */
struct log_shares {
	size_t n;
	struct log_share shares[LOG_SHARES_MAX];
	struct log_share others;
};

/* true: log a line of that kind for the tenant of that name, and say that *ret_suppressed were not
 * logged before it. now_ns: monotonic. */
bool log_share_allow(struct log_shares *shares, const char *name, enum log_kind kind,
		     uint64_t now_ns, uint32_t *ret_suppressed);

#endif
