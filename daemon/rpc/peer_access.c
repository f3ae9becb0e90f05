/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who may connect at all. What a connected peer may do is the broker's to say.
 */

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/dispatcher.h"

static bool group_is_listed(const struct rpc_settings *settings, unsigned long gid)
{
	for (size_t i = 0; i < settings->n_client_gids; i++)
		if (settings->client_gids[i] == gid)
			return true;
	return false;
}

/* A line "Groups:\t27 100 \n" of /proc/PID/status. */
static bool line_lists_group(const struct rpc_settings *settings, const char *line)
{
	const char *at = line + strlen("Groups:");
	char *end;

	for (;;) {
		unsigned long gid = strtoul(at, &end, 10);

		if (end == at)
			return false;
		if (group_is_listed(settings, gid))
			return true;
		at = end;
	}
}

static bool process_lives(int pidfd)
{
	struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};

	return poll(&poll_fd, 1, 0) == 0;
}

/* From /proc, by pid: that it was this process is known if its pidfd still says that it lives
 * afterwards, since a pid is not used again before that. */
static bool supplementary_is_listed(const struct rpc_settings *settings, const struct peer *peer)
{
	char path[64], *line = NULL;
	bool listed = false;
	size_t bytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)peer->pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (!listed && getline(&line, &bytes, file) > 0)
		listed = !strncmp(line, "Groups:", strlen("Groups:")) &&
			 line_lists_group(settings, line);
	free(line);
	fclose(file);
	return listed && process_lives(peer->pidfd);
}

bool peer_allowed(const struct dispatcher *dispatcher, const struct peer *peer, enum rpc_door door)
{
	const struct rpc_settings *settings = &dispatcher->settings;

	if (peer->uid == 0 || peer->uid == geteuid())
		return true;
	if (door == RPC_DOOR_ADMIN)
		return false;
	for (size_t i = 0; i < settings->n_client_uids; i++)
		if (settings->client_uids[i] == peer->uid)
			return true;
	if (!settings->n_client_gids)
		return false;
	return group_is_listed(settings, peer->gid) || supplementary_is_listed(settings, peer);
}
