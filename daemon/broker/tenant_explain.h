/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_TENANT_EXPLAIN_H
#define IB_BROKER_TENANT_EXPLAIN_H

/* For operators: who somebody would be charged to, by which rule, and why by none before it. */

#include "broker/broker.h"
#include "broker/tenant_rule.h"

#define TENANT_EXPLAINED_RULES_MAX  128 /* that are told; the one that decides always is */
#define TENANT_EXPLAINED_LIMITS_MAX (LIMIT_LEVELS * LEDGER_RESOURCES)

struct tenant_explanation {
	bool served;
	bool manager;
	char reason[160]; /* one sentence: by what it is served, or why not */
	char tenant[TENANT_NAME_MAX];
	char rule[TENANT_RULE_NAME_MAX]; /* "": none */
	char rule_file[256];
	size_t n_rules;
	size_t n_rules_left_out; /* before the one that decides */
	struct {
		char rule[TENANT_RULE_NAME_MAX];
		char why[TENANT_WHY_MAX];
	} rules[TENANT_EXPLAINED_RULES_MAX];
	size_t n_limits; /* that are not "no limit" */
	struct {
		const char *level, *resource; /* their names, static */
		uint64_t max;
		char where[LIMIT_WHERE_MAX];
	} limits[TENANT_EXPLAINED_LIMITS_MAX];
};

/* By the rules that hold now. known: a bit for each enum tenant_property that the identity has; a
 * rule that asks for more is told as such, and passed over. 0, or REFUSED (no memory). *ret is the
 * caller's to free(). Any thread. */
int broker_explain_tenant(struct tenant_explanation **ret, struct broker *broker,
			  const struct tenant_identity *identity, unsigned int known,
			  struct refusal *refusal);

#endif
