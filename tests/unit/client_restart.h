/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_CLIENT_RESTART_H
#define IB_TESTS_CLIENT_RESTART_H

/* A session of libiommubroker with a fake daemon that dies and comes back. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_service.h"
#include "iommubroker.h"
#include "iommubroker/v1/native.pb-c.h"

#define METHOD(name)  IOMMUBROKER__V1__METHOD__METHOD_##name
#define SECOND_NS     UINT64_C(1000000000)
#define LONG_NS       (60 * SECOND_NS)
#define NESTED_HANDLE UINT64_C(0x8877665544332211)

/* For threads, in which cmocka's do not work. */
#define REQUIRE_EQUAL(is, wanted) require_equal((long long)(is), (long long)(wanted), #is, __LINE__)
static inline void require_equal(long long is, long long wanted, const char *what, int line)
{
	if (is == wanted)
		return;
	fprintf(stderr, "line %d: %s is %lld, not %lld\n", line, what, is, wanted);
	abort();
}

/* Where it dies, once, in the next request of a method. */
enum death {
	DEATH_NONE,
	DEATH_BEFORE,   /* read, and not done */
	DEATH_DONE,     /* and not answered */
	DEATH_PROGRESS, /* in the middle of it */
};

struct bench {
	struct fake_service service;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested;
	size_t n_fds;
	_Atomic uint32_t death_method;
	_Atomic int death;
	_Atomic bool progresses; /* updates have progress */
	_Atomic bool holds;      /* no update is answered */
	_Atomic unsigned int n_requests, n_done, n_repeated, n_refreshes, n_descriptors,
		n_cancelled;
	_Atomic uint64_t cancelled;
	/* Watches: what was asked for last, and what is told then. */
	_Atomic unsigned int n_watches;
	_Atomic uint64_t since;
	_Atomic unsigned int n_events;
	_Atomic unsigned int dies_after_events; /* 0: does not */
	/* Order of updates, by their first map's gpa. */
	uint64_t order[64];
	_Atomic unsigned int n_order;
};

/* With a guest, a device and a nested domain. */
void restart_begin(struct bench *bench);
void restart_end(struct bench *bench);
/* The next request of that method is one's death. */
void restart_arm(struct bench *bench, uint32_t method, enum death death);

void test_storm(void **state);

#endif
