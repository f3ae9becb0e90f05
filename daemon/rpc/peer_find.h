/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_PEER_FIND_H
#define IB_RPC_PEER_FIND_H

/*
 * Somebody whom an operator names, as a client: what the host knows of them, before they connect.
 *
 * Worker threads only: users' databases can be a slow network's, and the tree of cgroups is walked.
 */

#include "broker/tenant_rule.h"
#include "util/refusal.h"

struct peer_found {
	struct tenant_identity identity;
	unsigned int known; /* a bit for each enum tenant_property */
};

/* A user by name or number, with all groups of theirs; of the cgroup nothing is known. 0, or
 * REFUSED: there is none. */
int peer_find_user(const char *name, struct peer_found *ret, struct refusal *refusal);
/* A process. 0, or REFUSED: there is none, or /proc does not show it. */
int peer_find_process(uint64_t pid, struct peer_found *ret, struct refusal *refusal);
/* Some process of a unit, "machine-a.scope", which is looked for below the slices of the folder
 * root, where the hierarchy of cgroups is mounted. 0, or REFUSED: it has none. */
int peer_find_unit(const char *root, const char *unit, struct peer_found *ret,
		   struct refusal *refusal);

#endif
