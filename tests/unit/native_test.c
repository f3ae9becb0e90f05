/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The native transport as its clients see it.
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
#include "rpc/descriptor_drop.h"
#include "native_fixture.h"
#include "util/clock.h"

/* ── as it should be ──────────────────────────────────────────────────────────────────────── */

static void test_session_is_the_connection(void **state)
{
	Iommubroker__V1__ListGuestsRequest list = IOMMUBROKER__V1__LIST_GUESTS_REQUEST__INIT;
	Iommubroker__V1__OpenSessionRequest open = IOMMUBROKER__V1__OPEN_SESSION_REQUEST__INIT;
	int socket = fixture_connect(&fixture);
	struct reply reply;

	(void)state;
	client_call(socket, M(LIST_GUESTS), &list, &reply, NULL);
	assert_int_equal(reply.code, 16);
	reply_clear(&reply);
	client_call(socket, M(OPEN_SESSION), &open, &reply, NULL);
	assert_int_equal(reply.code, 0);
	reply_clear(&reply);
	client_call(socket, M(LIST_GUESTS), &list, &reply,
		    &iommubroker__v1__list_guests_response__descriptor);
	assert_int_equal(reply.code, 0);
	assert_int_equal(((Iommubroker__V1__ListGuestsResponse *)reply.message)->n_guests, 3);
	reply_clear(&reply);
	client_call(socket, M(OPEN_SESSION), &open, &reply, NULL);
	assert_int_equal(reply.code, 9);
	reply_clear(&reply);
	assert_int_equal(fake.sessions, 1);
	close(socket);
	wait_for_count(&fake.closed, 1);
}

static void test_join_session(void **state)
{
	Iommubroker__V1__JoinSessionRequest join = IOMMUBROKER__V1__JOIN_SESSION_REQUEST__INIT;
	uint8_t secret[BROKER_SECRET_BYTES];
	int first = fixture_open_session(&fixture, secret), second = fixture_connect(&fixture);
	struct reply reply;

	(void)state;
	join.secret = (ProtobufCBinaryData){15, secret};
	client_call(second, M(JOIN_SESSION), &join, &reply, NULL);
	assert_int_equal(reply.code, 16);
	reply_clear(&reply);
	join.secret.len = 16;
	client_call(second, M(JOIN_SESSION), &join, &reply, NULL);
	assert_int_equal(reply.code, 9); /* it has a connection */
	reply_clear(&reply);
	close(first);
	wait_for_count(&fake.closed, 1);
	client_call(second, M(JOIN_SESSION), &join, &reply, NULL);
	assert_int_equal(reply.code, 16); /* it ended with its connection */
	reply_clear(&reply);
	close(second);
}

static void test_join_from_another_process(void **state)
{
	Iommubroker__V1__JoinSessionRequest join = IOMMUBROKER__V1__JOIN_SESSION_REQUEST__INIT;
	uint8_t secret[BROKER_SECRET_BYTES];
	int first = fixture_open_session(&fixture, secret), second;
	struct peer other = fixture.peer;
	struct reply reply;

	(void)state;
	other.pid = 1;
	second = fixture_connect_as(&fixture, &other);
	join.secret = (ProtobufCBinaryData){16, secret};
	client_call(second, M(JOIN_SESSION), &join, &reply, NULL);
	assert_int_equal(reply.code, 16);
	reply_clear(&reply);
	close(first);
	close(second);
}

