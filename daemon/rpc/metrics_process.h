/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METRICS_PROCESS_H
#define IB_RPC_METRICS_PROCESS_H

/* What the kernel says of this process. */

#include <stdint.h>

struct metrics_process {
	uint64_t resident_bytes, anonymous_bytes, pinned_bytes;
	uint64_t fds, fds_max, threads;
	uint64_t user_ns, system_ns;
};

/* What cannot be read is 0. With many descriptors it takes some milliseconds. */
void metrics_process_read(struct metrics_process *ret);

#endif
