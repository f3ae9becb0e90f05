/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_GUEST_READ_H
#define IB_UTIL_GUEST_READ_H

/*
 * Reads of memory that a client shares with us and can shrink or poison at any moment.
 *
 * A read that raises SIGBUS answers false; it never looks like zeros. The handler acts only for an
 * address inside the span that the current thread is reading through one of these functions, and
 * no lock is held there; any other SIGBUS kills the process as it would without us.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Install the handler, once for the process. 0 or a negative errno. */
int guest_read_init(void);

/* Load one aligned 64-bit word once, atomically; in memory order, no byte swap. */
bool guest_read_u64(const void *source, uint64_t *ret);

/* Load n aligned 64-bit words, each once and atomically. */
bool guest_read_words(const void *source, uint64_t *ret, size_t n);

enum guest_compare { GUEST_SAME, GUEST_DIFFERENT, GUEST_FAULT };

/* A filter, not a decision: it may read any byte more than once. bytes: a multiple of 64. */
enum guest_compare guest_read_compare(const void *kept, const void *source, size_t bytes);

/* A filter: whether any of n 64-bit words lacks the bit. n: a multiple of 8, not 0. source: 64-byte
 * aligned. bit: a mask of one bit, in memory order. GUEST_SAME: all have it; GUEST_DIFFERENT: at
 * least one does not. */
enum guest_compare guest_read_any_clear(const void *source, size_t n, uint64_t bit);

#endif