/* Progress, then the answer; over the same call number. */
static void test_progress(void **state)
{
	Iommubroker__V1__BindDeviceRequest request = IOMMUBROKER__V1__BIND_DEVICE_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);
	Iommubroker__V1__BindDeviceResponse *response;
	struct reply reply;

	(void)state;
	request.device = 1;
	client_send(socket, M(BIND_DEVICE), 7, &request);
	client_receive(socket, &reply, &iommubroker__v1__bind_device_response__descriptor);
	assert_true(reply.more);
	assert_int_equal(reply.call, 7);
	response = reply.message;
	assert_int_equal(response->update_case,
			 IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__UPDATE_PROGRESS);
	assert_int_equal(response->progress->done_bytes, 5);
	assert_int_equal(response->progress->total_bytes, 10);
	reply_clear(&reply);
	client_receive(socket, &reply, &iommubroker__v1__bind_device_response__descriptor);
	assert_false(reply.more);
	assert_int_equal(reply.call, 7);
	response = reply.message;
	assert_string_equal(response->done->pci_address, "0000:00:04.0");
	reply_clear(&reply);
	close(socket);
}

/* A quick call overtakes a slow one. */
static void test_out_of_order(void **state)
{
	Iommubroker__V1__UpdateMemoryRequest update = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	Iommubroker__V1__ListGuestsRequest list = IOMMUBROKER__V1__LIST_GUESTS_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);
	struct reply reply;

	(void)state;
	fake.hold_updates = true;
	update.guest = 1;
	client_send(socket, M(UPDATE_MEMORY), UINT64_MAX, &update);
	client_receive(socket, &reply, NULL); /* progress */
	assert_true(reply.more && reply.call == UINT64_MAX);
	reply_clear(&reply);
	client_send(socket, M(LIST_GUESTS), 0, &list);
	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.call, 0);
	reply_clear(&reply);
	fake.hold_updates = false;
	client_receive(socket, &reply, NULL);
	assert_true(reply.call == UINT64_MAX && !reply.more);
	reply_clear(&reply);
	close(socket);
}

static void test_descriptor_in(void **state)
{
	/* guest 1, descriptor { attached: 0 } */
	static const uint8_t request[] = "\x11\x01\0\0\0\0\0\0\0\x1a\x02\x08\x00";
	int socket = fixture_open_session(&fixture, NULL), fd = memfd_create("file", MFD_CLOEXEC);
	size_t before = open_descriptors();
	struct reply reply;

	(void)state;
	assert_int_equal(ftruncate(fd, 12288), 0);
	client_send_raw(socket, M(ADD_MEMORY_FILE), 1, request, sizeof(request) - 1, &fd, 1);
	client_receive(socket, &reply, &iommubroker__v1__add_memory_file_response__descriptor);
	assert_int_equal(reply.code, 0);
	assert_int_equal(((Iommubroker__V1__AddMemoryFileResponse *)reply.message)->length, 12288);
	reply_clear(&reply);
	/* named, and not there */
	client_send_raw(socket, M(ADD_MEMORY_FILE), 2, request, sizeof(request) - 1, NULL, 0);
	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.code, 3);
	reply_clear(&reply);
	/* there, and refused for something else: closed */
	client_send_raw(socket, M(ADD_MEMORY_FILE), 3, request + 9, sizeof(request) - 10, &fd, 1);
	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.code, 3);
	reply_clear(&reply);
	wait_for_descriptors(before);
	close(fd);
	close(socket);
}

static void test_descriptor_out(void **state)
{
	Iommubroker__V1__OpenDeviceRequest request = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);
	size_t before = open_descriptors();
	Iommubroker__V1__OpenDeviceResponse *response;
	struct reply reply;

	(void)state;
	request.request_id = 3;
	request.guest = 1;
	request.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_FUNCTION_ID;
	client_call(socket, M(OPEN_DEVICE), &request, &reply,
		    &iommubroker__v1__open_device_response__descriptor);
	assert_int_equal(reply.n_fds, 1);
	response = reply.message;
	assert_int_equal(response->descriptor->source_case,
			 IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED);
	assert_int_equal(response->descriptor->attached, 0);
	assert_true(fcntl(reply.fds[0], F_GETFD) & FD_CLOEXEC);
	reply_clear(&reply);
	client_call(socket, M(OPEN_DEVICE), &request, &reply,
		    &iommubroker__v1__open_device_response__descriptor);
	assert_int_equal(reply.n_fds, 0);
	response = reply.message;
	assert_int_equal(response->device, 21);
	assert_null(response->descriptor);
	reply_clear(&reply);
	wait_for_descriptors(before);
	close(socket);
}

