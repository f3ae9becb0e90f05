/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/ledger.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "util/clock.h"
#include "util/trace.h"

const char *ledger_resource_name(enum ledger_resource resource)
{
	static const char *const names[LEDGER_RESOURCES] = {
		[LEDGER_PINNED_BYTES] = "pinned_bytes",
		[LEDGER_MAPPINGS] = "mappings",
		[LEDGER_GUESTS] = "guests",
		[LEDGER_REGIONS] = "regions",
		[LEDGER_DEVICES] = "devices",
		[LEDGER_NESTED] = "nested_domains",
		[LEDGER_SESSIONS] = "sessions",
		[LEDGER_TABLE_BYTES] = "table_bytes",
		[LEDGER_MEMORY_FILES] = "memory_files",
		[LEDGER_RINGS] = "rings",
		[LEDGER_EVENT_SLOTS] = "event_slots",
		[LEDGER_WATCHES] = "event_watches",
		[LEDGER_CONNECTIONS] = "connections",
		[LEDGER_CALLS] = "calls",
		[LEDGER_DESCRIPTORS] = "descriptors",
		[LEDGER_QUEUED_BYTES] = "queued_bytes",
	};

	return resource < LEDGER_RESOURCES ? names[resource] : "unknown";
}

const char *limit_level_name(enum limit_level level)
{
	static const char *const names[LIMIT_LEVELS] = {
		[LIMIT_HOST] = "host",
		[LIMIT_TENANT] = "tenant",
		[LIMIT_GUEST] = "guest",
		[LIMIT_SESSION] = "session",
	};

	return level < LIMIT_LEVELS ? names[level] : "unknown";
}

void ledger_init(struct ledger *ledger)
{
	*ledger = (struct ledger){0};
	pthread_mutex_init(&ledger->lock, NULL);
}

void ledger_deinit(struct ledger *ledger)
{
	pthread_mutex_destroy(&ledger->lock);
}

void ledger_account_init(struct ledger_account *account, struct ledger_account *parent,
			 enum limit_level level, const char *tenant)
{
	memset(account, 0, sizeof(*account));
	account->parent = parent;
	account->level = level;
	account->tenant = tenant;
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		account->entries[i].max = account->entries[i].high = UINT64_MAX;
}

void ledger_limits_init(struct ledger_limits *limits)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		limits->of[i].max = limits->of[i].high = UINT64_MAX;
		limits->of[i].rule = limits->of[i].rule_high = "";
	}
}

void ledger_limits_tighten(struct ledger_limits *limits, enum ledger_resource resource,
			   uint64_t max, const char *rule)
{
	if (max >= limits->of[resource].max)
		return;
	limits->of[resource].max = max;
	limits->of[resource].rule = rule;
}

void ledger_limits_tighten_high(struct ledger_limits *limits, enum ledger_resource resource,
				uint64_t high, const char *rule)
{
	if (high >= limits->of[resource].high)
		return;
	limits->of[resource].high = high;
	limits->of[resource].rule_high = rule;
}

/* Fallen to high or below: the next rise is told again. */
static void entry_rearm(struct ledger_account *account, enum ledger_resource resource)
{
	if (account->entries[resource].current <= account->entries[resource].high)
		account->entries[resource].above = false;
}

void ledger_account_set_limits(struct ledger *ledger, struct ledger_account *account,
			       const struct ledger_limits *limits)
{
	pthread_mutex_lock(&ledger->lock);
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		account->entries[i].max = limits->of[i].max;
		account->entries[i].high = limits->of[i].high;
		snprintf(account->entries[i].rule, LIMIT_WHERE_MAX, "%s", limits->of[i].rule);
		snprintf(account->entries[i].rule_high, LIMIT_WHERE_MAX, "%s",
			 limits->of[i].rule_high);
		entry_rearm(account, i);
	}
	pthread_mutex_unlock(&ledger->lock);
}

/* A limit may have been lowered below what is used, so current can be above max. */
static uint64_t account_room(const struct ledger_account *account, enum ledger_resource resource)
{
	uint64_t max = account->entries[resource].max;
	uint64_t current = account->entries[resource].current;

	return current < max ? max - current : 0;
}

/* The first level and resource that has no room, or NULL. What is not asked for is not looked at: a
 * call is charged for its one resource on the hot path, and entries are large. */
