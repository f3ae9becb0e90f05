/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/peer_find.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rpc/peer_identity.h"
#include "util/fd.h"

#define DEPTH_MAX     16    /* of slices in slices, and of cgroups in a unit */
#define FOLDERS_MAX   65536 /* that are looked at for one unit */
#define KNOWN_OF_USER (1u << TENANT_USER | 1u << TENANT_GROUP)

/* ── users ─────────────────────────────────────────────────────────────────────────────────── */

/* A whole decimal number of at most 32 bits. */
static bool number_parse(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long long value;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || value >= UINT32_MAX)
		return false;
	*ret = (uint32_t)value;
	return true;
}

/* getpwnam() has one buffer for all threads. name: NULL, then by number. false: there is none. */
static bool passwd_find(const char *name, uid_t uid, struct passwd *ret, char *buffer,
			size_t buffer_bytes)
{
	struct passwd *found = NULL;

	if (name)
		return !getpwnam_r(name, ret, buffer, buffer_bytes, &found) && found;
	return !getpwuid_r(uid, ret, buffer, buffer_bytes, &found) && found;
}

int peer_find_user(const char *name, struct peer_found *ret, struct refusal *refusal)
{
	char buffer[16384];
	struct passwd entry;
	uint32_t number = 0;
	bool numeric = number_parse(name, &number);
	int n = TENANT_GROUPS_MAX;

	*ret = (struct peer_found){.known = KNOWN_OF_USER};
	ret->identity.uid = number;
	if (!passwd_find(numeric ? NULL : name, number, &entry, buffer, sizeof(buffer))) {
		/* A container's, perhaps: it has a number, and nobody knows its groups. */
		ret->known = 1u << TENANT_USER;
		return numeric ? 0
			       : refuse(refusal, REFUSAL_NOT_FOUND, "NO_SUCH_USER",
					"there is no user '%.64s' on this host", name);
	}
	ret->identity.uid = entry.pw_uid;
	if (getgrouplist(entry.pw_name, entry.pw_gid, ret->identity.groups, &n) < 0)
		return refuse(refusal, REFUSAL_PRECONDITION, "TOO_MANY_GROUPS",
			      "user '%.64s' has more than %d groups: as a client it is refused",
			      name, TENANT_GROUPS_MAX);
	ret->identity.n_groups = (size_t)n;
	return 0;
}

/* ── processes ─────────────────────────────────────────────────────────────────────────────── */

/* "Uid:\t1000\t1001\t…": the second is the effective one, which a socket tells. */
static bool effective_id(const char *line, const char *key, uint32_t *ret)
{
	unsigned int real, effective;
	size_t length = strlen(key);

	if (strncmp(line, key, length) || sscanf(line + length, "%u %u", &real, &effective) != 2)
		return false;
	*ret = effective;
	return true;
}

static bool ids_read(struct peer *peer)
{
	char path[64], line[256];
	int found = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)peer->pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		found += effective_id(line, "Uid:", &peer->uid);
		found += effective_id(line, "Gid:", &peer->gid);
	}
	fclose(file);
	return found == 2;
}

static bool process_read(pid_t pid, struct peer_found *ret)
{
	struct peer peer = {.pid = pid};
	bool good;

	peer.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (peer.pidfd < 0)
		return false;
	good = ids_read(&peer) && peer_identity_read(&peer, &ret->identity);
	ret->known = TENANT_KNOWN_ALL;
	if (!ret->identity.cgroup[0])
		ret->known = KNOWN_OF_USER;
	fd_close(peer.pidfd);
	return good;
}

int peer_find_process(uint64_t pid, struct peer_found *ret, struct refusal *refusal)
{
	if (!pid || pid > INT32_MAX || !process_read((pid_t)pid, ret))
		return refuse(refusal, REFUSAL_NOT_FOUND, "NO_SUCH_PROCESS",
			      "there is no process %llu, or /proc does not tell what it is",
			      (unsigned long long)pid);
	return 0;
}

/* ── units ─────────────────────────────────────────────────────────────────────────────────── */

struct search {
	const char *unit; /* looked for; "": found, now a process */
	struct peer_found *found;
	unsigned int folders; /* looked at */
};

static bool is_slice(const char *name)
{
	size_t length = strlen(name);

	return length > 6 && !strcmp(name + length - 6, ".slice");
}

/* A process that is in this very cgroup. */
static bool process_in(int folder_fd, struct peer_found *ret)
{
	int fd = openat(folder_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "re");
	bool found = false;
	int pid;

	if (!file) {
		fd_close(fd);
		return false;
	}
	while (!found && fscanf(file, "%d", &pid) == 1)
		found = pid > 0 && process_read(pid, ret);
	fclose(file);
	return found;
}

static bool folder_search(struct search *search, int consume_fd, unsigned int depth);

static bool entry_search(struct search *search, int folder_fd, const char *name, unsigned int depth)
{
	bool hit = !strcmp(name, search->unit), in_unit = !search->unit[0], found;
	const char *unit = search->unit;
	int fd;

	if (name[0] == '.' || (!hit && !in_unit && !is_slice(name)) ||
	    search->folders++ == FOLDERS_MAX)
		return false;
	fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (hit)
		search->unit = "";
	found = ((hit || in_unit) && process_in(fd, search->found)) ||
		folder_search(search, fcntl(fd, F_DUPFD_CLOEXEC, 0), depth + 1);
	search->unit = unit;
	fd_close(fd);
	return found;
}

static bool folder_search(struct search *search, int consume_fd, unsigned int depth)
{
	DIR *stream = consume_fd < 0 || depth > DEPTH_MAX ? NULL : fdopendir(consume_fd);
	struct dirent *entry;
	bool found = false;

	if (!stream) {
		fd_close(consume_fd);
		return false;
	}
	while (!found && (entry = readdir(stream)))
		if (entry->d_type == DT_DIR)
			found = entry_search(search, dirfd(stream), entry->d_name, depth);
	closedir(stream);
	return found;
}

int peer_find_unit(const char *root, const char *unit, struct peer_found *ret,
		   struct refusal *refusal)
{
	struct search search = {.unit = unit, .found = ret};
	int fd;

	if (!unit[0] || strchr(unit, '/'))
		return refuse_field(refusal, "unit", "unit: '%.64s' is no name of a unit", unit);
	fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return refuse(refusal, REFUSAL_PRECONDITION, "NO_CGROUPS",
			      "cannot look for units in %.64s: %s", root, strerror(errno));
	if (!folder_search(&search, fd, 0))
		return refuse(refusal, REFUSAL_NOT_FOUND, "NO_SUCH_UNIT",
			      "no process is in a unit '%.64s'", unit);
	return 0;
}