/* A descriptor sent ahead, as for a gRPC call, then used once by its token. */
static void test_send_descriptor(void **state)
{
	Iommubroker__V1__AddMemoryFileRequest add = IOMMUBROKER__V1__ADD_MEMORY_FILE_REQUEST__INIT;
	Iommubroker__V1__TakeDescriptorRequest take =
		IOMMUBROKER__V1__TAKE_DESCRIPTOR_REQUEST__INIT;
	Iommubroker__V1__DescriptorRef ref = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	int socket = fixture_open_session(&fixture, NULL), fd = memfd_create("file", MFD_CLOEXEC);
	struct reply reply;

	(void)state;
	client_send_raw(socket, M(SEND_DESCRIPTOR), 1, NULL, 0, NULL, 0);
	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.code, 3);
	reply_clear(&reply);
	client_send_raw(socket, M(SEND_DESCRIPTOR), 2, NULL, 0, &fd, 1);
	client_receive(socket, &reply, &iommubroker__v1__send_descriptor_response__descriptor);
	assert_int_equal(reply.code, 0);
	ref.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_TOKEN;
	ref.token = ((Iommubroker__V1__SendDescriptorResponse *)reply.message)->token;
	assert_true(ref.token != 0);
	reply_clear(&reply);
	/* for requests only: closing it once an answer is away could make the loop wait */
	take.token = ref.token;
	client_call(socket, M(TAKE_DESCRIPTOR), &take, &reply, NULL);
	assert_int_equal(reply.code, 5);
	reply_clear(&reply);
	add.guest = 1;
	add.descriptor = &ref;
	client_call(socket, M(ADD_MEMORY_FILE), &add, &reply, NULL);
	assert_int_equal(reply.code, 0);
	reply_clear(&reply);
	client_call(socket, M(ADD_MEMORY_FILE), &add, &reply, NULL);
	assert_int_equal(reply.code, 3);
	reply_clear(&reply);
	close(fd);
	close(socket);
}

static void test_waiting_descriptors_are_few(void **state)
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	size_t outset = open_descriptors(), before;
	int socket = fixture_open_session(&fixture, NULL);
	struct reply reply;

	(void)state;
	before = open_descriptors();
	for (uint64_t i = 0; i < 17; i++) {
		client_send_raw(socket, M(SEND_DESCRIPTOR), i, NULL, 0, &fd, 1);
		client_receive(socket, &reply, NULL);
		assert_int_equal(reply.code, i < 16 ? 0 : 8);
		reply_clear(&reply);
	}
	wait_for_descriptors(before + 16);
	close(socket);
	wait_for_descriptors(outset);
	close(fd);
}

/* Wait for an answer of that code; what comes before is progress of other calls. */
static void receive_code(int socket, int wanted)
{
	struct reply reply;

	for (int code = 0; code != wanted;) {
		client_receive(socket, &reply, NULL);
		assert_false(reply.ended);
		code = reply.code;
		reply_clear(&reply);
	}
}

/* close() may wait for whoever made the file: that is never the loop's time, and at most its
 * sender's share of the pool. */
static void test_descriptors_are_closed_by_the_pool(void **state)
{
	Iommubroker__V1__UpdateMemoryRequest update = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL), other;
	int fd = memfd_create("file", MFD_CLOEXEC);
	size_t before = open_descriptors();

	(void)state;
	fake.hold_updates = true;
	update.guest = FAKE_NO_LANE;
	for (uint64_t i = 0; i < FAKE_SHARE; i++)
		client_send(socket, M(UPDATE_MEMORY), i, &update);
	wait_for_count(&fake.updating, FAKE_SHARE);
	/* refused, since nothing names the descriptor */
	client_send_raw(socket, M(ADD_MEMORY_FILE), 100, NULL, 0, &fd, 1);
	receive_code(socket, 3);
	assert_int_equal(open_descriptors(), before + 1);
	other = fixture_open_session(&fixture, NULL); /* the loop is free */
	close(other);
	fake.hold_updates = false;
	wait_for_descriptors(before);
	close(fd);
	close(socket);
}

