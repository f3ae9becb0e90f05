/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The native transport against clients that break its rules, that do not read, that are too many.
 */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "google/rpc/error_details.pb-c.h"
#include "native_fixture.h"
#include "util/clock.h"

/* ── abuse ────────────────────────────────────────────────────────────────────────────────── */

static void test_malformed_headers(void **state)
{
	static const uint8_t reserved[16] = {101, 0, 0, 0, 1};
	int socket;

	(void)state;
	for (size_t n = 1; n < 16; n += 7) {
		socket = fixture_connect(&fixture);
		client_send_bytes(socket, reserved, n, NULL, 0);
		assert_ended(socket);
		close(socket);
	}
	socket = fixture_connect(&fixture);
	client_send_bytes(socket, reserved, 16, NULL, 0);
	assert_ended(socket);
	close(socket);
	socket = fixture_connect(&fixture);
	client_send_bytes(socket, reserved, 0, NULL, 0);
	assert_ended(socket);
	close(socket);
	assert_serves();
}

static void test_unknown_methods(void **state)
{
	static const uint32_t numbers[] = {0, 5, 100, 107, 999, UINT32_MAX, M(ADMIN_GET_STATUS)};
	int socket = fixture_connect(&fixture);
	struct reply reply;

	(void)state;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		client_send_raw(socket, numbers[i], i, NULL, 0, NULL, 0);
		client_receive(socket, &reply, NULL);
		assert_int_equal(reply.code, 12);
		assert_int_equal(reply.method, numbers[i]);
		reply_clear(&reply);
	}
	close(socket);
}

static void test_packet_over_the_limit(void **state)
{
	uint8_t *bytes = calloc(1, NATIVE_PACKET_BYTES_MAX);
	int socket = fixture_connect(&fixture);
	struct reply reply;

	(void)state;
	/* exactly the limit is a packet: unknown fields, refused as too complex or not, but served
	 */
	memset(bytes, 0x0a, NATIVE_PACKET_BYTES_MAX);
	client_send_raw(socket, M(GET_INFO), 1, bytes, NATIVE_PACKET_BYTES_MAX - 16, NULL, 0);
	client_receive(socket, &reply, NULL);
	assert_false(reply.ended);
	reply_clear(&reply);
	client_send_raw(socket, M(GET_INFO), 1, bytes, NATIVE_PACKET_BYTES_MAX - 15, NULL, 0);
	assert_ended(socket);
	close(socket);
	free(bytes);
	assert_serves();
}

static void test_unexpected_descriptors(void **state)
{
	static const struct {
		uint32_t method;
		size_t n_fds;
	} bad[] = {
		{M(GET_INFO), 1},        {M(REFRESH_NESTED), 1}, {M(ADD_MEMORY_FILE), 2},
		{M(SEND_DESCRIPTOR), 2}, {M(CANCEL_CALL), 1},    {4711, 1},
		{M(DELEGATE), 8},        {M(DELEGATE), 9},       {M(SEND_DESCRIPTOR), 60},
	};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), fds[60];
	size_t before = open_descriptors();

	(void)state;
	for (size_t i = 0; i < 60; i++)
		fds[i] = fd;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int socket = fixture_open_session(&fixture, NULL);

		client_send_raw(socket, bad[i].method, 9, NULL, 0, fds, bad[i].n_fds);
		assert_ended(socket);
		close(socket);
	}
	wait_for_count(&fake.closed, sizeof(bad) / sizeof(bad[0]));
	wait_for_descriptors(before);
	close(fd);
	assert_serves();
}

static void test_call_number_in_use(void **state)
{
	Iommubroker__V1__WatchEventsRequest watch = IOMMUBROKER__V1__WATCH_EVENTS_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	watch.guest = 1;
	client_send(socket, M(WATCH_EVENTS), 5, &watch);
	client_send(socket, M(WATCH_EVENTS), 5, &watch);
	for (;;) {
		struct reply reply;
		bool ended;

		client_receive(socket, &reply, NULL);
		ended = reply.ended;
		reply_clear(&reply);
		if (ended)
			break;
	}
	close(socket);
	wait_for_count(&fake.watches, 0);
	assert_serves();
}

static void test_calls_in_flight_are_few(void **state)
{
	Iommubroker__V1__WatchEventsRequest watch = IOMMUBROKER__V1__WATCH_EVENTS_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);
	struct reply reply;

	(void)state;
	watch.guest = 1;
	for (uint64_t i = 0; i < 64; i++)
		client_send(socket, M(WATCH_EVENTS), i, &watch);
	wait_for_count(&fake.watches, 64);
	client_send(socket, M(WATCH_EVENTS), 64, &watch);
	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.call, 64);
	assert_int_equal(reply.code, 8);
	reply_clear(&reply);
	/* one that ends makes room for another */
	client_send_raw(socket, M(CANCEL_CALL), 0, NULL, 0, NULL, 0);
	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.call, 0);
	reply_clear(&reply);
	client_send(socket, M(WATCH_EVENTS), 65, &watch);
	wait_for_count(&fake.watches, 64);
	close(socket);
	wait_for_count(&fake.watches, 0);
}

