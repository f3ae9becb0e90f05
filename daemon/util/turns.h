/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_TURNS_H
#define IB_UTIL_TURNS_H

/*
 * A thread that works in turns and sleeps between them, and another one that looks now and then
 * whether it goes on: one that is in the same turn as the last time hangs, or had one long turn.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Zeroed: it sleeps. */
struct turns {
	_Atomic uint64_t n; /* odd: in a turn */
	uint64_t seen;      /* who looks */
};

/* By the thread, in turn. */
static inline void turn_begin(struct turns *turns)
{
	atomic_fetch_add_explicit(&turns->n, 1, memory_order_relaxed);
}

static inline void turn_end(struct turns *turns)
{
	atomic_fetch_add_explicit(&turns->n, 1, memory_order_relaxed);
}

/* By who looks, one thread. */
static inline bool turns_go_on(struct turns *turns)
{
	uint64_t before = turns->seen;

	turns->seen = atomic_load_explicit(&turns->n, memory_order_relaxed);
	return turns->seen != before || turns->seen % 2 == 0;
}

#endif
