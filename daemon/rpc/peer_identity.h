/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_PEER_IDENTITY_H
#define IB_RPC_PEER_IDENTITY_H

/*
 * What the host knows of a client beyond its uid: its groups and its cgroup.
 *
 * Both are read from /proc by pid; that it was this process is known if its pidfd still says that
 * it lives afterwards, since a pid is not used again before that. proc(5), cgroups(7).
 */

#include <stdbool.h>

#include "broker/broker.h"
#include "broker/tenant_rule.h"

/* false: the process is gone, or what rules could ask for cannot be known: /proc does not show it,
 * its cgroup lies outside of our own namespace, its path or the number of its groups is too large.
 * On a host without the unified or systemd's hierarchy the cgroup is "". */
bool peer_identity_read(const struct peer *peer, struct tenant_identity *ret);

/* The parts of it: a line of /proc/PID/cgroup, cut at its end, and what follows "Groups:" in
 * /proc/PID/status. false: as above. */
bool peer_identity_add_cgroup(struct tenant_identity *identity, char *line);
bool peer_identity_add_groups(struct tenant_identity *identity, const char *list);

#endif
