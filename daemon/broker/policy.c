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

static void limits_add(struct ledger_limits *limits,
		       const struct tenant_limit of_rule[LEDGER_RESOURCES])
{
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		if (of_rule[i].set)
			ledger_limits_tighten(limits, i, of_rule[i].max, of_rule[i].where);
}

void policy_limit_host(const struct policy *policy, struct ledger_limits *ret)
{
	const struct broker_settings *s = &policy->settings;

	ledger_limits_init(ret);
	ledger_limits_tighten(ret, LEDGER_PINNED_BYTES, s->host_pinned_bytes_max, RULE_HOST_PINNED);
	ledger_limits_tighten(ret, LEDGER_MEMORY_FILES, s->memory_files_max, RULE_HOST_FILES);
	ledger_limits_tighten(ret, LEDGER_SESSIONS, s->sessions_max, RULE_HOST_SESSIONS);
}

void policy_limit_tenant(const struct policy *policy, const struct tenant_rule *rule,
			 struct ledger_limits *ret)
{
	const struct broker_settings *s = &policy->settings;

	ledger_limits_init(ret);
	ledger_limits_tighten(ret, LEDGER_SESSIONS, s->sessions_per_user_max, RULE_TENANT_SESSIONS);
	ledger_limits_tighten(ret, LEDGER_MEMORY_FILES, s->memory_files_per_user_max,
			      RULE_TENANT_FILES);
	if (rule)
		limits_add(ret, rule->tenant);
}

void policy_limit_session(const struct policy *policy, struct ledger_limits *ret)
{
	ledger_limits_init(ret);
	ledger_limits_tighten(ret, LEDGER_GUESTS, policy->settings.guests_per_session_max,
			      RULE_SESSION_GUESTS);
}

void policy_limit_guest(const struct policy *policy, const struct tenant_rule *rule,
			struct ledger_limits *ret)
{
	const struct broker_settings *s = &policy->settings;

	ledger_limits_init(ret);
	ledger_limits_tighten(ret, LEDGER_PINNED_BYTES, s->guest_pinned_bytes_max,
			      RULE_GUEST_PINNED);
	ledger_limits_tighten(ret, LEDGER_MAPPINGS, s->guest_mappings_max, RULE_GUEST_MAPPINGS);
	ledger_limits_tighten(ret, LEDGER_REGIONS, s->regions_per_guest_max, RULE_GUEST_REGIONS);
	ledger_limits_tighten(ret, LEDGER_MEMORY_FILES, BROKER_MEMORY_FILES_MAX, RULE_GUEST_FILES);
	ledger_limits_tighten(ret, LEDGER_DEVICES, s->devices_per_guest_max, RULE_GUEST_DEVICES);
	ledger_limits_tighten(ret, LEDGER_NESTED, s->nested_per_guest_max, RULE_GUEST_NESTED);
	if (rule)
		limits_add(ret, rule->guest);
}

void policy_limit_stranger(struct ledger_limits *ret)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		ret->of[i].max = 0;
		ret->of[i].rule = "no rule of quota.d any more";
	}
}
