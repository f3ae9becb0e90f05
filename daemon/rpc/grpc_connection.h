/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_GRPC_CONNECTION_H
#define IB_RPC_GRPC_CONNECTION_H

/*
 * One client's gRPC connection: its socket behind the frame guard, and a gRPC server of its own.
 *
 * With a server for each connection a call's peer is known by construction, a client's load meets
 * its own resource quota and nobody else's, and one connection can be ended alone.
 *
 * Threads: what is marked "guard" is called on the guards' loop; completions come on the
 * completion-queue thread; the rest is for any thread. A connection lives as long as somebody holds
 * a reference: its place on the guards' loop, its posted request, its shutdown, each call.
 */

#include <stdatomic.h>
#include <stdbool.h>

#include <grpc/grpc.h>

#include "rpc/dispatch.h"
#include "rpc/frame_pump.h"

/* What waits for a completion; the address is gRPC's tag. ok: the operation was carried out. */
struct grpc_tag {
	void (*done)(struct grpc_tag *tag, bool ok);
};

/* gRPC's completion queue hands a tag from the thread that starts an operation to the one that
 * takes the completion. ThreadSanitizer does not see into gRPC and is told: given() before, taken()
 * after. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GRPC_TAG_ANNOTATE 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define GRPC_TAG_ANNOTATE 1
#endif
#ifdef GRPC_TAG_ANNOTATE
#include <sanitizer/tsan_interface.h>
#define grpc_tag_given(tag) __tsan_release(tag)
#define grpc_tag_taken(tag) __tsan_acquire(tag)
#else
#define grpc_tag_given(tag) ((void)(tag))
#define grpc_tag_taken(tag) ((void)(tag))
#endif

struct grpc_connection;

/* What the connections of one transport share. */
struct grpc_host {
	struct dispatcher *dispatcher;
	enum rpc_door door;
	struct loop *loop; /* the guards' */
	grpc_completion_queue *queue;
	uint32_t calls_max; /* in flight on one connection */
	uint32_t first_request_ms;
	struct grpc_connection *connections; /* guard */
	bool stopping;                       /* guard */
	/* The last reference is gone: free it by grpc_connection_free(). Any thread. */
	void (*gone)(struct grpc_host *host, struct grpc_connection *connection);
};

struct grpc_call_slot;

struct grpc_connection {
	struct grpc_host *host;
	struct peer peer;            /* with a pidfd of its own */
	struct rpc_account *account; /* the transport gives it back; NULL: an operator's */
	int client_fd;               /* until it is opened */
	grpc_server *server;
	struct grpc_connection *previous, *next; /* guard */
	struct event *timer;                     /* guard */
	uint64_t requests_at_tick;               /* guard */
	bool open, ending;                       /* guard */
	struct loop_post post;                   /* open; then drop */
	struct frame_pump pump;
	struct grpc_tag requested, shut_down;
	/* Held while a request is posted and while the server is shut down: a request that gRPC
	 * takes while it ends may never come back. */
	pthread_mutex_t request_lock;
	bool is_shut;                                    /* request_lock */
	struct grpc_call_slot *posted;                   /* waits for the next request */
	struct grpc_connection *all_previous, *all_next; /* the transport's, main thread */
	_Atomic unsigned int refs;
	_Atomic uint32_t calls;    /* in flight */
	_Atomic size_t held_bytes; /* of answers that are not sent yet */
	_Atomic uint64_t requests; /* complete ones, ever */
	_Atomic bool session_seen; /* a call presented a secret that was found good */
	_Atomic bool dropping;
	/* What gRPC has not given back: told if a connection does not end. */
	_Atomic bool request_out, shut_down_out;
};

/* consume_fd: non-blocking. NULL: no memory or descriptors; the fd is consumed all the same. */
struct grpc_connection *grpc_connection_new(struct grpc_host *host, int consume_fd,
					    const struct peer *peer);
/* Have it served: opens it on the guards' loop. */
void grpc_connection_start(struct grpc_connection *connection);
/* Guard: let calls in flight finish for a bounded time, then end. */
void grpc_connection_stop(struct grpc_connection *connection);
struct grpc_connection *grpc_connection_ref(struct grpc_connection *connection);
void grpc_connection_unref(struct grpc_connection *connection);
/* After gone(). */
struct grpc_connection *grpc_connection_free(struct grpc_connection *connection);
/* End it soon; why is for the log. */
void grpc_connection_drop(struct grpc_connection *connection, const char *why);
/* Something was just given to gRPC to send: carry it to the client on this thread. */
void grpc_connection_flush(struct grpc_connection *connection);

#endif
