/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is used, and whether more would fit. */
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "broker/root.h"
#include "broker/tenant.h"
#include "broker/session.h"

static void report_fill(struct broker *broker, const char *tenant,
			const struct ledger_account *account, struct usage_report *ret)
{
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->tenant, sizeof(ret->tenant), "%s", tenant);
	ledger_usage(&broker->ledger, account, ret->usage);
}

static int refuse_ended(struct refusal *refusal)
{
	return refuse(refusal, REFUSAL_CANCELLED, "SESSION_ENDED", "the session has ended");
}

int usage_report(struct broker *broker, struct session *session, struct usage_report *ret,
		 struct refusal *refusal)
{
	bool ended = false;

	pthread_mutex_lock(&broker->lock);
	if (!session)
		report_fill(broker, "host", &broker->host, ret);
	else if (session->tenant)
		report_fill(broker, session->tenant_name, &session->tenant->account, ret);
	else
		ended = true;
	pthread_mutex_unlock(&broker->lock);
	return ended ? refuse_ended(refusal) : 0;
}

int usage_list(struct broker *broker, struct usage_report *ret, size_t n, size_t *ret_n,
	       struct refusal *refusal)
{
	struct tenant *tenant;
	size_t count = 0;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (broker->tenants, tenant)
		if (count++ < n)
			report_fill(broker, tenant->name, &tenant->account, &ret[count - 1]);
	pthread_mutex_unlock(&broker->lock);
	*ret_n = count;
	return 0;
}

/* ── would it fit ──────────────────────────────────────────────────────────────────────────── */

static void fit_compare(struct fit_missing *worst, uint64_t limit, uint64_t used, const char *rule)
{
	uint64_t room = limit > used ? limit - used : 0;
	uint64_t missing = worst->requested > room ? worst->requested - room : 0;

	if (missing <= worst->missing)
		return;
	worst->limit = limit;
	worst->used = used;
	worst->missing = missing;
	snprintf(worst->rule, sizeof(worst->rule), "%s", rule);
}

/* The amounts are those of new guests, of one if none is named, shared evenly. */
static void fit_compare_guests(struct broker *broker, const struct session *session,
			       const struct fit_request *request, struct fit_missing *worst)
{
	uint64_t guests = request->amount[LEDGER_GUESTS], limit;
	struct ledger_limits guest;

	policy_limits(broker->policy, session ? session->tenant->rule : NULL, LIMIT_GUEST, &guest);
	limit = guest.of[worst->resource].max;
	if (guests > 1 && __builtin_mul_overflow(limit, guests, &limit))
		limit = UINT64_MAX;
	fit_compare(worst, limit, 0, guest.of[worst->resource].rule);
}

/* The level at which most is missing; missing 0: it fits. With the broker's lock held. */
static void fit_resource(struct broker *broker, const struct session *session,
			 const struct fit_request *request, enum ledger_resource resource,
			 struct fit_missing *ret)
{
	const struct ledger_account *account = session ? &session->account : &broker->host;
	struct usage usage[LEDGER_RESOURCES];

	*ret = (struct fit_missing){
		.resource = resource,
		.requested = request->amount[resource],
	};
	fit_compare_guests(broker, session, request, ret);
	for (; account; account = account->parent) {
		ledger_usage(&broker->ledger, account, usage);
		fit_compare(ret, usage[resource].max, usage[resource].current,
			    account->entries[resource].rule);
	}
}

int check_fit(struct broker *broker, struct session *session, const struct fit_request *request,
	      struct fit_missing *ret, size_t *ret_n, struct refusal *refusal)
{
	size_t n = 0;
	bool ended;

	pthread_mutex_lock(&broker->lock);
	ended = session && !session->tenant;
	for (int i = 0; !ended && i < LEDGER_RESOURCES; i++) {
		fit_resource(broker, session, request, i, &ret[n]);
		if (ret[n].missing)
			n++;
	}
	pthread_mutex_unlock(&broker->lock);
	if (ended)
		return refuse_ended(refusal);
	*ret_n = n;
	return 0;
}
