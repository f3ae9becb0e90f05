/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/restore_plan.h"

#include <errno.h>
#include <stdlib.h>

struct ids {
	uint32_t *ids;
	size_t n;
};

static void ids_add(struct ids *ids, uint32_t id)
{
	if (id)
		ids->ids[ids->n++] = id;
}

static void ids_add_relaxed(struct ids *ids, const struct record_relaxed *relaxed)
{
	if (!relaxed->made)
		return;
	ids_add(ids, relaxed->ioas);
	ids_add(ids, relaxed->page_table);
}

static void ids_gather(struct ids *ids, const struct restore_plan *plan)
{
	ids_add(ids, plan->guest.parent_ioas);
	for (size_t i = 0; i < plan->guest.n_page_tables; i++)
		ids_add(ids, plan->guest.page_tables[i]);
	for (size_t i = 0; i < plan->n_devices; i++) {
		ids_add(ids, plan->devices[i].kernel_id);
		ids_add_relaxed(ids, &plan->devices[i].relaxed);
	}
	for (size_t i = 0; i < plan->n_leftovers; i++) {
		ids_add(ids, plan->leftovers[i].ioas);
		if (plan->leftovers[i].has_page_table)
			ids_add(ids, plan->leftovers[i].page_table);
	}
	for (size_t i = 0; i < plan->n_nested; i++) {
		ids_add(ids, plan->nested[i].ioas);
		ids_add(ids, plan->nested[i].page_table);
		ids_add_relaxed(ids, &plan->nested[i].relaxed);
	}
}

static int compare_ids(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return left < right ? -1 : left > right;
}

/* Of a device its own and its relaxed mapping's two, of a nested domain its own two and two. */
static size_t ids_most(const struct restore_plan *plan)
{
	return 1 + plan->guest.n_page_tables + 3 * plan->n_devices + 2 * plan->n_leftovers +
	       4 * plan->n_nested;
}

int restore_plan_check_ids(const struct restore_plan *plan, const char **ret_what)
{
	struct ids ids = {.ids = calloc(ids_most(plan), sizeof(*ids.ids))};
	int status = 0;

	if (!ids.ids)
		return -ENOMEM;
	ids_gather(&ids, plan);
	if (ids.n)
		qsort(ids.ids, ids.n, sizeof(*ids.ids), compare_ids);
	for (size_t i = 1; i < ids.n; i++)
		if (ids.ids[i] == ids.ids[i - 1])
			status = -EBADMSG;
	if (status) {
		*ret_what = "two objects with one id of the kernel";
	} else if (ids.n && ids.ids[ids.n - 1] > plan->guest.highest_id) {
		*ret_what = "highest id";
		status = -EBADMSG;
	}
	free(ids.ids);
	return status;
}
