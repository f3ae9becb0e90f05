/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_REPLAY_DEVICE_H
#define IB_VM_REPLAY_DEVICE_H

/*
 * Replayed guests checked by a real device's DMA (engine.h). A device needs milliseconds where an
 * emulated function needs none, so on the way it takes samples of each kind of leaf, and at the end
 * all leaves that are left.
 */

#include <sys/types.h>

#include "replay/check.h"

/* Kinds of accesses. Those that are to be blocked leave a zPCI function in error state. */
enum replay_access {
	REPLAY_READ,
	REPLAY_WRITE,
	REPLAY_BLOCKED_READ,
	REPLAY_BLOCKED_WRITE,
	REPLAY_READ_ONLY_WRITE,
	REPLAY_ACCESSES,
};

/* What machine->checks_data points to. */
struct replay_device {
	/* To be set: whose pins are watched, and what they have to be after each refresh. */
	pid_t daemon;
	uint64_t pinned_bytes;
	uint64_t pins_seen, pins_wrong;
	uint64_t accesses[REPLAY_ACCESSES];
	uint64_t reported;   /* blocked ones that the device reported */
	uint64_t recoveries; /* of devices that a blocked access stops */
	/* Not of the recording: to bring a device back that was in error. */
	uint64_t refreshes, leaves_mapped, leaves_unmapped;
};

extern const struct check_ops replay_device_checks;

/* After the recording: the guest unmaps some of the leaves that are left, and makes some read only;
 * tries a few of those and of their neighbours. 0 or a negative errno. */
int replay_device_change_some(struct machine *machine, struct function *function);
/* Whether anything in guest memory, but for the devices' own pages, is what a blocked write held.
 */
bool replay_device_has_leaked(const struct machine *machine);

#endif
