/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Update rings over a real broker: what goes through them is what a call does, and a client that
 * writes anything at all into them harms itself alone.
 */
#include "nested_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/ring.h"
#include "ring/ring.h"
#include "util/fd.h"

#define ENTRIES    16
#define PATIENCE_S 60

/* A client's side. */
struct user {
	uint64_t ring;
	uint32_t lanes, entries;
	struct ring_ends ends;
	void *memory;
};

struct rings {
	struct test t;
	struct ring_server *server;
	struct nested_created nested;
	uint64_t table_bytes; /* charged without any ring */
	uint32_t n_left;
};

static void rings_init(struct rings *r, const struct broker_settings *settings)
{
	memset(r, 0, sizeof(*r));
	nested_test_init(&r->t, settings);
	assert_int_equal(ring_server_new(&r->server, r->t.f.broker, 2), 0);
	r->nested = register_tables(&r->t, true);
	assert_int_equal(r->nested.verdict, VERDICT_DONE);
	r->table_bytes = host_usage(&r->t.f, LEDGER_TABLE_BYTES).current;
}

static int setup(void **state)
{
	static struct rings r;
	struct broker_settings settings = settings_default();

	rings_init(&r, &settings);
	*state = &r;
	return 0;
}

static int teardown(void **state)
{
	struct rings *r = *state;

	r->server = ring_server_free(r->server);
	function_free(&r->t.function);
	fixture_deinit(&r->t.f);
	return 0;
}

/* ── the client's side ─────────────────────────────────────────────────────────────────────── */

static int user_try(struct rings *r, struct user *user, uint32_t lanes, uint32_t entries)
{
	const struct ring_request request = {r->t.f.guest, lanes, entries};

	user->lanes = lanes;
	user->entries = entries;
	user->memory = NULL;
	return ring_create(r->server, r->t.f.session, &request, &user->ring, &user->ends,
			   &r->t.f.refusal);
}

static void user_map(struct user *user)
{
	user->memory = mmap(NULL, ring_memory_bytes(user->lanes, user->entries),
			    PROT_READ | PROT_WRITE, MAP_SHARED, user->ends.memory, 0);
	assert_true(user->memory != MAP_FAILED);
}

static void user_init(struct rings *r, struct user *user, uint32_t lanes)
{
	assert_done(&r->t.f, user_try(r, user, lanes, ENTRIES));
	user_map(user);
}

static void user_close(struct user *user)
{
	if (user->memory)
		munmap(user->memory, ring_memory_bytes(user->lanes, user->entries));
	close(user->ends.memory);
	close(user->ends.submit);
	for (uint32_t i = 0; i < user->lanes; i++)
		close(user->ends.complete[i]);
}

static void user_deinit(struct rings *r, struct user *user)
{
	assert_done(&r->t.f, ring_destroy(r->server, r->t.f.session, user->ring, &r->t.f.refusal));
	user_close(user);
}

static struct ring_lane *lane_of(struct user *user, uint32_t lane)
{
	return ring_lane_at(user->memory, user->entries, lane);
}

static void user_bell(struct user *user)
{
	struct ring_header *header = user->memory;

	if (__atomic_load_n(&header->daemon_sleeps, __ATOMIC_SEQ_CST))
		assert_int_equal(write(user->ends.submit, "", 1), 1);
}

static void user_submit(struct user *user, uint32_t lane, const struct ring_submission *entry)
{
	struct ring_lane *shared = lane_of(user, lane);

	*ring_submission_at(shared, user->entries, shared->submit_tail) = *entry;
	__atomic_store_n(&shared->submit_tail, shared->submit_tail + 1, __ATOMIC_SEQ_CST);
	user_bell(user);
}

static bool lane_has(struct ring_lane *shared)
{
	return __atomic_load_n(&shared->complete_tail, __ATOMIC_SEQ_CST) != shared->complete_head ||
	       __atomic_load_n(&shared->fault, __ATOMIC_SEQ_CST);
}

