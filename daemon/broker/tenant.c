/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/tenant.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/root.h"

/* ── limits ────────────────────────────────────────────────────────────────────────────────── */

static void limits_apply(struct ledger_account *account,
			 const struct tenant_limit limits[LEDGER_RESOURCES])
{
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		if (limits[i].set)
			ledger_account_tighten(account, i, limits[i].max, limits[i].where);
}

void tenant_limit_guest(const struct broker *broker, const struct tenant_rule *rule,
			struct ledger_account *account)
{
	const struct broker_settings *s = &broker->settings;
	const struct {
		enum ledger_resource resource;
		uint64_t max;
		const char *rule;
	} settings[] = {
		{LEDGER_PINNED_BYTES, s->guest_pinned_bytes_max, RULE_GUEST_PINNED},
		{LEDGER_MAPPINGS, s->guest_mappings_max, RULE_GUEST_MAPPINGS},
		{LEDGER_REGIONS, s->regions_per_guest_max, RULE_GUEST_REGIONS},
		{LEDGER_MEMORY_FILES, BROKER_MEMORY_FILES_MAX, RULE_GUEST_FILES},
		{LEDGER_DEVICES, s->devices_per_guest_max, RULE_GUEST_DEVICES},
		{LEDGER_NESTED, s->nested_per_guest_max, RULE_GUEST_NESTED},
	};

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		ledger_account_limit(account, settings[i].resource, settings[i].max,
				     settings[i].rule);
	if (rule)
		limits_apply(account, rule->guest);
}

static void tenant_set_limits(const struct broker *broker, struct tenant *tenant)
{
	const struct broker_settings *s = &broker->settings;

	ledger_account_limit(&tenant->account, LEDGER_SESSIONS, s->sessions_per_user_max,
			     RULE_TENANT_SESSIONS);
	ledger_account_limit(&tenant->account, LEDGER_MEMORY_FILES, s->memory_files_per_user_max,
			     RULE_TENANT_FILES);
	if (tenant->rule)
		limits_apply(&tenant->account, tenant->rule->tenant);
}

/* ── whose ─────────────────────────────────────────────────────────────────────────────────── */

static int refuse_stranger(const struct tenant_identity *identity, struct refusal *refusal)
{
	return refuse(refusal, REFUSAL_DENIED, "NO_TENANT_RULE",
		      "no file of quota.d has a rule for user %lu in cgroup '%.160s'",
		      (unsigned long)identity->uid, identity->cgroup);
}

/* Without any rule each user is a tenant; with rules root and the daemon's own user are still
 * served, so that an operator who tries something out is not turned away. */
static int tenant_find_rule(const struct broker *broker, const struct tenant_identity *identity,
			    const struct tenant_rule **ret_rule, char ret_name[BROKER_NAME_MAX],
			    struct refusal *refusal)
{
	const struct broker_settings *s = &broker->settings;

	*ret_rule = tenant_rule_find(s->tenant_rules, s->n_tenant_rules, identity);
	if (*ret_rule)
		tenant_rule_name(*ret_rule, identity, ret_name);
	else if (s->n_tenant_rules && identity->uid && identity->uid != geteuid())
		return refuse_stranger(identity, refusal);
	else
		snprintf(ret_name, BROKER_NAME_MAX, "uid:%lu", (unsigned long)identity->uid);
	return 0;
}

static struct tenant *tenant_new(struct broker *broker, const char *name,
				 const struct tenant_rule *rule)
{
	unsigned int quarter = broker->settings.threads_max / 4;
	struct tenant *tenant = calloc(1, sizeof(*tenant));

	if (!tenant)
		return NULL;
	tenant->share = pool_share_new(quarter ? quarter : 1);
	if (!tenant->share) {
		free(tenant);
		return NULL;
	}
	snprintf(tenant->name, sizeof(tenant->name), "%s", name);
	tenant->rule = rule;
	ledger_account_init(&tenant->account, &broker->host, tenant->name);
	tenant_set_limits(broker, tenant);
	DL_APPEND(broker->tenants, tenant);
	broker->n_tenants++;
	return tenant;
}

int tenant_get(struct broker *broker, const struct peer *peer, struct tenant **ret,
	       struct refusal *refusal)
{
	const struct tenant_identity numbers = {
		.uid = peer->uid,
		.n_groups = 1,
		.groups = {peer->gid},
	};
	const struct tenant_identity *identity = peer->identity ? peer->identity : &numbers;
	const struct tenant_rule *rule;
	char name[BROKER_NAME_MAX];
	struct tenant *tenant;

	/* A rule that is not found for want of knowledge could be the one that restricts. */
	if (!peer->identity && broker->settings.n_tenant_rules)
		return refuse(refusal, REFUSAL_DENIED, "PEER_UNKNOWN",
			      "groups and cgroup of process %d cannot be read", (int)peer->pid);
	if (tenant_find_rule(broker, identity, &rule, name, refusal))
		return REFUSED;
	DL_FOREACH (broker->tenants, tenant)
		if (!strcmp(tenant->name, name))
			break;
	if (!tenant)
		tenant = tenant_new(broker, name, rule);
	if (!tenant)
		return refuse_errno(refusal, ENOMEM, "session");
	tenant->sessions++;
	*ret = tenant;
	return 0;
}

void tenant_put(struct broker *broker, struct tenant *tenant)
{
	if (--tenant->sessions)
		return;
	DL_DELETE(broker->tenants, tenant);
	broker->n_tenants--;
	pool_share_unref(tenant->share);
	free(tenant);
}
