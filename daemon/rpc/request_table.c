/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/request_table.h"

#include <sha2.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/call.h"
#include "rpc/status.h"

/* One block: this, what is set of the status, the message. */
struct request_answer {
	_Atomic uint32_t refs;
	bool has_message;
	size_t status_bytes, message_bytes;
	uint8_t bytes[];
};

static int entry_compare(const struct request_entry *a, const struct request_entry *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

RB_GENERATE_INTERNAL(request_ids, request_entry, node, entry_compare,
		     __attribute__((unused)) static)

/* Of a status only so many of the details' bytes are set. */
static size_t status_size(const struct rpc_status *status)
{
	if (!status->code)
		return 0;
	return offsetof(struct rpc_status, details) + status->details_bytes;
}

static struct request_answer *answer_new(const struct rpc_status *status, const uint8_t *bytes,
					 size_t n_bytes)
{
	size_t status_bytes = status_size(status);
	struct request_answer *answer = malloc(sizeof(*answer) + status_bytes + n_bytes);

	if (!answer)
		return NULL;
	answer->refs = 1;
	answer->has_message = bytes != NULL;
	answer->status_bytes = status_bytes;
	answer->message_bytes = n_bytes;
	memcpy(answer->bytes, status, status_bytes);
	if (n_bytes)
		memcpy(answer->bytes + status_bytes, bytes, n_bytes);
	return answer;
}

static size_t answer_size(const struct request_answer *answer)
{
	return answer ? sizeof(*answer) + answer->status_bytes + answer->message_bytes : 0;
}

struct request_answer *request_answer_unref(struct request_answer *answer)
{
	if (answer && atomic_fetch_sub(&answer->refs, 1) == 1)
		free(answer);
	return NULL;
}

void request_answer_get(const struct request_answer *answer, struct rpc_status *ret_status,
			const uint8_t **ret_bytes, size_t *ret_n_bytes)
{
	ret_status->code = 0;
	memcpy(ret_status, answer->bytes, answer->status_bytes);
	*ret_bytes = answer->has_message ? answer->bytes + answer->status_bytes : NULL;
	*ret_n_bytes = answer->message_bytes;
}

void request_table_init(struct request_table *table)
{
	pthread_mutex_init(&table->lock, NULL);
	RB_INIT(&table->ids);
	TAILQ_INIT(&table->running);
	TAILQ_INIT(&table->answered);
	table->n_restored = 0;
	table->n_answered = 0;
	table->answer_bytes = 0;
}

static void answer_drop(struct request_table *table, struct request_entry *entry)
{
	if (!entry->restored)
		table->answer_bytes -= answer_size(entry->answer);
	entry->answer = request_answer_unref(entry->answer);
}

static void forget_oldest(struct request_table *table)
{
	struct request_entry *entry = TAILQ_FIRST(&table->answered);

	answer_drop(table, entry);
	TAILQ_REMOVE(&table->answered, entry, place);
	RB_REMOVE(request_ids, &table->ids, entry);
	if (entry->restored)
		table->n_restored--;
	else
		table->n_answered--;
	free(entry);
}

void request_table_deinit(struct request_table *table)
{
	while (!TAILQ_EMPTY(&table->answered))
		forget_oldest(table);
	pthread_mutex_destroy(&table->lock);
}

/* Another request under a used id, the same again while it runs, or the same again afterwards. */
static enum request_begun begin_known(struct request_entry *entry, struct call *call,
				      const uint8_t *digest, struct request_answer **ret_answer)
{
	if (entry->method != call->method || memcmp(entry->digest, digest, REQUEST_DIGEST_BYTES)) {
		refuse_field(&call->refusal, "request_id",
			     "request_id %llu was used for another request of this session",
			     (unsigned long long)entry->id);
		return REQUEST_REFUSED;
	}
	if (entry->owner) {
		call->next_joiner = entry->joiners;
		entry->joiners = call;
		return REQUEST_JOINED;
	}
	if (!entry->answer) {
		refuse(&call->refusal, REFUSAL_PRECONDITION, "ANSWER_NOT_KEPT",
		       "request_id %llu was answered before, and the answer is not kept any more",
		       (unsigned long long)entry->id);
		return REQUEST_REFUSED;
	}
	atomic_fetch_add(&entry->answer->refs, 1);
	*ret_answer = entry->answer;
	return REQUEST_ANSWERED;
}

static struct request_entry *entry_new(struct request_table *table, const struct method *method,
				       struct call *owner, uint64_t id, const uint8_t *digest)
{
	struct request_entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->table = table;
	entry->id = id;
	entry->method = method;
	entry->owner = owner;
	if (id)
		memcpy(entry->digest, digest, REQUEST_DIGEST_BYTES);
	return entry;
}

enum request_begun request_table_begin(struct request_table *table, struct call *call, uint64_t id,
				       const uint8_t *digest, struct request_answer **ret_answer)
{
	struct request_entry key = {.id = id}, *known;
	struct request_entry *entry = entry_new(table, call->method, call, id, digest);
	enum request_begun begun = REQUEST_NEW;

	if (!entry) {
		refuse_errno(&call->refusal, ENOMEM, "remembering the request");
		return REQUEST_REFUSED;
	}
	pthread_mutex_lock(&table->lock);
	known = id ? RB_FIND(request_ids, &table->ids, &key) : NULL;
	if (known) {
		begun = begin_known(known, call, digest, ret_answer);
	} else {
		if (id)
			RB_INSERT(request_ids, &table->ids, entry);
		TAILQ_INSERT_TAIL(&table->running, entry, place);
		call->entry = entry;
	}
	pthread_mutex_unlock(&table->lock);
	if (known)
		free(entry);
	return begun;
}

/* From here on the id is known by its answer. The newest answer is kept even if it alone is over
 * the bound: it has just been built and one message is bounded. */
static void keep(struct request_table *table, struct request_entry *entry)
{
	struct request_entry *old;

	TAILQ_INSERT_TAIL(&table->answered, entry, place);
	table->n_answered++;
	table->answer_bytes += answer_size(entry->answer);
	while (table->n_answered > REQUEST_IDS_KEPT)
		forget_oldest(table);
	TAILQ_FOREACH (old, &table->answered, place) {
		if (table->answer_bytes <= REQUEST_ANSWER_BYTES_MAX || old == entry)
			break;
		if (!old->restored)
			answer_drop(table, old);
	}
}

struct call *request_table_finish(struct request_entry *entry, const struct rpc_status *status,
				  const uint8_t *bytes, size_t n_bytes)
{
	struct request_table *table = entry->table;
	struct request_answer *answer = entry->id ? answer_new(status, bytes, n_bytes) : NULL;
	struct call *joiners;

	pthread_mutex_lock(&table->lock);
	joiners = entry->joiners;
	entry->joiners = NULL;
	entry->owner = NULL;
	entry->answer = answer;
	TAILQ_REMOVE(&table->running, entry, place);
	if (entry->id)
		keep(table, entry);
	else
		free(entry);
	pthread_mutex_unlock(&table->lock);
	return joiners;
}

/* How many there are is bounded by what was kept of each guest. Which of two guests' are older is
 * not known: if one went for the first new one, it could be the very one whose client has not heard
 * its answer and is about to ask again. */
void request_table_restore(struct request_table *table, const struct broker_answer *kept)
{
	const struct method *method = method_by_number(kept->method);
	struct rpc_status status = {.code = RPC_OK};
	struct request_entry *entry;

	if (!method || kept->code || !kept->request_id)
		return;
	entry = entry_new(table, method, NULL, kept->request_id, kept->digest);
	if (!entry)
		return;
	pthread_mutex_lock(&table->lock);
	if (RB_INSERT(request_ids, &table->ids, entry)) {
		free(entry);
	} else {
		entry->answer = answer_new(&status, kept->bytes, kept->n_bytes);
		entry->restored = true;
		TAILQ_INSERT_TAIL(&table->answered, entry, place);
		table->n_restored++;
	}
	pthread_mutex_unlock(&table->lock);
}

/* Joiners are only ever added at the head, and answered by the thread that runs this: what the
 * head shows now stays as it is while it is walked. */
void request_entry_send(struct request_entry *entry, const uint8_t *bytes, size_t n_bytes)
{
	struct call *joiner;

	pthread_mutex_lock(&entry->table->lock);
	joiner = entry->joiners;
	pthread_mutex_unlock(&entry->table->lock);
	entry->owner->rpc->ops->send(entry->owner->rpc, bytes, n_bytes);
	for (; joiner; joiner = joiner->next_joiner)
		joiner->rpc->ops->send(joiner->rpc, bytes, n_bytes);
}

bool request_table_cancel(struct request_table *table, uint64_t id)
{
	struct request_entry key = {.id = id}, *entry;
	bool found;

	pthread_mutex_lock(&table->lock);
	entry = RB_FIND(request_ids, &table->ids, &key);
	found = entry && entry->owner;
	if (found)
		atomic_store(&entry->operation.cancelled, true);
	pthread_mutex_unlock(&table->lock);
	return found;
}

void request_table_cancel_all(struct request_table *table)
{
	struct request_entry *entry;

	pthread_mutex_lock(&table->lock);
	TAILQ_FOREACH (entry, &table->running, place)
		atomic_store(&entry->operation.cancelled, true);
	pthread_mutex_unlock(&table->lock);
}

/* A protobuf-c buffer that digests what is packed into it. */
struct digest_buffer {
	ProtobufCBuffer base;
	SHA2_CTX context;
};

static void digest_append(ProtobufCBuffer *base, size_t n_bytes, const uint8_t *bytes)
{
	struct digest_buffer *buffer = (struct digest_buffer *)base;

	SHA256Update(&buffer->context, bytes, n_bytes);
}

void request_digest(const ProtobufCMessage *message, uint8_t ret[REQUEST_DIGEST_BYTES])
{
	struct digest_buffer buffer = {.base = {digest_append}};

	SHA256Init(&buffer.context);
	protobuf_c_message_pack_to_buffer(message, &buffer.base);
	SHA256Final(ret, &buffer.context);
}