/* The number of the next call that comes to its end. */
static uint64_t receive_last(int socket)
{
	struct reply reply;
	uint64_t call;
	bool more;

	do {
		client_receive(socket, &reply, NULL);
		assert_false(reply.ended);
		call = reply.call;
		more = reply.more;
		reply_clear(&reply);
	} while (more);
	return call;
}

/* A guest of thousands of regions is described at its tenant's expense: on the pool, never on the
 * loop that carries everybody's refreshes. */
static void test_guests_are_described_by_the_pool(void **state)
{
	Iommubroker__V1__DescribeGuestRequest describe =
		IOMMUBROKER__V1__DESCRIBE_GUEST_REQUEST__INIT;
	Iommubroker__V1__UpdateMemoryRequest update = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	Iommubroker__V1__ListGuestsRequest list = IOMMUBROKER__V1__LIST_GUESTS_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	fake.hold_updates = true;
	update.guest = FAKE_NO_LANE;
	for (uint64_t i = 0; i < FAKE_SHARE; i++)
		client_send(socket, M(UPDATE_MEMORY), i, &update);
	wait_for_count(&fake.updating, FAKE_SHARE);
	describe.guest = 1;
	client_send(socket, M(DESCRIBE_GUEST), 100, &describe);
	client_send(socket, M(LIST_GUESTS), 101, &list);
	assert_int_equal(receive_last(socket), 101);
	fake.hold_updates = false;
	while (receive_last(socket) != 100)
		;
	close(socket);
}

/* Whoever keeps the pool from closing has only so many descriptors here: more are not received. */
static void test_descriptors_do_not_pile_up(void **state)
{
	Iommubroker__V1__UpdateMemoryRequest update = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL), other;
	int fd = memfd_create("file", MFD_CLOEXEC), fds[8] = {fd, fd, fd, fd, fd, fd, fd, fd};
	size_t before = open_descriptors();
	struct reply reply;

	(void)state;
	fake.hold_updates = true;
	update.guest = FAKE_NO_LANE;
	for (uint64_t i = 0; i < FAKE_SHARE; i++)
		client_send(socket, M(UPDATE_MEMORY), i, &update);
	wait_for_count(&fake.updating, FAKE_SHARE);
	for (size_t i = 0; i < DESCRIPTORS_DROPPING_MAX; i++) {
		client_send_raw(socket, M(ADD_MEMORY_FILE), 100 + i, NULL, 0, &fd, 1);
		receive_code(socket, 3);
	}
	assert_int_equal(open_descriptors(), before + DESCRIPTORS_DROPPING_MAX);
	/* one packet more with descriptors ends the connection, and brings none */
	client_send_raw(socket, M(ADD_MEMORY_FILE), 9999, NULL, 0, fds, 8);
	do
		client_receive(socket, &reply, NULL);
	while (!reply.ended && (reply_clear(&reply), true));
	assert_true(open_descriptors() <= before + DESCRIPTORS_DROPPING_MAX);
	other = fixture_open_session(&fixture, NULL); /* without, one is served */
	close(other);
	fake.hold_updates = false;
	while (open_descriptors() > before)
		clock_sleep_ns(1000000);
	close(fd);
	close(socket);
}

static void test_waiting_descriptors_expire(void **state)
{
	size_t before;
	struct reply reply;
	int socket, fd;

	(void)state;
	fixture_stop(&fixture);
	fixture.settings.descriptor_wait_ms = 1;
	fixture_start(&fixture);
	socket = fixture_open_session(&fixture, NULL);
	fd = memfd_create("file", MFD_CLOEXEC);
	settle();
	before = open_descriptors();
	client_send_raw(socket, M(SEND_DESCRIPTOR), 1, NULL, 0, &fd, 1);
	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.code, 0);
	reply_clear(&reply);
	wait_for_descriptors(before);
	close(fd);
	close(socket);
}

