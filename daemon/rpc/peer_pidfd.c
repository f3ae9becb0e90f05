/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/peer_pidfd.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/fd.h"
#include "util/process.h"

/* By its name, before anything is read from it: "anon_inode:[pidfd]", and on pidfs "pidfd:[8]". */
static bool is_pidfd(int fd)
{
	char path[64], name[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	if (n <= 0)
		return false;
	name[n] = '\0';
	return !strcmp(name, "anon_inode:[pidfd]") || !strncmp(name, "pidfd:[", strlen("pidfd:["));
}

/* "Pid:\t4711"; 0: in a pid namespace that is not below ours; -1: it has ended. */
static long pid_of(int pidfd)
{
	char path[64], line[128];
	long pid = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	file = fopen(path, "re");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "Pid: %ld", &pid) == 1)
			break;
	fclose(file);
	return pid;
}

int peer_of_pidfd(int pidfd, const char *field, struct peer *ret, struct refusal *refusal)
{
	struct peer peer = {.pidfd = pidfd};
	long pid;

	if (!is_pidfd(pidfd))
		return refuse_field(refusal, field, "%s: the descriptor is no pidfd", field);
	pid = pid_of(pidfd);
	if (!pid)
		return refuse_field(refusal, field,
				    "%s: its process is in a pid namespace that is not seen here",
				    field);
	peer.pid = (pid_t)pid;
	/* The number was its own while it was read if it still lives. */
	if (pid < 0 || !process_ids(peer.pid, &peer.uid, &peer.gid) || !process_lives(pidfd))
		return refuse_field(refusal, field, "%s: its process has ended", field);
	*ret = peer;
	return 0;
}

bool peer_of_credentials(const struct ucred *credentials, struct peer *ret)
{
	struct peer peer = {.pid = credentials->pid};

	if (credentials->pid <= 0)
		return false;
	peer.pidfd = (int)syscall(SYS_pidfd_open, credentials->pid, 0);
	if (peer.pidfd < 0)
		return false;
	if (!process_ids(peer.pid, &peer.uid, &peer.gid) || peer.uid != credentials->uid ||
	    !process_lives(peer.pidfd)) {
		fd_close(peer.pidfd);
		return false;
	}
	*ret = peer;
	return true;
}
