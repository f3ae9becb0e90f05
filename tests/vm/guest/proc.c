/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See proc.h. */

#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_LINES_SHOWN 3

uint64_t proc_status(pid_t pid, const char *key, int base)
{
	uint64_t value = UINT64_MAX;
	char path[64], line[256];
	size_t n = strlen(key);
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		return value;
	while (fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, key, n) == 0 && line[n] == ':')
			value = strtoull(line + n + 1, NULL, base);
	fclose(file);
	return value;
}

uint64_t proc_pinned_bytes(pid_t pid)
{
	uint64_t kib = proc_status(pid, "VmPin", 10);

	return kib == UINT64_MAX ? kib : kib * 1024;
}

static bool target_begins(int folder, const char *name, const char *prefix)
{
	char target[256];
	ssize_t n = readlinkat(folder, name, target, sizeof(target) - 1);

	if (n < 0)
		return false;
	target[n] = '\0';
	return prefix == NULL || strncmp(target, prefix, strlen(prefix)) == 0;
}

size_t proc_descriptors(pid_t pid, const char *prefix)
{
	struct dirent *entry;
	char path[64];
	size_t n = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	folder = opendir(path);
	if (folder == NULL)
		return SIZE_MAX;
	while ((entry = readdir(folder)) != NULL)
		n += entry->d_name[0] != '.' && target_begins(dirfd(folder), entry->d_name, prefix);
	closedir(folder);
	return n;
}

struct log_reader {
	int fd;
	uint64_t sequence; /* of the record read last */
	char record[2048];
};

static bool log_open(struct log_reader *reader)
{
	reader->fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return reader->fd >= 0;
}

/* A record is "priority,sequence,time,flags;text". EPIPE: records were lost, the next is there. */
static bool log_next(struct log_reader *reader)
{
	const char *comma;
	ssize_t n;

	do
		n = read(reader->fd, reader->record, sizeof(reader->record) - 1);
	while (n < 0 && (errno == EPIPE || errno == EINTR));
	if (n <= 0)
		return false;
	reader->record[n] = '\0';
	comma = strchr(reader->record, ',');
	if (comma != NULL)
		reader->sequence = strtoull(comma + 1, NULL, 10);
	return true;
}

uint64_t kernel_log_mark(void)
{
	struct log_reader reader = {0};

	if (!log_open(&reader))
		return 0;
	while (log_next(&reader))
		;
	close(reader.fd);
	return reader.sequence;
}

static bool contains_one(const char *line, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strstr(line, *words) != NULL)
			return true;
	return false;
}

unsigned int kernel_log_count(uint64_t mark, const char *const *words, bool show)
{
	struct log_reader reader = {0};
	unsigned int count = 0;

	if (!log_open(&reader))
		return UINT_MAX;
	while (log_next(&reader)) {
		if (reader.sequence <= mark || !contains_one(reader.record, words))
			continue;
		if (count++ < LOG_LINES_SHOWN && show)
			printf("  kernel: %.*s\n", (int)strcspn(reader.record, "\n"),
			       reader.record);
	}
	close(reader.fd);
	return count;
}
