/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_IOMMUFD_CALL_H
#define IB_IOMMU_IOMMUFD_CALL_H

/*
 * Calling the kernel: ioctls that answer 0 or a positive errno and are repeated when a signal
 * interrupts them, and waiting between attempts.
 */

#include <stdbool.h>
#include <stdint.h>

int iommufd_call(int fd, unsigned long request, void *argument);

/* Pauses between attempts: they double from 1 ms up to 64 ms and stop at the deadline. */
struct iommufd_retry {
	uint64_t deadline_ns; /* CLOCK_MONOTONIC */
	uint64_t pause_ns;
};

struct iommufd_retry iommufd_retry_for(uint64_t wait_ns);
/* Sleeps. False, without sleeping, once the time is over. */
bool iommufd_retry_again(struct iommufd_retry *retry);

#endif