/* Who asks and never reads is dropped, at a bounded cost; whom it watches does not notice. */
static void test_client_that_does_not_read(void **state)
{
	int socket = fixture_open_session(&fixture, NULL);
	uint64_t i;

	(void)state;
	assert_int_equal(fcntl(socket, F_SETFL, O_NONBLOCK), 0);
	for (i = 0; fake.closed == 0; i++) {
		uint8_t header[16] = {101};

		memcpy(header + 8, &i, sizeof(i));
		if (send(socket, header, sizeof(header), MSG_NOSIGNAL) < 0)
			sched_yield();
	}
	close(socket);
	assert_serves();
}

static bool send_now(int socket, uint64_t call)
{
	uint8_t bytes[16] = {0};

	memcpy(bytes, &(uint32_t){htole32(M(GET_INFO))}, 4);
	memcpy(bytes + 8, &(uint64_t){htole64(call)}, 8);
	return send(socket, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(bytes);
}

/* Until the daemon has read all that it is going to read. */
static uint64_t send_until_stopped(int socket, uint64_t first)
{
	uint64_t call = first;
	int quiet = 0;

	while (quiet < 3) {
		if (send_now(socket, call)) {
			call++;
			quiet = 0;
			continue;
		}
		settle();
		settle();
		quiet++;
	}
	return call;
}

/* Where its tenant has no room for the answers that it does not read, a connection is not read from
 * either, and every answer comes once it reads again: none is lost, and what it holds is bounded.
 */
static void test_answers_are_charged(void **state)
{
	int socket = fixture_open_session(&fixture, NULL), other;
	uint64_t calls, used;
	struct reply reply;

	(void)state;
	fake.max[LEDGER_QUEUED_BYTES] = 20000;
	calls = send_until_stopped(socket, 10);
	used = fake.used[LEDGER_QUEUED_BYTES];
	assert_in_range(used, 10000, 20000);
	other = fixture_open_session(&fixture, NULL); /* the host has no room for anybody */
	for (uint64_t call = 10; call < calls; call++) {
		client_receive(socket, &reply, NULL);
		assert_false(reply.ended);
		assert_int_equal(reply.call, call);
		assert_int_equal(reply.code, 0);
		reply_clear(&reply);
	}
	assert_true(calls > 300); /* more than an outbox takes */
	settle();
	assert_int_equal(fake.used[LEDGER_QUEUED_BYTES], 0);
	calls = send_until_stopped(socket, calls);
	assert_true(fake.used[LEDGER_QUEUED_BYTES] > 0);
	close(socket);
	while (fake.used[LEDGER_QUEUED_BYTES] || fake.used[LEDGER_CONNECTIONS] > 1)
		sched_yield();
	close(other);
	fake.max[LEDGER_QUEUED_BYTES] = 0;
}

/* A stream is held back instead: nothing of it is lost, and its connection stays. */
static void test_stream_waits_for_its_reader(void **state)
{
	enum { EVENTS = 5000 };
	Iommubroker__V1__WatchEventsRequest watch = IOMMUBROKER__V1__WATCH_EVENTS_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	watch.guest = 1;
	client_send(socket, M(WATCH_EVENTS), 5, &watch);
	wait_for_count(&fake.watches, 1);
	fake_event_emit(EVENTS);
	settle();
	for (uint64_t i = 1; i <= EVENTS; i++) {
		struct reply reply;

		client_receive(socket, &reply, &iommubroker__v1__event__descriptor);
		assert_false(reply.ended);
		assert_int_equal(((Iommubroker__V1__Event *)reply.message)->sequence, i);
		reply_clear(&reply);
	}
	close(socket);
}

/* No descriptor left for what a client attaches: its connection ends, nothing else. */
static void test_out_of_descriptors(void **state)
{
	int socket = fixture_open_session(&fixture, NULL), fd = open("/dev/null", O_RDONLY), fds[8];
	struct rlimit old, tight;

	(void)state;
	for (size_t i = 0; i < 8; i++)
		fds[i] = fd;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	tight = old;
	tight.rlim_cur = (rlim_t)fd + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	client_send_raw(socket, M(SEND_DESCRIPTOR), 1, NULL, 0, fds, 1);
	assert_ended(socket);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	close(socket);
	close(fd);
	assert_serves();
}

static void test_who_may_not_connect(void **state)
{
	struct peer stranger = fixture.peer;
	int socket;

	(void)state;
	stranger.uid = 4000;
	stranger.gid = 4000;
	if (geteuid() == 4000)
		skip();
	socket = fixture_connect_as(&fixture, &stranger);
	assert_ended(socket);
	close(socket);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_malformed_headers),         T(test_unknown_methods),
		T(test_packet_over_the_limit),     T(test_unexpected_descriptors),
		T(test_call_number_in_use),        T(test_calls_in_flight_are_few),
		T(test_client_that_does_not_read), T(test_stream_waits_for_its_reader),
		T(test_answers_are_charged),       T(test_out_of_descriptors),
		T(test_who_may_not_connect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
