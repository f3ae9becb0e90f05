/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_CLOCK_H
#define IB_CLIENT_CLOCK_H

/* Deadlines: nanoseconds of CLOCK_MONOTONIC; UINT64_MAX is never, 0 is always over. */

#include <pthread.h>
#include <stdint.h>

#define NEVER UINT64_MAX

uint64_t clock_now_ns(void);

/* timeout_ns from now, without overflow. */
uint64_t clock_deadline(uint64_t timeout_ns);

/* Wait for poll(2) events of one descriptor: what came, or 0 when the deadline has passed. Looks
 * once even if it has passed already. */
short clock_poll(int fd, short events, uint64_t deadline);

/* 0, or ETIMEDOUT. The condition variable counts CLOCK_MONOTONIC. */
int clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline);

void clock_sleep_until(uint64_t deadline);

#endif
