/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_FAILURE_MEMORY_H
#define IB_VM_FAILURE_MEMORY_H

/*
 * The guest of the sweep of kernel failures: its memory, and in it two sets of zPCI tables with one
 * page table each, written as an s390 guest writes them.
 */

#include <stdbool.h>
#include <stdint.h>

#include "tables.h"

#define PAGE_BYTES 4096ull
#define MAIN_BYTES (2ull << 20) /* at guest address 0 */
#define SIDE_BYTES (256ull << 10)
#define LEAVES     256u

/* Where the side file shows up in guest memory, and how much of it. */
#define HIGH_GPA       0x10000000ull
#define HIGH_BYTES     (128ull << 10)
#define READ_ONLY_GPA  0x20000000ull
#define READ_ONLY_AT   HIGH_BYTES /* in the file */
#define READ_ONLY_SIZE (64ull << 10)
#define GROWN_GPA      0x30000000ull

#define WINDOW_FIRST 0x100000000ull
#define WINDOW_LAST  0x17fffffffull
#define IOVA(leaf)   (WINDOW_FIRST + (uint64_t)(leaf)*PAGE_BYTES)

/* What a device engine needs, mapped in both sets: leaves from 0 on. */
#define WORKSPACE_GPA 0x40000ull

enum table_set {
	TABLES_FIRST,
	TABLES_OTHER,
	TABLE_SETS,
};

struct leaf {
	bool valid, writable;
	uint64_t gpa;
};

struct guest_memory {
	int main_fd, side_fd;
	uint8_t *main, *side;
	struct tables tables[TABLE_SETS];
	struct leaf leaves[TABLE_SETS][LEAVES]; /* what is in them */
};

void guest_memory_make(struct guest_memory *memory);
/* This process's mapping of a guest address that may be written to by a device. */
uint8_t *guest_memory_at(const struct guest_memory *memory, uint64_t gpa);
/* A frame of main memory for each leaf, and nobody else's. */
uint64_t frame_of(unsigned int leaf);

/* All invalid but the workspace. */
void leaves_reset(struct guest_memory *memory);
void leaves_map(struct guest_memory *memory, enum table_set set, unsigned int first, unsigned int n,
		uint64_t gpa, bool writable);
void leaves_unmap(struct guest_memory *memory, enum table_set set, unsigned int first,
		  unsigned int n);
/* Valid ones; without_high: whose frame is not in that region. */
unsigned int leaves_count(const struct guest_memory *memory, enum table_set set, bool without_high);

#endif
