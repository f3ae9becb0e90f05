/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_STATE_FILE_SPACE_H
#define IB_STATE_FILE_SPACE_H

/*
 * Who has which pages of a state file: ranges in order, none overlapping, each mapped. The file is
 * sparse; what belongs to nobody is empty and reads as zeros.
 */

#include <stdbool.h>
#include <stdint.h>

struct range {
	uint64_t offset, bytes; /* whole pages */
	void *memory;
	struct range *prev, *next;
};

struct file_space {
	int fd;              /* borrowed */
	uint64_t file_bytes; /* as long as the file is */
	struct range *ranges;
};

uint64_t file_space_page(void);
/* To whole pages. 0: it is 0, or more than a file can have. */
uint64_t file_space_round(uint64_t bytes);

/* A hole of so many bytes gets an owner; in full: its pages are there already, so that no store to
 * it can fail. 0, -ENOSPC, -ENOMEM. */
int file_space_take(struct file_space *space, uint64_t bytes, bool full, struct range **ret);
/* That range gets an owner: 0; -EBADMSG: it is not of whole pages, lies not in the file or somebody
 * has a part of it; -ENOMEM. */
int file_space_claim(struct file_space *space, uint64_t offset, uint64_t bytes, struct range **ret);
/* What was claimed is nobody's any more, and stays as it is. NULL is fine. */
void file_space_unclaim(struct file_space *space, struct range *range);
/* Unmapped, and its pages given back. NULL is fine. */
void file_space_give(struct file_space *space, struct range *range);
struct range *file_space_find(const struct file_space *space, uint64_t offset);
/* Empty what belongs to nobody. */
void file_space_sweep(struct file_space *space);
/* Forget and unmap all; the file stays as it is. */
void file_space_drop(struct file_space *space);

#endif
