/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/log_device.h"

#include <stdio.h>

#include "rpc/rpc_session.h"
#include "util/log.h"

void log_device(struct call *call, const struct device_description *device, bool opened)
{
	const struct peer *peer = call->rpc->peer;
	unsigned long long session = session_id(call_session(call));
	struct log_entry entry;
	uint32_t suppressed;
	char name[IOMMU_DEVICE_NAME_BYTES];

	if (!rpc_session_may_log(call->session, &suppressed))
		return;
	iommu_device_name(&device->info, name);
	log_begin(&entry, LOG_LEVEL_INFO);
	entry.message = opened ? LOG_MESSAGE_DEVICE_OPENED : LOG_MESSAGE_DEVICE_CLOSED;
	entry.suppressed = suppressed;
	log_field(&entry, "IOMMUBROKER_SESSION", "%llu", session);
	log_field(&entry, "IOMMUBROKER_TENANT", "%s", session_tenant(call_session(call)));
	log_field(&entry, "IOMMUBROKER_DEVICE", "%s", name);
	log_field(&entry, "IOMMUBROKER_PEER_PID", "%d", (int)peer->pid);
	log_field(&entry, "IOMMUBROKER_PEER_UID", "%u", (unsigned int)peer->uid);
	log_end(&entry, "session %llu %s device %s: pid %d, uid %u", session,
		opened ? "opened" : "closed", name, (int)peer->pid, (unsigned int)peer->uid);
}

void log_guest_created(struct call *call, uint64_t guest, const char *name)
{
	const struct peer *peer = call->rpc->peer;
	unsigned long long session = session_id(call_session(call));
	struct log_entry entry;
	uint32_t suppressed;

	if (!rpc_session_may_log(call->session, &suppressed))
		return;
	log_begin(&entry, LOG_LEVEL_INFO);
	entry.message = LOG_MESSAGE_GUEST_CREATED;
	entry.suppressed = suppressed;
	log_field(&entry, "IOMMUBROKER_SESSION", "%llu", session);
	log_field(&entry, "IOMMUBROKER_TENANT", "%s", session_tenant(call_session(call)));
	log_field(&entry, "IOMMUBROKER_GUEST", "%016llx", (unsigned long long)guest);
	log_field(&entry, "IOMMUBROKER_GUEST_NAME", "%s", name);
	log_field(&entry, "IOMMUBROKER_PEER_PID", "%d", (int)peer->pid);
	log_field(&entry, "IOMMUBROKER_PEER_UID", "%u", (unsigned int)peer->uid);
	log_end(&entry, "session %llu created guest %s: pid %d, uid %u", session, name,
		(int)peer->pid, (unsigned int)peer->uid);
}
