/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/rates.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/tenant_rule.h"

#define MILLISECOND_NS UINT64_C(1000000)
#define LEVELS         3

const char *rate_kind_name(enum rate_kind kind)
{
	static const char *const names[RATES] = {
		[RATE_REQUESTS] = "requests",
		[RATE_REFRESHES] = "refreshes",
		[RATE_CONNECTIONS] = "connections",
	};

	return names[kind];
}

/* A second's worth; of refreshes at least the longest call, which else could never be made. */
static uint64_t burst_of(enum rate_kind kind, uint64_t per_second)
{
	if (kind == RATE_REFRESHES && per_second < BROKER_REFRESH_RANGES_MAX)
		return BROKER_REFRESH_RANGES_MAX;
	return per_second;
}

static struct rate_limit limit_of(const struct rate_account *account, enum rate_kind kind)
{
	uint64_t per_second = account->of[kind].per_second;

	return (struct rate_limit){per_second, burst_of(kind, per_second)};
}

/* ── life ─────────────────────────────────────────────────────────────────────────────────── */

static void account_init(struct rate_account *account, enum limit_level level, const char *tenant)
{
	memset(account, 0, sizeof(*account));
	account->tenant = tenant;
	account->level = level;
	for (int i = 0; i < RATES; i++)
		account->of[i].per_second = RATE_NONE;
}

void rates_init(struct rates *rates)
{
	pthread_mutex_init(&rates->lock, NULL);
	account_init(&rates->host, LIMIT_HOST, "host");
	atomic_init(&rates->guests_limited, 0);
	rates->n_debts = 0;
}

void rates_deinit(struct rates *rates)
{
	pthread_mutex_destroy(&rates->lock);
}

/* Until when. */
static uint64_t debt_end(const struct rate_debt *debt)
{
	uint64_t end = 0;

	for (int i = 0; i < RATES; i++)
		if (debt->paid_ns[i] > end)
			end = debt->paid_ns[i];
	return end;
}

static void debts_forget(struct rates *rates, size_t i)
{
	rates->debts[i] = rates->debts[--rates->n_debts];
}

static void debts_sweep(struct rates *rates, uint64_t now_ns)
{
	for (size_t i = rates->n_debts; i-- > 0;)
		if (debt_end(&rates->debts[i]) <= now_ns)
			debts_forget(rates, i);
}

static void debts_add(struct rates *rates, const struct rate_debt *debt)
{
	size_t least = 0;

	for (size_t i = 1; i < rates->n_debts; i++)
		if (debt_end(&rates->debts[i]) < debt_end(&rates->debts[least]))
			least = i;
	if (rates->n_debts < RATE_DEBTS_MAX)
		rates->debts[rates->n_debts++] = *debt;
	else if (debt_end(&rates->debts[least]) < debt_end(debt))
		rates->debts[least] = *debt;
}

void rates_open(struct rates *rates, struct rate_account *account, const char *tenant,
		uint64_t now_ns)
{
	account_init(account, LIMIT_TENANT, tenant);
	pthread_mutex_lock(&rates->lock);
	debts_sweep(rates, now_ns);
	for (size_t i = rates->n_debts; i-- > 0;) {
		if (strcmp(rates->debts[i].tenant, tenant))
			continue;
		for (int kind = 0; kind < RATES; kind++)
			account->of[kind].bucket.paid_ns = rates->debts[i].paid_ns[kind];
		debts_forget(rates, i);
	}
	pthread_mutex_unlock(&rates->lock);
}

void rates_close(struct rates *rates, struct rate_account *account, uint64_t now_ns)
{
	struct rate_debt debt;

	snprintf(debt.tenant, sizeof(debt.tenant), "%s", account->tenant);
	pthread_mutex_lock(&rates->lock);
	for (int i = 0; i < RATES; i++)
		debt.paid_ns[i] = account->of[i].bucket.paid_ns;
	debts_sweep(rates, now_ns);
	if (debt_end(&debt) > now_ns)
		debts_add(rates, &debt);
	pthread_mutex_unlock(&rates->lock);
}

void rates_open_guest(struct rate_account *account, const char *tenant)
{
	account_init(account, LIMIT_GUEST, tenant);
}

/* ── limits ───────────────────────────────────────────────────────────────────────────────── */

/* As many tokens are owed as before: each has another price now. One whose limit was not known
 * before, because the tenant was gone meanwhile, has the new one's. */
static void bucket_reprice(struct rate_bucket *bucket, uint64_t from, uint64_t to, uint64_t now_ns)
{
	unsigned __int128 owed_ns;

	if (to == RATE_NONE || bucket->paid_ns <= now_ns) {
		bucket->paid_ns = 0;
		return;
	}
	if (from == RATE_NONE)
		return;
	owed_ns = (unsigned __int128)(bucket->paid_ns - now_ns) * from / to;
	bucket->paid_ns = owed_ns > UINT64_MAX / 2 ? UINT64_MAX / 2 : now_ns + (uint64_t)owed_ns;
}

static const struct limit_setting *lower_of(const struct limit_setting *a,
					    const struct limit_setting *b)
{
	if (!b || !b->set)
		return a;
	return !a->set || b->max < a->max ? b : a;
}

static void limit_set(struct rate_account *account, enum rate_kind kind,
		      const struct limit_setting *limit, uint64_t now_ns)
{
	uint64_t per_second = limit->set ? limit->max : RATE_NONE;

	if (!per_second) /* nobody would ever get out of that */
		per_second = 1;
	bucket_reprice(&account->of[kind].bucket, account->of[kind].per_second, per_second, now_ns);
	account->of[kind].per_second = per_second;
	snprintf(account->of[kind].rule, sizeof(account->of[kind].rule), "%s",
		 per_second == RATE_NONE ? "" : limit->where);
}

