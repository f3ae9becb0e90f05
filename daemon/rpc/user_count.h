/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_USER_COUNT_H
#define IB_RPC_USER_COUNT_H

/* How many of something each user has. Not locked: the dispatcher's lock. */

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct user_count;
RB_HEAD(user_counts, user_count);

/* n more, at least 1. false: that would be over max, or there is no memory. */
bool user_count_charge(struct user_counts *counts, uid_t uid, uint32_t n, uint32_t max);
void user_count_refund(struct user_counts *counts, uid_t uid, uint32_t n);
uint32_t user_count_get(struct user_counts *counts, uid_t uid);

#endif
