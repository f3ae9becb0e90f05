/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The gRPC transport with honest clients: what arrives, what goes back, and every way to end. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <grpc/status.h>

#include "grpc_fixture.h"

#define PATIENT_MS 60000

static struct grpc_fixture fixture;

static int setup(void **state)
{
	(void)state;
	grpc_fixture_open(&fixture, PATIENT_MS, RPC_DOOR_CLIENT);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	grpc_fixture_close(&fixture);
	return 0;
}

static void call(struct grpc_client *client, const char *path, const void *bytes, size_t n_bytes,
		 struct client_answer *ret)
{
	struct client_request request = {.path = path, .bytes = bytes, .n_bytes = n_bytes};

	grpc_client_unary(client, &request, ret);
}

static void expect_echo(struct grpc_client *client, const char *path, size_t n_bytes)
{
	uint8_t *bytes = malloc(n_bytes + 1);
	struct client_answer answer;

	assert_non_null(bytes);
	for (size_t i = 0; i < n_bytes; i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251);
	call(client, path, bytes, n_bytes, &answer);
	assert_int_equal(answer.code, 0);
	assert_int_equal(answer.n_bytes, n_bytes);
	assert_memory_equal(answer.bytes, bytes, n_bytes);
	client_answer_clear(&answer);
	free(bytes);
}

static void expect_code(struct grpc_client *client, const char *path, const void *bytes,
			size_t n_bytes, int code)
{
	struct client_answer answer;

	call(client, path, bytes, n_bytes, &answer);
	assert_int_equal(answer.code, code);
	assert_null(answer.bytes);
	client_answer_clear(&answer);
}

static void test_messages_of_all_sizes(void **state)
{
	static const size_t sizes[] = {0,    1,     23,    24,    4096,
				       9000, 16384, 16385, 65535, RPC_MESSAGE_BYTES_MAX};
	struct grpc_client *client = grpc_fixture_client(&fixture);

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		expect_echo(client, "/test.Echo/Unary", sizes[i]);
		expect_echo(client, "/test.Echo/Later", sizes[i]);
	}
	assert_int_equal(fake_calls(fixture.dispatcher), 2 * sizeof(sizes) / sizeof(sizes[0]));
	grpc_client_free(client);
}

static void test_message_over_the_limit(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	size_t n_bytes = RPC_MESSAGE_BYTES_MAX + 1;
	uint8_t *bytes = calloc(1, n_bytes);

	(void)state;
	expect_code(client, "/test.Echo/Unary", bytes, n_bytes, GRPC_STATUS_RESOURCE_EXHAUSTED);
	assert_int_equal(fake_calls(fixture.dispatcher), 0);
	expect_echo(client, "/test.Echo/Unary", 100); /* the connection lives */
	free(bytes);
	grpc_client_free(client);
}

static void test_peer_and_secret_arrive(void **state)
{
	static const uint8_t secret[16] = {0, 1, 2, 0xff, 0, 0x80, '\n', ',', 0, 9, 8, 7, 6, 5, 4};
	struct client_metadata metadata[] = {
		{"x-other-bin", (const uint8_t *)"nothing", 7},
		{"iommubroker-session-bin", secret, sizeof(secret)},
	};
	struct client_request request = {.path = "/test.Echo/Who",
					 .bytes = (const uint8_t *)"",
					 .metadata = metadata,
					 .n_metadata = 2};
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_answer answer;
	uint32_t who[2];

	(void)state;
	grpc_client_unary(client, &request, &answer);
	assert_int_equal(answer.code, 0);
	assert_int_equal(answer.n_bytes, sizeof(who) + sizeof(secret));
	memcpy(who, answer.bytes, sizeof(who));
	assert_int_equal(who[0], getpid());
	assert_int_equal(who[1], getuid());
	assert_memory_equal(answer.bytes + sizeof(who), secret, sizeof(secret));
	client_answer_clear(&answer);
	request.n_metadata = 1;
	grpc_client_unary(client, &request, &answer);
	assert_int_equal(answer.n_bytes, sizeof(who));
	client_answer_clear(&answer);
	grpc_client_free(client);
}

