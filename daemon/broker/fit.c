/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Would it fit? The same sums that the real calls would charge, held against the same limits, and
 * nothing is charged.
 *
 * What is asked for is shared among the new guests, and mappings among the nested domains, as
 * evenly as it goes: first guest and first domain get what is left over. So the first guest has the
 * most of everything, and only it must be held against the limits of a guest.
 */
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "broker/nested.h"
#include "broker/root.h"
#include "broker/session.h"
#include "broker/tenant.h"

#define PAGE_BYTES 4096

/* A level's limits and use, as an account has them or as a new one would. */
struct fit_level {
	enum limit_level level;
	struct usage usage[LEDGER_RESOURCES];
	char where[LEDGER_RESOURCES][LIMIT_WHERE_MAX];
};

struct fit {
	struct ledger_amounts guest, all; /* the first guest's, and everything */
	size_t n;
	struct fit_level levels[LIMIT_LEVELS];
};

/* ── amounts ───────────────────────────────────────────────────────────────────────────────── */

static uint64_t sum(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t product(uint64_t a, uint64_t b)
{
	uint64_t result;

	return __builtin_mul_overflow(a, b, &result) ? UINT64_MAX : result;
}

static uint64_t share_of_first(uint64_t amount, uint64_t guests)
{
	return amount / guests + (amount % guests ? 1 : 0);
}

/* Memory comes in pages. */
static uint64_t bytes_of_first(uint64_t bytes, uint64_t guests)
{
	if (guests == 1)
		return bytes;
	return product(share_of_first(share_of_first(bytes, PAGE_BYTES), guests), PAGE_BYTES);
}

/* n nested domains of which each asked for so many mappings. */
static void add_nested(struct ledger_amounts *amounts, uint64_t n, uint64_t asked)
{
	struct shadow_limits limits = nested_shadow_limits(asked, 0, UINT64_MAX);

	amounts->amount[LEDGER_MAPPINGS] =
		sum(amounts->amount[LEDGER_MAPPINGS], product(n, limits.leaves_max));
	amounts->amount[LEDGER_TABLE_BYTES] =
		sum(amounts->amount[LEDGER_TABLE_BYTES], product(n, shadow_storage_bytes(&limits)));
}

/* Domains go to the guests in turn, those that reserve one more first. */
static void fit_nested(struct fit *fit, const struct fit_request *request, uint64_t guests,
		       uint64_t mappings_default)
{
	uint64_t n = request->nested_domains, asked = mappings_default, more = 0;

	if (request->mappings && n) {
		asked = request->mappings / n;
		more = request->mappings % n;
	}
	add_nested(&fit->all, more, asked + 1);
	add_nested(&fit->all, n - more, asked);
	add_nested(&fit->guest, share_of_first(more, guests), asked + 1);
	add_nested(&fit->guest, share_of_first(n, guests) - share_of_first(more, guests), asked);
	if (n)
		return;
	fit->all.amount[LEDGER_MAPPINGS] = request->mappings;
	fit->guest.amount[LEDGER_MAPPINGS] = share_of_first(request->mappings, guests);
}

static void add_rings(struct ledger_amounts *amounts, uint64_t n, uint64_t bytes)
{
	amounts->amount[LEDGER_RINGS] = n;
	amounts->amount[LEDGER_TABLE_BYTES] =
		sum(amounts->amount[LEDGER_TABLE_BYTES], product(n, bytes));
}

static void fit_amount(struct fit *fit, enum ledger_resource resource, uint64_t amount,
		       uint64_t guests)
{
	fit->all.amount[resource] = amount;
	fit->guest.amount[resource] = share_of_first(amount, guests);
}

static void fit_amounts(struct fit *fit, const struct fit_request *request,
			const struct policy *policy, uint64_t event_slots)
{
	uint64_t guests = request->guests ? request->guests : 1;

	fit->all.amount[LEDGER_PINNED_BYTES] = request->pinned_bytes;
	fit->guest.amount[LEDGER_PINNED_BYTES] = bytes_of_first(request->pinned_bytes, guests);
	fit_amount(fit, LEDGER_REGIONS, request->regions, guests);
	fit_amount(fit, LEDGER_MEMORY_FILES, request->memory_files, guests);
	fit_amount(fit, LEDGER_DEVICES, request->devices, guests);
	fit_amount(fit, LEDGER_NESTED, request->nested_domains, guests);
	fit_nested(fit, request, guests, policy->settings.nested_mappings_default);
	add_rings(&fit->all, request->rings, request->ring_bytes);
	add_rings(&fit->guest, share_of_first(request->rings, guests), request->ring_bytes);
	/* The guests themselves are their session's; and a queue is as long as its limit lets it.
	 */
	fit->all.amount[LEDGER_GUESTS] = request->guests;
	fit->all.amount[LEDGER_EVENT_SLOTS] = product(request->guests, event_slots);
}

/* ── levels ────────────────────────────────────────────────────────────────────────────────── */

static void level_of_account(struct fit *fit, struct broker *broker,
			     const struct ledger_account *account)
{
	struct fit_level *level = &fit->levels[fit->n++];

	level->level = account->level;
	ledger_usage_where(&broker->ledger, account, level->usage, level->where);
}

static void level_of_limits(struct fit *fit, enum limit_level of,
			    const struct ledger_limits *limits)
{
	struct fit_level *level = &fit->levels[fit->n++];

	memset(level, 0, sizeof(*level));
	level->level = of;
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		level->usage[i].max = limits->of[i].max;
		snprintf(level->where[i], sizeof(level->where[i]), "%s", limits->of[i].rule);
	}
}

