/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See failure_memory.h. */

#include "failure_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"

#define DATA_GPA    0x80000ull  /* LEAVES pages */
#define TABLES_GPA  0x1c0000ull /* of the first set; the other set's follow */
#define TABLES_SIZE 0x20000ull

static uint8_t *file_make(const char *name, uint64_t bytes, int *ret_fd)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *host;

	REQUIRE(fd >= 0);
	REQUIRE(ftruncate(fd, (off_t)bytes) == 0);
	REQUIRE(fallocate(fd, 0, 0, (off_t)bytes) == 0);
	REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(host != MAP_FAILED);
	*ret_fd = fd;
	return host;
}

void guest_memory_make(struct guest_memory *memory)
{
	memory->main = file_make("main", MAIN_BYTES, &memory->main_fd);
	memory->side = file_make("side", SIDE_BYTES, &memory->side_fd);
}

uint8_t *guest_memory_at(const struct guest_memory *memory, uint64_t gpa)
{
	return gpa >= HIGH_GPA ? memory->side + (gpa - HIGH_GPA) : memory->main + gpa;
}

uint64_t frame_of(unsigned int leaf)
{
	return DATA_GPA + (uint64_t)leaf * PAGE_BYTES;
}

void leaves_reset(struct guest_memory *memory)
{
	for (unsigned int set = 0; set < TABLE_SETS; set++) {
		uint64_t gpa = TABLES_GPA + set * TABLES_SIZE;

		tables_init(&memory->tables[set], memory->main + gpa, gpa, TABLES_SIZE);
		for (unsigned int leaf = 0; leaf < LEAVES; leaf++)
			memory->leaves[set][leaf].valid = false;
		leaves_map(memory, set, 0, ENGINE_WORKSPACE_PAGES, WORKSPACE_GPA, true);
	}
}

void leaves_map(struct guest_memory *memory, enum table_set set, unsigned int first, unsigned int n,
		uint64_t gpa, bool writable)
{
	for (unsigned int i = 0; i < n; i++)
		memory->leaves[set][first + i] =
			(struct leaf){true, writable, gpa + i * PAGE_BYTES};
	tables_map(&memory->tables[set], IOVA(first), gpa, n,
		   writable ? ZPCI_LEAF_READ_WRITE : ZPCI_LEAF_READ);
}

void leaves_unmap(struct guest_memory *memory, enum table_set set, unsigned int first,
		  unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		memory->leaves[set][first + i].valid = false;
	tables_unmap(&memory->tables[set], IOVA(first), n);
}

static bool leaf_counts(const struct leaf *leaf, bool without_high)
{
	bool high = leaf->gpa >= HIGH_GPA && leaf->gpa < HIGH_GPA + HIGH_BYTES;

	return leaf->valid && !(high && without_high);
}

unsigned int leaves_count(const struct guest_memory *memory, enum table_set set, bool without_high)
{
	unsigned int n = 0;

	for (unsigned int leaf = 0; leaf < LEAVES; leaf++)
		n += leaf_counts(&memory->leaves[set][leaf], without_high);
	return n;
}
