/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/ledger.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

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
		[LEDGER_EVENT_SLOTS] = "event_slots",
		[LEDGER_WATCHES] = "event_watches",
		[LEDGER_CONNECTIONS] = "connections",
		[LEDGER_CALLS] = "calls",
		[LEDGER_DESCRIPTORS] = "descriptors",
		[LEDGER_QUEUED_BYTES] = "queued_bytes",
	};

	return resource < LEDGER_RESOURCES ? names[resource] : "unknown";
}

void ledger_init(struct ledger *ledger)
{
	pthread_mutex_init(&ledger->lock, NULL);
}

void ledger_deinit(struct ledger *ledger)
{
	pthread_mutex_destroy(&ledger->lock);
}

void ledger_account_init(struct ledger_account *account, struct ledger_account *parent,
			 const char *tenant)
{
	memset(account, 0, sizeof(*account));
	account->parent = parent;
	account->tenant = tenant;
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		account->entries[i].max = UINT64_MAX;
}

void ledger_limits_init(struct ledger_limits *limits)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		limits->of[i].max = UINT64_MAX;
		limits->of[i].rule = "no limit";
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

void ledger_account_set_limits(struct ledger *ledger, struct ledger_account *account,
			       const struct ledger_limits *limits)
{
	pthread_mutex_lock(&ledger->lock);
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		account->entries[i].max = limits->of[i].max;
		snprintf(account->entries[i].rule, sizeof(account->entries[i].rule), "%s",
			 limits->of[i].rule);
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

/* The first level and resource that has no room, or NULL. */
static struct ledger_account *account_full(struct ledger_account *account,
					   const struct ledger_amounts *amounts,
					   enum ledger_resource *ret)
{
	for (; account; account = account->parent) {
		for (int i = 0; i < LEDGER_RESOURCES; i++) {
			if (amounts->amount[i] <= account_room(account, i))
				continue;
			*ret = i;
			return account;
		}
	}
	return NULL;
}

static void account_add(struct ledger_account *account, const struct ledger_amounts *amounts)
{
	for (; account; account = account->parent) {
		for (int i = 0; i < LEDGER_RESOURCES; i++) {
			account->entries[i].current += amounts->amount[i];
			if (account->entries[i].current > account->entries[i].peak)
				account->entries[i].peak = account->entries[i].current;
		}
	}
}

/* Sums cannot overflow: what is added fits below max, which is at most UINT64_MAX. */
int ledger_charge(struct ledger *ledger, struct ledger_account *account,
		  const struct ledger_amounts *amounts, struct refusal *refusal)
{
	struct ledger_account *full;
	enum ledger_resource resource = 0;

	pthread_mutex_lock(&ledger->lock);
	full = account_full(account, amounts, &resource);
	if (!full) {
		account_add(account, amounts);
	} else {
		full->entries[resource].events++;
		refuse_quota(refusal, ledger_resource_name(resource), full->entries[resource].max,
			     full->entries[resource].current, amounts->amount[resource],
			     account->tenant, full->entries[resource].rule);
	}
	pthread_mutex_unlock(&ledger->lock);
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
			assert(account->entries[i].current >= amounts->amount[i]);
			account->entries[i].current -= amounts->amount[i];
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

void ledger_usage(struct ledger *ledger, const struct ledger_account *account,
		  struct usage ret[LEDGER_RESOURCES])
{
	pthread_mutex_lock(&ledger->lock);
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		ret[i].current = account->entries[i].current;
		ret[i].max = account->entries[i].max;
		ret[i].peak = account->entries[i].peak;
		ret[i].events = account->entries[i].events;
	}
	pthread_mutex_unlock(&ledger->lock);
}
