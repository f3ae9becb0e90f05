/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an operator takes away: that nothing reaches memory afterwards, that the ledger gets back
 * exactly what was charged, whatever fails meanwhile and whatever runs at the same time.
 */
#include "device_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend_tap.h"
#include "broker_invariant.h"
#include "memory_fault.h"

#define IOVA   (DMA_BASE + 0x10000)
#define WINDOW (DMA_BASE + 64 * MIB - 1)

/* ── asked and answered ────────────────────────────────────────────────────────────────────── */

#define REVOKED_MAX 16

struct answer {
	atomic_bool done;
	size_t n;
	struct revoked revoked[REVOKED_MAX];
};

static void on_done(void *context, const struct revoked *revoked, size_t n)
{
	struct answer *answer = context;

	assert_true(n <= REVOKED_MAX);
	assert_false(answer->done);
	memcpy(answer->revoked, revoked, n * sizeof(revoked[0]));
	answer->n = n;
	atomic_store(&answer->done, true);
}

static struct answer revoke_as(struct fixture *f, const struct revoke_request *request)
{
	struct answer answer = {.done = false};

	assert_done(f, broker_revoke(f->broker, request, on_done, &answer, &f->refusal));
	while (!answer.done)
		usleep(100);
	return answer;
}

static struct answer revoke_fid(struct fixture *f, uint32_t fid)
{
	return revoke_as(f, &(struct revoke_request){.what = REVOKE_DEVICE,
						     .device = {.by_fid = true, .fid = fid}});
}

static struct answer revoke_guest(struct fixture *f)
{
	return revoke_as(f, &(struct revoke_request){.what = REVOKE_GUEST, .guest = f->guest});
}

/* ── a guest with everything ───────────────────────────────────────────────────────────────── */

struct full {
	struct function nested_function, relaxed_function;
	uint64_t nested;
};

static struct full full_make(struct fixture *f)
{
	struct full full = {
		.nested_function = function_bind(f, 1),
		.relaxed_function = function_bind(f, 2),
	};
	uint64_t root = table_root(f);
	struct nested_created created;

