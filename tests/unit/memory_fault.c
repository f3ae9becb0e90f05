/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory_fault.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

_Atomic unsigned int memory_fault_countdown;

static bool memory_fails(void)
{
	return atomic_load(&memory_fault_countdown) &&
	       atomic_fetch_sub(&memory_fault_countdown, 1) == 1;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_mmap(void *address, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_mmap(void *address, size_t bytes, int prot, int flags, int fd, off_t offset);
/* What mmap() is called where files may be large. */
void *__real_mmap64(void *address, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *address, size_t bytes, int prot, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t bytes)
{
	return memory_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
	return memory_fails() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
	return memory_fails() ? NULL : __real_realloc(memory, bytes);
}

void *__wrap_mmap(void *address, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	if (!memory_fails())
		return __real_mmap(address, bytes, prot, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}

void *__wrap_mmap64(void *address, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	if (!memory_fails())
		return __real_mmap64(address, bytes, prot, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}
