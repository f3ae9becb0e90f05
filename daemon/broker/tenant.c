/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/tenant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/root.h"

static void tenant_name(char ret[BROKER_NAME_MAX], const struct peer *peer)
{
	snprintf(ret, BROKER_NAME_MAX, "uid:%lu", (unsigned long)peer->uid);
}

static struct tenant *tenant_new(struct broker *broker, const char *name)
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
	ledger_account_init(&tenant->account, &broker->host, tenant->name);
	ledger_account_limit(&tenant->account, LEDGER_SESSIONS,
			     broker->settings.sessions_per_user_max, RULE_TENANT_SESSIONS);
	ledger_account_limit(&tenant->account, LEDGER_MEMORY_FILES,
			     broker->settings.memory_files_per_user_max, RULE_TENANT_FILES);
	DL_APPEND(broker->tenants, tenant);
	broker->n_tenants++;
	return tenant;
}

struct tenant *tenant_get(struct broker *broker, const struct peer *peer)
{
	char name[BROKER_NAME_MAX];
	struct tenant *tenant;

	tenant_name(name, peer);
	DL_FOREACH (broker->tenants, tenant)
		if (!strcmp(tenant->name, name))
			break;
	if (!tenant)
		tenant = tenant_new(broker, name);
	if (tenant)
		tenant->sessions++;
	return tenant;
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
