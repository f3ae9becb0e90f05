/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/log_refusal.h"

#include <string.h>

#include "rpc/dispatcher.h"
#include "rpc/rpc_session.h"

static bool is_for_the_operator(enum refusal_kind kind)
{
	switch (kind) {
	case REFUSAL_DENIED:
	case REFUSAL_QUOTA:
	case REFUSAL_RATE:
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

/* The request's guest, if it names one and was decoded. 0: none. */
static uint64_t guest_of(const struct call *call)
{
	const ProtobufCFieldDescriptor *field;
	uint64_t guest = 0;

	if (!call->request)
		return 0;
	field = protobuf_c_message_descriptor_get_field_by_name(call->method->request, "guest");
	if (field && field->type == PROTOBUF_C_TYPE_FIXED64 &&
	    field->label != PROTOBUF_C_LABEL_REPEATED)
		memcpy(&guest, (const uint8_t *)call->request + field->offset, sizeof(guest));
	return guest;
}

/* Who is charged: whom the refusal names, or else whose session it is. */
static const char *tenant_of(const struct call *call)
{
	if (call->refusal.tenant[0] &&
	    (call->refusal.kind == REFUSAL_QUOTA || call->refusal.kind == REFUSAL_RATE))
		return call->refusal.tenant;
	return call->session ? session_tenant(call_session(call)) : "";
}

static void add_subject(struct log_entry *entry, const struct call *call)
{
	const char *tenant = tenant_of(call);
	uint64_t guest = guest_of(call);

	if (call->session)
		log_field(entry, "IOMMUBROKER_SESSION", "%llu",
			  (unsigned long long)session_id(call_session(call)));
	if (tenant[0])
		log_field(entry, "IOMMUBROKER_TENANT", "%s", tenant);
	if (guest)
		log_field(entry, "IOMMUBROKER_GUEST", "%016llx", (unsigned long long)guest);
}

static void add_numbers(struct log_entry *entry, const struct refusal *refusal)
{
	if (refusal->resource[0])
		log_field(entry, "IOMMUBROKER_RESOURCE", "%s", refusal->resource);
	if (refusal->rule[0])
		log_field(entry, "IOMMUBROKER_RULE", "%s", refusal->rule);
	if (!refusal->limit && !refusal->used && !refusal->requested)
		return;
	log_field(entry, "IOMMUBROKER_LIMIT", "%llu", (unsigned long long)refusal->limit);
	if (refusal->kind == REFUSAL_RATE)
		return;
	log_field(entry, "IOMMUBROKER_USED", "%llu", (unsigned long long)refusal->used);
	log_field(entry, "IOMMUBROKER_REQUESTED", "%llu", (unsigned long long)refusal->requested);
}

/* The sentence that the client was told holds the numbers as well. */
void log_refusal(struct call *call)
{
	const struct refusal *refusal = &call->refusal;
	const struct peer *peer = call->rpc->peer;
	const char *tenant = tenant_of(call);
	struct log_entry entry;
	uint32_t suppressed;

	if (!is_for_the_operator(refusal->kind))
		return;
	if (!dispatcher_may_log(call->dispatcher, tenant, peer->uid,
				refusal->kind == REFUSAL_RATE ? LOG_KIND_RATE : LOG_KIND_REFUSAL,
				&suppressed))
		return;
	log_begin(&entry, LOG_LEVEL_WARNING);
	entry.message = LOG_MESSAGE_REFUSAL;
	entry.suppressed = suppressed;
	log_field(&entry, "IOMMUBROKER_METHOD", "%s", method_path(call->method));
	log_field(&entry, "IOMMUBROKER_REASON", "%s", refusal->reason);
	add_subject(&entry, call);
	add_numbers(&entry, refusal);
	add_peer(&entry, peer);
	log_end(&entry, "%s refused to pid %d, uid %u%s%s: %s (%s)%s%s", method_path(call->method),
		(int)peer->pid, (unsigned int)peer->uid, tenant[0] ? ", tenant " : "", tenant,
		refusal->message, refusal->reason, refusal->note[0] ? "; " : "", refusal->note);
}

void connection_dropped(struct dispatcher *dispatcher, const struct peer *peer, const char *why)
{
	struct log_entry entry;
	uint32_t suppressed;

	metrics_add(&dispatcher->metrics->connections_dropped, 1);
	if (!dispatcher_may_log(dispatcher, "", peer->uid, LOG_KIND_CONNECTION, &suppressed))
		return;
	log_begin(&entry, LOG_LEVEL_WARNING);
	entry.message = LOG_MESSAGE_CONNECTION_DROPPED;
	entry.suppressed = suppressed;
	log_field(&entry, "IOMMUBROKER_REASON", "%s", why);
	add_peer(&entry, peer);
	log_end(&entry, "dropped the connection of pid %d, uid %u: %s", (int)peer->pid,
		(unsigned int)peer->uid, why);
}
