/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_MEMORY_FILE_H
#define IB_BROKER_MEMORY_FILE_H

/* A file of guest memory, checked once when it is handed over. */

#include "broker/handle.h"
#include "broker/region.h"

struct memory_file {
	struct object object;
	int fd;
	uint32_t index; /* of its stored descriptor */
	uint64_t length_bytes, page_bytes;
	bool writable;
	bool huge;           /* on hugetlbfs */
	const uint8_t *host; /* all of it, read only */
	size_t n_regions;    /* that use it; guest's lane */
	struct memory_file *prev, *next;
};

/* What a descriptor has to be: file_check.c. 0 or REFUSED. Fills fd's facts. */
struct file_facts {
	uint64_t length_bytes, page_bytes;
	bool huge;
};
int file_check(int borrow_fd, bool writable, enum broker_seals seals, struct file_facts *ret,
	       struct refusal *refusal);

/*
 * What a look at a file found: no hole from first on, before hole. Zeroed: nothing yet. The kernel
 * looks for a hole up to the end of the file, however short the range is that one asks for; so
 * ranges are asked for in the order of their offsets with one look, which costs a file's length
 * once. Its sender can make a hole at any moment: a look is good for one pass.
 */
struct file_look {
	const struct memory_file *file;
	uint64_t first, hole;
};

/* Before a range is pinned: refuse it if it is not populated, or populate it, as the policy says.
 */
int file_populate(const struct memory_file *file, uint64_t offset, uint64_t length,
		  enum broker_unpopulated policy, const char *field, struct file_look *look,
		  struct refusal *refusal);
/* After it, with a new look: whether it still is. */
int file_check_populated(const struct memory_file *file, uint64_t offset, uint64_t length,
			 const char *field, struct file_look *look, struct refusal *refusal);

/* 0: it cannot be told. */
uint64_t memory_file_inode(int borrow_fd);
/* One of a process before this one, whose descriptor was stored: in its guest's list. 0, REFUSED or
 * a negative errno. */
struct record_file;
int memory_file_restore(struct guest *guest, const struct record_file *record, int consume_fd,
			struct refusal *refusal);
/* The guest's file of that handle, borrowed from the guest, on its lane; NULL: REFUSED. */
struct memory_file *memory_file_find(struct guest *guest, uint64_t handle, struct refusal *refusal);
/* Take it from its guest and drop it. On the guest's lane; no region uses it. */
void memory_file_drop(struct memory_file *file);

#endif
