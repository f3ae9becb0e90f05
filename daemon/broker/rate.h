/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_RATE_H
#define IB_BROKER_RATE_H

/*
 * Token buckets: how many of something a second, and how many at once.
 *
 * Pure arithmetic in nanoseconds on 64 bits. A bucket is one number, the time at which all that was
 * taken from it will have been paid for: each token moves it on by a second's part (the generic
 * cell rate algorithm). It may lie ahead of now by a burst's worth; what is taken beyond that has
 * to wait for as long as it is further ahead. So a caller that is delayed has its place already,
 * and those after it come after it, without a queue here.
 *
 * Not locked: whoever owns it says by which lock it is guarded.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RATE_NONE UINT64_MAX

struct rate_limit {
	uint64_t per_second; /* tokens; RATE_NONE: no limit; 0: none are given out, ever */
	uint64_t burst;      /* tokens that may be taken at once, at least 1 */
};

/* All zero: full. */
struct rate_bucket {
	uint64_t paid_ns; /* monotonic */
};

/* One level of those that a caller pays at. */
struct rate_level {
	struct rate_bucket *bucket;
	struct rate_limit limit;
};

/* How long n tokens would have to wait now, 0: not at all; UINT64_MAX: for ever. Nothing is taken.
 * More than a burst at once wait until the bucket has come back to it. now_ns never goes back. */
uint64_t rate_wait_ns(const struct rate_bucket *bucket, const struct rate_limit *limit, uint64_t n,
		      uint64_t now_ns);
/* Take n at every level, or at none: if the longest wait of all is above delay_max_ns nothing is
 * taken, *ret_wait_ns is that wait, *ret_level the first level that has it, and the answer false.
 */
bool rate_take(const struct rate_level *levels, size_t n_levels, uint64_t n, uint64_t now_ns,
	       uint64_t delay_max_ns, uint64_t *ret_wait_ns, size_t *ret_level);

#endif
