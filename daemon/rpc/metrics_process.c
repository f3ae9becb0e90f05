/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/metrics_process.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* "Name:   123 kB" of /proc/self/status. */
static void status_line(const char *line, struct metrics_process *ret)
{
	unsigned long long value;

	if (sscanf(line, "VmRSS: %llu", &value) == 1)
		ret->resident_bytes = value * 1024;
	else if (sscanf(line, "RssAnon: %llu", &value) == 1)
		ret->anonymous_bytes = value * 1024;
	else if (sscanf(line, "VmPin: %llu", &value) == 1)
		ret->pinned_bytes = value * 1024;
	else if (sscanf(line, "Threads: %llu", &value) == 1)
		ret->threads = value;
}

static void status_read(struct metrics_process *ret)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];

	if (!file)
		return;
	while (fgets(line, sizeof(line), file))
		status_line(line, ret);
	fclose(file);
}

/* Without the one that it is counted with. */
static uint64_t fds_count(void)
{
	DIR *folder = opendir("/proc/self/fd");
	uint64_t n = 0;

	if (!folder)
		return 0;
	for (struct dirent *entry; (entry = readdir(folder));)
		n += entry->d_name[0] != '.';
	closedir(folder);
	return n ? n - 1 : 0;
}

static uint64_t ns_of(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_usec * 1000;
}

void metrics_process_read(struct metrics_process *ret)
{
	struct rusage usage;
	struct rlimit limit;

	memset(ret, 0, sizeof(*ret));
	status_read(ret);
	ret->fds = fds_count();
	if (!getrlimit(RLIMIT_NOFILE, &limit))
		ret->fds_max = limit.rlim_cur;
	if (!getrusage(RUSAGE_SELF, &usage)) {
		ret->user_ns = ns_of(&usage.ru_utime);
		ret->system_ns = ns_of(&usage.ru_stime);
	}
}
