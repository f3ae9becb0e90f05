/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a client's connection, its calls and what they hold are charged to: N are served, the next
 * is refused by an answer, what is given back makes room, and nothing stays.
 */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "google/rpc/error_details.pb-c.h"
#include "rpc/account.h"
#include "rpc_fixture.h"
#include "util/clock.h"

/* The code of a small call's answer; -1: the connection ended. */
static int ask(int socket)
{
	Iommubroker__V1__GetInfoRequest request = IOMMUBROKER__V1__GET_INFO_REQUEST__INIT;
	struct reply reply;
	int code;

	client_call(socket, M(GET_INFO), &request, &reply, NULL);
	code = reply.code;
	reply_clear(&reply);
	return code;
}

static void ask_refused(int socket)
{
	Iommubroker__V1__GetInfoRequest request = IOMMUBROKER__V1__GET_INFO_REQUEST__INIT;
	Google__Rpc__QuotaFailure *failure;
	Google__Rpc__ErrorInfo *info;
	struct reply reply;

	client_call(socket, M(GET_INFO), &request, &reply, NULL);
	assert_false(reply.ended);
	assert_int_equal(reply.code, 8);
	failure = status_detail(reply.status, "QuotaFailure",
				&google__rpc__quota_failure__descriptor);
	assert_string_equal(failure->violations[0]->subject, "tenant-a");
	info = status_detail(reply.status, "ErrorInfo", &google__rpc__error_info__descriptor);
	assert_string_equal(info->reason, "QUOTA_EXCEEDED");
	protobuf_c_message_free_unpacked(&failure->base, NULL);
	protobuf_c_message_free_unpacked(&info->base, NULL);
	reply_clear(&reply);
}

static void await(_Atomic uint64_t *value, uint64_t wanted)
{
	while (*value != wanted)
		clock_sleep_ns(1000000);
}

/* One over the limit is told so, and stays: there is room for it as soon as another goes. */
static void test_connections(void **state)
{
	int sockets[3];

	(void)state;
	fake.max[LEDGER_CONNECTIONS] = 2;
	for (size_t i = 0; i < 3; i++)
		sockets[i] = fixture_connect(&fixture);
	assert_int_equal(ask(sockets[0]), 0);
	assert_int_equal(ask(sockets[1]), 0);
	ask_refused(sockets[2]);
	ask_refused(sockets[2]);
	assert_int_equal(fake.used[LEDGER_CONNECTIONS], 2);
	close(sockets[0]);
	await(&fake.used[LEDGER_CONNECTIONS], 1);
	assert_int_equal(ask(sockets[2]), 0);
	assert_int_equal(fake.used[LEDGER_CONNECTIONS], 2);
	close(sockets[1]);
	close(sockets[2]);
	await(&fake.used[LEDGER_CONNECTIONS], 0);
}

/* Of those that are only told why they are refused there are few of one user, and few of all; they
 * take nothing from those who are served. */
static void test_strangers(void **state)
{
	struct peer stranger = fixture.peer;
	int sockets[ACCOUNT_REFUSED_PER_USER_MAX + 1], honest;

	(void)state;
	if (!stranger.uid)
		stranger.uid = geteuid();
	fake.ruleless = 4000;
	stranger.uid = 4000;
	fixture.settings.client_uids[0] = 4000;
	fixture.settings.n_client_uids = 1;
	dispatcher_set_settings(fixture.dispatcher, &fixture.settings);
	for (size_t i = 0; i <= ACCOUNT_REFUSED_PER_USER_MAX; i++)
		sockets[i] = fixture_connect_as(&fixture, &stranger);
	for (size_t i = 0; i < ACCOUNT_REFUSED_PER_USER_MAX; i++)
		assert_int_equal(ask(sockets[i]), 7);
	assert_int_equal(ask(sockets[ACCOUNT_REFUSED_PER_USER_MAX]), -1);
	assert_int_equal(fake.used[LEDGER_CONNECTIONS], 0);
	honest = fixture_connect(&fixture);
	assert_int_equal(ask(honest), 0);
	close(honest);
	close(sockets[0]);
	close(sockets[ACCOUNT_REFUSED_PER_USER_MAX]);
	/* The place of the first is free once the loop has seen its end. */
	do {
		close(sockets[1]);
		sockets[1] = fixture_connect_as(&fixture, &stranger);
	} while (ask(sockets[1]) != 7);
	for (size_t i = 1; i < ACCOUNT_REFUSED_PER_USER_MAX; i++)
		close(sockets[i]);
	await(&fake.used[LEDGER_CONNECTIONS], 0);
}

static void watch(int socket, uint64_t call)
{
	Iommubroker__V1__WatchEventsRequest request = IOMMUBROKER__V1__WATCH_EVENTS_REQUEST__INIT;

	request.guest = 1;
	client_send(socket, M(WATCH_EVENTS), call, &request);
}

static void expect_answer(int socket, uint64_t call, int code)
{
	struct reply reply;

	client_receive(socket, &reply, NULL);
	assert_false(reply.ended);
	assert_int_equal(reply.call, call);
	assert_int_equal(reply.code, code);
	reply_clear(&reply);
}

/* Three calls at a time: two that watch, one that asks. Or two watches, whatever else. */
static void watches_test(enum ledger_resource resource)
{
	int socket = fixture_open_session(&fixture, NULL);

	fake.max[resource] = 2;
	watch(socket, 1);
	watch(socket, 2);
	wait_for_count(&fake.watches, 2);
	watch(socket, 3);
	expect_answer(socket, 3, 8);
	assert_int_equal(fake.used[resource], 2);
	client_send_raw(socket, M(CANCEL_CALL), 1, NULL, 0, NULL, 0);
	expect_answer(socket, 1, 1);
	watch(socket, 4);
	wait_for_count(&fake.watches, 2);
	assert_int_equal(fake.used[resource], 2);
	fake.max[resource] = 0;
	assert_int_equal(ask(socket), 0);
	close(socket);
	wait_for_count(&fake.watches, 0);
	await(&fake.used[resource], 0);
}

static void test_calls(void **state)
{
	(void)state;
	watches_test(LEDGER_CALLS);
}

static void test_watches(void **state)
{
	(void)state;
	watches_test(LEDGER_WATCHES);
}

static int send_descriptor(int socket, uint64_t call, int fd)
{
	struct reply reply;
	int code;

	client_send_raw(socket, M(SEND_DESCRIPTOR), call, NULL, 0, &fd, 1);
	client_receive(socket, &reply, NULL);
	code = reply.code;
	reply_clear(&reply);
	return code;
}

/* Of all sessions of a tenant. */
static void test_descriptors(void **state)
{
	int first = fixture_open_session(&fixture, NULL), second;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	second = fixture_open_session(&fixture, NULL);
	fake.max[LEDGER_DESCRIPTORS] = 2;
	assert_int_equal(send_descriptor(first, 1, fd), 0);
	assert_int_equal(send_descriptor(second, 1, fd), 0);
	assert_int_equal(send_descriptor(second, 2, fd), 8);
	assert_int_equal(send_descriptor(first, 2, fd), 8);
	close(first);
	await(&fake.used[LEDGER_DESCRIPTORS], 1);
	assert_int_equal(send_descriptor(second, 3, fd), 0);
	assert_int_equal(send_descriptor(second, 4, fd), 8);
	close(second);
	close(fd);
	await(&fake.used[LEDGER_DESCRIPTORS], 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_connections), T(test_strangers),   T(test_calls),
		T(test_watches),     T(test_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