static void level_of_guest(struct fit *fit, struct broker *broker, const struct tenant_rule *rule,
			   bool stranger, const struct fit_request *request)
{
	struct ledger_limits limits;

	policy_limits(broker->policy, rule, LIMIT_GUEST, &limits);
	fit_amounts(fit, request, broker->policy, policy_event_slots(&limits));
	if (stranger)
		policy_limit_stranger(broker->policy, LIMIT_GUEST, &limits);
	level_of_limits(fit, LIMIT_GUEST, &limits);
}

/* A session that a tenant would open now. */
static void level_of_new_session(struct fit *fit, struct broker *broker,
				 const struct tenant_rule *rule)
{
	struct ledger_limits limits;

	policy_limits(broker->policy, rule, LIMIT_SESSION, &limits);
	level_of_limits(fit, LIMIT_SESSION, &limits);
	fit->all.amount[LEDGER_SESSIONS] = 1;
}

static void level_of_new_tenant(struct fit *fit, struct broker *broker,
				const struct tenant_rule *rule)
{
	struct ledger_limits limits;

	policy_limits(broker->policy, rule, LIMIT_TENANT, &limits);
	level_of_limits(fit, LIMIT_TENANT, &limits);
}

/* ── what is missing ───────────────────────────────────────────────────────────────────────── */

static bool level_lacks(const struct fit *fit, const struct fit_level *level,
			enum ledger_resource resource, struct fit_missing *ret)
{
	const struct usage *usage = &level->usage[resource];
	uint64_t requested = level->level == LIMIT_GUEST ? fit->guest.amount[resource]
							 : fit->all.amount[resource];
	uint64_t room = usage->max > usage->current ? usage->max - usage->current : 0;

	if (requested <= room)
		return false;
	*ret = (struct fit_missing){
		.resource = resource,
		.level = level->level,
		.limit = usage->max,
		.used = usage->current,
		.requested = requested,
		/* A limit below what is used must first reach that. */
		.missing = sum(requested - room,
			       usage->current > usage->max ? usage->current - usage->max : 0),
	};
	memcpy(ret->rule, level->where[resource], sizeof(ret->rule));
	return true;
}

static size_t fit_missing(const struct fit *fit, struct fit_missing *ret)
{
	size_t n = 0;

	for (int i = 0; i < LEDGER_RESOURCES; i++)
		for (size_t j = 0; j < fit->n; j++)
			if (level_lacks(fit, &fit->levels[j], i, &ret[n]))
				n++;
	return n;
}

int check_fit(struct broker *broker, struct session *session, const struct fit_request *request,
	      struct fit_missing *ret, size_t *ret_n, struct refusal *refusal)
{
	struct fit fit = {0};
	bool ended;

	pthread_mutex_lock(&broker->lock);
	ended = session && !session->tenant;
	if (session && !ended) {
		const struct tenant *tenant = session->tenant;

		level_of_guest(&fit, broker, tenant->rule, tenant->stranger, request);
		level_of_account(&fit, broker, &session->account);
		level_of_account(&fit, broker, &tenant->account);
	} else if (!ended) {
		fit_amounts(&fit, request, broker->policy, BROKER_EVENTS_DEFAULT);
	}
	level_of_account(&fit, broker, &broker->host);
	pthread_mutex_unlock(&broker->lock);
	if (ended)
		return refuse(refusal, REFUSAL_CANCELLED, "SESSION_ENDED", "the session has ended");
	*ret_n = fit_missing(&fit, ret);
	return 0;
}

/* ── a tenant by its name ──────────────────────────────────────────────────────────────────── */

/* "users/1000" is of the rule "users". */
static const struct tenant_rule *rule_of_name(const struct policy *policy, const char *tenant)
{
	const struct tenant_rule *rules = policy->settings.tenant_rules;
	size_t length = strcspn(tenant, "/");

	for (size_t i = 0; i < policy->settings.n_tenant_rules; i++)
		if (strlen(rules[i].name) == length && !strncmp(rules[i].name, tenant, length))
			return &rules[i];
	return NULL;
}

/* With the broker's lock held. false: there is neither such a tenant nor a rule for it. */
static bool fit_tenant(struct fit *fit, struct broker *broker, const char *name,
		       const struct fit_request *request)
{
	const struct tenant_rule *rule = rule_of_name(broker->policy, name);
	const struct tenant *tenant;

	DL_FOREACH (broker->tenants, tenant)
		if (!strcmp(tenant->name, name))
			break;
	if (!tenant && !rule)
		return false;
	if (tenant)
		rule = tenant->rule;
	level_of_guest(fit, broker, rule, tenant && tenant->stranger, request);
	level_of_new_session(fit, broker, rule);
	if (tenant)
		level_of_account(fit, broker, &tenant->account);
	else
		level_of_new_tenant(fit, broker, rule);
	level_of_account(fit, broker, &broker->host);
	return true;
}

int check_fit_tenant(struct broker *broker, const char *tenant, const struct fit_request *request,
		     struct fit_missing *ret, size_t *ret_n, struct refusal *refusal)
{
	struct fit fit = {0};
	bool known;

	pthread_mutex_lock(&broker->lock);
	known = fit_tenant(&fit, broker, tenant, request);
	pthread_mutex_unlock(&broker->lock);
	if (!known)
		return refuse(refusal, REFUSAL_NOT_FOUND, "NOT_FOUND",
			      "there is no tenant '%.63s', and no rule for it", tenant);
	*ret_n = fit_missing(&fit, ret);
	return 0;
}
