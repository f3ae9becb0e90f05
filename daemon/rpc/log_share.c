/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/log_share.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Of a tenant's comings and goings more lines are let through: a host that starts all its guests
 * at once is to find each of them in the log. */
#define LIFE_BURST       200
#define LIFE_INTERVAL_NS (LOG_RATE_INTERVAL_NS / 20)
/* Then every bucket of a share is full again, whatever was taken. */
#define IDLE_NS (LOG_RATE_BURST * LOG_RATE_INTERVAL_NS)
static_assert(LIFE_BURST * LIFE_INTERVAL_NS <= IDLE_NS, "");

static struct log_share *share_find(struct log_shares *shares, const char *name)
{
	for (size_t i = 0; i < shares->n; i++)
		if (!strcmp(shares->shares[i].name, name))
			return &shares->shares[i];
	return NULL;
}

/* What was not logged is told by the next line of all who have no place. */
static void share_leave(struct log_shares *shares, const struct log_share *share)
{
	for (int kind = 0; kind < LOG_KINDS; kind++)
		shares->others.rates[kind].suppressed += share->rates[kind].suppressed;
}

/* One that nobody has, or that of whoever was silent for longest. */
static struct log_share *share_place(struct log_shares *shares, uint64_t now_ns)
{
	struct log_share *oldest = &shares->shares[0];

	if (shares->n < LOG_SHARES_MAX)
		return &shares->shares[shares->n++];
	for (size_t i = 1; i < shares->n; i++)
		if (shares->shares[i].used_ns < oldest->used_ns)
			oldest = &shares->shares[i];
	if (now_ns - oldest->used_ns < IDLE_NS)
		return NULL;
	share_leave(shares, oldest);
	return oldest;
}

static struct log_share *share_make(struct log_shares *shares, const char *name, uint64_t now_ns)
{
	struct log_share *share = share_place(shares, now_ns);

	if (!share)
		return &shares->others;
	memset(share, 0, sizeof(*share));
	snprintf(share->name, sizeof(share->name), "%s", name);
	return share;
}

bool log_share_allow(struct log_shares *shares, const char *name, enum log_kind kind,
		     uint64_t now_ns, uint32_t *ret_suppressed)
{
	struct log_share *share = share_find(shares, name);

	if (!share)
		share = share_make(shares, name, now_ns);
	share->used_ns = now_ns;
	if (kind == LOG_KIND_LIFE)
		return log_rate_allow_more(&share->rates[kind], LIFE_BURST, LIFE_INTERVAL_NS,
					   now_ns, ret_suppressed);
	return log_rate_allow(&share->rates[kind], now_ns, ret_suppressed);
}
