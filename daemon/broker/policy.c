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

/* Calls go on, or it could not even give back what it has. */
static bool is_of_calls(enum ledger_resource resource)
{
	return resource == LEDGER_CALLS || resource == LEDGER_DESCRIPTORS ||
	       resource == LEDGER_QUEUED_BYTES;
}

uint32_t policy_event_slots(const struct ledger_limits *guest)
{
	uint64_t n = guest->of[LEDGER_EVENT_SLOTS].max;

	if (n == UINT64_MAX)
		return BROKER_EVENTS_DEFAULT;
	return n < 1 ? 1 : n < BROKER_EVENTS_MAX ? (uint32_t)n : BROKER_EVENTS_MAX;
}

void policy_limit_stranger(const struct policy *policy, enum limit_level level,
			   struct ledger_limits *ret)
{
	policy_limits(policy, NULL, level, ret);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		if (!is_of_calls(i))
			ledger_limits_tighten(ret, i, 0, "no rule of quota.d any more");
}