/* Asleep until the doorbell rings: a bell that is lost is a failure. */
static void user_wait(struct user *user, uint32_t lane)
{
	struct ring_lane *shared = lane_of(user, lane);
	struct pollfd poller = {.fd = user->ends.complete[lane], .events = POLLIN};
	char bytes[64];

	__atomic_store_n(&shared->client_sleeps, 1, __ATOMIC_SEQ_CST);
	while (!lane_has(shared)) {
		assert_int_equal(poll(&poller, 1, PATIENCE_S * 1000), 1);
		assert_true(read(poller.fd, bytes, sizeof(bytes)) > 0);
	}
	__atomic_store_n(&shared->client_sleeps, 0, __ATOMIC_SEQ_CST);
}

static struct ring_completion user_reap(struct user *user, uint32_t lane)
{
	struct ring_lane *shared = lane_of(user, lane);
	struct ring_completion completion;

	user_wait(user, lane);
	assert_int_equal(shared->fault, RING_FAULT_NONE);
	completion = *ring_completion_at(shared, user->entries, shared->complete_head);
	__atomic_store_n(&shared->complete_head, shared->complete_head + 1, __ATOMIC_SEQ_CST);
	return completion;
}

static struct ring_completion run(struct user *user, uint32_t lane, struct ring_submission entry)
{
	static uint64_t next;
	struct ring_completion completion;

	entry.user_data = ++next;
	user_submit(user, lane, &entry);
	completion = user_reap(user, lane);
	assert_int_equal(completion.user_data, entry.user_data);
	return completion;
}

static struct ring_submission refresh_of(const struct rings *r, uint64_t iova, uint64_t length)
{
	return (struct ring_submission){
		.operation = RING_REFRESH,
		.nested = r->nested.index,
		.iova = iova,
		.length = length,
	};
}

/* ── what it does ─────────────────────────────────────────────────────────────────────────── */

static void test_refreshes_as_the_call_does(void **state)
{
	struct rings *r = *state;
	struct ring_completion done;
	struct user user;

	user_init(r, &user, 2);
	for (uint32_t i = 0; i < 100; i++) {
		table_map(&r->t.f, r->t.root, IOVA, PAGE * (1 + i % 7), true);
		done = run(&user, i % 2, refresh_of(r, IOVA, PAGE));
		assert_int_equal(done.verdict, VERDICT_DONE);
		assert_int_equal(done.condition_code, 0);
		assert_int_equal(done.mapped, 1);
		assert_int_equal(dma_write_at(&r->t, IOVA), EMULATED_DMA_OK);
		assert_int_equal(r->t.f.memory[PAGE * (1 + i % 7)], 'x');
		r->t.f.memory[PAGE * (1 + i % 7)] = 0;
	}
	table_unmap(&r->t.f, r->t.root, IOVA);
	done = run(&user, 0, refresh_of(r, IOVA, PAGE));
	assert_int_equal(done.unmapped, 1);
	assert_int_not_equal(dma_write_at(&r->t, IOVA), EMULATED_DMA_OK);
	table_break(&r->t.f, r->t.root, IOVA);
	done = run(&user, 1, refresh_of(r, IOVA, PAGE));
	assert_int_equal(done.verdict, VERDICT_ERROR);
	assert_int_equal(done.condition_code, 1);
	assert_int_equal(done.status, 8);
	assert_true(done.event_code && done.failing_iova >= IOVA);
	user_deinit(r, &user);
}

/* More than a turn, and more than a batch, with the client ahead. */
static void test_keeps_the_order_of_a_lane(void **state)
{
	struct rings *r = *state;
	struct user user;
	uint64_t next = 0;

	user_init(r, &user, 1);
	for (uint64_t i = 0; i < 500; i++) {
		struct ring_submission entry = refresh_of(r, IOVA + i % 64 * PAGE, PAGE);

		entry.user_data = i;
		if (i % 5 == 4)
			entry.nested = 77;
		user_submit(&user, 0, &entry);
		while (i - next == ENTRIES - 1) {
			struct ring_completion done = user_reap(&user, 0);

			assert_int_equal(done.user_data, next);
			assert_int_equal(done.verdict, next % 5 == 4 ? VERDICT_GONE : VERDICT_DONE);
			next++;
		}
	}
	user_deinit(r, &user);
}