static void test_silent_connection_is_dropped(void **state)
{
	Iommubroker__V1__GetInfoRequest info = IOMMUBROKER__V1__GET_INFO_REQUEST__INIT;
	int silent, open;
	struct reply reply;

	(void)state;
	fixture_stop(&fixture);
	fixture.settings.first_request_ms = 30;
	fixture_start(&fixture);
	open = fixture_open_session(&fixture, NULL);
	silent = fixture_connect(&fixture);
	assert_ended(silent);
	/* with a session there is no limit */
	client_call(open, M(GET_INFO), &info, &reply, NULL);
	assert_int_equal(reply.code, 0);
	reply_clear(&reply);
	close(silent);
	close(open);
}

/* ── cancelling, ending ───────────────────────────────────────────────────────────────────── */

static void test_cancel_call(void **state)
{
	Iommubroker__V1__WatchEventsRequest watch = IOMMUBROKER__V1__WATCH_EVENTS_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);
	struct reply reply;

	(void)state;
	watch.guest = 1;
	client_send(socket, M(WATCH_EVENTS), 5, &watch);
	wait_for_count(&fake.watches, 1);
	client_send_raw(socket, M(CANCEL_CALL), 4, NULL, 0, NULL, 0); /* no such call: nothing */
	fake_event_emit(1);
	client_receive(socket, &reply, &iommubroker__v1__event__descriptor);
	assert_true(reply.more);
	assert_int_equal(((Iommubroker__V1__Event *)reply.message)->sequence, 1);
	reply_clear(&reply);
	client_send_raw(socket, M(CANCEL_CALL), 5, NULL, 0, NULL, 0);
	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.call, 5);
	assert_int_equal(reply.code, 1);
	assert_int_equal(fake.watches, 0);
	reply_clear(&reply);
	close(socket);
}

static void test_end_ends_streams(void **state)
{
	Iommubroker__V1__WatchEventsRequest watch = IOMMUBROKER__V1__WATCH_EVENTS_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	watch.guest = 1;
	client_send(socket, M(WATCH_EVENTS), 5, &watch);
	wait_for_count(&fake.watches, 1);
	close(socket);
	wait_for_count(&fake.watches, 0);
}

/* The call outlives its connection; nothing is written to whoever got the descriptor's number. */
static void test_end_during_a_call(void **state)
{
	Iommubroker__V1__OpenSessionRequest open = IOMMUBROKER__V1__OPEN_SESSION_REQUEST__INIT;
	Iommubroker__V1__UpdateMemoryRequest update = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	int socket = fixture_connect(&fixture);
	struct reply reply;

	(void)state;
	client_call(socket, M(OPEN_SESSION), &open, &reply, NULL);
	reply_clear(&reply);
	fake.hold_updates = true;
	update.guest = 1;
	client_send(socket, M(UPDATE_MEMORY), 5, &update);
	wait_for_count(&fake.updating, 1);
	close(socket);
	wait_for_count(&fake.closed, 1); /* its session ended, which cancels it */
	wait_for_count(&fake.updating, 0);
	assert_serves();
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_session_is_the_connection),
		T(test_join_session),
		T(test_join_from_another_process),
		T(test_progress),
		T(test_out_of_order),
		T(test_descriptor_in),
		T(test_descriptor_out),
		T(test_send_descriptor),
		T(test_waiting_descriptors_are_few),
		T(test_descriptors_are_closed_by_the_pool),
		T(test_descriptors_do_not_pile_up),
		T(test_guests_are_described_by_the_pool),
		T(test_waiting_descriptors_expire),
		T(test_silent_connection_is_dropped),
		T(test_cancel_call),
		T(test_end_ends_streams),
		T(test_end_during_a_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
