/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_TENANT_H
#define IB_BROKER_TENANT_H

/* Who is charged. A tenant lives as long as one of its sessions does. */

#include "broker/ledger.h"

struct tenant {
	char name[BROKER_NAME_MAX];
	struct ledger_account account;
	struct pool_share *share; /* at most a quarter of the pool */
	uint32_t sessions;        /* broker's lock */
	struct tenant *prev, *next;
};

/* The tenant of a peer, with one more session counted in it; made if there is none. With the
 * broker's lock held. NULL: no memory. */
struct tenant *tenant_get(struct broker *broker, const struct peer *peer);
/* One session fewer. With the broker's lock held. */
void tenant_put(struct broker *broker, struct tenant *tenant);

#endif
