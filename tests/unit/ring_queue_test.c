/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The queues of a ring against a model: a client and a daemon take turns at random, and the daemon
 * dies at random between any two of its stores and is succeeded by another. Every submission is
 * answered once, in order, and nothing is done twice but what was not answered when it died.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ring/queue.h"

#define LANES   3
#define ENTRIES 8
#define STEPS   200000

struct client {
	uint64_t next, expected; /* user_data of the next submission; of the next completion */
	uint32_t submitted, reaped;
};

struct rig {
	void *memory;
	struct ring_state state;
	struct ring_queue queue;
	struct client clients[LANES];
	struct {
		enum { IDLE, LOADED, WRITTEN, COMMITTED } stage;
		size_t n;
		struct ring_submission entries[ENTRIES];
	} work[LANES];
	uint64_t done[LANES]; /* of all that was loaded, the highest user_data + 1 */
	uint64_t again, deaths;
};

static uint32_t random_below(uint32_t n)
{
	return (uint32_t)random() % n;
}

static void rig_init(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->memory = aligned_alloc(4096, ring_memory_bytes(LANES, ENTRIES));
	assert_non_null(rig->memory);
	memset(rig->memory, 0, ring_memory_bytes(LANES, ENTRIES));
	queue_init(&rig->queue, rig->memory, LANES, ENTRIES, &rig->state);
	/* Near the point at which the indices wrap. */
	for (uint32_t i = 0; i < LANES; i++) {
		struct ring_lane *lane = ring_lane_at(rig->memory, ENTRIES, i);
		uint32_t start = UINT32_MAX - 100 * i;

		rig->state.words[i] = start;
		lane->submit_tail = lane->complete_head = start;
		rig->clients[i].submitted = rig->clients[i].reaped = start;
		queue_publish(&rig->queue, i);
	}
}

static void client_submit(struct rig *rig, uint32_t i)
{
	struct ring_lane *lane = ring_lane_at(rig->memory, ENTRIES, i);
	struct client *client = &rig->clients[i];

	if (client->submitted - client->reaped == ENTRIES)
		return;
	*ring_submission_at(lane, ENTRIES, client->submitted) = (struct ring_submission){
		.operation = RING_REFRESH,
		.user_data = client->next++,
	};
	lane->submit_tail = ++client->submitted;
}

static void client_reap(struct rig *rig, uint32_t i)
{
	struct ring_lane *lane = ring_lane_at(rig->memory, ENTRIES, i);
	struct client *client = &rig->clients[i];
	const struct ring_completion *completion;

	assert_true(lane->complete_tail - client->reaped <= client->submitted - client->reaped);
	if (lane->complete_tail == client->reaped)
		return;
	completion = ring_completion_at(lane, ENTRIES, client->reaped);
	assert_int_equal(completion->user_data, client->expected);
	assert_int_equal(completion->mapped, ~client->expected);
	client->expected++;
	lane->complete_head = ++client->reaped;
}

static void daemon_load(struct rig *rig, uint32_t i)
{
	rig->work[i].n =
		queue_load(&rig->queue, i, rig->work[i].entries, 1 + random_below(ENTRIES));
	for (size_t k = 0; k < rig->work[i].n; k++) {
		uint64_t data = rig->work[i].entries[k].user_data;

		assert_true(data <= rig->done[i]);
		if (data < rig->done[i])
			rig->again++;
		else
			rig->done[i]++;
	}
	if (rig->work[i].n)
		rig->work[i].stage = LOADED;
}

static void daemon_write(struct rig *rig, uint32_t i)
{
	struct ring_completion completions[ENTRIES] = {0};

	for (size_t k = 0; k < rig->work[i].n; k++) {
		completions[k].user_data = rig->work[i].entries[k].user_data;
		completions[k].mapped = ~completions[k].user_data;
	}
	queue_write(&rig->queue, i, completions, rig->work[i].n);
	rig->work[i].stage = WRITTEN;
}

static void daemon_step(struct rig *rig, uint32_t i)
{
	switch (rig->work[i].stage) {
	case IDLE:
		daemon_load(rig, i);
		break;
	case LOADED:
		daemon_write(rig, i);
		break;
	case WRITTEN:
		queue_commit(&rig->queue, i, rig->work[i].n);
		rig->work[i].stage = COMMITTED;
		break;
	case COMMITTED:
		queue_publish(&rig->queue, i);
		rig->work[i].stage = IDLE;
		break;
	}
}

/* Nothing stays but the two memories. */
static void daemon_die(struct rig *rig)
{
	memset(&rig->queue, 0xff, sizeof(rig->queue));
	for (uint32_t i = 0; i < LANES; i++)
		rig->work[i].stage = IDLE;
	rig->deaths++;
	assert_true(queue_adopt(&rig->queue, rig->memory, ring_memory_bytes(LANES, ENTRIES),
				&rig->state));
}

