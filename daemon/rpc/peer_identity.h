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

/* false: the process is gone, or /proc does not show it. A cgroup outside of our own namespace, or
 * of a host without the unified or systemd's hierarchy, is "". */
bool peer_identity_read(const struct peer *peer, struct tenant_identity *ret);

#endif
