/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/peer_identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/process.h"

/* "27 100 \n" */
bool peer_identity_add_groups(struct tenant_identity *identity, const char *list)
{
	char *end;

	for (;;) {
		unsigned long gid = strtoul(list, &end, 10);

		if (end == list)
			return true;
		if (identity->n_groups == TENANT_GROUPS_MAX)
			return false;
		identity->groups[identity->n_groups++] = (gid_t)gid;
		list = end;
	}
}

/* "0::/a.slice/b.service", or "1:name=systemd:/…" where that is the only one that systemd keeps.
 * A path may have colons of its users' making. */
bool peer_identity_add_cgroup(struct tenant_identity *identity, char *line)
{
	const char *of = line + strcspn(line, ":"), *path;

	line[strcspn(line, "\n")] = '\0';
	if (!strncmp(line, "0::/", 4))
		path = line + 3;
	else if (!strncmp(of, ":name=systemd:/", 15) && !identity->cgroup[0])
		path = of + 14;
	else
		return true;
	if (strlen(path) >= TENANT_CGROUP_MAX || !strcmp(path, "/..") || !strncmp(path, "/../", 4))
		return false;
	/* The root of the unified hierarchy, where systemd keeps another. */
	if (strcmp(path, "/"))
		strcpy(identity->cgroup, path);
	return true;
}

static bool file_read_lines(const struct peer *peer, const char *name,
			    struct tenant_identity *identity)
{
	char path[64], *line = NULL;
	size_t bytes = 0;
	bool whole = true;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)peer->pid, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (whole && getline(&line, &bytes, file) > 0) {
		if (!strcmp(name, "cgroup"))
			whole = peer_identity_add_cgroup(identity, line);
		else if (!strncmp(line, "Groups:", strlen("Groups:")))
			whole = peer_identity_add_groups(identity, line + strlen("Groups:"));
	}
	free(line);
	fclose(file);
	return whole;
}

bool peer_identity_read(const struct peer *peer, struct tenant_identity *ret)
{
	*ret = (struct tenant_identity){.uid = peer->uid, .n_groups = 1, .groups = {peer->gid}};
	return file_read_lines(peer, "status", ret) && file_read_lines(peer, "cgroup", ret) &&
	       process_lives(peer->pidfd);
}
