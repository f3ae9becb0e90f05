/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_REPLAY_CHECK_H
#define IB_REPLAY_CHECK_H

/*
 * Does the device reach what the guest's tables say, and nothing else? What there is to be found
 * out is the same for every device; how it is found out is the checker's: check_emulated is for
 * functions of the emulated backend, and others are given to machine_open() in its place.
 */

#include "replay/machine.h"

struct check_ops {
	/* The device has to have that many pages of its own mapped, for reading and writing, in
	 * whatever it is attached to. */
	unsigned int workspace_pages;
	/* The function is bound: sets function->device_engine. 0 or a negative errno. */
	int (*open)(struct machine *machine, struct function *function);
	void (*close)(struct function *function);
	/* The function is attached, its workspace is mapped. 0 or a negative errno. NULL: nothing
	 * to do. */
	int (*start)(struct machine *machine, struct function *function);
	/* One page by DMA, or not at all if the checker takes samples. leaf NULL: to be out of
	 * reach. Guest memory is left as it was. */
	void (*leaf)(struct machine *machine, struct function *function, uint64_t iova,
		     const struct leaf *leaf);
	/* The same for one page of the set that is installed at the end. */
	void (*page)(struct machine *machine, struct function *function, uint64_t iova,
		     const struct leaf *leaf);
	/* A refresh was answered. NULL: nothing to do. */
	void (*refreshed)(struct machine *machine);
};

extern const struct check_ops check_emulated;

/* One leaf, as the model has it now. */
void check_leaf(struct machine *machine, struct function *function, uint64_t iova);

/* The set of leaves, at the end: every page of the window, and the daemon's own count. */
void check_all_leaves(struct machine *machine, struct function *function);

/* For checkers: count a check, and tell of one that failed; detail says what the device answered.
 */
void check_judge(struct machine *machine, const struct function *function, uint64_t iova, bool good,
		 const char *what, const char *detail);
/* For checkers: eight bytes that were never there before. */
uint64_t check_pattern(const struct machine *machine);

#endif
