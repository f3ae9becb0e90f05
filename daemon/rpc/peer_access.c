/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who may connect at all. What a connected peer may do is the broker's to say.
 */

#include <unistd.h>

#include "rpc/dispatcher.h"
#include "rpc/peer_identity.h"

static bool group_is_listed(const struct rpc_settings *settings, gid_t gid)
{
	for (size_t i = 0; i < settings->n_client_gids; i++)
		if (settings->client_gids[i] == gid)
			return true;
	return false;
}

static bool user_is_listed(const struct rpc_settings *settings, uid_t uid)
{
	for (size_t i = 0; i < settings->n_client_uids; i++)
		if (settings->client_uids[i] == uid)
			return true;
	return false;
}

static bool any_group_is_listed(const struct rpc_settings *settings,
				const struct tenant_identity *identity)
{
	for (size_t i = 0; i < identity->n_groups; i++)
		if (group_is_listed(settings, identity->groups[i]))
			return true;
	return false;
}

bool identity_allowed(struct dispatcher *dispatcher, const struct tenant_identity *identity)
{
	struct rpc_settings settings = dispatcher_settings(dispatcher);

	return identity->uid == 0 || identity->uid == geteuid() ||
	       user_is_listed(&settings, identity->uid) || any_group_is_listed(&settings, identity);
}

bool peer_allowed(struct dispatcher *dispatcher, const struct peer *peer, enum rpc_door door)
{
	struct tenant_identity identity;
	struct rpc_settings settings;

	if (peer->uid == 0 || peer->uid == geteuid())
		return true;
	if (door == RPC_DOOR_ADMIN)
		return false;
	settings = dispatcher_settings(dispatcher);
	if (user_is_listed(&settings, peer->uid))
		return true;
	if (!settings.n_client_gids)
		return false;
	return group_is_listed(&settings, peer->gid) ||
	       (peer_identity_read(peer, &identity) && any_group_is_listed(&settings, &identity));
}
