/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int fd_close(int consume_fd)
{
	int saved = errno;

	/* Linux closes it even when it answers EINTR: never again. */
	if (consume_fd >= 0)
		close(consume_fd);
	errno = saved;
	return -1;
}

int fd_duplicate(int borrow_fd)
{
	int fd = fcntl(borrow_fd, F_DUPFD_CLOEXEC, 3);

	return fd < 0 ? -errno : fd;
}

int fd_reopen(int borrow_fd)
{
	int flags = fcntl(borrow_fd, F_GETFL), fd;
	char path[32];

	if (flags < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", borrow_fd);
	fd = open(path, (flags & O_ACCMODE) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}
