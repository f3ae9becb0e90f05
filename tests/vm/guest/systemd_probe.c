/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a process in the service's sandbox can do: run by the suite in a unit that is the daemon's,
 * but for the program. Prints "ok WHAT" or "FAILED WHAT: WHY" for each attempt; those that must be
 * refused must be refused with the errno that tells by whom.
 */

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

/* result: what a system call answered. want: the errno that it must fail with; 0: it must not. */
static void attempt(const char *what, long result, int want)
{
	int got = result < 0 ? errno : 0;

	if (got == want)
		printf("ok %s\n", what);
	else
		printf("FAILED %s: %s, not %s\n", what, got ? strerrorname_np(got) : "done",
		       want ? strerrorname_np(want) : "done");
}

static int try_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

static int try_first(const char *pattern)
{
	glob_t found;
	int r = -1;

	if (glob(pattern, 0, NULL, &found)) {
		errno = ENOENT;
		return -1;
	}
	r = try_open(found.gl_pathv[0], O_RDWR);
	globfree(&found);
	return r;
}

static int try_socket(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

static int try_memlock(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return -1;
	if (limit.rlim_cur != RLIM_INFINITY) {
		errno = ERANGE;
		return -1;
	}
	limit.rlim_cur = 1u << 30;
	return setrlimit(RLIMIT_MEMLOCK, &limit);
}

/* Of the mount, for the folder's mode alone would keep this user out. */
static int try_read_only(const char *path)
{
	struct statvfs file_system;

	if (statvfs(path, &file_system))
		return -1;
	errno = EACCES;
	return file_system.f_flag & ST_RDONLY ? 0 : -1;
}

static long try_map(int protection)
{
	return mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1
											      : 0;
}

/* What the daemon does. */
static void needed(void)
{
	attempt("opens /dev/iommu", try_open("/dev/iommu", O_RDWR), 0);
	attempt("opens a VFIO device", try_first("/dev/vfio/devices/vfio*"), 0);
	attempt("makes a Unix socket", try_socket(AF_UNIX), 0);
	attempt("lowers its unlimited locked memory", try_memlock(), 0);
	attempt("reads who a client is from /proc", try_open("/proc/1/status", O_RDONLY), 0);
	attempt("reads its clients' cgroups", try_open("/proc/1/cgroup", O_RDONLY), 0);
}

static void files(void)
{
	attempt("no kernel log", try_open("/dev/kmsg", O_RDONLY), EACCES);
	attempt("no disk", try_open("/dev/vda", O_RDONLY), EACCES);
	attempt("no terminal", try_open("/dev/ttyS0", O_RDWR | O_NOCTTY), EACCES);
	attempt("/etc is read-only", try_read_only("/etc"), 0);
	attempt("/var is read-only", try_read_only("/var"), 0);
	attempt("/proc has processes only", try_open("/proc/meminfo", O_RDONLY), ENOENT);
	attempt("/root is out of sight", try_open("/root/.", O_RDONLY | O_DIRECTORY), EACCES);
	attempt("/tmp is its own", access("/tmp/of-the-host", F_OK), ENOENT);
}

static void calls(void)
{
	struct timeval now = {.tv_sec = 1};

	attempt("no IPv4", try_socket(AF_INET), EAFNOSUPPORT);
	attempt("no netlink", try_socket(AF_NETLINK), EAFNOSUPPORT);
	attempt("no memory that is writable and executable",
		try_map(PROT_READ | PROT_WRITE | PROT_EXEC), EPERM);
	attempt("no mount", mount("none", "/tmp", "tmpfs", 0, NULL), EPERM);
	attempt("no user namespace", unshare(CLONE_NEWUSER), EPERM);
	attempt("no ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM);
	attempt("no other uid", setuid(getuid()), EPERM);
	attempt("no clock", settimeofday(&now, NULL), EPERM);
	attempt("no personality", personality(ADDR_NO_RANDOMIZE), EPERM);
	attempt("no keys", syscall(SYS_keyctl, 0, -3, 0, 0, 0), EPERM);
	attempt("no shared memory of System V", shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600), EPERM);
	attempt("no message queues of System V", syscall(SYS_msgget, 0, 0), EPERM);
	attempt("no message queues of POSIX", syscall(SYS_mq_open, "probe", O_CREAT, 0600, NULL),
		EPERM);
	attempt("no memory of other processes",
		syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0), EPERM);
	attempt("no set-user-id files", chmod("/tmp", 04700), EPERM);
}

int main(void)
{
	needed();
	files();
	calls();
	return 0;
}
