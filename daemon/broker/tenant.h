/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_TENANT_H
#define IB_BROKER_TENANT_H

/* Who is charged. A tenant lives as long as one of its sessions does. */

#include "broker/ledger.h"
#include "broker/tenant_rule.h"

struct tenant {
	char name[BROKER_NAME_MAX];
	const struct tenant_rule *rule; /* NULL: the settings' limits for each user */
	struct ledger_account account;
	struct pool_share *share; /* at most a quarter of the pool */
	uint32_t sessions;        /* broker's lock */
	struct tenant *prev, *next;
};

/* The tenant of a peer, with one more session counted in it; made if there is none. With the
 * broker's lock held. 0, or REFUSED: no rule is for this peer, or no memory. */
int tenant_get(struct broker *broker, const struct peer *peer, struct tenant **ret,
	       struct refusal *refusal);
/* One session fewer. With the broker's lock held. */
void tenant_put(struct broker *broker, struct tenant *tenant);
/* The limits of a guest under that rule, or NULL, on a new account. */
void tenant_limit_guest(const struct broker *broker, const struct tenant_rule *rule,
			struct ledger_account *account);

#endif
