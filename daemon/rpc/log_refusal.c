/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/log_refusal.h"

#include "rpc/dispatcher.h"
#include "rpc/rpc_session.h"

static bool is_for_the_operator(enum refusal_kind kind)
{
	switch (kind) {
	case REFUSAL_DENIED:
	case REFUSAL_QUOTA:
	case REFUSAL_HOST_MEMLOCK:
	case REFUSAL_HOST_RESOURCES:
	case REFUSAL_HOST:
		return true;
	default:
		return false;
	}
}

static void add_peer(struct log_entry *entry, const struct peer *peer)
{
	log_field(entry, "IOMMUBROKER_PEER_PID", "%d", (int)peer->pid);
	log_field(entry, "IOMMUBROKER_PEER_UID", "%u", (unsigned int)peer->uid);
}

static void add_numbers(struct log_entry *entry, const struct refusal *refusal)
{
	if (refusal->resource[0])
		log_field(entry, "IOMMUBROKER_RESOURCE", "%s", refusal->resource);
	if (refusal->kind != REFUSAL_QUOTA && refusal->kind != REFUSAL_HOST_MEMLOCK)
		return;
	log_field(entry, "IOMMUBROKER_LIMIT", "%llu", (unsigned long long)refusal->limit);
	log_field(entry, "IOMMUBROKER_USED", "%llu", (unsigned long long)refusal->used);
	log_field(entry, "IOMMUBROKER_REQUESTED", "%llu", (unsigned long long)refusal->requested);
	log_field(entry, "IOMMUBROKER_TENANT", "%s", refusal->tenant);
	log_field(entry, "IOMMUBROKER_RULE", "%s", refusal->rule);
}

void log_refusal(struct call *call)
{
	const struct refusal *refusal = &call->refusal;
	const struct peer *peer = call->rpc->peer;
	struct log_entry entry;
	uint32_t suppressed;

	if (!is_for_the_operator(refusal->kind))
		return;
	if (call->session ? !rpc_session_may_log(call->session, &suppressed)
			  : !dispatcher_may_log(call->dispatcher, &suppressed))
		return;
	log_begin(&entry, LOG_LEVEL_WARNING);
	entry.suppressed = suppressed;
	log_field(&entry, "IOMMUBROKER_METHOD", "%s", method_path(call->method));
	log_field(&entry, "IOMMUBROKER_REASON", "%s", refusal->reason);
	add_numbers(&entry, refusal);
	add_peer(&entry, peer);
	log_end(&entry, "%s refused to pid %d, uid %u: %s (%s)", method_path(call->method),
		(int)peer->pid, (unsigned int)peer->uid, refusal->message, refusal->reason);
}

void log_drop(struct dispatcher *dispatcher, const struct peer *peer, const char *why)
{
	struct log_entry entry;
	uint32_t suppressed;

	if (!dispatcher_may_log(dispatcher, &suppressed))
		return;
	log_begin(&entry, LOG_LEVEL_WARNING);
	entry.suppressed = suppressed;
	log_field(&entry, "IOMMUBROKER_REASON", "%s", why);
	add_peer(&entry, peer);
	log_end(&entry, "dropped the connection of pid %d, uid %u: %s", (int)peer->pid,
		(unsigned int)peer->uid, why);
}
