/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is used, by whom, and how much each may. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/guest.h"
#include "broker/root.h"
#include "broker/session.h"
#include "broker/tenant.h"

static void report_fill(struct broker *broker, const char *tenant,
			const struct ledger_account *account, const struct rate_account *rates,
			struct usage_report *ret)
{
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->tenant, sizeof(ret->tenant), "%s", tenant);
	ledger_usage(&broker->ledger, account, ret->usage);
	rates_report(&broker->rates, rates, ret->rates);
}

static void report_fill_tenant(struct broker *broker, struct tenant *tenant,
			       struct usage_report *ret)
{
	report_fill(broker, tenant->name, &tenant->account, &tenant->rates, ret);
	ret->idle = !tenant->refs;
	ret->calls = atomic_load_explicit(&tenant->calls, memory_order_relaxed);
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
		report_fill(broker, "host", &broker->host, &broker->rates.host, ret);
	else if (session->tenant)
		report_fill_tenant(broker, session->tenant, ret);
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
	DL_FOREACH (broker->tenants, tenant) {
		if (count++ >= n)
			continue;
		report_fill_tenant(broker, tenant, &ret[count - 1]);
	}
	pthread_mutex_unlock(&broker->lock);
	*ret_n = count;
	return 0;
}

/* ── tenants by their names ────────────────────────────────────────────────────────────────── */

struct page {
	size_t n, room;
	bool more;
	struct tenant *tenants[USAGE_PAGE_MAX]; /* those that come first */
};

static size_t page_place(const struct page *page, const char *name)
{
	size_t first = 0, after = page->n;

	while (first < after) {
		size_t middle = first + (after - first) / 2;

		if (strcmp(page->tenants[middle]->name, name) < 0)
			first = middle + 1;
		else
			after = middle;
	}
	return first;
}

static void page_add(struct page *page, struct tenant *tenant)
{
	size_t at = page_place(page, tenant->name);

	if (page->n == page->room) {
		page->more = true;
		if (at == page->n)
			return;
		page->n--;
	}
	memmove(&page->tenants[at + 1], &page->tenants[at],
		(page->n - at) * sizeof(page->tenants[0]));
	page->tenants[at] = tenant;
	page->n++;
}

int usage_page(struct broker *broker, const char *after, struct usage_report *ret, size_t n,
	       size_t *ret_n, bool *ret_more, struct refusal *refusal)
{
	struct page page = {.room = n < USAGE_PAGE_MAX ? n : USAGE_PAGE_MAX};
	struct tenant *tenant;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (broker->tenants, tenant)
		if (page.room && strcmp(tenant->name, after) > 0)
			page_add(&page, tenant);
	for (size_t i = 0; i < page.n; i++)
		report_fill_tenant(broker, page.tenants[i], &ret[i]);
	pthread_mutex_unlock(&broker->lock);
	*ret_n = page.n;
	*ret_more = page.more;
	return 0;
}

/* ── for operators ─────────────────────────────────────────────────────────────────────────── */

static void quota_fill(struct broker *broker, const struct ledger_account *account,
		       const struct rate_account *rates, const struct tenant *tenant,
		       struct quota_report *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->level = account->level;
	snprintf(ret->tenant, sizeof(ret->tenant), "%s", account->tenant);
	ledger_usage_where(&broker->ledger, account, ret->usage, ret->where);
	rates_report(&broker->rates, rates, ret->rates);
	if (!tenant)
		return;
	snprintf(ret->rule_name, sizeof(ret->rule_name), "%s", tenant->rule_name);
	ret->stranger = tenant->stranger;
	ret->idle = !tenant->refs;
}

static void quota_fill_guest(struct broker *broker, const struct guest *guest,
			     const struct tenant *tenant, struct quota_report *ret)
{
	quota_fill(broker, &guest->account, &guest->rates, tenant, ret);
	ret->guest = guest->object.handle;
	snprintf(ret->name, sizeof(ret->name), "%s", guest->name);
}

/* Fills up to room, answers how many there are. With the broker's lock held. */
static size_t quota_fill_guests(struct broker *broker, const struct tenant *tenant,
				struct quota_report *ret, size_t room)
{
	const struct session *session;
	const struct guest *guest;
	size_t n = 0;

	DL_FOREACH (broker->sessions, session) {
		DL_FOREACH2(session->guests, guest, session_next)
		if (guest->tenant == tenant && n++ < room)
			quota_fill_guest(broker, guest, tenant, &ret[n - 1]);
	}
	return n;
}

/* 0: there is no such tenant. With the broker's lock held. */
static size_t quota_fill_all(struct broker *broker, const char *name, struct quota_report *ret,
			     size_t room)
{
	const struct tenant *tenant;
	size_t n = 0;

	if (!name && n++ < room)
		quota_fill(broker, &broker->host, &broker->rates.host, NULL, &ret[0]);
	DL_FOREACH (broker->tenants, tenant) {
		if (name && strcmp(name, tenant->name))
			continue;
		if (n++ < room)
			quota_fill(broker, &tenant->account, &tenant->rates, tenant, &ret[n - 1]);
		if (name)
			n += quota_fill_guests(broker, tenant, room > n ? ret + n : NULL,
					       room > n ? room - n : 0);
	}
	return n;
}

#define QUOTA_LIST_MORE 16 /* that may have come meanwhile */

int quota_list(struct broker *broker, const char *tenant, struct quota_report **ret, size_t *ret_n,
	       struct refusal *refusal)
{
	struct quota_report *reports;
	size_t n, room;

	pthread_mutex_lock(&broker->lock);
	room = quota_fill_all(broker, tenant, NULL, 0);
	pthread_mutex_unlock(&broker->lock);
	room += QUOTA_LIST_MORE;
	reports = calloc(room, sizeof(*reports));
	if (!reports)
		return refuse_errno(refusal, ENOMEM, "listing quotas");
	pthread_mutex_lock(&broker->lock);
	n = quota_fill_all(broker, tenant, reports, room);
	pthread_mutex_unlock(&broker->lock);
	if (!n) {
		free(reports);
		return refuse(refusal, REFUSAL_NOT_FOUND, "NOT_FOUND",
			      "there is no tenant of that name now");
	}
	*ret = reports;
	*ret_n = n < room ? n : room;
	return 0;
}
