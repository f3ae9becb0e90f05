/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring/queue.h"

#include <string.h>

#define WORDS (RING_LINE_BYTES / sizeof(uint64_t))

static struct ring_lane *lane_of(struct ring_queue *queue, uint32_t lane)
{
	return ring_lane_at(queue->memory, queue->entries, lane);
}

/* In one order for all of them, which is what a full fence between an index and the other side's
 * flag is for, and which thread sanitizers understand. */
static uint32_t load(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_SEQ_CST);
}

static void store(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_SEQ_CST);
}

/* Entries cross as whole words: another thread may be writing them, whatever it promised. */
static void entry_copy(uint64_t *to, const uint64_t *from)
{
	for (size_t i = 0; i < WORDS; i++)
		__atomic_store_n(&to[i], __atomic_load_n(&from[i], __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
}

static uint64_t word_of(const struct ring_queue *queue, uint32_t lane)
{
	return __atomic_load_n(&queue->state->words[lane], __ATOMIC_ACQUIRE);
}

static uint32_t done_of(const struct ring_queue *queue, uint32_t lane)
{
	return (uint32_t)word_of(queue, lane);
}

static void word_set(struct ring_queue *queue, uint32_t lane, uint32_t done, enum ring_fault fault)
{
	__atomic_store_n(&queue->state->words[lane], (uint64_t)fault << 32 | done,
			 __ATOMIC_RELEASE);
}

enum ring_fault queue_fault(const struct ring_queue *queue, uint32_t lane)
{
	return (enum ring_fault)(word_of(queue, lane) >> 32);
}

void queue_init(struct ring_queue *queue, void *memory, uint32_t lanes, uint32_t entries,
		struct ring_state *state)
{
	struct ring_header *header = memory;

	memset(state, 0, sizeof(*state));
	state->version = RING_STATE_VERSION;
	state->lanes = lanes;
	state->entries = entries;
	*queue = (struct ring_queue){memory, lanes, entries, state};
	header->magic = RING_MAGIC;
	header->version = RING_VERSION;
	header->lanes = lanes;
	header->entries = entries;
	header->lane_bytes = ring_lane_bytes(entries);
	header->daemon_sleeps = 1;
}

static bool state_is_sound(const struct ring_state *state, uint64_t memory_bytes)
{
	if (state->version != RING_STATE_VERSION)
		return false;
	if (!state->lanes || state->lanes > RING_LANES_MAX)
		return false;
	if (!state->entries || state->entries > RING_ENTRIES_MAX ||
	    state->entries & (state->entries - 1))
		return false;
	return ring_memory_bytes(state->lanes, state->entries) <= memory_bytes;
}

bool queue_adopt(struct ring_queue *queue, void *memory, uint64_t memory_bytes,
		 struct ring_state *state)
{
	if (!state_is_sound(state, memory_bytes))
		return false;
	*queue = (struct ring_queue){memory, state->lanes, state->entries, state};
	for (uint32_t i = 0; i < queue->lanes; i++)
		queue_publish(queue, i);
	return true;
}

size_t queue_load(struct ring_queue *queue, uint32_t lane, struct ring_submission *ret,
		  size_t n_max)
{
	struct ring_lane *shared = lane_of(queue, lane);
	uint32_t done = done_of(queue, lane), waiting, unread;

	if (queue_fault(queue, lane))
		return 0;
	waiting = load(&shared->submit_tail) - done;
	unread = done - load(&shared->complete_head);
	if (waiting > queue->entries || unread > queue->entries) {
		word_set(queue, lane, done, RING_FAULT_INDEX);
		queue_publish(queue, lane);
		return 0;
	}
	if (waiting > queue->entries - unread)
		waiting = queue->entries - unread;
	if (waiting > n_max)
		waiting = (uint32_t)n_max;
	for (uint32_t i = 0; i < waiting; i++)
		entry_copy((uint64_t *)&ret[i],
			   (uint64_t *)ring_submission_at(shared, queue->entries, done + i));
	return waiting;
}

void queue_write(struct ring_queue *queue, uint32_t lane, const struct ring_completion *completions,
		 size_t n)
{
	struct ring_lane *shared = lane_of(queue, lane);
	uint32_t done = done_of(queue, lane);

	for (uint32_t i = 0; i < n; i++)
		entry_copy((uint64_t *)ring_completion_at(shared, queue->entries, done + i),
			   (const uint64_t *)&completions[i]);
}

void queue_commit(struct ring_queue *queue, uint32_t lane, size_t n)
{
	word_set(queue, lane, done_of(queue, lane) + (uint32_t)n, queue_fault(queue, lane));
}

void queue_publish(struct ring_queue *queue, uint32_t lane)
{
	struct ring_lane *shared = lane_of(queue, lane);
	uint32_t done = done_of(queue, lane);

	store(&shared->fault, queue_fault(queue, lane));
	store(&shared->submit_head, done);
	store(&shared->complete_tail, done);
}

void queue_end(struct ring_queue *queue)
{
	for (uint32_t i = 0; i < queue->lanes; i++)
		store(&lane_of(queue, i)->fault, RING_FAULT_ENDED);
}

bool queue_client_sleeps(struct ring_queue *queue, uint32_t lane)
{
	return load(&lane_of(queue, lane)->client_sleeps);
}

void queue_set_sleeping(struct ring_queue *queue, bool sleeping)
{
	struct ring_header *header = queue->memory;

	store(&header->daemon_sleeps, sleeping);
}
