/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_REQUEST_TABLE_H
#define IB_RPC_REQUEST_TABLE_H

/*
 * Request ids of one session: which mutations run, and what the last 64 were answered.
 *
 * The same request (method and content, told by a SHA-256 digest) under a known id joins the call
 * that runs, or gets the answer that was kept. Answers are kept up to a bound in bytes; beyond it
 * the oldest answers go, but their ids stay known, so that nothing is ever done twice within the
 * 64.
 *
 * What a process before this one answered comes without its order over several guests: all of it
 * stays until there are 64 newer ones.
 */

#include <bsd/sys/tree.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/queue.h>

#include "rpc/dispatch.h"

#define REQUEST_IDS_KEPT         64
#define REQUEST_ANSWER_BYTES_MAX (256 * 1024)
#define REQUEST_DIGEST_BYTES     32

struct call;
struct request_answer;

/* A mutation that runs, or an id that was answered. */
struct request_entry {
	struct operation operation;
	RB_ENTRY(request_entry) node;     /* with an id */
	TAILQ_ENTRY(request_entry) place; /* among the running, or among the answered */
	uint64_t id;                      /* 0: no id */
	const struct method *method;
	uint8_t digest[REQUEST_DIGEST_BYTES];
	struct request_table *table;
	struct call *owner; /* NULL: answered */
	struct call *joiners;
	struct request_answer *answer; /* NULL: not kept */
	bool restored;
};

RB_HEAD(request_ids, request_entry);
TAILQ_HEAD(request_list, request_entry);

struct request_table {
	pthread_mutex_t lock;
	struct request_ids ids;
	struct request_list running, answered; /* oldest first, the restored before all others */
	size_t n_restored;
	size_t n_answered, answer_bytes; /* without the restored: what was kept bounds those */
};

void request_table_init(struct request_table *table);
/* Nothing runs any more. */
void request_table_deinit(struct request_table *table);

enum request_begun {
	REQUEST_NEW,      /* call->entry is set; end it with request_table_finish() */
	REQUEST_JOINED,   /* the call now waits for the one that runs */
	REQUEST_ANSWERED, /* *ret_answer is a reference */
	REQUEST_REFUSED,  /* call->refusal */
};
/* id 0: always new, found by nobody but request_table_cancel_all(). digest may then be NULL. */
enum request_begun request_table_begin(struct request_table *table, struct call *call, uint64_t id,
				       const uint8_t *digest, struct request_answer **ret_answer);

/* The running mutation is over. Keeps its answer and hands out whoever joined (linked by
 * next_joiner), to be answered the same. The entry is the table's again. */
struct call *request_table_finish(struct request_entry *entry, const struct rpc_status *status,
				  const uint8_t *bytes, size_t n_bytes);

/* One that a process before this one answered: repeated, it is answered the same. Before anything
 * runs. Without memory it is not known; then its request is done again. */
void request_table_restore(struct request_table *table, const struct broker_answer *answer);

/* Progress of a running one, to its call and to whoever joined. */
void request_entry_send(struct request_entry *entry, const uint8_t *bytes, size_t n_bytes);

/* false: none runs under that id. */
bool request_table_cancel(struct request_table *table, uint64_t id);
void request_table_cancel_all(struct request_table *table);

/* What was kept. status is filled from it; *ret_bytes is NULL for an answer without message. */
void request_answer_get(const struct request_answer *answer, struct rpc_status *ret_status,
			const uint8_t **ret_bytes, size_t *ret_n_bytes);
struct request_answer *request_answer_unref(struct request_answer *answer);

/* Digest of a message as it packs, not as it came: field order and unknown encodings of the wire
 * do not matter. */
void request_digest(const ProtobufCMessage *message, uint8_t ret[REQUEST_DIGEST_BYTES]);

#endif
