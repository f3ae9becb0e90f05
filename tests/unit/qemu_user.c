/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Loaded in front of the C library into tests that run under QEMU's user emulation: gives them back
 * what Linux does and the emulator does not.
 *
 * - The address of a SIGBUS for memory that is gone arrives as a pid and a uid, each turned by
 *   itself: for a big-endian target on a little-endian host its halves change places.
 * - madvise() says that it has populated and does nothing.
 * - ioctl() answers for a request that the emulator does not know before it looks at the
 * descriptor.
 * - A SIGBUS in the middle of an instruction that compares blocks kills the emulator itself.
 * - recvmsg() forgets MSG_CTRUNC, and leaves the descriptors that did not fit open, unnamed.
 *
 * Each is harmless where the emulator is right. Nothing of the project is linked with this.
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORTED   __attribute__((visibility("default")))
#define PAGE_BYTES 4096u
#define FDS_MAX    253 /* of one message: SCM_MAX_FD */

static void *next(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found)
		abort();
	return found;
}

/* SIGBUS */

static bool halves_swapped;
static struct sigaction bus_action; /* as the program set it */
static sigjmp_buf probe_escape;
static uintptr_t probe_told;

static void handle_bus(int signal_number, siginfo_t *info, void *context)
{
	siginfo_t mended = *info;
	uint64_t told = (uintptr_t)info->si_addr;

	if (halves_swapped && info->si_code > 0)
		mended.si_addr = (void *)(uintptr_t)(told << 32 | told >> 32);
	bus_action.sa_sigaction(signal_number, &mended, context);
}

EXPORTED int sigaction(int signal_number, const struct sigaction *action, struct sigaction *ret_old)
{
	int (*real)(int, const struct sigaction *, struct sigaction *) = next("sigaction");
	struct sigaction before = bus_action, given;

	if (signal_number != SIGBUS)
		return real(signal_number, action, ret_old);
	if (action) {
		given = bus_action = *action;
		if (action->sa_flags & SA_SIGINFO)
			given.sa_sigaction = handle_bus;
	}
	if (real(SIGBUS, action ? &given : NULL, ret_old) < 0)
		return -1;
	if (ret_old && ret_old->sa_sigaction == handle_bus)
		ret_old->sa_sigaction = before.sa_sigaction;
	return 0;
}

static void handle_probe(int signal_number, siginfo_t *info, void *context)
{
	probe_told = (uintptr_t)info->si_addr;
	siglongjmp(probe_escape, 1);
}

__attribute__((constructor)) static void bus_probe(void)
{
	int (*real)(int, const struct sigaction *, struct sigaction *) = next("sigaction");
	struct sigaction probe = {.sa_sigaction = handle_probe, .sa_flags = SA_SIGINFO}, before;
	int fd = memfd_create("probe", MFD_CLOEXEC);
	const volatile char *gone = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	uint64_t expected = (uintptr_t)gone;

	if (gone == MAP_FAILED || real(SIGBUS, &probe, &before) < 0)
		abort();
	if (!sigsetjmp(probe_escape, 1)) {
		(void)*gone;
		abort();
	}
	halves_swapped = probe_told == (uintptr_t)(expected << 32 | expected >> 32);
	real(SIGBUS, &before, NULL);
	munmap((void *)(uintptr_t)gone, PAGE_BYTES);
	close(fd);
}

/* Memory */

/* Reads a byte of each page where a failure is an answer and no signal. */
static int populate(const char *start, size_t length)
{
	int fd = memfd_create("populate", MFD_CLOEXEC), error = 0;

	if (fd < 0)
		return -1;
	for (size_t at = 0; at < length && !error; at += PAGE_BYTES)
		if (pwrite(fd, start + at, 1, 0) != 1)
			error = errno;
	close(fd);
	errno = error;
	return error ? -1 : 0;
}

