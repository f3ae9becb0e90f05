/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "state/file_space.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utlist.h>

#include "state/state_file.h"

uint64_t file_space_page(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t file_space_round(uint64_t bytes)
{
	const uint64_t page = file_space_page();

	return bytes > STATE_FILE_BYTES_MAX ? 0 : (bytes + page - 1) & ~(page - 1);
}

static uint64_t end_of(const struct range *range)
{
	return range->offset + range->bytes;
}

static bool file_empty(int fd, uint64_t offset, uint64_t bytes)
{
	return !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			  (off_t)bytes);
}

/* ── taking ────────────────────────────────────────────────────────────────────────────────── */

/* The first hole that is large enough, and the range that it comes before; NULL: the end. */
static uint64_t hole_find(const struct file_space *space, uint64_t bytes, struct range **ret_next)
{
	uint64_t offset = 0;
	struct range *range;

	DL_FOREACH (space->ranges, range) {
		if (range->offset - offset >= bytes)
			break;
		offset = end_of(range);
	}
	*ret_next = range;
	return offset;
}

static int file_extend(struct file_space *space, uint64_t offset, uint64_t bytes, bool full)
{
	const uint64_t end = offset + bytes;

	if (full && fallocate(space->fd, 0, (off_t)offset, (off_t)bytes))
		return errno == ENOMEM ? -ENOMEM : -ENOSPC;
	if (end > space->file_bytes) {
		if (!full && ftruncate(space->fd, (off_t)end))
			return errno == ENOMEM ? -ENOMEM : -ENOSPC;
		space->file_bytes = end;
	}
	return 0;
}

static int range_new(const struct file_space *space, uint64_t offset, uint64_t bytes,
		     struct range **ret)
{
	struct range *range = calloc(1, sizeof(*range));
	void *memory = MAP_FAILED;

	if (range)
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			      space->fd, (off_t)offset);
	if (memory == MAP_FAILED) {
		free(range);
		return -ENOMEM;
	}
	*range = (struct range){.offset = offset, .bytes = bytes, .memory = memory};
	*ret = range;
	return 0;
}

int file_space_take(struct file_space *space, uint64_t bytes, bool full, struct range **ret)
{
	struct range *next, *range;
	uint64_t offset = hole_find(space, bytes, &next);
	int error;

	if (offset > STATE_FILE_BYTES_MAX - bytes)
		return -ENOSPC;
	error = file_extend(space, offset, bytes, full);
	if (error)
		return error;
	error = range_new(space, offset, bytes, &range);
	if (error) {
		file_empty(space->fd, offset, bytes);
		return error;
	}
	DL_PREPEND_ELEM(space->ranges, next, range);
	*ret = range;
	return 0;
}

int file_space_claim(struct file_space *space, uint64_t offset, uint64_t bytes, struct range **ret)
{
	const uint64_t odd = file_space_page() - 1;
	struct range *next, *range;
	int error;

	if (!bytes || (offset | bytes) & odd || offset > space->file_bytes ||
	    bytes > space->file_bytes - offset)
		return -EBADMSG;
	DL_FOREACH (space->ranges, next)
		if (end_of(next) > offset)
			break;
	if (next && next->offset < offset + bytes)
		return -EBADMSG;
	error = range_new(space, offset, bytes, &range);
	if (error)
		return error;
	DL_PREPEND_ELEM(space->ranges, next, range);
	*ret = range;
	return 0;
}

struct range *file_space_find(const struct file_space *space, uint64_t offset)
{
	struct range *range;

	DL_FOREACH (space->ranges, range)
		if (range->offset == offset)
			return range;
	return NULL;
}

/* ── giving back ───────────────────────────────────────────────────────────────────────────── */

static void range_unmap(struct range *range)
{
	munmap(range->memory, range->bytes);
	range->memory = NULL;
}

static void range_free(struct file_space *space, struct range *range)
{
	if (range->memory)
		range_unmap(range);
	DL_DELETE(space->ranges, range);
	free(range);
}

void file_space_unclaim(struct file_space *space, struct range *range)
{
	if (range)
		range_free(space, range);
}

/* What cannot be emptied is nobody's hole: it keeps its place, unmapped, until the file ends. */
void file_space_give(struct file_space *space, struct range *range)
{
	if (!range)
		return;
	range_unmap(range);
	if (file_empty(space->fd, range->offset, range->bytes))
		range_free(space, range);
}

void file_space_sweep(struct file_space *space)
{
	const struct range *range;
	uint64_t offset = 0;

	DL_FOREACH (space->ranges, range) {
		if (range->offset > offset)
			file_empty(space->fd, offset, range->offset - offset);
		offset = end_of(range);
	}
	if (space->file_bytes > offset)
		file_empty(space->fd, offset, space->file_bytes - offset);
}

void file_space_drop(struct file_space *space)
{
	struct range *range, *next;

	DL_FOREACH_SAFE(space->ranges, range, next)
	range_free(space, range);
}
