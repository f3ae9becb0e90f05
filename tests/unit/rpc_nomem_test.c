/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Want of memory at every place of a call in turn: its client is told so or loses its connection,
 * the daemon lives, others are served, and nothing leaks. And the refresh path, which takes none.
 *
 * malloc() and its like are wrapped by the linker for our own objects, and handed to libevent.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc_fixture.h"

/* ── failing allocations ──────────────────────────────────────────────────────────────────── */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

static _Thread_local bool is_client; /* the test's own thread: never failed, never counted */
static atomic_long allocations, fail_from = -1, fail_to = -1;

static bool fails(void)
{
	long nth;

	if (is_client)
		return false;
	nth = atomic_fetch_add(&allocations, 1);
	return nth >= atomic_load(&fail_from) && nth < atomic_load(&fail_to);
}

void *__wrap_malloc(size_t bytes)
{
	return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
	return fails() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	return fails() ? NULL : __real_realloc(old, bytes);
}

static void nothing(void *context)
{
	(void)context;
}

static void settle(void)
{
	fixture_on_loop(&fixture, nothing, NULL);
	fixture_on_loop(&fixture, nothing, NULL);
}

static void arm(long from, long n)
{
	settle();
	atomic_store(&allocations, 0);
	atomic_store(&fail_to, from + n);
	atomic_store(&fail_from, from);
}

/* Whether the first of them was reached. */
static bool disarm(void)
{
	bool reached;

	settle();
	reached = atomic_load(&allocations) > atomic_load(&fail_from);
	atomic_store(&fail_to, -1);
	return reached;
}

static int setup(void **state)
{
	is_client = true;
	return fixture_setup(state);
}

/* ── the calls ────────────────────────────────────────────────────────────────────────────── */

/* FAILED_PRECONDITION: a repeated request whose first answer could not be kept. */
static int also_fine;

/* Until its end: told, refused for want of memory, or without a connection. */
static bool await(int socket, uint64_t call)
{
	for (;;) {
		struct reply reply;
		bool ended, done;
		int code;

		client_receive(socket, &reply, NULL);
		ended = reply.ended;
		done = !reply.more && reply.call == call;
		code = reply.code;
		reply_clear(&reply);
		if (ended)
			return false;
		if (!done)
			continue;
		assert_true(code == 0 || code == 8 || code == also_fine);
		return true;
	}
}

static void call_open_session(int socket)
{
	Iommubroker__V1__OpenSessionRequest request = IOMMUBROKER__V1__OPEN_SESSION_REQUEST__INIT;

	client_send(socket, M(OPEN_SESSION), 1, &request);
	await(socket, 1);
}

static void call_create_guest(int socket)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__CreateGuestRequest__LabelsEntry label =
		IOMMUBROKER__V1__CREATE_GUEST_REQUEST__LABELS_ENTRY__INIT;
	Iommubroker__V1__CreateGuestRequest__LabelsEntry *labels = &label;

	label.key = (char *)"key";
	request.n_labels = 1;
	request.labels = &labels;
	request.request_id = 5;
	client_send(socket, M(CREATE_GUEST), 1, &request);
	if (await(socket, 1)) {
		client_send(socket, M(CREATE_GUEST), 2, &request);
		client_send(socket, M(CREATE_GUEST), 3, &request);
		if (await(socket, 2))
			await(socket, 3);
	}
}

static void call_update_memory(int socket)
{
	Iommubroker__V1__UpdateMemoryRequest request = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	Iommubroker__V1__UpdateMemoryRequest__Map map =
		IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__INIT;
	Iommubroker__V1__UpdateMemoryRequest__Map *maps[512];

	map.source_case = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__SOURCE_MEMORY_FILE;
	map.memory_file = 1;
	map.access = IOMMUBROKER__V1__ACCESS__ACCESS_READ;
	for (size_t i = 0; i < 512; i++)
		maps[i] = &map;
	request.guest = 1;
	request.n_map = 512;
	request.map = maps;
	client_send(socket, M(UPDATE_MEMORY), 1, &request);
	await(socket, 1);
}

static void call_open_device(int socket)
{
	Iommubroker__V1__OpenDeviceRequest request = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;

	request.guest = 1;
	request.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_FUNCTION_ID;
	client_send(socket, M(OPEN_DEVICE), 1, &request);
	await(socket, 1);
}

static void call_send_descriptor(int socket)
{
	client_send_raw(socket, M(SEND_DESCRIPTOR), 1, NULL, 0, &socket, 1);
	await(socket, 1);
}

static void call_describe(int socket)
{
	Iommubroker__V1__DescribeGuestRequest request =
		IOMMUBROKER__V1__DESCRIBE_GUEST_REQUEST__INIT;

	request.guest = 1;
	client_send(socket, M(DESCRIBE_GUEST), 1, &request);
	await(socket, 1);
}