EXPORTED int madvise(void *start, size_t length, int advice)
{
	int (*real)(void *, size_t, int) = next("madvise");
	int r = real(start, length, advice);

	return !r && advice == MADV_POPULATE_READ ? populate(start, length) : r;
}

/* A test that counts calls of madvise() makes them this way. */
EXPORTED long syscall(long number, ...)
{
	long (*real)(long, ...) = next("syscall"), argument[6];
	va_list rest;

	va_start(rest, number);
	for (size_t i = 0; i < 6; i++)
		argument[i] = va_arg(rest, long);
	va_end(rest);
	if (number == SYS_madvise)
		return madvise((void *)argument[0], (size_t)argument[1], (int)argument[2]);
	return real(number, argument[0], argument[1], argument[2], argument[3], argument[4],
		    argument[5]);
}

/* Byte by byte, so that no block instruction is at work when memory is gone. */
EXPORTED int memcmp(const void *a, const void *b, size_t n)
{
	const volatile unsigned char *at = a, *to = b;

	for (size_t i = 0; i < n; i++)
		if (at[i] != to[i])
			return at[i] < to[i] ? -1 : 1;
	return 0;
}

/* Descriptors */

EXPORTED int ioctl(int fd, unsigned long request, ...)
{
	int (*real)(int, unsigned long, ...) = next("ioctl");
	void *argument;
	va_list rest;
	int r;

	va_start(rest, request);
	argument = va_arg(rest, void *);
	va_end(rest);
	r = real(fd, request, argument);
	if (r < 0 && (errno == ENOTTY || errno == ENOSYS))
		errno = fcntl(fd, F_GETFD) < 0 ? EBADF : ENOTTY;
	return r;
}

static bool is_rights(const struct cmsghdr *header)
{
	return header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS;
}

/* Descriptors from number `kept` on did not fit. */
static void close_rest(struct cmsghdr *header, size_t kept)
{
	size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	int fd;

	for (size_t i = kept; i < n; i++) {
		memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
		close(fd);
	}
}

/* One control message to where `*used` of the receiver's room ends, shortened as Linux does. */
static void put(struct msghdr *message, size_t room, size_t *used, struct cmsghdr *header)
{
	size_t left = room - *used, kept = 0, space;
	struct cmsghdr *to = (struct cmsghdr *)((uint8_t *)message->msg_control + *used);

	if (left >= CMSG_LEN(0))
		kept = left < header->cmsg_len ? left : header->cmsg_len;
	if (kept && is_rights(header)) {
		kept -= (kept - CMSG_LEN(0)) % sizeof(int);
		kept = kept > CMSG_LEN(0) ? kept : 0;
	}
	if (kept < header->cmsg_len) {
		message->msg_flags |= MSG_CTRUNC;
		if (is_rights(header))
			close_rest(header, kept ? (kept - CMSG_LEN(0)) / sizeof(int) : 0);
	}
	if (!kept)
		return;
	header->cmsg_len = kept;
	memcpy(to, header, kept);
	space = CMSG_SPACE(kept - CMSG_LEN(0));
	*used += space < left ? space : left;
}

EXPORTED ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	ssize_t (*real)(int, struct msghdr *, int) = next("recvmsg");
	alignas(struct cmsghdr) uint8_t
		control[CMSG_SPACE(FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))] = {0};
	size_t room = message->msg_controllen, used = 0;
	struct msghdr wide = *message;
	ssize_t n;

	if (!room)
		return real(fd, message, flags);
	wide.msg_control = control;
	wide.msg_controllen = sizeof(control);
	n = real(fd, &wide, flags);
	if (n < 0)
		return n;
	message->msg_namelen = wide.msg_namelen;
	message->msg_flags = wide.msg_flags;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&wide), *following; header;
	     header = following) {
		following = CMSG_NXTHDR(&wide, header);
		put(message, room, &used, header);
	}
	message->msg_controllen = used;
	return n;
}
