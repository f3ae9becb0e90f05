/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_FAKE_BROKER_H
#define IB_TESTS_FAKE_BROKER_H

/*
 * broker/broker.h without a model, for tests of what stands in front of it.
 *
 * Handles 1 to 99 exist in every session, others in none. It remembers what it was asked and
 * answers what it is told to; sessions, their secrets and their ends are real.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "broker/broker.h"

/* One broker at a time. */
struct broker *fake_broker_new(void);

/* What nested domains answer to a refresh, by handle; others are DONE on the calling thread. */
#define FAKE_NESTED_LATER 7 /* DONE, from a pool thread */
#define FAKE_NESTED_ERROR 8 /* ERROR, with a fault */
#define FAKE_NESTED_BUSY  9 /* the whole call is refused for now */

#define FAKE_REVOKED_MAX 1500

#define FAKE_NO_LANE 50 /* a guest whose mutations have no order */
#define FAKE_SHARE   2  /* threads of one session */

/* Of a rate, for all tenants together. */
struct fake_rate {
	_Atomic uint64_t tokens;  /* so many go at once; 0: no rate */
	_Atomic uint64_t step_ns; /* each one more waits so much longer than the one before */
	_Atomic uint64_t taken;
};

struct fake_broker {
	/* set by the test */
	_Atomic bool
		hold_updates; /* memory_update() waits until this is false or it is cancelled */
	_Atomic int broken_status;   /* guest_create() answers this negative status */
	_Atomic bool refuse_creates; /* guest_create() answers this */
	_Atomic bool refuse_revokes; /* likewise broker_revoke() */
	size_t revoke_n;             /* so many things it takes away */
	struct refusal refusal;
	_Atomic uint64_t max[LEDGER_RESOURCES]; /* of each tenant; 0: no limit */
	struct fake_rate rates[RATES];
	_Atomic uid_t ruleless;      /* no rule is for this user; 0: for all */
	unsigned int rights_lacking; /* set of 1 << enum guest_right that no session has */
	/* told to the test */
	_Atomic uint64_t used[LEDGER_RESOURCES]; /* by all tenants */
	_Atomic uint32_t tenants;                /* that live in memory */
	_Atomic uint32_t sessions;               /* that live in memory */
	_Atomic uint32_t closed;                 /* session_close(), first ones */
	_Atomic uint32_t updates, creates, opens;
	_Atomic uint32_t updating; /* inside memory_update() now */
	_Atomic uint32_t watches;
	struct memory_update_request update;
	struct guest_create_request create;
	struct nested_create_request nested;
	struct device_open_request open;
	struct revoke_request revoke;
	struct nested_entry entries[BROKER_MANAGED_ENTRIES_MAX];
	size_t n_entries;
	size_t n_lanes;                      /* calls of broker_lane() */
	_Atomic uint32_t settled;            /* calls of broker_settle() */
	pthread_t described_by;              /* the last guest_describe() ran on */
	struct broker_answer settled_answer; /* of the last one that had an answer; bytes: NULL */
	bool settled_on_lane;
	uint32_t handover_seconds;
	bool handover_blocks;
	/* Kept from before, about guest 1, of every session. */
	const struct broker_answer *kept;
	size_t n_kept;
};
extern struct fake_broker fake;

/* 0, or NOT_FOUND: a handle that no session has. */
int fake_known(uint64_t handle, const char *what, struct refusal *refusal);

/* n more events for every watch there is. */
void fake_event_emit(uint64_t n);
/* Every watched guest is gone. */
void fake_guest_gone(void);

#endif
