/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_FAILURE_PLAYER_H
#define IB_VM_FAILURE_PLAYER_H

/*
 * A VMM without privilege that leads lives (failure_life.h) as it is told, one after the other, and
 * what must be so after each of them: nothing of it is left, in the daemon and in the kernel.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fail_nth_control.h"
#include "failure_life.h"
#include "machine.h"

enum player_on_failure {
	PLAYER_RETRY, /* the step once more, which must succeed; then on to the end */
	PLAYER_LEAVE, /* the connection ends there */
};

struct player_order {
	size_t n_steps; /* then the connection ends */
	enum player_on_failure on_failure;
	bool dma;
	/* Instead of the above; runs in the VMM, with the life begun, and ended after it. */
	void (*play)(struct life *life, struct fail_nth *control);
};

struct player_report {
	size_t failed; /* step; SIZE_MAX: none */
	struct outcome outcome;
	uint32_t calls_before_end; /* counted until the connection ended */
};

/* What is there while no guest is. */
struct player_base {
	size_t descriptors;
	uint64_t iommu_pages;  /* page tables of all IOMMUs */
	uint64_t pinned_pages; /* by anybody */
};

struct player {
	struct machine *machine;
	struct fail_nth *control;
	struct player_shared *shared;
	struct player_base base;
	pid_t child;
	int socket;
};

/* Plays one life without a failure, and takes what is left then for the base. */
void player_start(struct player *player, struct machine *machine, struct fail_nth *control);
void player_stop(struct player *player);
/* Until nothing is left of it, which is checked. */
struct player_report player_play(struct player *player, const struct player_order *order);

#endif
