/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_POLICY_H
#define IB_BROKER_POLICY_H

/*
 * The settings that hold at a moment, and the limits that follow from them at each level.
 *
 * A reload makes another policy; whoever decides by one keeps a reference while it does.
 */

#include <stdatomic.h>

#include "broker/ledger.h"
#include "broker/tenant_rule.h"

struct policy {
	atomic_uint refs;
	struct broker_settings settings;
	void (*release)(void *context); /* what the settings borrow is not needed any more */
	void *context;
};

/* NULL: no memory, and release() was not called. */
struct policy *policy_new(const struct broker_settings *settings, void (*release)(void *context),
			  void *context);
/* A reference to the one that holds now. Any thread, any lock held. */
struct policy *policy_get(struct broker *broker);
struct policy *policy_unref(struct policy *policy); /* returns NULL */

/* Those that hold at a level. rule: the tenant's, or NULL. What *ret borrows lives as long as the
 * policy. */
void policy_limits(const struct policy *policy, const struct tenant_rule *rule,
		   enum limit_level level, struct ledger_limits *ret);
/* Of a tenant that no rule is for any more: it keeps what it has, gets nothing new, and can make
 * the calls that give back. */
void policy_limit_stranger(const struct policy *policy, enum limit_level level,
			   struct ledger_limits *ret);

/* How many events a guest's queue holds, by the limits of a guest. */
uint32_t policy_event_slots(const struct ledger_limits *guest);

#endif
