/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_LIMIT_H
#define IB_BROKER_LIMIT_H

/*
 * What is limited, at which levels, and a limit as an operator wrote it.
 *
 * The keys of the configuration, their defaults and their documentation are made from one table of
 * these resources, config_limits.h.
 */

#include <stdbool.h>
#include <stdint.h>

enum ledger_resource {
	LEDGER_PINNED_BYTES,
	LEDGER_MAPPINGS,
	LEDGER_GUESTS,
	LEDGER_REGIONS,
	LEDGER_DEVICES,
	LEDGER_NESTED,
	LEDGER_SESSIONS,
	LEDGER_TABLE_BYTES, /* kept tables, at most, and rings */
	LEDGER_MEMORY_FILES,
	LEDGER_RINGS,
	LEDGER_EVENT_SLOTS,  /* events that may wait, of all guests' queues */
	LEDGER_WATCHES,      /* calls of WatchEvents */
	LEDGER_CONNECTIONS,  /* of here on: of clients, not of guests; charged through
				broker_charge() */
	LEDGER_CALLS,        /* in flight */
	LEDGER_DESCRIPTORS,  /* that wait to be used or fetched */
	LEDGER_QUEUED_BYTES, /* of calls that wait for the pool, and of answers not sent yet */
	LEDGER_RESOURCES
};
const char *ledger_resource_name(enum ledger_resource resource); /* "pinned_bytes" */

/* What happens so many times a second. */
enum rate_kind {
	RATE_REQUESTS,    /* calls, but those that refresh */
	RATE_REFRESHES,   /* ranges that are refreshed, entries of a managed domain's updates */
	RATE_CONNECTIONS, /* that are accepted; of here on: not of guests */
	RATES
};
#define RATES_OF_GUEST RATE_CONNECTIONS
const char *rate_kind_name(enum rate_kind kind); /* "requests" */

enum limit_level {
	LIMIT_HOST,    /* of all together */
	LIMIT_TENANT,  /* of each tenant */
	LIMIT_GUEST,   /* of each guest */
	LIMIT_SESSION, /* of each session */
	LIMIT_LEVELS
};
const char *limit_level_name(enum limit_level level); /* "host" */

#define LIMIT_WHERE_MAX 96

struct limit_setting {
	uint64_t max;                /* UINT64_MAX: no limit */
	bool set;                    /* else there is none, whatever max says */
	char where[LIMIT_WHERE_MAX]; /* file:line, or "setting X= (default)" */
};

/* Those of one level. high: above it a warning is given, and nothing is refused. */
struct limit_set {
	struct limit_setting max[LEDGER_RESOURCES], high[LEDGER_RESOURCES];
	struct limit_setting rate[RATES]; /* a second */
};

#endif
