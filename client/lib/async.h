/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_ASYNC_H
#define IB_CLIENT_ASYNC_H

/*
 * Calls whose answers come to a callback. Whoever reads the socket copies the packets to the call's
 * list; iommubroker_process() unpacks and delivers them.
 */

#include "lib/session.h"
#include "lib/wire.h"

#define ASYNC_PACKETS_MAX 256 /* that wait in one call for iommubroker_process() */

struct async {
	struct iommubroker_session *session;
	struct async *next, *next_ready;
	uint64_t call;       /* number */
	uint64_t request_id; /* 0: no mutation */
	uint8_t *packet;     /* the request, for as long as it may have to be sent again */
	struct async_packet *packets, **packets_end;
	size_t n_packets;
	bool queued;     /* in the session's ready list */
	bool ended;      /* no packet comes any more */
	int result;      /* with ended: 0, or why */
	bool overflowed; /* the daemon still has to be told */
	/* answer: what came (code may be a refusal), or NULL: the call ended with result < 0.
	 * Returns true if it was the call's last callback. Called without locks. */
	bool (*deliver)(struct async *async, const struct answer *answer, int result);
	/* What the callback is: */
	union {
		iommubroker_memory_fn memory;
		iommubroker_bind_fn bind;
		iommubroker_refresh_fn refresh;
		iommubroker_event_fn event;
	} done;
	iommubroker_progress_fn progress;
	bool cancelled;
	size_t n_ranges;
	/* Of a watch: which guest's, and the last event that came. tell: something that the library
	 * itself knows happened to it; NULL: no watch. Called without locks. */
	uint64_t guest, since, told; /* told: to the callback */
	void (*tell)(struct async *async, uint32_t kind);
	void *user_data;
};

/* NULL: no memory. */
struct async *async_new(struct iommubroker_session *session,
			bool (*deliver)(struct async *async, const struct answer *answer,
					int result),
			void *user_data);
/* Send it; async and packet are consumed, also on failure. repeats: by a daemon that was restarted
 * meanwhile, too. 0: the callback will come. */
int async_submit(struct async *consume_async, uint32_t method, uint8_t *consume_packet,
		 size_t n_bytes, bool repeats, uint64_t *ret_call);
/* The request of a watch as it is now; packet has room for WATCH_PACKET_BYTES. Its length. */
#define WATCH_PACKET_BYTES (PACKET_HEADER_BYTES + 2 * (1 + WIRE_VARINT_BYTES_MAX))
size_t async_put_watch(const struct async *async, uint8_t *packet);
/* The connection's link fell, rose or was lost: under its lock. */
void async_link_changed(void *session);
/* For session_free(): nobody is called. */
void async_drop_all(struct iommubroker_session *session);
/* A progress answer's callback, and what it asks for. */
void async_report_progress(struct async *async, const ProtobufCMessage *message);

#endif