static void test_status_and_details_go_back(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	uint8_t request[1 + 2000];
	struct client_answer answer;

	(void)state;
	for (size_t i = 0; i < sizeof(request); i++)
		request[i] = (uint8_t)(i * 7);
	request[0] = GRPC_STATUS_FAILED_PRECONDITION;
	call(client, "/test.Echo/Refuse", request, sizeof(request), &answer);
	assert_int_equal(answer.code, GRPC_STATUS_FAILED_PRECONDITION);
	assert_string_equal(answer.message, "refused as asked");
	assert_int_equal(answer.details_bytes, sizeof(request) - 1);
	assert_memory_equal(answer.details, request + 1, sizeof(request) - 1);
	assert_null(answer.bytes);
	client_answer_clear(&answer);
	call(client, "/test.Echo/Refuse", request, 1, &answer);
	assert_int_equal(answer.code, GRPC_STATUS_FAILED_PRECONDITION);
	assert_int_equal(answer.details_bytes, 0);
	client_answer_clear(&answer);
	grpc_client_free(client);
}

static void test_what_is_refused(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_request compressed = {.path = "/test.Echo/Unary", .gzip = true};
	struct client_answer answer;
	uint8_t *zeros = calloc(1, 10000);

	(void)state;
	expect_code(client, "/test.Echo/None", "", 0, GRPC_STATUS_UNIMPLEMENTED);
	expect_code(client, "/test.Echo/Unar", "", 0, GRPC_STATUS_UNIMPLEMENTED);
	expect_code(client, "/iommubroker.v1.Admin/GetStatus", "", 0, GRPC_STATUS_UNIMPLEMENTED);
	expect_code(client, "/test.Echo/Unary", NULL, 0, GRPC_STATUS_INVALID_ARGUMENT);
	compressed.bytes = zeros;
	compressed.n_bytes = 10000;
	grpc_client_unary(client, &compressed, &answer);
	assert_int_equal(answer.code, GRPC_STATUS_UNIMPLEMENTED);
	client_answer_clear(&answer);
	assert_int_equal(fake_calls(fixture.dispatcher), 0);
	expect_echo(client, "/test.Echo/Unary", 100);
	free(zeros);
	grpc_client_free(client);
}

static struct client_stream *open_stream(struct grpc_client *client, const char *path,
					 uint32_t count, uint32_t bytes, unsigned int deadline_ms)
{
	uint32_t numbers[2] = {count, bytes};
	struct client_request request = {.path = path,
					 .bytes = (const uint8_t *)numbers,
					 .n_bytes = sizeof(numbers),
					 .deadline_ms = deadline_ms};

	return grpc_client_open_stream(client, &request);
}

static void expect_messages(struct client_stream *stream, uint32_t first, uint32_t count,
			    size_t n_bytes)
{
	uint8_t *bytes;
	size_t n;

	for (uint32_t i = first; i < first + count; i++) {
		uint32_t number;

		assert_true(client_stream_read(stream, &bytes, &n));
		assert_int_equal(n, n_bytes);
		memcpy(&number, bytes, sizeof(number));
		assert_int_equal(number, i);
		free(bytes);
	}
}

/* Far more than the outbox, gRPC's window and the sockets take: the sender must be stopped and be
 * told to go on, and nothing may be lost, doubled or out of order. */
static void test_stream_waits_for_a_slow_reader(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_stream *stream =
		open_stream(client, "/test.Echo/Stream", 500, 10000, PATIENT_MS);
	uint8_t *bytes;
	size_t n;

	(void)state;
	grpc_fixture_await(&fixture, fake_refused_sends, 1);
	expect_messages(stream, 0, 500, 10000);
	assert_false(client_stream_read(stream, &bytes, &n));
	assert_int_equal(client_stream_close(stream), 0);
	/* ... and every time the outbox ran empty it was filled again, with 17 messages. */
	assert_in_range(fake_refused_sends(fixture.dispatcher), 2, 500 / 17);
	grpc_client_free(client);
}

/* What is not sent yet is charged, and where there is no room for that a stream waits, too. */
static void test_answers_are_charged(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_stream *stream;
	uint8_t *bytes;
	size_t n;

	(void)state;
	fake_bytes_max(fixture.dispatcher, 25000);
	stream = open_stream(client, "/test.Echo/Stream", 500, 10000, PATIENT_MS);
	grpc_fixture_await(&fixture, fake_refused_sends, 1);
	assert_in_range(fake_bytes(fixture.dispatcher), 10000, 25000);
	expect_messages(stream, 0, 500, 10000);
	assert_false(client_stream_read(stream, &bytes, &n));
	assert_int_equal(client_stream_close(stream), 0);
	/* With room for one or two more each time, rather than for a whole outbox. */
	assert_true(fake_refused_sends(fixture.dispatcher) > 500 / 17);
	grpc_fixture_await_exactly(&fixture, fake_bytes, 0);
	/* The only one goes all the same. */
	fake_bytes_max(fixture.dispatcher, 1);
	expect_echo(client, "/test.Echo/Unary", 1000);
	grpc_client_free(client);
}

