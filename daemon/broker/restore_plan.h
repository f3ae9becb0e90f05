/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_RESTORE_PLAN_H
#define IB_BROKER_RESTORE_PLAN_H

/*
 * The records of one guest (guest_record.h), read into plain arrays and checked: what is to be
 * built again. Nothing here trusts the bytes, and nothing here does anything.
 */

#include <stdbool.h>
#include <stddef.h>

#include "broker/answer.h"
#include "broker/broker.h"
#include "broker/guest_record.h"

#define RESTORE_WHY_BYTES 160

struct restore_answer {
	struct record_answer record;
	const uint8_t *bytes; /* within the content */
	size_t n_bytes;
};

struct restore_plan {
	struct record_guest guest;
	size_t n_labels, n_sessions, n_files, n_regions, n_devices, n_nested, n_leftovers,
		n_answers, n_rings;
	struct record_label *labels;
	struct record_session *sessions;
	struct record_file *files;
	struct record_region *regions; /* by guest address within each stage */
	struct record_device *devices;
	struct record_nested *nested;
	struct record_leftover *leftovers;
	struct restore_answer *answers;
	struct record_ring *rings; /* not looked at: each for itself is taken over or not */
};

/* 0; -EBADMSG: ret_why says which record and what of it; -ENOMEM. Then *ret is empty. */
int restore_plan_read(struct restore_plan *ret, const void *bytes, size_t n,
		      char ret_why[RESTORE_WHY_BYTES]);
void restore_plan_clear(struct restore_plan *plan);

struct record_session *restore_plan_session(const struct restore_plan *plan, uint64_t id);
/* A session has another id from now on, wherever it is named. */
void restore_plan_renumber(struct restore_plan *plan, uint64_t from, uint64_t to);

/* restore_plan_ids.c: the kernel's ids are each one object's, and none is above the highest. 0;
 * -EBADMSG: *ret_what says what they are; -ENOMEM. */
int restore_plan_check_ids(const struct restore_plan *plan, const char **ret_what);

#endif
