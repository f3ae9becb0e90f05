/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/tenant.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/guest.h"
#include "broker/root.h"
#include "broker/session.h"
#include "util/clock.h"

/* ── whose ─────────────────────────────────────────────────────────────────────────────────── */

static int refuse_stranger(const struct tenant_identity *identity, struct refusal *refusal)
{
	return refuse(refusal, REFUSAL_DENIED, "NO_TENANT_RULE",
		      "no file of quota.d has a rule for user %lu in cgroup '%.160s'",
		      (unsigned long)identity->uid, identity->cgroup);
}

/* Without any rule each user is a tenant; with rules root and the daemon's own user are still
 * served, so that an operator who tries something out is not turned away. */
bool tenant_may_go_without_rule(const struct broker_settings *s, uid_t uid)
{
	return !s->n_tenant_rules || !uid || uid == geteuid();
}

static int tenant_find_rule(const struct policy *policy, const struct peer *peer,
			    const struct tenant_rule **ret_rule, char ret_name[BROKER_NAME_MAX],
			    struct refusal *refusal)
{
	const struct tenant_identity numbers = {
		.uid = peer->uid,
		.n_groups = 1,
		.groups = {peer->gid},
	};
	const struct tenant_identity *identity = peer->identity ? peer->identity : &numbers;
	const struct broker_settings *s = &policy->settings;

	/* A rule that is not found for want of knowledge could be the one that restricts. */
	if (!peer->identity && s->n_tenant_rules)
		return refuse(refusal, REFUSAL_DENIED, "PEER_UNKNOWN",
			      "groups and cgroup of process %d cannot be read", (int)peer->pid);
	*ret_rule = tenant_rule_find(s->tenant_rules, s->n_tenant_rules, identity);
	if (*ret_rule)
		tenant_rule_name(*ret_rule, identity, ret_name);
	else if (!tenant_may_go_without_rule(s, identity->uid))
		return refuse_stranger(identity, refusal);
	else
		snprintf(ret_name, BROKER_NAME_MAX, "uid:%lu", (unsigned long)identity->uid);
	return 0;
}

static void tenant_set_limits(struct broker *broker, struct tenant *tenant)
{
	struct ledger_limits limits;

	if (tenant->stranger)
		policy_limit_stranger(broker->policy, LIMIT_TENANT, &limits);
	else
		policy_limits(broker->policy, tenant->rule, LIMIT_TENANT, &limits);
	ledger_account_set_limits(&broker->ledger, &tenant->account, &limits);
	rates_set_limits(
		&broker->rates, &tenant->rates, &broker->policy->settings.limits[LIMIT_TENANT],
		tenant->rule ? &tenant->rule->limits[LIMIT_TENANT] : NULL, clock_monotonic_ns());
}

/* Of its first client, or of the first that comes back after it was idle. */
static void tenant_set_rule(struct broker *broker, struct tenant *tenant, uid_t uid,
			    const struct tenant_rule *rule)
{
	tenant->rule = rule;
	tenant->uid = uid;
	tenant->stranger = false;
	memset(tenant->rule_name, 0, sizeof(tenant->rule_name));
	if (rule)
		memcpy(tenant->rule_name, rule->name, sizeof(tenant->rule_name));
	tenant_set_limits(broker, tenant);
}

static struct tenant *tenant_new(struct broker *broker, const char *name, uid_t uid,
				 const struct tenant_rule *rule)
{
	unsigned int quarter = broker->policy->settings.threads_max / 4;
	struct tenant *tenant = calloc(1, sizeof(*tenant));

	if (!tenant)
		return NULL;
	tenant->share = pool_share_new(quarter ? quarter : 1);
	if (!tenant->share) {
		free(tenant);
		return NULL;
	}
	snprintf(tenant->name, sizeof(tenant->name), "%s", name);
	ledger_account_init(&tenant->account, &broker->host, LIMIT_TENANT, tenant->name);
	rates_open(&broker->rates, &tenant->rates, tenant->name, clock_monotonic_ns());
	tenant_set_rule(broker, tenant, uid, rule);
	DL_PREPEND(broker->tenants, tenant);
	broker->n_tenants++;
	return tenant;
}

static void tenant_return(struct broker *broker, struct tenant *tenant, uid_t uid,
			  const struct tenant_rule *rule)
{
	tenant_wake(broker, tenant);
	tenant_set_rule(broker, tenant, uid, rule);
	broker->n_tenants++;
}

/* The one of that name, made if there is none. With the broker's lock held. */
static int tenant_take(struct broker *broker, const char *name, uid_t uid,
		       const struct tenant_rule *rule, struct tenant **ret, struct refusal *refusal)
{
	struct tenant *tenant;

	DL_FOREACH (broker->tenants, tenant)
		if (!strcmp(tenant->name, name))
			break;
	if (!tenant)
		tenant = tenant_new(broker, name, uid, rule);
	else if (!tenant->refs)
		tenant_return(broker, tenant, uid, rule);
	if (!tenant)
		return refuse_errno(refusal, ENOMEM, "session");
	tenant->refs++;
	*ret = tenant;
	return 0;
}