void rates_set_limits(struct rates *rates, struct rate_account *account,
		      const struct limit_set *settings, const struct limit_set *rule,
		      uint64_t now_ns)
{
	unsigned int limited = 0;

	pthread_mutex_lock(&rates->lock);
	for (int i = 0; i < RATES; i++) {
		limit_set(account, i, lower_of(&settings->rate[i], rule ? &rule->rate[i] : NULL),
			  now_ns);
		if (account->of[i].per_second != RATE_NONE ||
		    (account->level == LIMIT_TENANT && rates->host.of[i].per_second != RATE_NONE))
			limited |= 1u << i;
	}
	atomic_store_explicit(&account->limited, limited, memory_order_relaxed);
	pthread_mutex_unlock(&rates->lock);
}

static unsigned int kinds_of(const struct limit_set *set)
{
	unsigned int kinds = 0;

	for (int i = 0; i < RATES_OF_GUEST; i++)
		if (set->rate[i].set && set->rate[i].max != RATE_NONE)
			kinds |= 1u << i;
	return kinds;
}

void rates_note_guests(struct rates *rates, const struct broker_settings *settings)
{
	unsigned int kinds = kinds_of(&settings->limits[LIMIT_GUEST]);

	for (size_t i = 0; i < settings->n_tenant_rules; i++)
		kinds |= kinds_of(&settings->tenant_rules[i].limits[LIMIT_GUEST]);
	atomic_store_explicit(&rates->guests_limited, kinds, memory_order_relaxed);
}

/* ── taking ───────────────────────────────────────────────────────────────────────────────── */

static int refuse_rate(struct refusal *refusal, const struct rate_account *at, const char *tenant,
		       enum rate_kind kind, uint64_t wait_ns)
{
	static const char *const whose[LIMIT_LEVELS] = {
		[LIMIT_HOST] = " of all tenants",
		[LIMIT_TENANT] = "",
		[LIMIT_GUEST] = " of one guest",
	};
	uint64_t wait_ms = wait_ns / MILLISECOND_NS + !!(wait_ns % MILLISECOND_NS);

	refuse(refusal, REFUSAL_RATE, "RATE_EXCEEDED",
	       "%s%s: more than %" PRIu64 " a second; there is room in %" PRIu64
	       "ms (tenant %s, rule %s)",
	       rate_kind_name(kind), whose[at->level], at->of[kind].per_second, wait_ms, tenant,
	       at->of[kind].rule);
	refusal->retry_after_ms = wait_ms < UINT32_MAX ? (uint32_t)wait_ms : UINT32_MAX;
	refusal->limit = at->of[kind].per_second;
	snprintf(refusal->resource, sizeof(refusal->resource), "%s", rate_kind_name(kind));
	snprintf(refusal->tenant, sizeof(refusal->tenant), "%s", tenant);
	snprintf(refusal->rule, sizeof(refusal->rule), "%s", at->of[kind].rule);
	return REFUSED;
}

/* Who pays, from the guest up. */
static size_t accounts_of(struct rates *rates, struct rate_account *guest,
			  struct rate_account *tenant, struct rate_account *ret[LEVELS])
{
	size_t n = 0;

	if (guest)
		ret[n++] = guest;
	if (tenant) {
		ret[n++] = tenant;
		ret[n++] = &rates->host;
	}
	assert(n);
	return n;
}

int rates_take(struct rates *rates, struct rate_account *guest, struct rate_account *tenant,
	       const struct rate_request *request, uint64_t *ret_wait_ns, struct refusal *refusal)
{
	struct rate_account *accounts[LEVELS];
	size_t at, n = accounts_of(rates, guest, tenant, accounts);
	enum rate_kind kind = request->kind;
	struct rate_level levels[LEVELS];
	uint64_t wait_ns;
	bool taken;
	int status = 0;

	pthread_mutex_lock(&rates->lock);
	for (size_t i = 0; i < n; i++)
		levels[i] = (struct rate_level){&accounts[i]->of[kind].bucket,
						limit_of(accounts[i], kind)};
	taken = rate_take(levels, n, request->n, request->now_ns, request->delay_max_ns, &wait_ns,
			  &at);
	if (!taken && !request->gives_back) {
		accounts[at]->of[kind].refused++;
		status = refuse_rate(refusal, accounts[at], (tenant ? tenant : guest)->tenant, kind,
				     wait_ns);
	} else if (wait_ns) {
		accounts[at]->of[kind].delayed++;
	}
	pthread_mutex_unlock(&rates->lock);
	if (!status)
		*ret_wait_ns = taken ? wait_ns : request->delay_max_ns;
	return status;
}

void rates_report(struct rates *rates, const struct rate_account *account,
		  struct rate_usage ret[RATES])
{
	pthread_mutex_lock(&rates->lock);
	for (int i = 0; i < RATES; i++) {
		const struct rate_limit limit = limit_of(account, i);

		ret[i].per_second = limit.per_second;
		ret[i].burst = limit.burst;
		ret[i].delayed = account->of[i].delayed;
		ret[i].refused = account->of[i].refused;
		snprintf(ret[i].where, sizeof(ret[i].where), "%s", account->of[i].rule);
	}
	pthread_mutex_unlock(&rates->lock);
}
