/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_SAVE_H
#define IB_BROKER_SAVE_H

/*
 * What of a guest outlives this process: its state file, and the descriptors that lie with the
 * service manager.
 *
 * Everything here runs on the guest's lane, with no nested domain's held. The state file is kept in
 * any case, since the shadows live in it; records are written and descriptors stored only where the
 * manager keeps them.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "state/fd_store.h"
#include "state/record.h"
#include "state/state_file.h"
#include "util/pool.h"

struct broker;
struct claimed_ring;
struct device;
struct guest;
struct kept_answers;
struct memory_file;
struct refusal;
struct region_list;

struct guest_kept {
	uint32_t number; /* in the names of its descriptors */
	bool numbered;
	struct state_file *state;
	struct record_writer writer;
	bool pushed;         /* something that no barrier was behind yet */
	bool going;          /* the records tell that the guest goes: that is the last word */
	uint32_t highest_id; /* that the kernel answered in the guest's context */
	/* While the memory map is changed: what stays, goes and comes, in place of the guest's
	 * regions. NULL: it is not. */
	const struct region_list *stay, *go, *come;
	struct kept_answers *answers;
	struct claimed_ring *rings;   /* utlist: that are written down, see ring.c */
	struct delegation *listeners; /* utlist: with a socket that is stored, see delegation.c */
	struct pool_job later;
	_Atomic bool queued; /* later is */
};

/* Of a guest that is found at the start: its number is its own. */
void save_number_claim(struct broker *broker, uint32_t number);
void save_number_put(struct broker *broker, uint32_t number);
/* A number and a state file, and the context's descriptor stored. After context_new. REFUSED: then
 * save_end() is still to be called. */
int save_begin(struct guest *guest, struct refusal *refusal);
/* Everything is taken down: nothing of it is stored any more. Harmless without save_begin(). */
void save_end(struct guest *guest);

/* Write the guest down as it is now. 0 or REFUSED: the former records hold. */
int save_guest(struct guest *guest, struct refusal *refusal);
/* The same where there is nobody to refuse: logged. */
void save_now(struct guest *guest);

/* Some time soon, from a thread that does not hold the lane; may be called with the broker's lock
 * held. What has no reply that could promise it. */
void save_later(struct guest *guest);

/* The kernel made that object in the guest's context. */
void save_note_id(struct guest *guest, uint32_t id);

/* Gets its index and is stored, if anything is. 0 or REFUSED. */
int save_memory_file(struct memory_file *file, struct refusal *refusal);
int save_device(struct device *device, struct refusal *refusal);
/* Stored no more; the records do not tell of it any more, or tell that it goes. The manager may
 * hold its descriptor until save_barrier(). */
void save_forget_memory_file(struct memory_file *file);
void save_forget_device(struct device *device);
/* The same for what has several descriptors, by name. */
int save_fd(struct guest *guest, enum fd_kind kind, uint32_t index, int borrow_fd,
	    struct refusal *refusal);
void save_forget_fd(struct guest *guest, enum fd_kind kind, uint32_t index);
/* What was stored is, what was forgotten is not: wait for the service manager. Logs if that does
 * not answer. */
void save_barrier(struct guest *guest);

#endif
