/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/user_count.h"

#include <stdlib.h>

struct user_count {
	RB_ENTRY(user_count) node;
	uid_t uid;
	uint32_t n; /* at least 1: a user without any has no entry */
};

static int user_compare(const struct user_count *a, const struct user_count *b)
{
	return a->uid < b->uid ? -1 : a->uid > b->uid;
}

RB_GENERATE_INTERNAL(user_counts, user_count, node, user_compare, __attribute__((unused)) static)

bool user_count_charge(struct user_counts *counts, uid_t uid, uint32_t n, uint32_t max)
{
	struct user_count key = {.uid = uid}, *count = RB_FIND(user_counts, counts, &key);

	if (count) {
		if (n > max || count->n > max - n)
			return false;
		count->n += n;
		return true;
	}
	count = n <= max ? malloc(sizeof(*count)) : NULL;
	if (!count)
		return false;
	count->uid = uid;
	count->n = n;
	RB_INSERT(user_counts, counts, count);
	return true;
}

void user_count_refund(struct user_counts *counts, uid_t uid, uint32_t n)
{
	struct user_count key = {.uid = uid}, *count = RB_FIND(user_counts, counts, &key);

	if (!count || (count->n -= n))
		return;
	RB_REMOVE(user_counts, counts, count);
	free(count);
}

uint32_t user_count_get(struct user_counts *counts, uid_t uid)
{
	struct user_count key = {.uid = uid}, *count = RB_FIND(user_counts, counts, &key);

	return count ? count->n : 0;
}
