/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/log_device.h"

#include <stdio.h>

#include "rpc/rpc_session.h"
#include "util/log.h"

/* As operators know it: " 0000:00:04.0 (function 0x1)". */
static void device_name(char *ret, size_t ret_bytes, const struct iommu_device_info *info)
{
	char function[24] = "";

	if (info->has_fid)
		snprintf(function, sizeof(function), "function %#x", info->fid);
	if (info->pci_address[0] && function[0])
		snprintf(ret, ret_bytes, "%s (%s)", info->pci_address, function);
	else
		snprintf(ret, ret_bytes, "%s", function[0] ? function : info->pci_address);
}

void log_device(struct call *call, const struct device_description *device, bool opened)
{
	const struct peer *peer = call->rpc->peer;
	unsigned long long session = session_id(call_session(call));
	struct log_entry entry;
	uint32_t suppressed;
	char name[64];

	if (!rpc_session_may_log(call->session, &suppressed))
		return;
	device_name(name, sizeof(name), &device->info);
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
