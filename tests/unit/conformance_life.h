/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_CONFORMANCE_LIFE_H
#define IB_TESTS_CONFORMANCE_LIFE_H

/*
 * A first life for the conformance suite's cases of a second one: a child's, which makes everything
 * with the backend, hands us the descriptors that a service manager would keep, and the VMM's, and
 * is killed.
 */

#include "conformance.h"

#define LIFE_IDS 5

enum life_fd { LIFE_CONTEXT, LIFE_DEVICE, LIFE_VMM, LIFE_FDS };

/* Makes something in rig, and names it. */
typedef void life(struct rig *rig, uint32_t ids[LIFE_IDS]);

struct inheritance {
	pid_t child;
	int socket;
	int fds[LIFE_FDS];
	/* What the life told of itself. */
	struct will {
		uint32_t device_id, ids[LIFE_IDS];
		struct iommu_device_info info;
	} will;
};

/* ret stays until life_end(). The first life has done what it does, and lives. last: what it does
 * until it is killed; NULL: nothing. The rig has a judge, if the device is bound, but neither
 * context nor device. */
struct rig *life_inherit(struct inheritance *ret, life *first, life *last);
void life_kill(struct inheritance *inheritance);
/* The caller uses it up. */
int life_take_fd(struct inheritance *from, enum life_fd which);
/* The context, and the device as it was bound there. */
void life_adopt(struct rig *rig, struct inheritance *from);
/* Kills who lives still, and closes what was not used. */
void life_end(void);
/* All at once. */
struct rig *life_second(life *first, uint32_t ids[LIFE_IDS]);
struct iommu_device_address life_address(const struct iommu_device_info *info);

/* What a broker makes: memory in a parent, pages 0 … 31 of it; and a nested space with copies: 0 …
 * 7 and 16 … 23 without 18 and 19 shown as they are, 8 … 11 shown at 40 read only. The device is
 * attached to the nested one. SPARE: an address space that nobody uses. */
enum { PARENT, PARENT_TABLE, NESTED, NESTED_TABLE, SPARE };
void life_of_a_guest(struct rig *rig, uint32_t ids[LIFE_IDS]);
void life_is_there(struct rig *rig, const uint32_t ids[LIFE_IDS]);

#endif
