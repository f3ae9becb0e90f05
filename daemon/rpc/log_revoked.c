/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/log_revoked.h"

#include <inttypes.h>
#include <stdio.h>

#include "util/log.h"

/* What a VMM can still do with a descriptor: design of VFIO, not of ours. */
static const char *held_text(const struct revoked *revoked)
{
	if (!revoked->still_held)
		return "";
	if (revoked->kind == REVOKED_GUEST)
		return "; its VMM still holds a device's descriptor, which reaches nothing any "
		       "more";
	return "; its VMM still holds the descriptor, which can be attached to memory of that "
	       "guest "
	       "until it is closed: revoke the guest to end that too";
}

void revoked_text(const struct revoked *revoked, char ret[REVOKED_TEXT_BYTES])
{
	char name[IOMMU_DEVICE_NAME_BYTES];

	iommu_device_name(&revoked->info, name);
	if (revoked->kind == REVOKED_GUEST)
		snprintf(ret, REVOKED_TEXT_BYTES,
			 "guest '%s' (%" PRIx64 ") of tenant '%s', devices: %u%s", revoked->name,
			 revoked->guest, revoked->tenant, (unsigned int)revoked->devices,
			 held_text(revoked));
	else
		snprintf(ret, REVOKED_TEXT_BYTES,
			 "%s%s of guest '%s' (%" PRIx64 ") of tenant '%s'%s",
			 revoked->kind == REVOKED_RELAXED ? "relaxed translation of " : "", name,
			 revoked->name, revoked->guest, revoked->tenant, held_text(revoked));
}

void log_revoked(const struct revoked *revoked, const char *reason)
{
	char text[REVOKED_TEXT_BYTES], name[IOMMU_DEVICE_NAME_BYTES];
	struct log_entry entry;

	revoked_text(revoked, text);
	iommu_device_name(&revoked->info, name);
	log_begin(&entry, LOG_LEVEL_WARNING);
	entry.message = LOG_MESSAGE_REVOKED;
	log_field(&entry, "IOMMUBROKER_TENANT", "%s", revoked->tenant);
	log_field(&entry, "IOMMUBROKER_GUEST", "%016" PRIx64, revoked->guest);
	if (revoked->kind != REVOKED_GUEST)
		log_field(&entry, "IOMMUBROKER_DEVICE", "%s", name);
	if (reason[0])
		log_field(&entry, "IOMMUBROKER_REVOKE_REASON", "%s", reason);
	log_end(&entry, "revoked: %s%s%s", text, reason[0] ? "; reason: " : "", reason);
}
