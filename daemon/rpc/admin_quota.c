/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What operators ask about limits: who uses how much, of what, by which line of which file; and
 * whether more would fit.
 */

#include <stdlib.h>

#include "iommubroker/v1/admin.pb-c.h"
#include "rpc/convert.h"
#include "rpc/handler.h"
#include "rpc/stream.h"

typedef Iommubroker__V1__ShowQuotaResponse__Limit Limit;
typedef Iommubroker__V1__ShowQuotaResponse__Rate Rate;

/* ── ShowQuota ─────────────────────────────────────────────────────────────────────────────── */

struct quota_source {
	struct stream_source base;
	size_t at, n;
	struct quota_report *reports; /* on the heap */
};

static void limit_convert(const struct quota_report *report, enum ledger_resource resource,
			  Limit *ret)
{
	const struct usage *usage = &report->usage[resource];

	ret->resource = (char *)ledger_resource_name(resource);
	ret->current = usage->current;
	ret->high = usage->high;
	ret->max = usage->max;
	ret->peak = usage->peak;
	ret->events = usage->events;
	ret->events_high = usage->events_high;
	ret->over = usage->over;
	ret->rule = (char *)report->where[resource];
}

static void rate_convert(const struct quota_report *report, enum rate_kind kind, Rate *ret)
{
	const struct rate_usage *rate = &report->rates[kind];

	ret->resource = (char *)rate_kind_name(kind);
	ret->per_second = rate->per_second;
	ret->burst = rate->burst;
	ret->delayed = rate->delayed;
	ret->refused = rate->refused;
	ret->rule = (char *)rate->where;
}

static int quota_answer(struct call *call, const struct quota_report *report)
{
	Iommubroker__V1__ShowQuotaResponse response = IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__INIT;
	Limit limits[LEDGER_RESOURCES], *pointers[LEDGER_RESOURCES];
	Rate rates[RATES], *rate_pointers[RATES];

	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		iommubroker__v1__show_quota_response__limit__init(&limits[i]);
		limit_convert(report, (enum ledger_resource)i, &limits[i]);
		pointers[i] = &limits[i];
	}
	for (int i = 0; i < RATES; i++) {
		iommubroker__v1__show_quota_response__rate__init(&rates[i]);
		rate_convert(report, (enum rate_kind)i, &rates[i]);
		rate_pointers[i] = &rates[i];
	}
	response.level = (char *)limit_level_name(report->level);
	if (report->level != LIMIT_HOST)
		response.tenant = (char *)report->tenant;
	response.guest = report->guest;
	response.name = (char *)report->name;
	response.rule = (char *)report->rule_name;
	response.stranger = report->stranger;
	response.idle = report->idle;
	response.n_limits = LEDGER_RESOURCES;
	response.limits = pointers;
	response.n_rates = report->level == LIMIT_GUEST ? RATES_OF_GUEST : RATES;
	response.rates = rate_pointers;
	return call_answer(call, &response.base);
}

static int quota_next(struct stream_source *base, struct call *call)
{
	struct quota_source *source = (struct quota_source *)base;

	if (source->at == source->n)
		return STREAM_END;
	return quota_answer(call, &source->reports[source->at++]) ? STREAM_REFUSED : STREAM_MESSAGE;
}

static void quota_end(struct stream_source *base)
{
	struct quota_source *source = (struct quota_source *)base;

	free(source->reports);
	free(source);
}

int handle_show_quota(struct call *call)
{
	const Iommubroker__V1__ShowQuotaRequest *request =
		(const Iommubroker__V1__ShowQuotaRequest *)call->request;
	struct quota_source *source = calloc(1, sizeof(*source));
	struct stream *stream;
	int status;

	if (!source)
		return call_refuse_memory(call);
	source->base.next = quota_next;
	source->base.end = quota_end;
	status = quota_list(call_broker(call), request->tenant[0] ? request->tenant : NULL,
			    &source->reports, &source->n, &call->refusal);
	stream = status ? NULL : stream_new(call);
	if (!stream) {
		quota_end(&source->base);
		return REFUSED;
	}
	stream_begin(stream, &source->base);
	return CALL_PENDING;
}

/* ── CheckTenantFit ────────────────────────────────────────────────────────────────────────── */

int handle_check_tenant_fit(struct call *call)
{
	const Iommubroker__V1__CheckTenantFitRequest *request =
		(const Iommubroker__V1__CheckTenantFitRequest *)call->request;
	struct fit_missing missing[FIT_MISSING_MAX];
	struct fit_request fit;
	size_t n = 0;
	int status;

	if (!request->fit)
		return refuse_field(&call->refusal, "fit", "fit: is missing");
	status = convert_fit_request(call, request->fit, &fit);
	if (!status && request->tenant[0])
		status = check_fit_tenant(call_broker(call), request->tenant, &fit, missing, &n,
					  &call->refusal);
	else if (!status)
		status = check_fit(call_broker(call), NULL, &fit, missing, &n, &call->refusal);
	return status ? status : answer_fit(call, missing, n);
}
