/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stands in until the real files of this folder are there: nothing is kept. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "state/fd_store.h"
#include "state/record.h"
#include "state/state_file.h"

struct state_file {
	_Atomic uint64_t words[STATE_FILE_WORDS];
};

int state_file_new(struct state_file **ret, const char *name)
{
	(void)name;
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

struct state_file *state_file_free(struct state_file *file)
{
	free(file);
	return NULL;
}

int state_file_fd(const struct state_file *file)
{
	(void)file;
	return -1;
}

int state_file_commit(struct state_file *file, const void *bytes, size_t n)
{
	(void)file, (void)bytes, (void)n;
	return 0;
}

int state_extent_new(struct state_file *file, uint64_t bytes, struct state_extent *ret)
{
	void *memory;

	(void)file;
	if (bytes > SIZE_MAX)
		return -ENOMEM;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	*ret = (struct state_extent){.bytes = bytes, .memory = memory};
	return 0;
}

void state_extent_free(struct state_file *file, struct state_extent *extent)
{
	(void)file;
	if (extent->bytes)
		munmap(extent->memory, extent->bytes);
	*extent = (struct state_extent){0};
}

_Atomic uint64_t *state_word(struct state_file *file, unsigned int index)
{
	return &file->words[index];
}

bool fd_store_keeps(const struct fd_store *store)
{
	(void)store;
	return false;
}

int fd_store_push(struct fd_store *store, const struct fd_name *name, int borrow_fd)
{
	(void)store, (void)name, (void)borrow_fd;
	return 0;
}

void fd_store_remove(struct fd_store *store, const struct fd_name *name)
{
	(void)store, (void)name;
}

int fd_store_barrier(struct fd_store *store)
{
	(void)store;
	return 0;
}

void record_put(struct record_writer *writer, uint16_t type, uint16_t flags, const void *fixed,
		uint32_t fixed_bytes, const void *tail, uint32_t tail_bytes)
{
	(void)writer, (void)type, (void)flags, (void)fixed, (void)fixed_bytes, (void)tail;
	(void)tail_bytes;
}

void record_writer_clear(struct record_writer *writer)
{
	(void)writer;
}

void record_writer_free(struct record_writer *writer)
{
	(void)writer;
}
