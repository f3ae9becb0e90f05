/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Sessions that outlived the process which opened them. What they own, the broker has found; here
 * they get what rpc/ keeps beside that: the watch on their process, and the answers to requests
 * that their clients may repeat. Their connections are gone, and so are descriptors that waited in
 * them.
 */

#include <stdlib.h>

#include "rpc/delegate.h"
#include "rpc/handover.h"
#include "rpc/request_table.h"
#include "rpc/rpc_session.h"

static void answer_restore(void *table, const struct broker_answer *answer)
{
	request_table_restore(table, answer);
}

/* Nothing runs yet: no lane is needed. */
static void answers_restore(struct dispatcher *dispatcher, struct rpc_session *session)
{
	struct session *owner = rpc_session_broker(session);
	struct request_table *table = rpc_session_requests(session);
	struct guest_summary *guests;
	struct refusal refusal;
	size_t n = 0, n_room;

	if (guest_list(dispatcher->broker, owner, NULL, 0, &n, &refusal) || !n)
		return;
	n_room = n;
	guests = calloc(n_room, sizeof(*guests));
	if (!guests)
		return;
	if (guest_list(dispatcher->broker, owner, guests, n_room, &n, &refusal))
		n = 0;
	for (size_t i = 0; i < n && i < n_room; i++)
		broker_answers(dispatcher->broker, owner, guests[i].guest, answer_restore, table);
	free(guests);
}

static bool session_restore(struct dispatcher *dispatcher, struct session *consume_session)
{
	struct rpc_session *session;
	struct refusal refusal;
	struct peer peer;

	/* Nobody's yet: who was told its secret joins it, or who comes to its listening socket, or
	 * it ends before long: a connected one went with the process that served it. */
	session_peer(consume_session, &peer);
	if (rpc_session_adopt(&session, dispatcher, consume_session, &peer, "taken over", &refusal))
		return false;
	answers_restore(dispatcher, session);
	delegate_restore(dispatcher, session);
	rpc_session_unref(session);
	return true;
}

size_t dispatcher_restore(struct dispatcher *dispatcher)
{
	struct session *session = broker_next_session(dispatcher->broker, 0);
	size_t n = 0;

	while (session) {
		uint64_t id = session_id(session);

		n += session_restore(dispatcher, session);
		session = broker_next_session(dispatcher->broker, id);
	}
	handover_watch_look(dispatcher);
	return n;
}
