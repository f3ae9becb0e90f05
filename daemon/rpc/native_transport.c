/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>

#include "rpc/native_connection.h"
#include "rpc/native_packet.h"
#include "util/fd.h"

int native_transport_new(struct native_transport **ret, struct dispatcher *dispatcher,
			 struct loop *loop)
{
	struct native_transport *transport = calloc(1, sizeof(*transport));
	uint8_t *buffer = malloc(NATIVE_PACKET_BYTES_MAX);

	if (!transport || !buffer) {
		free(transport);
		free(buffer);
		return -ENOMEM;
	}
	transport->dispatcher = dispatcher;
	transport->loop = loop;
	transport->calls_max = dispatcher_settings(dispatcher).calls_per_connection_max;
	transport->first_request_ms = dispatcher_settings(dispatcher).first_request_ms;
	transport->buffer = buffer;
	TAILQ_INIT(&transport->connections);
	TAILQ_INIT(&transport->delegates);
	dispatcher->native = transport;
	*ret = transport;
	return 0;
}

void native_transport_accept(void *context, int consume_fd, const struct peer *peer)
{
	struct native_transport *transport = context;
	struct rpc_account *account;

	if (!peer_allowed(transport->dispatcher, peer, RPC_DOOR_CLIENT)) {
		connection_dropped(transport->dispatcher, peer, "it may not connect");
		fd_close(consume_fd);
		return;
	}
	account = connection_charge(transport->dispatcher, peer);
	if (!account) {
		connection_dropped(transport->dispatcher, peer, "too many connections");
		fd_close(consume_fd);
		return;
	}
	if (!native_connection_new(transport, consume_fd, peer, account)) {
		connection_dropped(transport->dispatcher, peer, "no memory or descriptor for it");
		connection_refund(account);
	}
}

struct native_transport *native_transport_free(struct native_transport *transport)
{
	if (!transport)
		return NULL;
	while (!TAILQ_EMPTY(&transport->connections))
		native_connection_close(TAILQ_FIRST(&transport->connections), NULL);
	delegates_close(&transport->delegates);
	transport->dispatcher->native = NULL;
	free(transport->buffer);
	free(transport);
	return NULL;
}
