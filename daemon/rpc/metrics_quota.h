/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METRICS_QUOTA_H
#define IB_RPC_METRICS_QUOTA_H

/*
 * The ledger's part of the metrics: the host and each tenant.
 *
 * How many tenants there are is up to their users, and names can be long: so many are listed as
 * fit, and at most METRICS_TENANTS_MAX; the others are summed as one, at a level of its own: a
 * tenant's name can be anything.
 */

#include "rpc/metrics_text.h"

#define METRICS_TENANTS_MAX 256

struct metrics_quota {
	struct usage_report *reports; /* the host's, the listed tenants', the sum of the others */
	size_t n_listed;
	bool others;      /* there is that sum */
	size_t n_tenants; /* of whom somebody is connected */
};

/* 0 or -ENOMEM. */
int metrics_quota_read(struct broker *broker, struct metrics_quota *ret);
/* List so many of the n tenants that are in reports as fit, and sum the others. */
void metrics_quota_bound(struct metrics_quota *quota, size_t n);
void metrics_quota_free(struct metrics_quota *quota);
/* All families of quotas. */
void metrics_quota_write(struct metrics_text *text, const struct metrics_quota *quota);

#endif