static void call_watch(int socket)
{
	Iommubroker__V1__WatchEventsRequest request = IOMMUBROKER__V1__WATCH_EVENTS_REQUEST__INIT;
	Iommubroker__V1__GetUsageRequest usage = IOMMUBROKER__V1__GET_USAGE_REQUEST__INIT;

	request.guest = 1;
	client_send(socket, M(WATCH_EVENTS), 1, &request);
	client_send(socket, M(GET_USAGE), 2, &usage);
	await(socket, 2);
	fake_event_emit(2);
	fake_guest_gone();
	/* ends by itself, was refused, or its connection is gone */
	client_send_raw(socket, M(CANCEL_CALL), 1, NULL, 0, NULL, 0);
}

static void call_close_session(int socket)
{
	Iommubroker__V1__CloseSessionRequest request = IOMMUBROKER__V1__CLOSE_SESSION_REQUEST__INIT;

	client_send(socket, M(CLOSE_SESSION), 1, &request);
	await(socket, 1);
}

static void refresh(int socket, size_t n)
{
	Iommubroker__V1__RefreshNestedRequest request =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__INIT;
	Iommubroker__V1__RefreshNestedRequest__Range range =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__RANGE__INIT;
	Iommubroker__V1__RefreshNestedRequest__Range *ranges[256];

	for (size_t i = 0; i < n; i++)
		ranges[i] = &range;
	request.nested = 1;
	request.n_ranges = n;
	request.ranges = ranges;
	client_send(socket, M(REFRESH_NESTED), 1, &request);
	await(socket, 1);
}

static void call_refresh(int socket)
{
	refresh(socket, 256);
}

/* ── the sweep ────────────────────────────────────────────────────────────────────────────── */

static void assert_serves(void)
{
	int socket = fixture_open_session(&fixture, NULL);

	refresh(socket, 1);
	close(socket);
}

/* Fail the nth allocation, and then all from the nth on, for every n that the call reaches. */
static void sweep(void (*call)(int socket), bool with_session)
{
	for (long together = 1; together <= 1000; together += 999) {
		bool reached = true;
		long n;

		for (n = 0; reached; n++) {
			int socket = with_session ? fixture_open_session(&fixture, NULL)
						  : fixture_connect(&fixture);

			arm(n, together);
			call(socket);
			reached = disarm();
			close(socket);
			assert_true(n < 1000);
		}
		assert_true(n > 1); /* something was failed */
		assert_serves();
	}
}

static void test_open_session(void **state)
{
	(void)state;
	sweep(call_open_session, false);
}

static void test_create_guest(void **state)
{
	(void)state;
	also_fine = 9;
	sweep(call_create_guest, true);
	also_fine = 0;
}

static void test_update_memory(void **state)
{
	(void)state;
	sweep(call_update_memory, true);
}

static void test_open_device(void **state)
{
	(void)state;
	sweep(call_open_device, true);
}

static void test_send_descriptor(void **state)
{
	(void)state;
	sweep(call_send_descriptor, true);
}

static void test_describe(void **state)
{
	(void)state;
	sweep(call_describe, true);
}

static void test_watch(void **state)
{
	(void)state;
	sweep(call_watch, true);
}

static void test_close_session(void **state)
{
	(void)state;
	sweep(call_close_session, true);
}

static void test_refresh(void **state)
{
	(void)state;
	sweep(call_refresh, true);
}

static void test_connect(void **state)
{
	Iommubroker__V1__GetInfoRequest request = IOMMUBROKER__V1__GET_INFO_REQUEST__INIT;
	bool reached = true;
	long n;

	(void)state;
	for (n = 0; reached; n++) {
		struct reply reply;
		int socket;

		arm(n, 1);
		socket = fixture_connect(&fixture);
		client_call(socket, M(GET_INFO), &request, &reply, NULL);
		assert_true(reply.ended || reply.code == 0 || reply.code == 8);
		reply_clear(&reply);
		reached = disarm();
		close(socket);
	}
	assert_true(n > 1);
	assert_serves();
}

/* Once its connection and the pool of calls are warm, a refresh of few ranges allocates nothing. */
static void test_refresh_allocates_nothing(void **state)
{
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	refresh(socket, 1);
	arm(1000000, 0);
	for (size_t i = 0; i < 50; i++)
		refresh(socket, 1 + i % 4);
	settle();
	assert_int_equal(atomic_load(&allocations), 0);
	disarm();
	close(socket);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_connect),
		T(test_open_session),
		T(test_create_guest),
		T(test_update_memory),
		T(test_open_device),
		T(test_send_descriptor),
		T(test_describe),
		T(test_watch),
		T(test_close_session),
		T(test_refresh),
		T(test_refresh_allocates_nothing),
	};

	event_set_mem_functions(__wrap_malloc, __wrap_realloc, free);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