/* By one policy. false: another holds meanwhile. */
static bool tenant_try(struct broker *broker, const struct peer *peer, struct tenant **ret,
		       int *ret_status, struct refusal *refusal)
{
	struct policy *policy = policy_get(broker);
	const struct tenant_rule *rule;
	char name[BROKER_NAME_MAX];
	bool holds;

	*ret_status = tenant_find_rule(policy, peer, &rule, name, refusal);
	pthread_mutex_lock(&broker->lock);
	holds = broker->policy == policy;
	if (holds && !*ret_status)
		*ret_status = tenant_take(broker, name, peer->uid, rule, ret, refusal);
	pthread_mutex_unlock(&broker->lock);
	policy_unref(policy);
	return holds;
}

int tenant_get(struct broker *broker, const struct peer *peer, struct tenant **ret,
	       struct refusal *refusal)
{
	int status;

	while (!tenant_try(broker, peer, ret, &status, refusal))
		;
	return status;
}

/* The rule of its name, which may be another text now. Where each user was a tenant for want of
 * rules, and now there are some, there is none for it. */
void tenant_reload(struct broker *broker, struct tenant *tenant)
{
	const struct broker_settings *s = &broker->policy->settings;

	tenant->rule = NULL;
	for (size_t i = 0; i < s->n_tenant_rules && tenant->rule_name[0]; i++)
		if (!strcmp(s->tenant_rules[i].name, tenant->rule_name))
			tenant->rule = &s->tenant_rules[i];
	tenant->stranger = !tenant->rule &&
			   (tenant->rule_name[0] || !tenant_may_go_without_rule(s, tenant->uid));
	tenant_set_limits(broker, tenant);
}

struct tenant *tenant_restore(struct broker *broker, const char *name, const char *rule_name,
			      uid_t uid)
{
	struct refusal refusal;
	struct tenant *tenant;

	if (tenant_take(broker, name, uid, NULL, &tenant, &refusal))
		return NULL;
	if (!tenant->rule && !tenant->rule_name[0]) {
		snprintf(tenant->rule_name, sizeof(tenant->rule_name), "%s", rule_name);
		tenant_reload(broker, tenant);
	}
	return tenant;
}

void tenant_put(struct broker *broker, struct tenant *tenant)
{
	if (--tenant->refs)
		return;
	broker->n_tenants--;
	tenant_keep_idle(broker, tenant);
}

/* ── for rpc/ ──────────────────────────────────────────────────────────────────────────────── */

int broker_tenant_find(struct tenant **ret, struct broker *broker, const struct peer *peer,
		       struct refusal *refusal)
{
	return tenant_get(broker, peer, ret, refusal);
}

struct tenant *broker_tenant_ref(struct broker *broker, struct tenant *tenant)
{
	pthread_mutex_lock(&broker->lock);
	tenant->refs++;
	pthread_mutex_unlock(&broker->lock);
	return tenant;
}

struct tenant *broker_tenant_of(struct broker *broker, struct session *session)
{
	struct tenant *tenant;

	pthread_mutex_lock(&broker->lock);
	tenant = session->tenant;
	if (tenant)
		tenant->refs++;
	pthread_mutex_unlock(&broker->lock);
	return tenant;
}

struct tenant *broker_tenant_unref(struct broker *broker, struct tenant *tenant)
{
	if (!tenant)
		return NULL;
	pthread_mutex_lock(&broker->lock);
	tenant_put(broker, tenant);
	pthread_mutex_unlock(&broker->lock);
	return NULL;
}

int broker_charge(struct broker *broker, struct tenant *tenant, enum ledger_resource resource,
		  uint64_t amount, struct refusal *refusal)
{
	int status = ledger_charge_one(&broker->ledger, tenant ? &tenant->account : &broker->host,
				       resource, amount, refusal);

	if (!status && tenant && resource == LEDGER_CALLS)
		atomic_fetch_add_explicit(&tenant->calls, amount, memory_order_relaxed);
	return status;
}

void broker_refund(struct broker *broker, struct tenant *tenant, enum ledger_resource resource,
		   uint64_t amount)
{
	ledger_refund_one(&broker->ledger, tenant ? &tenant->account : &broker->host, resource,
			  amount);
}

bool broker_rate_limited(const struct broker *broker, const struct tenant *tenant,
			 const struct rate_request *request)
{
	unsigned int limited = 0;

	if (!request->guest_only)
		limited = atomic_load_explicit(&tenant->rates.limited, memory_order_relaxed);
	if (request->handle)
		limited |=
			atomic_load_explicit(&broker->rates.guests_limited, memory_order_relaxed);
	return limited & 1u << request->kind;
}

int broker_rate_take(struct broker *broker, struct tenant *tenant,
		     const struct rate_request *request, uint64_t *ret_wait_ns,
		     struct refusal *refusal)
{
	struct object *object = NULL;
	struct tenant *payer = request->guest_only ? NULL : tenant;
	int status = 0;

	if (request->handle && request->session)
		object = handle_find_any(broker, request->session, request->handle);
	if (object || payer)
		status = rates_take(&broker->rates, object ? &object->guest->rates : NULL,
				    payer ? &payer->rates : NULL, request, ret_wait_ns, refusal);
	else
		*ret_wait_ns = 0;
	object_unref(object);
	return status;
}
