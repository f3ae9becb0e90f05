/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_TENANT_H
#define IB_BROKER_TENANT_H

/*
 * Who is charged. A tenant is there as long as somebody refers to it, its sessions and connections;
 * after that its counters are kept, see tenant_idle.c.
 */

#include "broker/ledger.h"
#include "broker/policy.h"
#include "broker/rates.h"

struct tenant {
	char name[BROKER_NAME_MAX];
	const struct tenant_rule *rule; /* of the policy that holds; NULL: the settings' limits */
	char rule_name[TENANT_RULE_NAME_MAX]; /* "": made where no rule was for it */
	uid_t uid;                            /* of the first of its clients */
	bool stranger;                        /* no rule is for it any more */
	struct ledger_account account;
	struct rate_account rates;
	struct pool_share *share; /* at most a quarter of the pool */
	_Atomic uint64_t calls;   /* charged so far */
	uint32_t refs;            /* broker's lock; 0: it is idle */
	struct tenant *prev, *next;
};

/* The tenant of a peer, with one more reference; made if there is none. Without the broker's lock:
 * hundreds of rules take their time, and are looked at before it is taken. 0, or REFUSED: no rule
 * is for this peer, or no memory. */
int tenant_get(struct broker *broker, const struct peer *peer, struct tenant **ret,
	       struct refusal *refusal);
/* The one of that name, with one more reference, as a process before this one knew it; whether its
 * rule is still there is found out as at a reload. With the broker's lock held. NULL: no memory. */
struct tenant *tenant_restore(struct broker *broker, const char *name, const char *rule_name,
			      uid_t uid);
/* Whether such a user is served although no rule is for it. */
bool tenant_may_go_without_rule(const struct broker_settings *settings, uid_t uid);
/* One reference fewer. With the broker's lock held. */
void tenant_put(struct broker *broker, struct tenant *tenant);
#define TENANTS_IDLE_MAX 256
/* Nobody refers to it any more: keep what it counted, and forget another one if these are too many.
 * With the broker's lock held, as for the next two. */
void tenant_keep_idle(struct broker *broker, struct tenant *tenant);
/* It is idle, and somebody is about to refer to it. */
void tenant_wake(struct broker *broker, struct tenant *tenant);
void tenants_forget_idle(struct broker *broker);
/* The policy has changed. With the broker's lock held. */
void tenant_reload(struct broker *broker, struct tenant *tenant);

#endif
