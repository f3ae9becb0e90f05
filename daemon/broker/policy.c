/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/policy.h"

#include <stdlib.h>

#include "broker/root.h"

struct policy *policy_new(const struct broker_settings *settings, void (*release)(void *context),
			  void *context)
{
	struct policy *policy = calloc(1, sizeof(*policy));

	if (!policy)
		return NULL;
	atomic_init(&policy->refs, 1);
	policy->settings = *settings;
	policy->release = release;
	policy->context = context;
	return policy;
}

struct policy *policy_get(struct broker *broker)
{
	struct policy *policy;

	pthread_mutex_lock(&broker->policy_lock);
	policy = broker->policy;
	atomic_fetch_add_explicit(&policy->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&broker->policy_lock);
	return policy;
}

struct policy *policy_unref(struct policy *policy)
{
	if (!policy || atomic_fetch_sub_explicit(&policy->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	if (policy->release)
		policy->release(policy->context);
	free(policy);
	return NULL;
}

/* ── limits ────────────────────────────────────────────────────────────────────────────────── */

static void limits_add(struct ledger_limits *limits, const struct limit_set *set)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		if (set->max[i].set)
			ledger_limits_tighten(limits, i, set->max[i].max, set->max[i].where);
		if (set->high[i].set)
			ledger_limits_tighten_high(limits, i, set->high[i].max, set->high[i].where);
	}
}

void policy_limits(const struct policy *policy, const struct tenant_rule *rule,
		   enum limit_level level, struct ledger_limits *ret)
{
	ledger_limits_init(ret);
	limits_add(ret, &policy->settings.limits[level]);
	if (rule)
		limits_add(ret, &rule->limits[level]);
}

void policy_limit_stranger(struct ledger_limits *ret)
{
	ledger_limits_init(ret);
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		ret->of[i].max = 0;
		ret->of[i].rule = "no rule of quota.d any more";
	}
}