static struct ledger_account *account_full(struct ledger_account *account,
					   const struct ledger_amounts *amounts,
					   enum ledger_resource *ret)
{
	for (; account; account = account->parent) {
		for (int i = 0; i < LEDGER_RESOURCES; i++) {
			if (!amounts->amount[i] || amounts->amount[i] <= account_room(account, i))
				continue;
			*ret = i;
			return account;
		}
	}
	return NULL;
}

/* What one charge raised above high. */
struct raised {
	size_t n;
	struct quota_high told[LEDGER_TOLD_MAX];
};

/* Whose lines in the log they are: a tenant can make guests and sessions as often as it likes. */
static struct log_rate *high_rate(struct ledger_account *account)
{
	while (account->level != LIMIT_TENANT && account->parent)
		account = account->parent;
	return &account->high_rate;
}

static void entry_raise(struct ledger_account *account, enum ledger_resource resource,
			struct raised *raised)
{
	struct quota_high *told;

	account->entries[resource].above = true;
	account->entries[resource].events_high++;
	if (raised->n == LEDGER_TOLD_MAX)
		return;
	told = &raised->told[raised->n++];
	*told = (struct quota_high){.resource = resource};
	told->log = log_rate_allow(high_rate(account), clock_monotonic_ns(), &told->suppressed);
	told->level = account->level;
	told->used = account->entries[resource].current;
	told->high = account->entries[resource].high;
	told->max = account->entries[resource].max;
	snprintf(told->tenant, sizeof(told->tenant), "%s", account->tenant);
	snprintf(told->rule, sizeof(told->rule), "%s", account->entries[resource].rule_high);
}

/* Sums cannot overflow: what is added fits below max, which is at most UINT64_MAX. */
static void account_add(struct ledger_account *account, const struct ledger_amounts *amounts,
			struct raised *raised)
{
	for (; account; account = account->parent) {
		for (int i = 0; i < LEDGER_RESOURCES; i++) {
			if (!amounts->amount[i])
				continue;
			account->entries[i].current += amounts->amount[i];
			TRACE(charge, ledger_resource_name(i), limit_level_name(account->level),
			      account->tenant, amounts->amount[i], account->entries[i].current);
			if (account->entries[i].current > account->entries[i].peak)
				account->entries[i].peak = account->entries[i].current;
			if (account->entries[i].current > account->entries[i].high &&
			    !account->entries[i].above)
				entry_raise(account, i, raised);
		}
	}
}

static void account_refuse(const struct ledger_account *account, const struct ledger_account *full,
			   enum ledger_resource resource, uint64_t requested,
			   struct refusal *refusal)
{
	refuse_quota(refusal, ledger_resource_name(resource), full->entries[resource].max,
		     full->entries[resource].current, requested, account->tenant,
		     full->entries[resource].rule);
}

int ledger_charge(struct ledger *ledger, struct ledger_account *account,
		  const struct ledger_amounts *amounts, struct refusal *refusal)
{
	struct ledger_account *full;
	enum ledger_resource resource = 0;
	struct raised raised;

	raised.n = 0;
	pthread_mutex_lock(&ledger->lock);
	full = account_full(account, amounts, &resource);
	if (!full) {
		account_add(account, amounts, &raised);
	} else {
		full->entries[resource].events++;
		TRACE(deny, ledger_resource_name(resource), limit_level_name(full->level),
		      full->tenant, amounts->amount[resource], full->entries[resource].max);
		account_refuse(account, full, resource, amounts->amount[resource], refusal);
	}
	pthread_mutex_unlock(&ledger->lock);
	for (size_t i = 0; i < raised.n && ledger->tell_high; i++)
		ledger->tell_high(ledger->context, account, &raised.told[i]);
	return full ? REFUSED : 0;
}

void ledger_take_over(struct ledger *ledger, struct ledger_account *account,
		      const struct ledger_amounts *amounts)
{
	struct raised raised;

	raised.n = 0;
	pthread_mutex_lock(&ledger->lock);
	account_add(account, amounts, &raised);
	pthread_mutex_unlock(&ledger->lock);
}

/* By all levels above, and with nobody told. */
static void chain_shift(struct ledger_account *account, const struct ledger_amounts *amounts,
			bool add)
{
	for (; account; account = account->parent)
		for (int i = 0; i < LEDGER_RESOURCES; i++)
			account->entries[i].current +=
				add ? amounts->amount[i] : -amounts->amount[i];
}

