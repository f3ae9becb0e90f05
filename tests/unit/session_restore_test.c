/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Sessions that a process before this one left: joined again, watched, their answers repeated. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/request_table.h"
#include "rpc_fixture.h"

/* As broker_restore() would make it. */
static void leave_session(const struct peer *peer, uint8_t ret_secret[BROKER_SECRET_BYTES])
{
	struct session *session;
	struct refusal refusal;

	assert_int_equal(session_new(&session, fixture.broker, peer, "left", ret_secret, &refusal),
			 0);
	session_unref(session);
}

static int join(uint8_t secret[BROKER_SECRET_BYTES], int socket)
{
	Iommubroker__V1__JoinSessionRequest request = IOMMUBROKER__V1__JOIN_SESSION_REQUEST__INIT;
	struct reply reply;
	int code;

	request.secret = (ProtobufCBinaryData){BROKER_SECRET_BYTES, secret};
	client_call(socket, M(JOIN_SESSION), &request, &reply, NULL);
	code = reply.code;
	reply_clear(&reply);
	return code;
}

static int create(int socket, uint64_t request_id, const char *name, uint64_t *ret_guest)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__CreateGuestResponse *response;
	struct reply reply;
	int code;

	request.request_id = request_id;
	request.name = (char *)name;
	client_call(socket, M(CREATE_GUEST), &request, &reply,
		    &iommubroker__v1__create_guest_response__descriptor);
	code = reply.code;
	response = reply.message;
	*ret_guest = response ? response->guest : 0;
	reply_clear(&reply);
	return code;
}

static void test_joined(void **state)
{
	uint8_t secret[BROKER_SECRET_BYTES];
	int first, second;

	(void)state;
	leave_session(&fixture.peer, secret);
	first = fixture_connect(&fixture);
	assert_int_equal(join(secret, first), 16); /* nobody looked for it yet */
	assert_int_equal(dispatcher_restore(fixture.dispatcher), 1);
	assert_int_equal(join(secret, first), 0);
	second = fixture_connect(&fixture);
	assert_int_equal(join(secret, second), 9); /* the first is its connection again */
	assert_int_equal(fake.closed, 0);
	close(first);
	wait_for_count(&fake.closed, 1);
	assert_int_equal(join(secret, second), 16);
	close(second);
}

static void test_answers(void **state)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__CreateGuestResponse response =
		IOMMUBROKER__V1__CREATE_GUEST_RESPONSE__INIT;
	struct broker_answer kept[3] = {{.request_id = 5, .method = M(CREATE_GUEST)}};
	uint8_t secret[BROKER_SECRET_BYTES], bytes[64];
	uint64_t guest;
	int socket;

	(void)state;
	request.request_id = 5;
	request.name = (char *)"five";
	request_digest(&request.base, kept[0].digest);
	response.guest = 77;
	kept[0].bytes = bytes;
	kept[0].n_bytes = iommubroker__v1__create_guest_response__pack(&response, bytes);
	kept[1] = kept[0];     /* the same again, from another guest's file */
	kept[2].method = 4711; /* of a version that had more methods */
	kept[2].request_id = 6;
	fake.kept = kept;
	fake.n_kept = 3;
	leave_session(&fixture.peer, secret);
	assert_int_equal(dispatcher_restore(fixture.dispatcher), 1);
	socket = fixture_connect(&fixture);
	assert_int_equal(join(secret, socket), 0);
	assert_int_equal(create(socket, 5, "five", &guest), 0);
	assert_int_equal(guest, 77);
	assert_int_equal(fake.creates, 0);
	assert_int_equal(create(socket, 5, "another", &guest), 3);
	assert_int_equal(fake.creates, 0);
	assert_int_equal(create(socket, 6, "six", &guest), 0);
	assert_int_equal(fake.creates, 1);
	assert_int_equal(guest, 1);
	close(socket);
	wait_for_count(&fake.closed, 1);
}

/* Whoever does not come back ends like anybody. */
static void test_death(void **state)
{
	uint8_t secret[BROKER_SECRET_BYTES];
	struct peer child = fixture.peer;

	(void)state;
	child.pid = fork();
	if (!child.pid) {
		pause();
		_exit(0);
	}
	child.pidfd = (int)syscall(SYS_pidfd_open, child.pid, 0);
	leave_session(&child, secret);
	leave_session(&fixture.peer, secret);
	assert_int_equal(dispatcher_restore(fixture.dispatcher), 2);
	assert_int_equal(fake.closed, 0);
	kill(child.pid, SIGKILL);
	waitpid(child.pid, NULL, 0);
	wait_for_count(&fake.closed, 1);
	close(child.pidfd);
}

/* A delegation of which nobody knows who claimed it: whoever was told its secret. */
static void test_unclaimed(void **state)
{
	uint8_t secret[BROKER_SECRET_BYTES];
	struct peer nobody = {.pidfd = -1};
	int first, second;

	(void)state;
	leave_session(&nobody, secret);
	assert_int_equal(dispatcher_restore(fixture.dispatcher), 1);
	assert_int_equal(fake.closed, 0);
	first = fixture_connect(&fixture);
	assert_int_equal(join(secret, first), 0);
	second = fixture_connect(&fixture);
	assert_int_equal(join(secret, second), 9); /* the first is its connection */
	close(first);
	wait_for_count(&fake.closed, 1);
	close(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_joined, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_answers, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_death, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_unclaimed, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests_name("session_restore", tests, NULL, NULL);
}
