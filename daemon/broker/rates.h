/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_RATES_H
#define IB_BROKER_RATES_H

/*
 * How often a guest may be called for, a tenant may call, and all tenants together: the buckets of
 * rate.h at these levels, with the limits that hold and what came of them.
 *
 * One lock guards all of it; nothing else is taken while it is held. Where no rate is set, which is
 * the default, a call costs a load or two and no lock.
 *
 * A tenant whose last client goes away is forgotten, but not what it owes: connecting again and
 * again would else be a way around every rate. A guest's debt ends with it: to make it anew costs
 * its tenant calls.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "broker/broker.h"
#include "broker/rate.h"

#define RATE_DEBTS_MAX                                                             \
	256 /* tenants that are gone and owe; beyond that, those that owe least go \
	     */

struct rate_account {
	const char *tenant;           /* borrowed; who a refusal names */
	enum limit_level level;       /* HOST, TENANT or GUEST */
	_Atomic unsigned int limited; /* set of 1 << enum rate_kind: one is set here or above */
	struct {
		struct rate_bucket bucket;
		uint64_t per_second; /* RATE_NONE: no limit */
		uint64_t delayed, refused;
		char rule[LIMIT_WHERE_MAX];
	} of[RATES];
};

struct rate_debt {
	char tenant[BROKER_NAME_MAX];
	uint64_t paid_ns[RATES];
};

struct rates {
	_Atomic unsigned int guests_limited; /* set of 1 << enum rate_kind: some guest may be */
	pthread_mutex_t lock;                /* of what follows, and of every account */
	struct rate_account host;
	size_t n_debts;
	struct rate_debt debts[RATE_DEBTS_MAX];
};

void rates_init(struct rates *rates);
void rates_deinit(struct rates *rates);
/* A tenant's, with what it owes from before; and its end. */
void rates_open(struct rates *rates, struct rate_account *account, const char *tenant,
		uint64_t now_ns);
void rates_close(struct rates *rates, struct rate_account *account, uint64_t now_ns);
/* A guest's, which owes nothing and needs no end. */
void rates_open_guest(struct rate_account *account, const char *tenant);
/* The limits of settings, and of rule (or NULL) where those are lower. What is owed stays owed, in
 * tokens. Set the host's first: a tenant's account looks at them. */
void rates_set_limits(struct rates *rates, struct rate_account *account,
		      const struct limit_set *settings, const struct limit_set *rule,
		      uint64_t now_ns);
/* Whether a guest's rate of some kind can be set, by these or any rule of theirs: until then nobody
 * looks for a call's guest. */
struct broker_settings;
void rates_note_guests(struct rates *rates, const struct broker_settings *settings);
/* See broker_rate_take(). guest, tenant: NULL if that level is not to pay; with tenant the host
 * does, too. One of them is not NULL. */
int rates_take(struct rates *rates, struct rate_account *guest, struct rate_account *tenant,
	       const struct rate_request *request, uint64_t *ret_wait_ns, struct refusal *refusal);
void rates_report(struct rates *rates, const struct rate_account *account,
		  struct rate_usage ret[RATES]);

#endif
