/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/process.h"

#include <poll.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

/* The name in the second field can hold anything; behind its closing parenthesis only numbers and
 * one letter stand. */
bool process_start_ticks(pid_t pid, uint64_t *ret_ticks)
{
	char path[64], line[1024];
	const char *rest;
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	line[n] = '\0';
	rest = strrchr(line, ')');
	return rest && sscanf(rest,
			      ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
			      "%*d %*d %*d %" SCNu64,
			      ret_ticks) == 1;
}

bool process_pinned_bytes(uint64_t *ret)
{
	FILE *file = fopen("/proc/self/status", "re");
	bool found = false;
	uint64_t kib = 0;
	char line[256];

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = sscanf(line, "VmPin: %" SCNu64 " kB", &kib) == 1;
	fclose(file);
	if (found)
		*ret = kib * 1024;
	return found;
}
