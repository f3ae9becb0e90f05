/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/process.h"

#include <poll.h>
#include <stdio.h>

bool process_lives(int pidfd)
{
	struct pollfd entry = {.fd = pidfd, .events = POLLIN};

	return poll(&entry, 1, 0) == 0;
}

bool process_ids(pid_t pid, uid_t *ret_uid, gid_t *ret_gid)
{
	unsigned int real, effective, uid = 0, gid = 0;
	char path[64], line[256];
	int found = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (found < 2 && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Uid: %u %u", &real, &effective) == 2) {
			uid = effective;
			found++;
		} else if (sscanf(line, "Gid: %u %u", &real, &effective) == 2) {
			gid = effective;
			found++;
		}
	}
	fclose(file);
	if (found < 2)
		return false;
	*ret_uid = uid;
	*ret_gid = gid;
	return true;
}
