/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_LEDGER_H
#define IB_BROKER_LEDGER_H

/*
 * Who uses how much, and who may.
 *
 * Accounts form a chain, guest → session → tenant → host. A charge is made at every level or at
 * none; what was charged is refunded exactly. One lock guards all accounts; it is the innermost
 * one and held for a few additions.
 *
 * Above max nothing is charged. Above high it is, and it is told once, when it rises above; again
 * only after it fell to high or below.
 */

#include <pthread.h>

#include "broker/broker.h"
#include "util/log.h"

#define LEDGER_TOLD_MAX 8 /* of what one charge raised above high */

struct ledger_account;

struct ledger {
	pthread_mutex_t lock;
	/* Told, without the lock, that a charge to account raised something above its high. NULL:
	 * nobody is. */
	void (*tell_high)(void *context, struct ledger_account *account,
			  const struct quota_high *high);
	void *context;
};

/* Of one account. What is not set has none. */
struct ledger_limits {
	struct {
		uint64_t max, high;
		const char *rule, *rule_high; /* borrowed */
	} of[LEDGER_RESOURCES];
};

struct ledger_account {
	struct ledger_account *parent; /* NULL: no level above */
	enum limit_level level;
	const char *tenant;        /* borrowed; who a refusal names */
	struct log_rate high_rate; /* of a tenant: also for its sessions and guests */
	struct {
		uint64_t max, high, current, peak, events, events_high;
		bool above; /* current rose above high, and did not fall since */
		char rule[LIMIT_WHERE_MAX], rule_high[LIMIT_WHERE_MAX];
	} entries[LEDGER_RESOURCES];
};

/* Amounts of several resources that are charged together. */
struct ledger_amounts {
	uint64_t amount[LEDGER_RESOURCES];
};

void ledger_init(struct ledger *ledger);
void ledger_deinit(struct ledger *ledger);
void ledger_account_init(struct ledger_account *account, struct ledger_account *parent,
			 enum limit_level level, const char *tenant);
void ledger_limits_init(struct ledger_limits *limits);
/* Set it, if it is lower than what is set. */
void ledger_limits_tighten(struct ledger_limits *limits, enum ledger_resource resource,
			   uint64_t max, const char *rule);
void ledger_limits_tighten_high(struct ledger_limits *limits, enum ledger_resource resource,
				uint64_t high, const char *rule);
/* At any time: what is above a lower limit stays charged, and nothing is added to it. */
void ledger_account_set_limits(struct ledger *ledger, struct ledger_account *account,
			       const struct ledger_limits *limits);

/* 0 or REFUSED (QUOTA, naming the first resource and level that has no room). */
int ledger_charge(struct ledger *ledger, struct ledger_account *account,
		  const struct ledger_amounts *amounts, struct refusal *refusal);
/* Also above the limits: of what was charged by a process before this one, and is there. */
void ledger_take_over(struct ledger *ledger, struct ledger_account *account,
		      const struct ledger_amounts *amounts);
int ledger_charge_one(struct ledger *ledger, struct ledger_account *account,
		      enum ledger_resource resource, uint64_t amount, struct refusal *refusal);
/* Charge what that account has, and more beside it that is charged above it, to another parent and
 * all above that, and give it back where it was: or nothing. tenant: borrowed, of the account from
 * then on. 0 or REFUSED. */
int ledger_move(struct ledger *ledger, struct ledger_account *account,
		const struct ledger_amounts *beside, struct ledger_account *parent,
		const char *tenant, struct refusal *refusal);
/* What was charged before. */
void ledger_refund(struct ledger *ledger, struct ledger_account *account,
		   const struct ledger_amounts *amounts);
void ledger_refund_one(struct ledger *ledger, struct ledger_account *account,
		       enum ledger_resource resource, uint64_t amount);

/* What may still be charged at every level. */
uint64_t ledger_room(struct ledger *ledger, const struct ledger_account *account,
		     enum ledger_resource resource);
void ledger_usage(struct ledger *ledger, const struct ledger_account *account,
		  struct usage ret[LEDGER_RESOURCES]);
/* The same, and where each limit stands. */
void ledger_usage_where(struct ledger *ledger, const struct ledger_account *account,
			struct usage ret[LEDGER_RESOURCES],
			char ret_where[LEDGER_RESOURCES][LIMIT_WHERE_MAX]);

#endif
