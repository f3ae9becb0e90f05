/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/log_quota.h"

#include "util/log.h"

static unsigned long long number(uint64_t value)
{
	return value;
}

void log_quota_high(void *context, const struct quota_high *high)
{
	const char *resource = ledger_resource_name(high->resource);
	const char *level = limit_level_name(high->level);
	struct log_entry entry;

	(void)context;
	if (!high->log)
		return;
	log_begin(&entry, LOG_LEVEL_WARNING);
	entry.message = LOG_MESSAGE_QUOTA_HIGH;
	entry.suppressed = high->suppressed;
	log_field(&entry, "IOMMUBROKER_RESOURCE", "%s", resource);
	log_field(&entry, "IOMMUBROKER_LEVEL", "%s", level);
	log_field(&entry, "IOMMUBROKER_TENANT", "%s", high->tenant);
	log_field(&entry, "IOMMUBROKER_USED", "%llu", number(high->used));
	log_field(&entry, "IOMMUBROKER_HIGH", "%llu", number(high->high));
	log_field(&entry, "IOMMUBROKER_LIMIT", "%llu", number(high->max));
	log_field(&entry, "IOMMUBROKER_RULE", "%s", high->rule);
	if (high->guest)
		log_field(&entry, "IOMMUBROKER_GUEST", "%016llx", number(high->guest));
	log_end(&entry, "%s of %s %s rose to %llu, above the high mark of %llu (%s)", resource,
		high->level == LIMIT_HOST ? "the" : level, high->tenant, number(high->used),
		number(high->high), high->rule);
}