/* A whole window is for the pool, not for the ring's thread. */
static void test_long_work_is_done_elsewhere(void **state)
{
	struct rings *r = *state;
	struct ring_completion done;
	struct user user;

	user_init(r, &user, 1);
	for (uint64_t i = 0; i < 2048; i++)
		table_map(&r->t.f, r->t.root, IOVA + i * PAGE, i % 2 ? PAGE : 5 * PAGE, true);
	done = run(&user, 0, refresh_of(r, FIRST, LAST - FIRST + 1));
	assert_int_equal(done.verdict, VERDICT_DONE);
	assert_int_equal(done.mapped, 2048);
	user_deinit(r, &user);
}

static void test_nonsense_is_a_verdict(void **state)
{
	struct rings *r = *state;
	struct ring_submission entry = refresh_of(r, IOVA, PAGE);
	struct user user;

	user_init(r, &user, 1);
	entry.operation = 0;
	assert_int_equal(run(&user, 0, entry).verdict, VERDICT_OPERAND);
	entry.operation = 4;
	assert_int_equal(run(&user, 0, entry).verdict, VERDICT_OPERAND);
	entry.operation = RING_MAP; /* of a domain whose entries are the guest's */
	assert_int_equal(run(&user, 0, entry).verdict, VERDICT_OPERAND);
	entry = refresh_of(r, IOVA, PAGE);
	entry.nested = UINT32_MAX;
	assert_int_equal(run(&user, 0, entry).verdict, VERDICT_GONE);
	assert_int_equal(run(&user, 0, entry).condition_code, 3);
	destroy_nested(&r->t, r->nested.nested);
	assert_int_equal(run(&user, 0, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_GONE);
	/* The next of that index is another domain. */
	r->nested = register_tables(&r->t, true);
	assert_int_equal(run(&user, 0, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_DONE);
	user_deinit(r, &user);
}

/* A function that is disabled and enabled again has another domain of the same index: entries that
 * are submitted after that are for it, also from a lane that used the one before. */
static void test_an_index_is_of_the_domain_that_has_it_now(void **state)
{
	struct rings *r = *state;
	struct user user;

	user_init(r, &user, 1);
	for (int i = 0; i < 3; i++) {
		uint32_t index = r->nested.index;

		table_map(&r->t.f, r->t.root, IOVA, 3 * PAGE, true);
		assert_int_equal(run(&user, 0, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_DONE);
		destroy_nested(&r->t, r->nested.nested);
		r->nested = register_tables(&r->t, true);
		assert_int_equal(r->nested.index, index);
		table_map(&r->t.f, r->t.root, IOVA, 5 * PAGE, true);
		assert_int_equal(run(&user, 0, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_DONE);
	}
	user_deinit(r, &user);
}

static void test_entries_of_a_managed_domain(void **state)
{
	struct rings *r = *state;
	struct ring_submission entry = {
		.operation = RING_MAP,
		.iova = IOVA,
		.length = 2 * PAGE,
		.gpa = 3 * PAGE,
		.flags = RING_FLAG_WRITABLE,
	};
	struct nested_created managed;
	struct user user;

	destroy_nested(&r->t, r->nested.nested);
	managed = nested_make_managed(&r->t.f, r->t.function.device, FIRST, LAST, true);
	assert_int_equal(managed.verdict, VERDICT_DONE);
	entry.nested = managed.index;
	user_init(r, &user, 1);
	assert_int_equal(run(&user, 0, entry).mapped, 2);
	assert_int_equal(dma_write_at(&r->t, IOVA + PAGE), EMULATED_DMA_OK);
	entry.gpa = 1ull << 50;
	assert_int_equal(run(&user, 0, entry).verdict, VERDICT_OPERAND);
	entry.operation = RING_UNMAP;
	assert_int_equal(run(&user, 0, entry).unmapped, 2);
	assert_int_not_equal(dma_write_at(&r->t, IOVA + PAGE), EMULATED_DMA_OK);
	/* The next of that index. */
	destroy_nested(&r->t, managed.nested);
	managed = nested_make_managed(&r->t.f, r->t.function.device, FIRST, LAST, true);
	assert_int_equal(managed.index, entry.nested);
	entry.operation = RING_MAP;
	entry.gpa = 3 * PAGE;
	assert_int_equal(run(&user, 0, entry).mapped, 2);
	user_deinit(r, &user);
}

static void test_above_a_rate_it_is_busy(void **state)
{
	struct rings *r = *state;
	struct broker_settings settings = settings_default();
	unsigned int busy = 0, done = 0;
	struct user user;

	settings.limits[LIMIT_GUEST].rate[RATE_REFRESHES] =
		(struct limit_setting){.max = 1, .set = true, .where = "rate"};
	assert_int_equal(broker_set_settings(r->t.f.broker, &settings, NULL, NULL), 0);
	user_init(r, &user, 1);
	for (int i = 0; i < 600; i++) {
		struct ring_completion completion = run(&user, 0, refresh_of(r, IOVA, PAGE));

		busy += completion.verdict == VERDICT_BUSY;
		done += completion.verdict == VERDICT_DONE;
		if (completion.verdict == VERDICT_BUSY)
			assert_int_equal(completion.condition_code, 2);
	}
	assert_int_equal(busy + done, 600);
	assert_true(done >= BROKER_REFRESH_RANGES_MAX); /* the burst */
	assert_true(busy > 0);
	user_deinit(r, &user);
}

/* ── its end ──────────────────────────────────────────────────────────────────────────────── */

static void assert_ended(struct user *user)
{
	struct pollfd poller = {.fd = user->ends.complete[0], .events = POLLIN};
	char bytes[64];

	do {
		assert_int_equal(poll(&poller, 1, PATIENCE_S * 1000), 1);
	} while (read(poller.fd, bytes, sizeof(bytes)) > 0);
}

static void test_n_fit_and_one_more_does_not(void **state)
{
	struct rings *r = *state;
	struct broker_settings settings = settings_default();
	struct user users[4];

	limit_set(&settings, LIMIT_GUEST, LEDGER_RINGS, 3);
	assert_int_equal(broker_set_settings(r->t.f.broker, &settings, NULL, NULL), 0);
	for (int i = 0; i < 3; i++)
		user_init(r, &users[i], 2);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 3);
	assert_refused(&r->t.f, user_try(r, &users[3], 1, ENTRIES), REFUSAL_QUOTA);
	assert_string_equal(r->t.f.refusal.resource, "rings");
	user_deinit(r, &users[1]);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 2);
	user_init(r, &users[3], 64);
	assert_int_equal(run(&users[3], 63, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_DONE);
	user_deinit(r, &users[0]);
	user_deinit(r, &users[2]);
	user_deinit(r, &users[3]);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
}

static void test_wrong_shapes_are_refused(void **state)
{
	struct rings *r = *state;
	struct user user;

	assert_refused(&r->t.f, user_try(r, &user, 0, 16), REFUSAL_INVALID);
	assert_refused(&r->t.f, user_try(r, &user, 65, 16), REFUSAL_INVALID);
	assert_refused(&r->t.f, user_try(r, &user, 1, 0), REFUSAL_INVALID);
	assert_refused(&r->t.f, user_try(r, &user, 1, 24), REFUSAL_INVALID);
	assert_refused(&r->t.f, user_try(r, &user, 1, 2048), REFUSAL_INVALID);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
}

static void test_it_ends_with_its_guest(void **state)
{
	struct rings *r = *state;
	struct user user;

	user_init(r, &user, 2);
	for (int i = 0; i < ENTRIES; i++)
		user_submit(&user, 1, &(struct ring_submission){.operation = RING_REFRESH});
	assert_done(&r->t.f,
		    guest_destroy(r->t.f.broker, r->t.f.session, r->t.f.guest, &r->t.f.refusal));
	assert_ended(&user);
	assert_refused(&r->t.f, ring_destroy(r->server, r->t.f.session, user.ring, &r->t.f.refusal),
		       REFUSAL_NOT_FOUND);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
	assert_int_equal(host_usage(&r->t.f, LEDGER_TABLE_BYTES).current, 0);
	user_close(&user);
}

/* What it was given of another's guest ends with the session that it was given to. */
static void test_it_ends_with_its_session(void **state)
{
	struct rings *r = *state;
	const struct delegation_request request = {
		.guest = r->t.f.guest,
		.rights = 1u << GUEST_RIGHT_REFRESH,
	};
	struct session *owner = r->t.f.session, *given;
	uint64_t delegation;
	struct user user;

	assert_done(&r->t.f, delegation_new(&given, r->t.f.broker, owner, &request, &delegation,
					    &r->t.f.refusal));
	r->t.f.session = given;
	user_init(r, &user, 1);
	r->t.f.session = owner;
	assert_int_equal(run(&user, 0, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_DONE);
	/* It may not give entries, nor is it the owner's ring. */
	assert_int_equal(run(&user, 0, (struct ring_submission){.operation = RING_UNMAP}).verdict,
			 VERDICT_OPERAND);
	assert_refused(&r->t.f, ring_destroy(r->server, owner, user.ring, &r->t.f.refusal),
		       REFUSAL_NOT_FOUND);
	session_close(given, NULL, NULL);
	assert_ended(&user);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
	session_unref(given);
	user_close(&user);
}

static void test_it_ends_with_its_server(void **state)
{
	struct rings *r = *state;
	struct user user;

	user_init(r, &user, 3);
	r->server = ring_server_free(r->server);
	assert_ended(&user);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
	user_close(&user);
}

/* ── adopted ──────────────────────────────────────────────────────────────────────────────── */

/* What a process that served `user` left, with positions as told: its client has the other ends
 * now. state_bytes: of the file. */
static struct ring_parts parts_left(struct user *user, const struct ring_state *state,
				    off_t state_bytes)
{
	struct ring_parts parts = {.lanes = user->lanes, .entries = user->entries};
	int fds[2];

	parts.memory = dup(user->ends.memory);
	parts.state = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(parts.state, state_bytes), 0);
	assert_int_equal(pwrite(parts.state, state, sizeof(*state), 0), sizeof(*state));
	assert_int_equal(fcntl(parts.state, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
	parts.submit = fds[0];
	assert_int_equal(dup2(fds[1], user->ends.submit), user->ends.submit);
	close(fds[1]);
	for (uint32_t i = 0; i < user->lanes; i++) {
		assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
		parts.complete[i] = fds[1];
		assert_int_equal(dup2(fds[0], user->ends.complete[i]), user->ends.complete[i]);
		close(fds[0]);
	}
	return parts;
}

static struct ring_state state_left(const struct user *user)
{
	return (struct ring_state){
		.version = RING_STATE_VERSION,
		.lanes = user->lanes,
		.entries = user->entries,
	};
}

/* The broker took the guest over, and has the ring. */
static void leave(struct rings *r, const struct user *user, const struct ring_parts *parts)
{
	const struct record_ring record = {
		.handle = user->ring,
		.index = r->n_left++,
		.lanes = user->lanes,
		.entries = user->entries,
		.bytes = 12288,
	};
	struct guest *guest =
		guest_find(r->t.f.broker, r->t.f.session, r->t.f.guest, &r->t.f.refusal);

	assert_true(ring_restore(guest, r->t.f.session, &record, parts));
	guest_unref(guest);
}

static void serve_anew(struct rings *r)
{
	r->server = ring_server_free(r->server);
	assert_int_equal(ring_server_new(&r->server, r->t.f.broker, 1), 0);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
}

/* What was submitted while nobody served is answered, and what was answered is not again. */
static void test_goes_on_where_another_was(void **state)
{
	struct rings *r = *state;
	struct ring_state positions;
	struct ring_parts parts;
	struct user user;

	user_init(r, &user, 2);
	for (int i = 0; i < 21; i++)
		run(&user, 1, refresh_of(r, IOVA, PAGE));
	serve_anew(r);
	for (uint64_t i = 0; i < 2; i++) {
		struct ring_submission entry = refresh_of(r, IOVA, PAGE);

		entry.user_data = 1000 + i;
		*ring_submission_at(lane_of(&user, 1), ENTRIES, lane_of(&user, 1)->submit_tail++) =
			entry;
	}
	positions = state_left(&user);
	positions.words[1] = 21;
	parts = parts_left(&user, &positions, 4096);
	leave(r, &user, &parts);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 1);
	assert_int_equal(ring_server_adopt(r->server), 1);
	assert_int_equal(user_reap(&user, 1).user_data, 1000);
	assert_int_equal(user_reap(&user, 1).user_data, 1001);
	assert_int_equal(run(&user, 0, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_DONE);
	assert_int_equal(ring_server_adopt(r->server), 0);
	user_deinit(r, &user);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
	assert_int_equal(host_usage(&r->t.f, LEDGER_TABLE_BYTES).current, r->table_bytes);
}

/* It has ended, its client sees it, and nothing of it is left or charged. */
static void assert_not_adopted(struct rings *r, struct user *user, const struct ring_parts *parts)
{
	leave(r, user, parts);
	assert_int_equal(ring_server_adopt(r->server), 0);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
	assert_int_equal(host_usage(&r->t.f, LEDGER_TABLE_BYTES).current, r->table_bytes);
	assert_refused(&r->t.f,
		       ring_destroy(r->server, r->t.f.session, user->ring, &r->t.f.refusal),
		       REFUSAL_NOT_FOUND);
	for (uint32_t i = 0; i < user->lanes; i++) {
		char byte;

		assert_int_equal(read(user->ends.complete[i], &byte, 1), 0);
	}
}

static void test_what_cannot_be_is_not_taken_over(void **state)
{
	struct rings *r = *state;
	struct timespec pause = {0, 1000000};
	struct ring_state bad[8];
	struct ring_parts parts;
	struct user user;
	size_t n;

	user_init(r, &user, 2);
	serve_anew(r);
	n = descriptors_open() - 4; /* user's ends */
	for (size_t i = 0; i < 8; i++)
		bad[i] = state_left(&user);
	bad[0].version = 0;
	bad[1].version = RING_STATE_VERSION + 1;
	bad[2].lanes = 1;
	bad[3].lanes = UINT32_MAX;
	bad[4].entries = 0;
	bad[5].entries = ENTRIES * 2;
	bad[6].entries = 3;
	for (size_t i = 0; i < 7; i++) {
		parts = parts_left(&user, &bad[i], 4096);
		assert_not_adopted(r, &user, &parts);
	}
	parts = parts_left(&user, &bad[7], 2048); /* a file that ends too early */
	assert_not_adopted(r, &user, &parts);
	parts = parts_left(&user, &bad[7], 4096); /* a doorbell that was not stored */
	parts.complete[1] = fd_close(parts.complete[1]);
	assert_not_adopted(r, &user, &parts);
	parts = parts_left(&user, &bad[7], 4096); /* a record of a larger ring than its memory */
	parts.entries = RING_ENTRIES_MAX;
	assert_not_adopted(r, &user, &parts);
	parts.entries = ENTRIES;
	parts = parts_left(&user, &bad[7], 4096);
	leave(r, &user, &parts);
	assert_int_equal(ring_server_adopt(r->server), 1);
	user_deinit(r, &user);
	/* It closes them when it has nothing under way. */
	while (descriptors_open() != n)
		nanosleep(&pause, NULL);
}

/* Who only polls learns it, too. */
static void test_the_end_is_told(void **state)
{
	struct rings *r = *state;
	struct timespec pause = {0, 1000000};
	struct user user;

	user_init(r, &user, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(lane_of(&user, i)->fault, RING_FAULT_NONE);
	assert_done(&r->t.f, ring_destroy(r->server, r->t.f.session, user.ring, &r->t.f.refusal));
	for (uint32_t i = 0; i < 3; i++)
		while (__atomic_load_n(&lane_of(&user, i)->fault, __ATOMIC_SEQ_CST) !=
		       RING_FAULT_ENDED)
			nanosleep(&pause, NULL);
	user_close(&user);
}

/* ── hostile ──────────────────────────────────────────────────────────────────────────────── */

struct vandal {
	struct user user;
	_Atomic bool stop;
	unsigned int seed;
};

static void *vandal_run(void *context)
{
	struct vandal *vandal = context;
	uint64_t words = ring_memory_bytes(vandal->user.lanes, vandal->user.entries) / 4;
	uint32_t *memory = vandal->user.memory;

	while (!vandal->stop) {
		for (int i = 0; i < 64; i++) {
			uint32_t value = (uint32_t)rand_r(&vandal->seed);

			__atomic_store_n(&memory[(uint32_t)rand_r(&vandal->seed) % words],
					 value % 3 ? value % 40 : value, __ATOMIC_RELAXED);
		}
		if (write(vandal->user.ends.submit, "noise", 5) < 0)
			sched_yield();
	}
	return NULL;
}

/* Lanes stop one by one; the vandal makes new rings, and another ring is served all the time. */
static void test_a_vandal_harms_nobody_else(void **state)
{
	struct rings *r = *state;
	struct user user;

	user_init(r, &user, 1);
	for (unsigned int round = 0; round < 20; round++) {
		struct vandal vandal = {.seed = round};
		pthread_t thread;

		user_init(r, &vandal.user, 8);
		assert_int_equal(pthread_create(&thread, NULL, vandal_run, &vandal), 0);
		for (int i = 0; i < 50; i++) {
			table_map(&r->t.f, r->t.root, IOVA, PAGE * (1 + i % 7), true);
			assert_int_equal(run(&user, 0, refresh_of(r, IOVA, PAGE)).verdict,
					 VERDICT_DONE);
		}
		if (round % 2)
			assert_done(&r->t.f, ring_destroy(r->server, r->t.f.session,
							  vandal.user.ring, &r->t.f.refusal));
		vandal.stop = true;
		pthread_join(thread, NULL);
		if (!(round % 2))
			assert_done(&r->t.f, ring_destroy(r->server, r->t.f.session,
							  vandal.user.ring, &r->t.f.refusal));
		user_close(&vandal.user);
	}
	user_deinit(r, &user);
	assert_int_equal(host_usage(&r->t.f, LEDGER_RINGS).current, 0);
}

static void test_a_bad_index_stops_one_lane(void **state)
{
	struct rings *r = *state;
	struct user user;

	user_init(r, &user, 2);
	lane_of(&user, 0)->submit_tail += ENTRIES + 1;
	user_bell(&user);
	user_wait(&user, 0);
	assert_int_equal(lane_of(&user, 0)->fault, RING_FAULT_INDEX);
	assert_int_equal(run(&user, 1, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_DONE);
	user_deinit(r, &user);
}

static void test_the_memory_cannot_be_shrunk(void **state)
{
	struct rings *r = *state;
	struct user user;

	user_init(r, &user, 1);
	assert_int_equal(ftruncate(user.ends.memory, 0), -1);
	assert_int_equal(ftruncate(user.ends.memory, 1 << 24), -1);
	/* Nor may the client make a write of ours wait. */
	assert_int_equal(fcntl(user.ends.complete[0], F_SETFL, 0), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(run(&user, 0, refresh_of(r, IOVA, PAGE)).verdict, VERDICT_DONE);
	user_deinit(r, &user);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_refreshes_as_the_call_does),
		TEST(test_keeps_the_order_of_a_lane),
		TEST(test_long_work_is_done_elsewhere),
		TEST(test_nonsense_is_a_verdict),
		TEST(test_entries_of_a_managed_domain),
		TEST(test_above_a_rate_it_is_busy),
		TEST(test_n_fit_and_one_more_does_not),
		TEST(test_wrong_shapes_are_refused),
		TEST(test_it_ends_with_its_guest),
		TEST(test_it_ends_with_its_session),
		TEST(test_it_ends_with_its_server),
		TEST(test_goes_on_where_another_was),
		TEST(test_what_cannot_be_is_not_taken_over),
		TEST(test_the_end_is_told),
		TEST(test_a_vandal_harms_nobody_else),
		TEST(test_a_bad_index_stops_one_lane),
		TEST(test_the_memory_cannot_be_shrunk),
		TEST(test_an_index_is_of_the_domain_that_has_it_now),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