static void test_every_entry_is_answered_once(void **state)
{
	static struct rig rig;

	(void)state;
	srandom(1);
	rig_init(&rig);
	for (int step = 0; step < STEPS; step++) {
		uint32_t lane = random_below(LANES), what = random_below(100);

		if (what < 35)
			client_submit(&rig, lane);
		else if (what < 60)
			client_reap(&rig, lane);
		else if (what < 98)
			daemon_step(&rig, lane);
		else
			daemon_die(&rig);
	}
	for (uint32_t i = 0; i < LANES; i++) {
		while (rig.clients[i].expected < rig.clients[i].next) {
			daemon_step(&rig, i);
			client_reap(&rig, i);
		}
		assert_true(rig.clients[i].expected > STEPS / 100);
		assert_int_equal(queue_fault(&rig.queue, i), RING_FAULT_NONE);
	}
	assert_true(rig.deaths > STEPS / 100);
	assert_true(rig.again > 0 && rig.again <= rig.deaths * LANES * ENTRIES);
	free(rig.memory);
}

static void assert_index_stops(void (*spoil)(struct ring_lane *lane))
{
	struct ring_submission entries[ENTRIES];
	struct ring_lane *lane;
	static struct rig rig;

	rig_init(&rig);
	lane = ring_lane_at(rig.memory, ENTRIES, 1);
	client_submit(&rig, 0);
	spoil(lane);
	assert_int_equal(queue_load(&rig.queue, 1, entries, ENTRIES), 0);
	assert_int_equal(lane->fault, RING_FAULT_INDEX);
	assert_int_equal(queue_load(&rig.queue, 0, entries, ENTRIES), 1);
	/* It stays so, also for a successor and whatever the client stores now. */
	lane->submit_tail = lane->complete_head = lane->complete_tail;
	lane->submit_tail++;
	lane->fault = 0;
	daemon_die(&rig);
	assert_int_equal(queue_load(&rig.queue, 1, entries, ENTRIES), 0);
	assert_int_equal(lane->fault, RING_FAULT_INDEX);
	assert_int_equal(queue_load(&rig.queue, 0, entries, ENTRIES), 1);
	free(rig.memory);
}

static void too_many_submitted(struct ring_lane *lane)
{
	lane->submit_tail += ENTRIES + 1;
}

static void fewer_than_taken(struct ring_lane *lane)
{
	lane->submit_tail--;
}

static void more_reaped_than_there_were(struct ring_lane *lane)
{
	lane->complete_head++;
}

static void test_an_index_that_cannot_be_stops_its_lane(void **state)
{
	(void)state;
	assert_index_stops(too_many_submitted);
	assert_index_stops(fewer_than_taken);
	assert_index_stops(more_reaped_than_there_were);
}

/* A client that does not reap has no place for more answers. */
static void test_no_completion_is_overwritten(void **state)
{
	struct ring_submission entries[2 * ENTRIES];
	struct ring_completion completions[ENTRIES] = {0};
	static struct rig rig;
	struct ring_lane *lane;

	(void)state;
	rig_init(&rig);
	lane = ring_lane_at(rig.memory, ENTRIES, 0);
	lane->submit_tail += ENTRIES;
	assert_int_equal(queue_load(&rig.queue, 0, entries, 2 * ENTRIES), ENTRIES);
	queue_write(&rig.queue, 0, completions, ENTRIES);
	queue_commit(&rig.queue, 0, ENTRIES);
	queue_publish(&rig.queue, 0);
	lane->submit_tail += ENTRIES;
	assert_int_equal(queue_load(&rig.queue, 0, entries, ENTRIES), 0);
	lane->complete_head += 3;
	assert_int_equal(queue_load(&rig.queue, 0, entries, ENTRIES), 3);
	free(rig.memory);
}

static void test_a_damaged_state_is_not_adopted(void **state)
{
	const uint64_t bytes = ring_memory_bytes(LANES, ENTRIES);
	static struct rig rig;
	struct ring_state good;

	(void)state;
	rig_init(&rig);
	good = rig.state;
	assert_true(queue_adopt(&rig.queue, rig.memory, bytes, &rig.state));
	assert_false(queue_adopt(&rig.queue, rig.memory, bytes - 4096, &rig.state));
	rig.state.version++;
	assert_false(queue_adopt(&rig.queue, rig.memory, bytes, &rig.state));
	rig.state = good;
	rig.state.lanes = RING_LANES_MAX + 1;
	assert_false(queue_adopt(&rig.queue, rig.memory, UINT64_MAX, &rig.state));
	rig.state.lanes = 0;
	assert_false(queue_adopt(&rig.queue, rig.memory, bytes, &rig.state));
	rig.state = good;
	rig.state.entries = 6;
	assert_false(queue_adopt(&rig.queue, rig.memory, bytes, &rig.state));
	free(rig.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_entry_is_answered_once),
		cmocka_unit_test(test_an_index_that_cannot_be_stops_its_lane),
		cmocka_unit_test(test_no_completion_is_overwritten),
		cmocka_unit_test(test_a_damaged_state_is_not_adopted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