	table_map(f, root, IOVA, PAGE, true);
	created = nested_make_s390(f, full.nested_function.device, root, DMA_BASE, WINDOW, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	full.nested = created.nested;
	assert_done(f, device_attach_to(f, full.relaxed_function.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(function_write_byte(&full.nested_function, IOVA), EMULATED_DMA_OK);
	assert_int_equal(function_write_byte(&full.relaxed_function, DMA_BASE + PAGE),
			 EMULATED_DMA_OK);
	return full;
}

static void full_free(struct full *full)
{
	function_free(&full->nested_function);
	function_free(&full->relaxed_function);
}

static void assert_dead(struct fixture *f, struct function *function, uint64_t iova)
{
	struct device_description description;

	f->memory[PAGE] = 'a';
	assert_int_not_equal(function_write_byte(function, iova), EMULATED_DMA_OK);
	assert_int_equal(f->memory[PAGE], 'a');
	assert_refused(
		f,
		device_describe(f->broker, f->session, function->device, &description, &f->refusal),
		REFUSAL_NOT_FOUND);
}

static void assert_gone_in_refresh(struct fixture *f, uint64_t nested)
{
	struct refresh refresh = {.nested = nested, .n_ranges = 1};

	refresh.ranges[0] = (struct refresh_range){IOVA, PAGE};
	assert_refused(f, refresh_status(f, &refresh), REFUSAL_NOT_FOUND);
}

static void test_a_device(void **state)
{
	struct fixture *f = *state;
	struct full full = full_make(f);
	struct answer answer = revoke_fid(f, 1);

	assert_int_equal(answer.n, 1);
	assert_int_equal(answer.revoked[0].kind, REVOKED_DEVICE);
	assert_int_equal(answer.revoked[0].guest, f->guest);
	assert_int_equal(answer.revoked[0].device, full.nested_function.device);
	assert_int_equal(answer.revoked[0].info.fid, 1);
	assert_true(answer.revoked[0].still_held);
	assert_dead(f, &full.nested_function, IOVA);
	assert_gone_in_refresh(f, full.nested);
	assert_int_equal(function_write_byte(&full.relaxed_function, DMA_BASE + PAGE),
			 EMULATED_DMA_OK);
	assert_ledger_is_held(f->broker);
	assert_int_equal(host_usage(f, LEDGER_DEVICES).current, 1);
	assert_int_equal(revoke_fid(f, 1).n, 0);
	function_free(&full.nested_function);
	function_free(&full.relaxed_function);
	answer = revoke_fid(f, 2);
	assert_false(answer.revoked[0].still_held);
	assert_ledger_is_held(f->broker);
	assert_int_equal(host_usage(f, LEDGER_DEVICES).current, 0);
}

static void test_a_guest(void **state)
{
	struct fixture *f = *state;
	struct full full = full_make(f);
	struct answer answer = revoke_guest(f);
	struct event_watch *watch;

	assert_int_equal(answer.n, 1);
	assert_int_equal(answer.revoked[0].kind, REVOKED_GUEST);
	assert_int_equal(answer.revoked[0].devices, 2);
	assert_true(answer.revoked[0].still_held);
	assert_dead(f, &full.nested_function, IOVA);
	assert_dead(f, &full.relaxed_function, DMA_BASE + PAGE);
	assert_gone_in_refresh(f, full.nested);
	assert_refused(f,
		       event_watch_new(&watch, f->broker, f->session, f->guest, 0, NULL, NULL,
				       &f->refusal),
		       REFUSAL_NOT_FOUND);
	assert_ledger_empty(f);
	assert_int_equal(revoke_guest(f).n, 0);
	assert_false(session_closed(f->session));
	full_free(&full);
}

static void test_a_tenant(void **state)
{
	struct fixture *f = *state;
	struct full full = full_make(f);
	struct revoke_request request = {.what = REVOKE_TENANT, .tenant = "nobody"};
	uint64_t other;

	assert_done(f, guest_make(f, &other));
	assert_int_equal(revoke_as(f, &request).n, 0);
	snprintf(request.tenant, sizeof(request.tenant), "%s", session_tenant(f->session));
	assert_int_equal(revoke_as(f, &request).n, 2);
	assert_dead(f, &full.nested_function, IOVA);
	assert_ledger_empty(f);
	full_free(&full);
}

/* ── told ──────────────────────────────────────────────────────────────────────────────────── */

static void on_wake(void *context)
{
}

static void test_told_in_order(void **state)
{
	struct fixture *f = *state;
	struct full full = full_make(f);
	struct event_watch *watch;
	struct event event;

	assert_done(f, event_watch_new(&watch, f->broker, f->session, f->guest, 0, on_wake, NULL,
				       &f->refusal));
	while (event_watch_next(watch, &event) == 1)
		;
	revoke_fid(f, 1);
	revoke_guest(f);
	assert_int_equal(event_watch_next(watch, &event), 1);
	assert_int_equal(event.kind, EVENT_REVOKED);
	assert_int_equal(event.device, full.nested_function.device);
	assert_int_equal(event_watch_next(watch, &event), 1);
	assert_int_equal(event.kind, EVENT_REVOKED);
	assert_int_equal(event.device, 0);
	assert_int_equal(event_watch_next(watch, &event), 1);
	assert_int_equal(event.kind, EVENT_GUEST_GONE);
	event_watch_free(watch);
	full_free(&full);
}

/* ── what no rule gives ────────────────────────────────────────────────────────────────────── */

static struct broker_settings settings_with(const struct broker_device_rule *rules, size_t n)
{
	struct broker_settings settings = settings_default();

	settings.open_devices = false;
	settings.device_rules = rules;
	settings.n_device_rules = n;
	return settings;
}

static void test_unruled(void **state)
{
	const struct broker_device_rule strict = {.by_name = true, .n_fids = 1, .fids = {{2, 2}}};
	const struct revoke_request request = {.what = REVOKE_UNRULED};
	const struct broker_settings settings = settings_with(&strict, 1);
	const struct broker_settings open = settings_default();
	struct fixture *f = *state;
	struct full full = full_make(f);
	struct device_description description;
	struct answer answer;

	assert_int_equal(revoke_as(f, &request).n, 0);
	assert_int_equal(broker_set_settings(f->broker, &settings, NULL, NULL), 0);
	assert_string_equal(device_described(f, full.nested_function.device).rule, "");
	answer = revoke_as(f, &request);
	assert_int_equal(answer.n, 2);
	assert_int_equal(answer.revoked[0].kind, REVOKED_DEVICE);
	assert_int_equal(answer.revoked[0].info.fid, 1);
	assert_int_equal(answer.revoked[1].kind, REVOKED_RELAXED);
	assert_dead(f, &full.nested_function, IOVA);
	assert_int_not_equal(function_write_byte(&full.relaxed_function, DMA_BASE + PAGE),
			     EMULATED_DMA_OK);
	description = device_described(f, full.relaxed_function.device);
	assert_int_equal(description.attachment, ATTACHMENT_BLOCKED);
	assert_false(description.relaxed_granted);
	assert_ledger_is_held(f->broker);
	assert_int_equal(revoke_as(f, &request).n, 0);
	assert_int_equal(broker_set_settings(f->broker, &open, NULL, NULL), 0);
	full_free(&full);
}

/* ── drain ─────────────────────────────────────────────────────────────────────────────────── */

static void test_drain(void **state)
{
	struct fixture *f = *state;
	struct function bound = function_bind(f, 1), opened = function_open(f, 2);
	uint8_t secret[BROKER_SECRET_BYTES];
	struct session *session;
	uint64_t guest, device;
	int fd;

	assert_true(broker_set_draining(f->broker, true));
	assert_false(broker_set_draining(f->broker, true));
	assert_refused(f, session_new(&session, f->broker, &f->peer, "", secret, &f->refusal),
		       REFUSAL_BUSY);
	assert_string_equal(f->refusal.reason, "DRAINING");
	assert_true(f->refusal.retry_after_ms > 0);
	assert_refused(f, guest_make(f, &guest), REFUSAL_BUSY);
	assert_refused(f, device_open_fid(f, 3, &device, &fd), REFUSAL_BUSY);
	assert_refused(f, device_bind_plain(f, opened.device), REFUSAL_BUSY);
	assert_ledger_is_held(f->broker);
	assert_done(f, memory_unmap_one(f, 0, UINT64_MAX));
	assert_done(f, memory_map_one(f, f->memory_file, 0, 0, MEMORY_BYTES, true));
	assert_true(broker_set_draining(f->broker, false));
	assert_done(f, device_bind_plain(f, opened.device));
	assert_done(f, guest_make(f, &guest));
	function_free(&bound);
	function_free(&opened);
}

static struct broker *to_drain;

/* Once, while a guest is being made. */
static int drain_at_context(const char *call, const void *object)
{
	(void)object;
	if (to_drain && !strcmp(call, "context_new"))
		broker_set_draining(to_drain, true);
	return 0;
}

static void test_drain_while_a_guest_is_made(void **state)
{
	struct fixture *f = *state;
	uint64_t guest;

	to_drain = f->broker;
	backend_tap(f->backend, drain_at_context);
	assert_refused(f, guest_make(f, &guest), REFUSAL_BUSY);
	assert_ledger_is_held(f->broker);
	to_drain = NULL;
	assert_true(broker_set_draining(f->broker, false));
	assert_done(f, guest_make(f, &guest));
}

/* ── whatever fails ────────────────────────────────────────────────────────────────────────── */

static struct {
	_Atomic unsigned int countdown; /* 0: none fails */
	int error;
} backend_fault;

static int backend_fails(const char *call, const void *object)
{
	bool now = atomic_load(&backend_fault.countdown) &&
		   atomic_fetch_sub(&backend_fault.countdown, 1) == 1;

	return now ? backend_fault.error : 0;
}

/* The nth call of the backend fails, and nothing is left all the same. */
static void sweep(int error)
{
	unsigned int n = 0;

	do {
		struct broker_settings settings = settings_default();
		struct fixture f;
		struct full full;

		fixture_init_guest(&f, &settings);
		backend_tap(f.backend, backend_fails);
		full = full_make(&f);
		backend_fault.error = error;
		backend_fault.countdown = ++n;
		assert_int_equal(revoke_fid(&f, 1).n, 1);
		assert_dead(&f, &full.nested_function, IOVA);
		assert_ledger_is_held(f.broker);
		assert_int_equal(revoke_guest(&f).n, 1);
		assert_dead(&f, &full.relaxed_function, DMA_BASE + PAGE);
		assert_ledger_empty(&f);
		full_free(&full);
		fixture_deinit(&f);
	} while (!backend_fault.countdown);
	backend_fault.countdown = 0;
	assert_true(n > 8);
}

static void test_backend_fails(void **state)
{
	sweep(EIO);
	sweep(EBUSY);
}

/* Without memory it is refused as a whole, or it is done. */
static void test_no_memory(void **state)
{
	struct fixture *f = *state;
	struct full full = full_make(f);
	const struct revoke_request request = {.what = REVOKE_GUEST, .guest = f->guest};
	unsigned int n = 0, refused = 0;
	int status;

	do {
		struct answer answer = {.done = false};

		memory_fault_countdown = ++n;
		status = broker_revoke(f->broker, &request, on_done, &answer, &f->refusal);
		memory_fault_countdown = memory_fault_countdown ? UINT32_MAX / 2 : 0;
		if (status) {
			assert_refused(f, status, REFUSAL_HOST_RESOURCES);
			assert_int_equal(function_write_byte(&full.nested_function, IOVA),
					 EMULATED_DMA_OK);
			assert_ledger_is_held(f->broker);
			refused++;
			continue;
		}
		while (!answer.done)
			usleep(100);
		assert_int_equal(answer.n, 1);
	} while (status);
	memory_fault_countdown = 0;
	assert_true(refused >= 3);
	assert_ledger_empty(f);
	full_free(&full);
}

/* ── whatever runs ─────────────────────────────────────────────────────────────────────────── */

struct busy {
	struct fixture *f;
	atomic_bool stop;
	_Atomic unsigned int revoked;
};

static void *operate(void *context)
{
	struct busy *busy = context;
	struct fixture *f = busy->f;
	const struct revoke_request requests[] = {
		{.what = REVOKE_DEVICE, .device = {.by_fid = true, .fid = 1}},
		{.what = REVOKE_UNRULED},
		{.what = REVOKE_DEVICE, .device = {.by_fid = true, .fid = 2}},
		{.what = REVOKE_TENANT},
	};
	struct refusal refusal;

	for (unsigned int turn = 0; !busy->stop; turn++) {
		struct revoke_request request = requests[turn % 16 == 15 ? 3 : turn % 3];
		struct answer answer = {.done = false};

		snprintf(request.tenant, sizeof(request.tenant), "%s", session_tenant(f->session));
		assert_int_equal(broker_revoke(f->broker, &request, on_done, &answer, &refusal), 0);
		while (!answer.done)
			usleep(50);
		busy->revoked += (unsigned int)answer.n;
	}
	return NULL;
}

/* On its guest's lane, as rpc/ does. */
static void with_lane(struct fixture *f, uint64_t handle, void (*act)(struct fixture *, uint64_t))
{
	struct pool_lane *lane = broker_lane(f->broker, f->session, handle);

	if (!lane)
		return;
	pool_lane_enter(lane);
	act(f, handle);
	pool_lane_leave(broker_pool(f->broker), lane);
	pool_lane_unref(lane);
}

static void act_device(struct fixture *f, uint64_t guest)
{
	struct device_open_request request = {.consume_fd = -1, .address = {.by_fid = true}};
	struct device_description description;
	struct nested_create_request create = {
		.attach = true, .first = DMA_BASE, .last = WINDOW, .format = NESTED_MANAGED};
	struct nested_created created;
	struct refusal refusal;
	uint64_t device;
	int fd;

	request.address.fid = 1 + guest % 2;
	if (device_open(f->broker, f->session, guest, &request, &device, &fd, &refusal))
		return;
	close(fd);
	if (device_bind(f->broker, f->session, device, NULL, NULL, &description, &refusal))
		return;
	create.device = device;
	nested_create(f->broker, f->session, &create, &created, &refusal);
}

static void act_destroy(struct fixture *f, uint64_t guest)
{
	struct refusal refusal;

	guest_destroy(f->broker, f->session, guest, &refusal);
}

static void test_while_others_work(void **state)
{
	struct fixture *f = *state;
	struct busy busy = {.f = f};
	pthread_t operators[2];

	with_lane(f, f->guest, act_destroy);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&operators[i], NULL, operate, &busy), 0);
	for (int round = 0; round < 4000 && (round < 120 || !busy.revoked); round++) {
		uint64_t guest;

		if (guest_make(f, &guest))
			continue;
		with_lane(f, guest, act_device);
		with_lane(f, guest, act_device);
		if (round % 2)
			with_lane(f, guest, act_destroy);
	}
	busy.stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(operators[i], NULL);
	assert_true(busy.revoked > 0);
	revoke_as(f, &(struct revoke_request){.what = REVOKE_TENANT});
	assert_ledger_is_held(f->broker);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, device_setup, device_teardown)
	const struct CMUnitTest tests[] = {
		T(test_a_device),
		T(test_a_guest),
		T(test_a_tenant),
		T(test_told_in_order),
		T(test_unruled),
		T(test_drain),
		T(test_drain_while_a_guest_is_made),
		cmocka_unit_test(test_backend_fails),
		T(test_no_memory),
		T(test_while_others_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
