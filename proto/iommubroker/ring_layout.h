/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RING_LAYOUT_H
#define IB_RING_LAYOUT_H

/*
 * The memory of an update ring, as client and daemon share it: a sealed memfd of one header and
 * then one lane after another, each of them its indices, its submissions and its completions.
 *
 * All numbers are in host byte order. An index counts entries since the ring was made, modulo 2^32;
 * its place is the index modulo `entries`. Who writes an index stores it with release order after
 * what it tells of; who reads it loads it with acquire order. At most `entries` submissions of a
 * lane may lie between its complete_head and its submit_tail, so that a completion always has a
 * place.
 *
 * Who is about to sleep sets its flag, passes a full fence and looks again; who has stored an index
 * passes a full fence and rings the doorbell, one byte, if the flag of the other side is set.
 */

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define RING_MAGIC       0x49425247u /* "IBRG" */
#define RING_VERSION     1
#define RING_LANES_MAX   64
#define RING_ENTRIES_MAX 1024 /* of each queue of a lane */
#define RING_LINE_BYTES  64

enum ring_operation {
	RING_REFRESH = 1, /* iova, length */
	RING_MAP,         /* of a managed domain: iova, length, gpa, flags */
	RING_UNMAP,       /* likewise: iova, length */
};
#define RING_FLAG_WRITABLE 1u

/* Why the daemon does not serve a lane any more. */
enum ring_fault {
	RING_FAULT_NONE,
	RING_FAULT_INDEX, /* an index that cannot be: more entries than there are */
	RING_FAULT_ENDED, /* the ring has ended: destroyed, or with its guest or session */
};

struct ring_submission {
	uint32_t operation;
	uint32_t nested; /* index of the nested domain */
	uint64_t iova, length, gpa;
	uint64_t user_data;
	uint32_t flags;
	uint32_t reserved[5];
};

struct ring_completion {
	uint64_t user_data;
	uint32_t verdict, condition_code, status, event_code;
	uint64_t failing_iova, mapped, unmapped;
	uint64_t reserved[2];
};

struct ring_header {
	/* Fixed once the ring is made, and not looked at by the daemon. */
	uint32_t magic, version, lanes, entries;
	uint32_t lane_bytes;
	uint32_t reserved[11];
	/* By the daemon: ring the submissions' doorbell. */
	uint32_t daemon_sleeps;
	uint32_t reserved_line[15];
};

struct ring_lane {
	uint32_t submit_tail; /* by the client */
	uint32_t line_0[15];
	uint32_t submit_head; /* by the daemon: all before it was taken */
	uint32_t line_1[15];
	uint32_t complete_tail; /* by the daemon */
	uint32_t fault;         /* by the daemon: enum ring_fault */
	uint32_t line_2[14];
	uint32_t complete_head; /* by the client */
	uint32_t client_sleeps; /* by the client: ring this lane's doorbell */
	uint32_t line_3[14];
	/* entries submissions, then entries completions */
};

static_assert(sizeof(struct ring_submission) == RING_LINE_BYTES, "");
static_assert(offsetof(struct ring_submission, iova) == 8, "");
static_assert(offsetof(struct ring_submission, user_data) == 32, "");
static_assert(sizeof(struct ring_completion) == RING_LINE_BYTES, "");
static_assert(offsetof(struct ring_completion, failing_iova) == 24, "");
static_assert(sizeof(struct ring_header) == 2 * RING_LINE_BYTES, "");
static_assert(offsetof(struct ring_header, daemon_sleeps) == RING_LINE_BYTES, "");
static_assert(sizeof(struct ring_lane) == 4 * RING_LINE_BYTES, "");
static_assert(offsetof(struct ring_lane, complete_head) == 3 * RING_LINE_BYTES, "");

static inline uint32_t ring_lane_bytes(uint32_t entries)
{
	return (uint32_t)(sizeof(struct ring_lane) + entries * (sizeof(struct ring_submission) +
								sizeof(struct ring_completion)));
}

static inline uint64_t ring_memory_bytes(uint32_t lanes, uint32_t entries)
{
	uint64_t bytes = sizeof(struct ring_header) + (uint64_t)lanes * ring_lane_bytes(entries);

	return (bytes + 4095) & ~UINT64_C(4095);
}

static inline struct ring_lane *ring_lane_at(void *memory, uint32_t entries, uint32_t lane)
{
	return (struct ring_lane *)((char *)memory + sizeof(struct ring_header) +
				    (size_t)lane * ring_lane_bytes(entries));
}

static inline struct ring_submission *ring_submission_at(struct ring_lane *lane, uint32_t entries,
							 uint32_t index)
{
	return (struct ring_submission *)(lane + 1) + (index & (entries - 1));
}

static inline struct ring_completion *ring_completion_at(struct ring_lane *lane, uint32_t entries,
							 uint32_t index)
{
	return (struct ring_completion *)((struct ring_submission *)(lane + 1) + entries) +
	       (index & (entries - 1));
}

#endif
