/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_REPLAY_PLAY_H
#define IB_REPLAY_PLAY_H

/* The two kinds of recordings. */

#include "replay/input.h"
#include "replay/machine.h"

struct play_anchor {
	uint32_t function_id;
	struct iommubroker_anchor anchor;
};

/* The ids of the functions that a trace speaks of: at most FUNCTIONS_MAX. 0, -EBADMSG: not a trace,
 * -E2BIG. */
int play_trace_functions(const struct input *trace, uint32_t *ret_ids, size_t *ret_n);
/* Events of a guest, in order. 0, or a negative errno: the rest was not played; told on stderr. */
int play_trace(struct machine *machine, const struct input *trace);

/* Pages of guest memory with the guest's own tables in them. */
int play_tables(struct machine *machine, const struct input *tables,
		const struct play_anchor *anchors, size_t n_anchors);
/* After play_tables(): whether the tables hold what the trace, which is not played, ends with. A
 * difference is a failure of the machine. 0 or -ENOMEM. */
int play_compare_end(struct machine *machine, const struct input *trace);

#endif
