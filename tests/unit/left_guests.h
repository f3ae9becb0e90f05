/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_LEFT_GUESTS_H
#define IB_TESTS_LEFT_GUESTS_H

/*
 * Two guests as a process before this one left them, and as many copies of them as a test wants.
 *
 * The victim has something of everything: two memory files, regions, functions attached in each
 * way, shadows with kept tables, a managed domain, a ring, a delegation, answers. The neighbour has
 * one function that goes through one nested domain. They are made once, in a process that leaves
 * them (broker_leave()) and ends; the sessions are a third one's. What the emulated backend and
 * the state keep in files is copied for each use, so that one that is damaged stays alone.
 */

#include "broker_fixture.h"
#include "notify_manager.h"

#define LEFT_FDS_MAX      96
#define LEFT_VICTIM       0u /* numbers in the store */
#define LEFT_NEIGHBOUR    1u
#define LEFT_MAPPED_BYTES (24 * MIB) /* of the victim's memory; it had more that was taken away */
#define LEFT_ROM_BYTES    (1 * MIB)
#define LEFT_ROM_GPA      (256 * MIB)
#define LEFT_GRANULE_GPA  (20 * MIB) /* from here on in granules of 64 KiB */
/* The shadow's 64 and 1, the managed domain's 8 and 1, and all that is mapped, twice. */
#define LEFT_GUEST_PAGES  ((LEFT_MAPPED_BYTES + LEFT_ROM_BYTES) / PAGE)
#define LEFT_SHOWN_PAGES  (65 + 9 + 2 * LEFT_GUEST_PAGES)
#define LEFT_RING_LANES   2
#define LEFT_RING_ENTRIES 16
#define LEFT_RING_BYTES   ring_bytes(LEFT_RING_LANES, LEFT_RING_ENTRIES)
#define LEFT_FUNCTIONS    5 /* of the victim; the neighbour's is the next */

/* What they were told, in memory that both processes see. */
struct left_told {
	uint8_t victim_secret[BROKER_SECRET_BYTES]; /* of sessions */
	uint8_t neighbour_secret[BROKER_SECRET_BYTES];
	uint64_t victim, neighbour; /* guests */
	uint64_t devices[LEFT_FUNCTIONS], neighbour_device;
	uint64_t shadow, managed; /* the victim's nested domains */
	bool made;                /* to the end */
};

struct left {
	size_t n;
	struct stored_fd fds[LEFT_FDS_MAX];
	struct left_told *told;
	struct peer peer;                    /* whose the sessions are */
	int memory_fd, rom_fd, neighbour_fd; /* guest memory */
	uint8_t *memory, *rom, *neighbour;   /* this process' mappings */
};

/* The machine's. */
void left_functions(struct iommu_emulated_function ret[LEFT_FUNCTIONS + 1]);

/* Before this process has any thread. */
void left_make(struct left *ret);
void left_free(struct left *left);

/* Descriptors of its own to each of them; ret[LEFT_FDS_MAX]. */
void left_copy(const struct left *left, struct stored_fd *ret);
void left_copy_close(struct stored_fd *fds, size_t n);
struct stored_fd *left_find(struct stored_fd *fds, size_t n, uint32_t guest, enum fd_kind kind,
			    uint32_t index);

/* The functions of a guest, by their files in a copy, show only what that guest was given by calls:
 * NULL, or what is wrong. *ret_pages: how many they show. */
const char *left_shown(const struct left *left, struct stored_fd *fds, size_t n, uint32_t guest,
		       uint64_t *ret_pages);

#endif
