/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Loaded into the daemon: makes the nth allocation of the kernel fail in one chosen call; see
 * fail_nth.h. The daemon itself is the one that is installed, unchanged.
 *
 * Between arming and reading what is left nothing runs that allocates but the call itself:
 * fail-nth is written and read through a descriptor that was opened before, and the functions here
 * call the kernel directly.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fail_nth.h"

#define EXPORT     __attribute__((visibility("default")))
#define IOCTL_TYPE ';' /* iommufd and VFIO share it */
#define FDS_MAX    4096

static struct fail_nth *control;
static atomic_bool is_iommufd[FDS_MAX]; /* descriptors that open() gave out */

__attribute__((constructor)) static void control_map(void)
{
	const char *path = getenv(FAIL_NTH_FILE);
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
	void *page;

	if (fd < 0)
		return;
	page = (void *)syscall(SYS_mmap, NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED,
			       fd, 0);
	syscall(SYS_close, fd);
	if (page != MAP_FAILED)
		control = page;
}

struct call {
	long number; /* of the system call */
	uint32_t request;
	long arguments[6];
};

static long call_make(const struct call *call)
{
	const long *a = call->arguments;

	return syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static size_t format_number(char text[12], uint32_t number)
{
	size_t n = 0;
	char digits[12];

	do
		digits[n++] = (char)('0' + number % 10);
	while (number /= 10);
	for (size_t i = 0; i < n; i++)
		text[i] = digits[n - 1 - i];
	return n;
}

/* fail-nth counts down to 0, which it reaches with the failure. */
static bool nth_is_spent(int fd)
{
	char text[12];
	ssize_t n = syscall(SYS_pread64, fd, text, sizeof(text), 0);

	if (n < 1)
		atomic_store(&control->broken, 1);
	if (n > 0 && text[0] == '0')
		return true;
	if (syscall(SYS_pwrite64, fd, "0", 1, 0) != 1)
		atomic_store(&control->broken, 1);
	return false;
}

static long call_fail(const struct call *call)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/thread-self/fail-nth",
			      O_RDWR | O_CLOEXEC, 0);
	size_t length;
	char text[12];
	long result;
	int error;

	length = format_number(text, control->nth);
	if (fd < 0 || syscall(SYS_pwrite64, fd, text, length, 0) != (long)length)
		atomic_store(&control->broken, 1);
	result = call_make(call);
	error = errno;
	if (fd >= 0 && nth_is_spent(fd))
		atomic_fetch_add(&control->injected, 1);
	if (fd >= 0)
		syscall(SYS_close, fd);
	control->last_request = call->request;
	control->last_error = result < 0 ? error : 0;
	atomic_fetch_add(&control->aimed, 1);
	errno = error;
	return result;
}

static long call_counted(const struct call *call)
{
	uint32_t number;

	if (!control || !atomic_load(&control->counting))
		return call_make(call);
	number = atomic_fetch_add(&control->calls, 1) + 1;
	if (number <= FAIL_NTH_CALLS_MAX)
		control->requests[number - 1] = call->request;
	if (number == control->call || (control->request && call->request == control->request))
		return call_fail(call);
	return call_make(call);
}

EXPORT int ioctl(int fd, unsigned long request, ...);
EXPORT int ioctl(int fd, unsigned long request, ...)
{
	struct call call = {SYS_ioctl, (uint32_t)request, {fd, (long)request}};
	va_list arguments;

	va_start(arguments, request);
	call.arguments[2] = va_arg(arguments, long);
	va_end(arguments);
	if ((request >> 8 & 0xff) != IOCTL_TYPE)
		return (int)call_make(&call);
	return (int)call_counted(&call);
}

static int open_call(const char *path, int flags, mode_t mode)
{
	struct call call = {SYS_openat, FAIL_NTH_OPEN, {AT_FDCWD, (long)path, flags, mode}};
	bool iommufd = !strcmp(path, "/dev/iommu");
	int fd;

	if (!iommufd && strncmp(path, "/dev/vfio/", 10) != 0)
		return (int)call_make(&call);
	fd = (int)call_counted(&call);
	if (iommufd && fd >= 0 && fd < FDS_MAX)
		atomic_store(&is_iommufd[fd], true);
	return fd;
}

static bool flags_take_mode(int flags)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
}

/* Under the names that the C library has for 32-bit and for 64-bit offsets, which are one kind
 * here.
 */
#define OPEN_AS(function, name)                                              \
	EXPORT int function(const char *path, int flags, ...) __asm__(name); \
	EXPORT int function(const char *path, int flags, ...)                \
	{                                                                    \
		mode_t mode = 0;                                             \
		va_list arguments;                                           \
                                                                             \
		va_start(arguments, flags);                                  \
		if (flags_take_mode(flags))                                  \
			mode = va_arg(arguments, mode_t);                    \
		va_end(arguments);                                           \
		return open_call(path, flags, mode);                         \
	}

OPEN_AS(preload_open, "open")
OPEN_AS(preload_open64, "open64")

/* Not of a device: with its last descriptor the kernel attaches it to the host's own domain again,
 * which may not fail, but allocates with VT-d, and Linux 7.2 warns in
 * __iommu_release_dma_ownership() if it cannot. Whoever closes has no say in that. The device stays
 * blocked until it is opened again.
 */
EXPORT int close(int fd)
{
	struct call call = {SYS_close, FAIL_NTH_CLOSE, {fd}};

	/* Before the number can be given out again. */
	if (fd >= 0 && fd < FDS_MAX && atomic_exchange(&is_iommufd[fd], false))
		return (int)call_counted(&call);
	return (int)call_make(&call);
}

/* Shared mappings of a file are what the daemon has of its clients' memory. */
static void *mmap_call(void *at, size_t length, int prot, int flags, int fd, off_t offset)
{
	struct call call = {
		SYS_mmap, FAIL_NTH_MMAP, {(long)at, (long)length, prot, flags, fd, offset}};

	if (fd < 0 || !(flags & MAP_SHARED))
		return (void *)call_make(&call);
	return (void *)call_counted(&call);
}

#define MMAP_AS(function, name)                                                                   \
	EXPORT void *function(void *at, size_t length, int prot, int flags, int fd,               \
			      off_t offset) __asm__(name);                                        \
	EXPORT void *function(void *at, size_t length, int prot, int flags, int fd, off_t offset) \
	{                                                                                         \
		return mmap_call(at, length, prot, flags, fd, offset);                            \
	}

MMAP_AS(preload_mmap, "mmap")
MMAP_AS(preload_mmap64, "mmap64")
