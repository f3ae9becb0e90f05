/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/rate.h"

#define SECOND_NS UINT64_C(1000000000)

static uint64_t add_capped(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* n tokens' worth of time, rounded up, so that no rate is ever exceeded by rounding. */
static uint64_t cost_ns(uint64_t n, uint64_t per_second)
{
	uint64_t seconds, rest;

	if (!n)
		return 0;
	if (!per_second)
		return UINT64_MAX;
	seconds = n / per_second;
	rest = n % per_second;
	if (seconds > UINT64_MAX / SECOND_NS - 1)
		return UINT64_MAX;
	/* rest < per_second: the quotient is at most SECOND_NS, whatever the product is. */
	return seconds * SECOND_NS +
	       (uint64_t)(((unsigned __int128)rest * SECOND_NS + per_second - 1) / per_second);
}

/* Where the bucket stands once n more were taken. */
static uint64_t paid_after(const struct rate_bucket *bucket, const struct rate_limit *limit,
			   uint64_t n, uint64_t now_ns)
{
	uint64_t from = bucket->paid_ns > now_ns ? bucket->paid_ns : now_ns;

	return add_capped(from, cost_ns(n, limit->per_second));
}

uint64_t rate_wait_ns(const struct rate_bucket *bucket, const struct rate_limit *limit, uint64_t n,
		      uint64_t now_ns)
{
	uint64_t paid, allowed;

	if (limit->per_second == RATE_NONE || !n)
		return 0;
	paid = paid_after(bucket, limit, n, now_ns);
	if (paid == UINT64_MAX)
		return UINT64_MAX;
	allowed = add_capped(now_ns, cost_ns(limit->burst ? limit->burst : 1, limit->per_second));
	return paid > allowed ? paid - allowed : 0;
}

bool rate_take(const struct rate_level *levels, size_t n_levels, uint64_t n, uint64_t now_ns,
	       uint64_t delay_max_ns, uint64_t *ret_wait_ns, size_t *ret_level)
{
	uint64_t longest = 0;
	size_t at = 0;

	for (size_t i = 0; i < n_levels; i++) {
		uint64_t wait = rate_wait_ns(levels[i].bucket, &levels[i].limit, n, now_ns);

		if (wait <= longest)
			continue;
		longest = wait;
		at = i;
	}
	*ret_wait_ns = longest;
	*ret_level = at;
	if (longest > delay_max_ns || longest == UINT64_MAX)
		return false;
	for (size_t i = 0; i < n_levels; i++)
		if (levels[i].limit.per_second != RATE_NONE)
			levels[i].bucket->paid_ns =
				paid_after(levels[i].bucket, &levels[i].limit, n, now_ns);
	return true;
}