static void test_empty_stream(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_stream *stream = open_stream(client, "/test.Echo/Stream", 0, 0, PATIENT_MS);
	uint8_t *bytes;
	size_t n;

	(void)state;
	assert_false(client_stream_read(stream, &bytes, &n));
	assert_int_equal(client_stream_close(stream), 0);
	grpc_client_free(client);
}

/* One that does not read delays nobody else on the same connection, nor on another. */
static void test_blocked_stream_delays_nobody(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct grpc_client *other = grpc_fixture_client(&fixture);
	struct client_stream *stream =
		open_stream(client, "/test.Echo/Stream", 1000, 10000, PATIENT_MS);

	(void)state;
	grpc_fixture_await(&fixture, fake_refused_sends, 1);
	expect_echo(other, "/test.Echo/Unary", 1000);
	client_stream_cancel(stream);
	assert_int_equal(client_stream_close(stream), GRPC_STATUS_CANCELLED);
	grpc_fixture_await(&fixture, fake_cancelled, 1);
	expect_echo(client, "/test.Echo/Unary", 1000);
	grpc_client_free(client);
	grpc_client_free(other);
}

static void test_cancel_is_told(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_stream *stream = open_stream(client, "/test.Echo/Watch", 0, 0, PATIENT_MS);

	(void)state;
	grpc_fixture_await(&fixture, fake_held, 1);
	client_stream_cancel(stream);
	assert_int_equal(client_stream_close(stream), GRPC_STATUS_CANCELLED);
	grpc_fixture_await(&fixture, fake_cancelled, 1);
	grpc_fixture_await_exactly(&fixture, fake_held, 0);
	grpc_client_free(client);
}

static void test_deadline_is_told(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_request request = {.path = "/test.Echo/Hold",
					 .bytes = (const uint8_t *)"x",
					 .n_bytes = 1,
					 .deadline_ms = 200};
	struct client_answer answer;

	(void)state;
	grpc_client_unary(client, &request, &answer);
	assert_int_equal(answer.code, GRPC_STATUS_DEADLINE_EXCEEDED);
	grpc_fixture_await(&fixture, fake_cancelled, 1);
	client_answer_clear(&answer);
	grpc_client_free(client);
}

static void *release_main(void *context)
{
	grpc_fixture_await(context, fake_held, 1);
	fake_release(fixture.dispatcher);
	return NULL;
}

static void test_answer_comes_later(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_answer answer;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, release_main, &fixture), 0);
	call(client, "/test.Echo/Hold", "x", 1, &answer);
	assert_int_equal(answer.code, 0);
	assert_int_equal(answer.n_bytes, 4);
	client_answer_clear(&answer);
	pthread_join(thread, NULL);
	assert_int_equal(fake_cancelled(fixture.dispatcher), 0);
	grpc_client_free(client);
}

/* finish() by one thread against dispatch_cancelled() on another, many times over. */
static void *race_main(void *context)
{
	_Atomic bool *stop = context;

	while (!*stop)
		fake_release(fixture.dispatcher);
	return NULL;
}

static void test_cancel_races_with_finish(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	static _Atomic bool stop;
	pthread_t thread;

	(void)state;
	stop = false;
	assert_int_equal(pthread_create(&thread, NULL, race_main, &stop), 0);
	for (int i = 0; i < 300; i++) {
		struct client_stream *stream =
			open_stream(client, "/test.Echo/Watch", 0, 0, PATIENT_MS);

		client_stream_cancel(stream);
		client_stream_close(stream);
	}
	stop = true;
	pthread_join(thread, NULL);
	grpc_fixture_await_exactly(&fixture, fake_held, 0);
	grpc_client_free(client);
}

static void test_connection_end_is_told(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_stream *stream = open_stream(client, "/test.Echo/Watch", 0, 0, PATIENT_MS);

	(void)state;
	grpc_fixture_await(&fixture, fake_held, 1);
	assert_int_equal(fake_connections(fixture.dispatcher), 1);
	client_stream_cancel(stream);
	client_stream_close(stream);
	grpc_client_free(client);
	grpc_fixture_await_exactly(&fixture, fake_connections, 0);
}

static void test_stop_ends_calls_in_flight(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_stream *watch = open_stream(client, "/test.Echo/Watch", 0, 0, PATIENT_MS);
	struct client_stream *full =
		open_stream(client, "/test.Echo/Stream", 1000, 10000, PATIENT_MS);

	(void)state;
	grpc_fixture_await(&fixture, fake_refused_sends, 1);
	grpc_fixture_stop(&fixture);
	assert_int_equal(fake_cancelled(fixture.dispatcher), 2);
	assert_int_equal(fake_connections(fixture.dispatcher), 0);
	client_stream_cancel(full);
	client_stream_close(full);
	assert_int_not_equal(client_stream_close(watch), 0);
	grpc_client_free(client);
}

