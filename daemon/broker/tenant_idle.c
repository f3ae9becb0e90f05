/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tenants of whom nobody is connected. Their counters are kept, so that an operator who looks after
 * the fact sees what happened, and a tenant that comes back goes on counting.
 *
 * They are at the end of the broker's list, the longest idle one first. Who may come under many
 * names, as a rule for units or users lets it, pushes out those of its own rule once they are half
 * of all. What goes for good is added to a sum, since what was counted must not be less later.
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/root.h"
#include "broker/tenant.h"
#include "util/clock.h"

static struct tenant *idle_oldest(struct broker *broker, const char *rule_name)
{
	struct tenant *tenant;

	DL_FOREACH (broker->tenants, tenant)
		if (!tenant->refs && (!rule_name || !strcmp(tenant->rule_name, rule_name)))
			break;
	return tenant;
}

static uint32_t idle_of_rule(const struct broker *broker, const char *rule_name)
{
	const struct tenant *tenant;
	uint32_t n = 0;

	DL_FOREACH (broker->tenants, tenant)
		n += !tenant->refs && !strcmp(tenant->rule_name, rule_name);
	return n;
}

static void past_add(struct broker *broker, const struct tenant *tenant)
{
	struct usage usage[LEDGER_RESOURCES];
	struct rate_usage rates[RATES];

	ledger_usage(&broker->ledger, &tenant->account, usage);
	rates_report(&broker->rates, &tenant->rates, rates);
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		broker->past.usage[i].events += usage[i].events;
		broker->past.usage[i].events_high += usage[i].events_high;
	}
	for (int i = 0; i < RATES; i++) {
		broker->past.rates[i].delayed += rates[i].delayed;
		broker->past.rates[i].refused += rates[i].refused;
	}
	broker->past.n_tenants++;
}

static void idle_forget(struct broker *broker, struct tenant *tenant)
{
	past_add(broker, tenant);
	DL_DELETE(broker->tenants, tenant);
	broker->n_idle_tenants--;
	rates_close(&broker->rates, &tenant->rates, clock_monotonic_ns());
	pool_share_unref(tenant->share);
	free(tenant);
}

void tenant_keep_idle(struct broker *broker, struct tenant *tenant)
{
	bool many;

	DL_DELETE(broker->tenants, tenant);
	DL_APPEND(broker->tenants, tenant);
	if (++broker->n_idle_tenants <= TENANTS_IDLE_MAX)
		return;
	many = idle_of_rule(broker, tenant->rule_name) > TENANTS_IDLE_MAX / 2;
	idle_forget(broker, idle_oldest(broker, many ? tenant->rule_name : NULL));
}

void tenant_wake(struct broker *broker, struct tenant *tenant)
{
	DL_DELETE(broker->tenants, tenant);
	DL_PREPEND(broker->tenants, tenant);
	broker->n_idle_tenants--;
}

void tenants_forget_idle(struct broker *broker)
{
	struct tenant *tenant;

	while ((tenant = idle_oldest(broker, NULL)))
		idle_forget(broker, tenant);
}

void usage_past(struct broker *broker, struct usage_past *ret)
{
	pthread_mutex_lock(&broker->lock);
	*ret = broker->past;
	pthread_mutex_unlock(&broker->lock);
}
