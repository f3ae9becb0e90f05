/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ExplainQuota: who a user, a unit or a process would be charged to, and why. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/tenant_explain.h"
#include "iommubroker/v1/admin.pb-c.h"
#include "rpc/convert.h"
#include "rpc/dispatcher.h"
#include "rpc/handler.h"
#include "rpc/peer_find.h"
#include "util/utf8.h"

typedef Iommubroker__V1__ExplainQuotaRequest explain_request;
typedef Iommubroker__V1__ExplainQuotaResponse explain_response;

#define NAME_BYTES_MAX 255

int prepare_explain_quota(struct call *call)
{
	const explain_request *request = (const explain_request *)call->request;
	int named = !!request->user[0] + !!request->unit[0] + !!request->pid;

	if (strlen(request->user) > NAME_BYTES_MAX)
		return refuse_field(&call->refusal, "user", "user: more than %d bytes",
				    NAME_BYTES_MAX);
	if (strlen(request->unit) > NAME_BYTES_MAX || strchr(request->unit, '/'))
		return refuse_field(&call->refusal, "unit",
				    "unit: more than %d bytes, or a path and no name",
				    NAME_BYTES_MAX);
	if (request->pid > INT32_MAX)
		return refuse_field(&call->refusal, "pid", "pid: %llu is no process's",
				    (unsigned long long)request->pid);
	if (named == 1)
		return 0;
	return refuse_field(&call->refusal, "user", "user: one of user, unit and pid must be set");
}

/* Where systemd keeps its hierarchy if the unified one is not the only one. */
static const char *cgroup_root(void)
{
	static const char *const mounts[] = {"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++)
		if (!access(mounts[i], X_OK))
			return mounts[i];
	return "/sys/fs/cgroup";
}

static int peer_find(struct call *call, struct peer_found *ret)
{
	const explain_request *request = (const explain_request *)call->request;

	if (request->user[0])
		return peer_find_user(request->user, ret, &call->refusal);
	if (request->unit[0])
		return peer_find_unit(cgroup_root(), request->unit, ret, &call->refusal);
	return peer_find_process(request->pid, ret, &call->refusal);
}

/* ── the answer ───────────────────────────────────────────────────────────────────────────── */

static int rules_convert(struct call *call, struct tenant_explanation *explanation,
			 explain_response *ret)
{
	size_t n = explanation->n_rules;

	ret->considered = CONVERT_ARRAY(call, n, Iommubroker__V1__ExplainQuotaResponse__Considered,
					iommubroker__v1__explain_quota_response__considered__init);
	if (!ret->considered)
		return call_refuse_memory(call);
	for (size_t i = 0; i < n; i++) {
		utf8_repair(explanation->rules[i].why);
		ret->considered[i]->rule = explanation->rules[i].rule;
		ret->considered[i]->why = explanation->rules[i].why;
	}
	ret->n_considered = n;
	ret->considered_left_out = explanation->n_rules_left_out;
	return 0;
}

static int limits_convert(struct call *call, struct tenant_explanation *explanation,
			  explain_response *ret)
{
	size_t n = explanation->n_limits;

	ret->limits = CONVERT_ARRAY(call, n, Iommubroker__V1__ExplainQuotaResponse__Limit,
				    iommubroker__v1__explain_quota_response__limit__init);
	if (!ret->limits)
		return call_refuse_memory(call);
	for (size_t i = 0; i < n; i++) {
		utf8_repair(explanation->limits[i].where);
		ret->limits[i]->level = (char *)explanation->limits[i].level;
		ret->limits[i]->resource = (char *)explanation->limits[i].resource;
		ret->limits[i]->max = explanation->limits[i].max;
		ret->limits[i]->rule = explanation->limits[i].where;
	}
	ret->n_limits = n;
	return 0;
}

/* Both doors: the sockets', and the rules'. */
static void verdict_convert(struct call *call, struct peer_found *peer,
			    struct tenant_explanation *explanation, explain_response *ret)
{
	bool allowed = identity_allowed(call->dispatcher, &peer->identity);

	ret->served = allowed && explanation->served;
	ret->reason = explanation->reason;
	if (!allowed && !(peer->known & 1u << TENANT_GROUP))
		ret->reason = (char *)"it may not connect: Users= of [Clients] does not name it, "
				      "and its groups are not known";
	else if (!allowed)
		ret->reason = (char *)"it may not connect: neither Users= nor Groups= of [Clients] "
				      "names it";
	utf8_repair(explanation->reason);
	utf8_repair(explanation->tenant);
	utf8_repair(explanation->rule_file);
	utf8_repair(peer->identity.cgroup);
	ret->tenant = explanation->tenant;
	ret->rule = explanation->rule;
	ret->manager = explanation->manager;
	ret->rule_file = explanation->rule_file;
	ret->uid = peer->identity.uid;
	ret->cgroup = peer->identity.cgroup;
}

static int explanation_answer(struct call *call, struct peer_found *peer,
			      struct tenant_explanation *explanation)
{
	explain_response response = IOMMUBROKER__V1__EXPLAIN_QUOTA_RESPONSE__INIT;
	int status;

	verdict_convert(call, peer, explanation, &response);
	status = rules_convert(call, explanation, &response);
	if (!status)
		status = limits_convert(call, explanation, &response);
	return status ? status : call_answer(call, &response.base);
}

int handle_explain_quota(struct call *call)
{
	struct tenant_explanation *explanation = NULL;
	struct peer_found peer;
	int status = peer_find(call, &peer);

	if (!status)
		status = broker_explain_tenant(&explanation, call_broker(call), &peer.identity,
					       peer.known, &call->refusal);
	if (!status)
		status = explanation_answer(call, &peer, explanation);
	free(explanation);
	return status;
}
