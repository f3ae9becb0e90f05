/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_REPLAY_GUEST_H
#define IB_VM_REPLAY_GUEST_H

/* A recorded guest's VMM: plays it through a daemon, and CHECKs (check.h) what comes of it. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Recorded guests have two functions, 1 and 2. */
#define REPLAY_FUNCTIONS 2u

struct replay_recording {
	const char *trace, *tables; /* files; tables NULL: the trace is played */
	/* As was counted when it was recorded; see tests/data/traces/README.md. */
	uint64_t refreshes, leaves_mapped, leaves_unmapped;
	uint64_t live[REPLAY_FUNCTIONS];
};

struct replay_place {
	const char *socket;
	pid_t daemon;
	const char *pci_addresses[REPLAY_FUNCTIONS];
	bool by_function_id; /* opened by their ids rather than their addresses */
};

void replay_guest_run(const struct replay_recording *recording, const struct replay_place *place);

#endif
