/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_DISPATCH_H
#define IB_RPC_DISPATCH_H

/*
 * One table of methods for both transports.
 *
 * A transport turns what it received into a struct rpc_call and gives it to dispatch_call(). The
 * dispatcher finds the session, unpacks the request into a bounded arena, checks it into the
 * broker's plain structs, runs the handler where the method belongs (on the calling thread, on the
 * guest's lane, or on any pool thread) and answers through the call's ops: any number of send(),
 * then exactly one finish(), from any thread, possibly before dispatch_call() returns.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "broker/broker.h"
#include "rpc/loop.h"

#define RPC_MESSAGE_BYTES_MAX 65536 /* of one request, on either transport */
#define RPC_DESCRIPTORS_MAX   8
#define RPC_DETAILS_BYTES_MAX 4096

/* Settings of the transports; main fills them. */
#define RPC_CLIENT_IDS_MAX 64

struct rpc_settings {
	uint32_t calls_per_connection_max; /* in flight */
	uint32_t descriptors_waiting_max;  /* of a session */
	uint32_t first_request_ms;         /* a silent connection is dropped after that */
	uint32_t descriptor_wait_ms;       /* a waiting descriptor is closed after that */
	uint32_t rate_delay_ms;            /* a call above a rate waits that long, at most */
	/* Who may connect to the client sockets: root and our own uid always, and these. */
	uid_t client_uids[RPC_CLIENT_IDS_MAX];
	size_t n_client_uids;
	gid_t client_gids[RPC_CLIENT_IDS_MAX]; /* primary or supplementary group of the peer */
	size_t n_client_gids;
};

/* A google.rpc.Status, packed and ready for either transport. code 0: no more is set. */
struct rpc_status {
	int code; /* grpc_status_code's numbers */
	char message[256];
	size_t details_bytes;
	uint8_t details[RPC_DETAILS_BYTES_MAX]; /* a packed google.rpc.Status */
};

void rpc_status_from_refusal(struct rpc_status *ret, const struct refusal *refusal);

struct dispatcher;
struct rpc_session; /* what rpc/ keeps beside the broker's session, see rpc/rpc_session.h */
struct rpc_call;

struct rpc_call_ops {
	/* One message of a stream. bytes are copied. Never blocks. false: it was dropped because
	 * the client does not read; dispatch_writable() will be called when there is room. */
	bool (*send)(struct rpc_call *call, const uint8_t *bytes, size_t n_bytes);
	/* The end. status->code 0: bytes are the last (or only) message, or bytes is NULL when a
	 * stream ends without one more. Descriptors are consumed. The call's memory is the
	 * transport's again as soon as this is called. */
	void (*finish)(struct rpc_call *call, const struct rpc_status *status, const uint8_t *bytes,
		       size_t n_bytes, const int *consume_fds, size_t n_fds);
};

/* Which door the call came through. */
enum rpc_door {
	RPC_DOOR_CLIENT,
	RPC_DOOR_ADMIN,
};

/* Who is charged for a connection, see rpc/account.h. */
struct rpc_account;

/* One call in flight. The transport allocates it, embedded in its own struct. */
struct rpc_call {
	/* set by the transport before dispatch_call() */
	const struct rpc_call_ops *ops;
	enum rpc_door door;
	bool native;
	const struct peer *peer;     /* lives as long as the call */
	struct rpc_account *account; /* the connection's, borrowed; NULL: nobody is charged */
	const uint8_t *secret;       /* gRPC: the session metadata, or NULL */
	size_t secret_bytes;
	bool secret_good; /* the dispatcher's: it opened a session */
	/* native: the connection's, or NULL; borrowed. Where OpenSession or JoinSession found it
	 * NULL and set it, it is a reference that the transport takes over in finish(). */
	struct rpc_session *session;
	struct delegate *delegate; /* native: what its connection came through, borrowed; or NULL */
	const uint8_t *request;    /* borrowed until dispatch_call() returns */
	size_t request_bytes;
	size_t n_fds; /* native: attached descriptors; consumed */
	int fds[RPC_DESCRIPTORS_MAX];
	/* the dispatcher's; zeroed by the transport, which looks at neither */
	bool cancelled;
	void *state;
};

struct method;
/* Find a method by its gRPC path ("/iommubroker.v1.Host/GetInfo", not terminated) or native number.
 * NULL: there is none behind this door. */
const struct method *method_by_path(const char *path, size_t path_bytes, enum rpc_door door);
const struct method *method_by_number(uint32_t number);
const char *method_path(const struct method *method);
bool method_streams(const struct method *method); /* the server may send several messages */

/* 0 or a negative errno. Everything is borrowed. */
int dispatcher_new(struct dispatcher **ret, struct broker *broker, struct loop *loop,
		   const struct rpc_settings *settings);
/* The sessions that a process before this one left, with what they were answered: their clients
 * find them again by their secrets, and the end of their processes is seen. After broker_restore(),
 * before anything is served. How many there are. */
size_t dispatcher_restore(struct dispatcher *dispatcher);
/* Other settings from now on. Connections, sessions and descriptors that are above a lower limit
 * stay; calls_per_connection_max and first_request_ms are those of the start. Any thread. */
void dispatcher_set_settings(struct dispatcher *dispatcher, const struct rpc_settings *settings);
/* A key of the configuration that holds. */
struct operator_setting {
	char section[384]; /* "Limits", "quota.d/50-prod.conf [Quota]" */
	const char *key;
	char value[768]; /* in the configuration's own writing */
	char from[384];  /* file:line; "": the default */
	const char *default_value;
	bool at_start;     /* a reload does not change it */
	char pending[768]; /* another value, read since, that the next start takes; or "" */
};

/* What an operator may ask of the daemon as a whole, which is not ours to do. Set before the
 * transports are made. */