static void test_stop_lets_calls_finish(void **state)
{
	struct grpc_client *client = grpc_fixture_client(&fixture);
	struct client_answer answer;

	(void)state;
	call(client, "/test.Echo/Unary", "x", 1, &answer);
	client_answer_clear(&answer);
	grpc_fixture_stop(&fixture);
	expect_code(client, "/test.Echo/Unary", "x", 1, GRPC_STATUS_UNAVAILABLE);
	grpc_client_free(client);
}

static void test_door_and_limit_of_connections(void **state)
{
	struct grpc_client *clients[FIXTURE_CONNECTIONS_MAX], *late;

	(void)state;
	for (int i = 0; i < FIXTURE_CONNECTIONS_MAX; i++) {
		clients[i] = grpc_fixture_client(&fixture);
		expect_echo(clients[i], "/test.Echo/Unary", 10);
	}
	assert_int_equal(fake_connections(fixture.dispatcher), FIXTURE_CONNECTIONS_MAX);
	late = grpc_fixture_client(&fixture);
	expect_code(late, "/test.Echo/Unary", "x", 1, GRPC_STATUS_UNAVAILABLE);
	grpc_client_free(late);
	for (int i = 0; i < FIXTURE_CONNECTIONS_MAX; i++)
		grpc_client_free(clients[i]);
	grpc_fixture_await_exactly(&fixture, fake_connections, 0);
	fake_close_door(fixture.dispatcher);
	late = grpc_fixture_client(&fixture);
	expect_code(late, "/test.Echo/Unary", "x", 1, GRPC_STATUS_UNAVAILABLE);
	grpc_client_free(late);
}

static void test_admin_door(void **state)
{
	struct grpc_fixture admin;
	struct grpc_client *client;

	(void)state;
	grpc_fixture_open(&admin, PATIENT_MS, RPC_DOOR_ADMIN);
	client = grpc_fixture_client(&admin);
	expect_echo(client, "/iommubroker.v1.Admin/GetStatus", 10);
	/* operators take nothing from clients, nor clients from them */
	assert_int_equal(fake_connections(admin.dispatcher), 0);
	grpc_client_free(client);
	grpc_fixture_close(&admin);
}

/* However many places are taken, and whether they are used: whoever comes next is served, and so is
 * the one after. Those that are idle go first. */
static void test_operators_always_get_in(void **state)
{
	struct grpc_client *clients[150];
	struct client_stream *watch;
	struct grpc_fixture admin;
	size_t before = open_fds();

	(void)state;
	grpc_fixture_open(&admin, PATIENT_MS, RPC_DOOR_ADMIN);
	clients[0] = grpc_fixture_client(&admin);
	watch = open_stream(clients[0], "/test.Echo/Watch", 0, 0, PATIENT_MS);
	grpc_fixture_await(&admin, fake_held, 1);
	for (size_t i = 1; i < 150; i++) {
		clients[i] = grpc_fixture_client(&admin);
		expect_echo(clients[i], "/iommubroker.v1.Admin/GetStatus", 10);
	}
	assert_int_equal(fake_held(admin.dispatcher), 1);
	client_stream_cancel(watch);
	assert_int_equal(client_stream_close(watch), GRPC_STATUS_CANCELLED);
	for (size_t i = 0; i < 150; i++)
		grpc_client_free(clients[i]);
	grpc_fixture_close(&admin);
	await_open_fds(before);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_messages_of_all_sizes),
		CASE(test_message_over_the_limit),
		CASE(test_peer_and_secret_arrive),
		CASE(test_status_and_details_go_back),
		CASE(test_what_is_refused),
		CASE(test_stream_waits_for_a_slow_reader),
		CASE(test_answers_are_charged),
		CASE(test_empty_stream),
		CASE(test_blocked_stream_delays_nobody),
		CASE(test_cancel_is_told),
		CASE(test_deadline_is_told),
		CASE(test_answer_comes_later),
		CASE(test_cancel_races_with_finish),
		CASE(test_connection_end_is_told),
		CASE(test_stop_ends_calls_in_flight),
		CASE(test_stop_lets_calls_finish),
		CASE(test_door_and_limit_of_connections),
		CASE(test_admin_door),
		CASE(test_operators_always_get_in),
	};

	return cmocka_run_group_tests_name("grpc_transport", tests, NULL, NULL);
}
