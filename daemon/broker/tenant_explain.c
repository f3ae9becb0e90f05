/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/tenant_explain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/policy.h"
#include "broker/tenant.h"

/* One place is kept for the rule that decides. */
static void rule_add(struct tenant_explanation *explanation, const struct tenant_rule *rule,
		     const char *why, bool decides)
{
	size_t n = explanation->n_rules;

	if (n + !decides >= TENANT_EXPLAINED_RULES_MAX) {
		explanation->n_rules_left_out++;
		return;
	}
	memcpy(explanation->rules[n].rule, rule->name, sizeof(rule->name));
	snprintf(explanation->rules[n].why, sizeof(explanation->rules[n].why), "%s", why);
	explanation->n_rules++;
}

static const struct tenant_rule *rule_decide(struct tenant_explanation *explanation,
					     const struct broker_settings *settings,
					     const struct tenant_identity *identity,
					     unsigned int known)
{
	for (size_t i = 0; i < settings->n_tenant_rules; i++) {
		const struct tenant_rule *rule = &settings->tenant_rules[i];
		char why[TENANT_WHY_MAX];
		enum tenant_fit fit = tenant_match_explain(&rule->match, identity, known, why);

		rule_add(explanation, rule, why, fit == TENANT_FITS);
		if (fit == TENANT_FITS)
			return rule;
	}
	return NULL;
}

static void verdict_tell(struct tenant_explanation *explanation,
			 const struct broker_settings *settings, const struct tenant_rule *rule,
			 const struct tenant_identity *identity)
{
	unsigned long uid = identity->uid;

	explanation->served = rule || tenant_may_go_without_rule(settings, identity->uid);
	snprintf(explanation->tenant, sizeof(explanation->tenant), "uid:%lu", uid);
	explanation->manager = rule && rule->manager;
	if (rule) {
		tenant_rule_name(rule, identity, explanation->tenant);
		memcpy(explanation->rule, rule->name, sizeof(rule->name));
		snprintf(explanation->rule_file, sizeof(explanation->rule_file), "%s",
			 rule->file ? rule->file : "");
		snprintf(explanation->reason, sizeof(explanation->reason),
			 "rule '%s' is the first that is for it", rule->name);
	} else if (!settings->n_tenant_rules) {
		snprintf(explanation->reason, sizeof(explanation->reason),
			 "quota.d has no rule: each user is a tenant");
	} else if (explanation->served) {
		snprintf(explanation->reason, sizeof(explanation->reason),
			 "no rule is for it, but root and the daemon's own user need none");
	} else {
		explanation->tenant[0] = '\0';
		snprintf(explanation->reason, sizeof(explanation->reason),
			 "no file of quota.d has a rule for it");
	}
}

static void limits_tell(struct tenant_explanation *explanation, const struct policy *policy,
			const struct tenant_rule *rule, enum limit_level level)
{
	struct ledger_limits limits;

	policy_limits(policy, level == LIMIT_HOST ? NULL : rule, level, &limits);
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		size_t n = explanation->n_limits;

		if (limits.of[i].max == UINT64_MAX)
			continue;
		explanation->limits[n].level = limit_level_name(level);
		explanation->limits[n].resource = ledger_resource_name((enum ledger_resource)i);
		explanation->limits[n].max = limits.of[i].max;
		snprintf(explanation->limits[n].where, sizeof(explanation->limits[n].where), "%s",
			 limits.of[i].rule ? limits.of[i].rule : "");
		explanation->n_limits++;
	}
}

int broker_explain_tenant(struct tenant_explanation **ret, struct broker *broker,
			  const struct tenant_identity *identity, unsigned int known,
			  struct refusal *refusal)
{
	struct tenant_explanation *explanation = calloc(1, sizeof(*explanation));
	const struct tenant_rule *rule;
	struct policy *policy;

	if (!explanation)
		return refuse_errno(refusal, ENOMEM, "explaining the quota");
	policy = policy_get(broker);
	rule = rule_decide(explanation, &policy->settings, identity, known);
	verdict_tell(explanation, &policy->settings, rule, identity);
	for (int level = 0; level < LIMIT_LEVELS && explanation->served; level++)
		limits_tell(explanation, policy, rule, (enum limit_level)level);
	policy_unref(policy);
	*ret = explanation;
	return 0;
}