struct operator_ops {
	/* Read the configuration again, and with apply take it. 0 or REFUSED: nothing changed. A
	 * worker thread; ret_notes: sentences for the operator, one a line, of a refusal all the
	 * mistakes; the caller frees it, in both cases. */
	int (*configure)(void *context, bool apply, char **ret_notes, struct refusal *refusal);
	/* The configuration as it is at this moment, to be looked through, however long that takes.
	 * NULL: no memory. Any thread, and so for the other two. */
	void *(*show_begin)(void *context);
	/* The next key. What *ret points at lives until show_end(). false: there are no more. */
	bool (*show_next)(void *shown, struct operator_setting *ret);
	void (*show_end)(void *shown);
};
void dispatcher_set_operator(struct dispatcher *dispatcher, const struct operator_ops *ops,
			     void *context);
/* Update rings, which ring/ serves. Set before the transports are made; without it there are none.
 */
#define RPC_RING_FDS_MAX 66
struct ring_ops {
	uint32_t version, entries_max;
	/* What one of that shape is charged. */
	uint64_t (*bytes)(uint32_t lanes, uint32_t entries);
	/* What was refreshed through rings since the start. Any thread. */
	void (*count)(void *context, struct refresh_counts *ret);
	/* On the guest's lane. The client's descriptors, the caller's: the memory, the doorbell for
	 * submissions, one for each lane's completions. 0, REFUSED or a negative errno. */
	int (*create)(void *context, struct session *session, uint64_t guest, uint32_t lanes,
		      uint32_t entries, uint64_t *ret_ring, int ret_fds[RPC_RING_FDS_MAX],
		      struct refusal *refusal);
	int (*destroy)(void *context, struct session *session, uint64_t ring,
		       struct refusal *refusal);
};
void dispatcher_set_rings(struct dispatcher *dispatcher, const struct ring_ops *ops, void *context);
/* End all sessions and open no more; before the transports are freed. NULL is fine. */
void dispatcher_stop(struct dispatcher *dispatcher);
struct dispatcher *dispatcher_free(struct dispatcher *dispatcher);
struct broker *dispatcher_broker(struct dispatcher *dispatcher);
/* Those that hold now. Any thread. */
struct rpc_settings dispatcher_settings(struct dispatcher *dispatcher);

void dispatch_call(struct dispatcher *dispatcher, const struct method *method,
		   struct rpc_call *call);
/* The client cancelled, its deadline passed or its connection ended: streams end, mutations go on.
 * Between dispatch_call() and finish(); finish() is still called. Any thread. A finish() on another
 * thread may wait until this or dispatch_writable() has returned: call it under no lock that they
 * take. */
void dispatch_cancelled(struct rpc_call *call);
/* There is room again after send() answered false. Any thread. */
void dispatch_writable(struct rpc_call *call);

/* The daemon is broken: a handler met a negative status. Ends the loop with it. */
void dispatcher_fail(struct dispatcher *dispatcher, int status);

/* Whether this peer may connect to the client sockets, or to the admin socket. */
bool peer_allowed(struct dispatcher *dispatcher, const struct peer *peer, enum rpc_door door);

/* Whether somebody like this may connect to the client sockets. */
struct tenant_identity;
bool identity_allowed(struct dispatcher *dispatcher, const struct tenant_identity *identity);

/* A client's connection is charged to its tenant before it is served: a reference for
 * connection_refund(). One over the limit, or with no rule for it, may be served all the same, and
 * then its calls are refused. NULL: not to be served, there are too many of those, or no memory. */
struct rpc_account *connection_charge(struct dispatcher *dispatcher, const struct peer *peer);
/* The same for a connection that another pays for: of a tenant's, or NULL. */
struct rpc_account *connection_charge_tenant(struct dispatcher *dispatcher, struct tenant *tenant,
					     uid_t uid);
void connection_refund(struct rpc_account *consume_account);
/* Bytes of answers that the connection has made no room for yet, to whoever pays for it. false:
 * that would be over a limit; nothing is charged. NULL: an operator's, for which nobody pays. Any
 * thread, under a transport's locks: nothing but the ledger is asked. */
bool connection_hold(struct rpc_account *account, uint64_t n_bytes);
void connection_release(struct rpc_account *account, uint64_t n_bytes);
/* One that was not served, or ended for what its client did, which why says: counted, and the
 * operator is told, within its user's share of the log. Any thread. */
void connection_dropped(struct dispatcher *dispatcher, const struct peer *peer, const char *why);

/* ── the transports, as main sees them ────────────────────────────────────────────────────── */

struct grpc_transport;
/* gRPC over connections that grpc_transport_accept() is given (a listener_accept_fn; one instance
 * for each door). 0 or a negative errno. */
int grpc_transport_new(struct grpc_transport **ret, struct dispatcher *dispatcher,
		       struct loop *loop, enum rpc_door door);
void grpc_transport_accept(void *transport, int consume_fd, const struct peer *peer);
/* Ends every connection and waits for its threads. 0; or -ETIMEDOUT: some connection does not end
 * within a bounded time, which is logged. Then nothing is freed, its threads go on, and so what
 * they use has to stay. NULL is fine. */
int grpc_transport_free(struct grpc_transport *transport);
/* A thread that all of them have, by name, and that is at what it was at when this was asked of any
 * the last time; NULL: all go on. The loop's own thread. */
const char *grpc_transport_hangs(struct grpc_transport *transport);

struct native_transport;
int native_transport_new(struct native_transport **ret, struct dispatcher *dispatcher,
			 struct loop *loop);
void native_transport_accept(void *transport, int consume_fd, const struct peer *peer);
struct native_transport *native_transport_free(struct native_transport *transport);

#endif
