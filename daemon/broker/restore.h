/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_RESTORE_H
#define IB_BROKER_RESTORE_H

/* What the files of a restoration share; broker_restore() itself is in broker.h. */

#include "broker/guest.h"
#include "broker/restore_plan.h"
#include "util/pool.h"

struct restoration;

/* One guest of a process before this one. */
struct restoring {
	struct broker *broker;
	uint32_t number;
	struct stored_fd *fds; /* of this guest; -1: taken */
	size_t n_fds;
	struct state_file *state; /* until the guest has it */
	struct restore_plan plan;
	struct guest *guest;
	char name[RECORD_NAME_BYTES]; /* also of one that cannot be read */
	bool owns_number;             /* it is given back with the guest, or else here */
	bool promised;                /* somebody was told that it is there */
	bool stopped;                 /* devices that are not taken over */
	struct region_list live, going, making;
	bool owned;          /* live and going are the guest's */
	int uncounted_error; /* of having its pins counted with this process */
	struct refusal refusal;
	char why[RESTORE_WHY_BYTES + 64];
	/* restore.c */
	struct pool_job job;
	struct restoration *all;
};

/* restore.c: a stored descriptor, the caller's from now on, or -1; and why it cannot be taken over,
 * all -EBADMSG. */
int restore_fd_take(struct restoring *r, enum fd_kind kind, uint32_t index);
/* One that was taken is not used after all. */
void restore_fd_give_back(struct restoring *r, enum fd_kind kind, uint32_t index, int consume_fd);
int restore_fail(struct restoring *r, const char *what);
int restore_fail_refused(struct restoring *r, const char *what);
int restore_fail_missing(struct restoring *r, const char *what, uint32_t index);

/* restore_pins.c: compare what the kernel counts as pinned with the ledger, once all of n guests
 * are settled or released. */
void restore_pins_compare(struct broker *broker, const struct restoring *guests, size_t n,
			  struct restore_report *report);

/* One more step, named in util/trace.h, has ended: for whoever watches. The status. */
int restore_step(const struct restoring *r, const char *step, int status);

/* restore_session.c: the guest itself, with its sessions and delegations. 0 or -EBADMSG. */
int restore_guest_itself(struct restoring *r);
/* A reference to the session of a record of the plan's; NULL: no memory. Where its id is another
 * one's already the whole plan has it by another id from now on. */
struct session *restore_session(struct restoring *r, struct record_session *record);

/* restore_guest.c: read the records and build what they name, as it is; of one that was going, as
 * far as it is there. 0 or -EBADMSG. */
int restore_guest(struct restoring *r);
struct device *restore_device_of(const struct restoring *r, uint64_t handle);
struct nested *restore_nested_of(const struct restoring *r, uint64_t handle);

/* restore_audit.c: once nothing of the memory map is under way. 0 or -EBADMSG: the kernel has
 * another one. */
int restore_audit(struct restoring *r);

/* restore_settle.c: resolve what was under way, bring all in line, and have it found. 0 or
 * -EBADMSG. */
int restore_settle(struct restoring *r);

/* Of objects that the kernel made after the last record. */
#define RESTORE_IDS_BEYOND 64u

#endif