static void chain_rearm(struct ledger_account *account)
{
	for (; account; account = account->parent)
		for (int i = 0; i < LEDGER_RESOURCES; i++)
			entry_rearm(account, i);
}

/* Taken off first, so that levels that are above both have room for what they have already. */
int ledger_move(struct ledger *ledger, struct ledger_account *account,
		const struct ledger_amounts *beside, struct ledger_account *parent,
		const char *tenant, struct refusal *refusal)
{
	struct ledger_amounts amounts = *beside;
	struct ledger_account *old, *full;
	enum ledger_resource resource = 0;
	struct raised raised;

	raised.n = 0;
	pthread_mutex_lock(&ledger->lock);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		amounts.amount[i] += account->entries[i].current;
	old = account->parent;
	chain_shift(old, &amounts, false);
	full = account_full(parent, &amounts, &resource);
	if (!full) {
		account_add(parent, &amounts, &raised);
		chain_rearm(old);
		account->parent = parent;
		account->tenant = tenant;
	} else {
		chain_shift(old, &amounts, true);
		full->entries[resource].events++;
		account_refuse(parent, full, resource, amounts.amount[resource], refusal);
	}
	pthread_mutex_unlock(&ledger->lock);
	for (size_t i = 0; i < raised.n && ledger->tell_high; i++)
		ledger->tell_high(ledger->context, account, &raised.told[i]);
	return full ? REFUSED : 0;
}

int ledger_charge_one(struct ledger *ledger, struct ledger_account *account,
		      enum ledger_resource resource, uint64_t amount, struct refusal *refusal)
{
	struct ledger_amounts amounts = {0};

	amounts.amount[resource] = amount;
	return ledger_charge(ledger, account, &amounts, refusal);
}

void ledger_refund(struct ledger *ledger, struct ledger_account *account,
		   const struct ledger_amounts *amounts)
{
	pthread_mutex_lock(&ledger->lock);
	for (; account; account = account->parent) {
		for (int i = 0; i < LEDGER_RESOURCES; i++) {
			if (!amounts->amount[i])
				continue;
			assert(account->entries[i].current >= amounts->amount[i]);
			account->entries[i].current -= amounts->amount[i];
			TRACE(refund, ledger_resource_name(i), limit_level_name(account->level),
			      account->tenant, amounts->amount[i], account->entries[i].current);
			entry_rearm(account, i);
		}
	}
	pthread_mutex_unlock(&ledger->lock);
}

void ledger_refund_one(struct ledger *ledger, struct ledger_account *account,
		       enum ledger_resource resource, uint64_t amount)
{
	struct ledger_amounts amounts = {0};

	amounts.amount[resource] = amount;
	ledger_refund(ledger, account, &amounts);
}

uint64_t ledger_room(struct ledger *ledger, const struct ledger_account *account,
		     enum ledger_resource resource)
{
	uint64_t room = UINT64_MAX;

	pthread_mutex_lock(&ledger->lock);
	for (; account; account = account->parent) {
		uint64_t here = account_room(account, resource);

		room = here < room ? here : room;
	}
	pthread_mutex_unlock(&ledger->lock);
	return room;
}

static void usage_fill(const struct ledger_account *account, struct usage ret[LEDGER_RESOURCES])
{
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		ret[i] = (struct usage){
			.current = account->entries[i].current,
			.max = account->entries[i].max,
			.high = account->entries[i].high,
			.peak = account->entries[i].peak,
			.events = account->entries[i].events,
			.events_high = account->entries[i].events_high,
			.over = account->entries[i].current > account->entries[i].max,
		};
	}
}

void ledger_usage(struct ledger *ledger, const struct ledger_account *account,
		  struct usage ret[LEDGER_RESOURCES])
{
	pthread_mutex_lock(&ledger->lock);
	usage_fill(account, ret);
	pthread_mutex_unlock(&ledger->lock);
}

void ledger_usage_where(struct ledger *ledger, const struct ledger_account *account,
			struct usage ret[LEDGER_RESOURCES],
			char ret_where[LEDGER_RESOURCES][LIMIT_WHERE_MAX])
{
	pthread_mutex_lock(&ledger->lock);
	usage_fill(account, ret);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		memcpy(ret_where[i], account->entries[i].rule, LIMIT_WHERE_MAX);
	pthread_mutex_unlock(&ledger->lock);
}
