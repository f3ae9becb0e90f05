/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_MEMORY_H
#define IB_BROKER_MEMORY_H

/*
 * The map of guest memory as one transaction: memory_plan.c checks a request and computes what it
 * changes, memory.c does it or puts everything back.
 */

#include "broker/guest.h"

struct memory_plan {
	struct region_list kept;    /* stay in place */
	struct region_list removed; /* go */
	struct region_list added;   /* come */
	struct region_list final;   /* kept and added */
};

/* Check everything and change nothing. 0, or REFUSED with an empty plan. */
int memory_plan_make(struct guest *guest, const struct memory_update_request *request,
		     struct memory_plan *ret, struct refusal *refusal);
void memory_plan_clear(struct memory_plan *plan);

/* A view of a list whose regions have counters. NULL: no memory. Its generation is set when it is
 * published. */
struct memory_view *memory_view_of(const struct region_list *regions);
/* Replace what walks see. Answers the view that was there, which walks may still use until each
 * nested domain's lane was passed. */
struct memory_view *memory_publish(struct guest *guest, struct memory_view *consume);

struct frame_counters *frame_counters_new(uint64_t length_bytes); /* NULL: no memory */
void frame_counters_put(struct frame_counters *counters);         /* guest's lane */

/* Take all memory away: no device is left. Allocates nothing, cannot fail. */
void memory_drop(struct guest *guest);

#endif
