/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Calls that come too fast: delayed in their order, refused beyond the delay, and never lost,
 * whatever ends meanwhile.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "google/rpc/error_details.pb-c.h"
#include "rpc/dispatcher.h"
#include "rpc_fixture.h"
#include "util/clock.h"

#define MS      UINT64_C(1000000)
#define HOUR_MS (UINT64_C(3600) * 1000)

/* So many at once, each one more a step later than the one before; nobody waits longer than
 * delay_ms. What was taken before does not count. */
static void rate_set(enum rate_kind kind, uint64_t tokens, uint64_t step_ms, uint32_t delay_ms)
{
	fixture.settings.rate_delay_ms = delay_ms;
	dispatcher_set_settings(fixture.dispatcher, &fixture.settings);
	fake.rates[kind].taken = 0;
	fake.rates[kind].step_ns = step_ms * MS;
	fake.rates[kind].tokens = tokens;
}

static void ask(int socket, uint64_t call)
{
	Iommubroker__V1__GetInfoRequest request = IOMMUBROKER__V1__GET_INFO_REQUEST__INIT;

	client_send(socket, M(GET_INFO), call, &request);
}

static void refresh(int socket, uint64_t call, size_t n)
{
	Iommubroker__V1__RefreshNestedRequest request =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__INIT;
	Iommubroker__V1__RefreshNestedRequest__Range range =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__RANGE__INIT;
	Iommubroker__V1__RefreshNestedRequest__Range *ranges[8];

	range.length = 4096;
	for (size_t i = 0; i < n; i++)
		ranges[i] = &range;
	request.nested = 1;
	request.n_ranges = n;
	request.ranges = ranges;
	client_send(socket, M(REFRESH_NESTED), call, &request);
}

static void expect(int socket, uint64_t call, int code)
{
	struct reply reply;

	client_receive(socket, &reply, NULL);
	assert_false(reply.ended);
	assert_int_equal(reply.call, call);
	assert_int_equal(reply.code, code);
	reply_clear(&reply);
}

static void expect_refused(int socket, uint64_t call, int64_t retry_ms)
{
	Google__Rpc__QuotaFailure *failure;
	Google__Rpc__RetryInfo *retry;
	Google__Rpc__ErrorInfo *info;
	struct reply reply;

	client_receive(socket, &reply, NULL);
	assert_int_equal(reply.call, call);
	assert_int_equal(reply.code, 8);
	retry = status_detail(reply.status, "RetryInfo", &google__rpc__retry_info__descriptor);
	assert_int_equal(retry->retry_delay->seconds * 1000 + retry->retry_delay->nanos / 1000000,
			 retry_ms);
	failure = status_detail(reply.status, "QuotaFailure",
				&google__rpc__quota_failure__descriptor);
	assert_string_equal(failure->violations[0]->subject, "tenant-a");
	info = status_detail(reply.status, "ErrorInfo", &google__rpc__error_info__descriptor);
	assert_string_equal(info->reason, "RATE_EXCEEDED");
	assert_int_equal(info->n_metadata, 4);
	assert_string_equal(info->metadata[0]->value, "requests");
	assert_string_equal(info->metadata[3]->value, "file:9");
	protobuf_c_message_free_unpacked(&retry->base, NULL);
	protobuf_c_message_free_unpacked(&failure->base, NULL);
	protobuf_c_message_free_unpacked(&info->base, NULL);
	reply_clear(&reply);
}

static void close_session(int socket, uint64_t call)
{
	Iommubroker__V1__CloseSessionRequest request = IOMMUBROKER__V1__CLOSE_SESSION_REQUEST__INIT;

	client_send(socket, M(CLOSE_SESSION), call, &request);
}

static size_t held_now(void)
{
	struct throttle *throttle = &fixture.dispatcher->throttle;
	size_t n;

	pthread_mutex_lock(&throttle->lock);
	n = throttle->n;
	pthread_mutex_unlock(&throttle->lock);
	return n;
}

static void await_held(size_t n)
{
	while (held_now() != n)
		clock_sleep_ns(MS);
}

/* Two at once, two delayed; the fifth is refused at once, before those. One that gives back is
 * never refused, and comes after what was asked for before it. */
static void test_delayed_then_refused(void **state)
{
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	rate_set(RATE_REQUESTS, 2, 40, 100);
	for (uint64_t call = 10; call < 15; call++)
		ask(socket, call);
	close_session(socket, 15);
	expect(socket, 10, 0);
	expect(socket, 11, 0);
	expect_refused(socket, 14, 120);
	expect(socket, 12, 0);
	expect(socket, 13, 0);
	expect(socket, 15, 0);
	assert_int_equal(fake.used[LEDGER_QUEUED_BYTES], 0);
	close(socket);
}

/* ── what operators are told ──────────────────────────────────────────────────────────────── */

static struct {
	pthread_mutex_t lock;
	unsigned int n;
	char text[512], fields[16][LOG_FIELD_BYTES];
	size_t n_fields;
} told = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_line(enum log_level level, const char *text, const char (*fields)[LOG_FIELD_BYTES],
		    size_t n_fields)
{
	(void)level;
	if (!strstr(text, "refused to pid"))
		return;
	pthread_mutex_lock(&told.lock);
	told.n++;
	snprintf(told.text, sizeof(told.text), "%s", text);
	told.n_fields = n_fields < 16 ? n_fields : 16;
	memcpy(told.fields, fields, told.n_fields * sizeof(told.fields[0]));
	pthread_mutex_unlock(&told.lock);
}

static bool told_field(const char *want)
{
	for (size_t i = 0; i < told.n_fields; i++)
		if (!strcmp(told.fields[i], want))
			return true;
	return false;
}

/* A storm of refusals is some lines, which name whose it is, what was met and where it stands; and
 * it does not hide that the same tenant is refused something else. */
static void test_refusals_are_logged(void **state)
{
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	rate_set(RATE_REQUESTS, 1, HOUR_MS, 10);
	ask(socket, 10);
	expect(socket, 10, 0);
	log_set_sink(on_line);
	told.n = 0;
	for (uint64_t call = 11; call < 511; call++) {
		ask(socket, call);
		expect(socket, call, 8);
	}
	assert_in_range(told.n, LOG_RATE_BURST, LOG_RATE_BURST + 50);
	assert_true(told_field("IOMMUBROKER_REASON=RATE_EXCEEDED"));
	assert_true(told_field("IOMMUBROKER_TENANT=tenant-a"));
	assert_true(told_field("IOMMUBROKER_RESOURCE=requests"));
	assert_true(told_field("IOMMUBROKER_LIMIT=1"));
	assert_true(told_field("IOMMUBROKER_RULE=file:9"));
	rate_set(RATE_REQUESTS, 1, 1, 10000);
	fake.rates[RATE_REQUESTS].taken = 1;
	fake.max[LEDGER_QUEUED_BYTES] = 1; /* too little for what waits */
	told.n = 0;
	ask(socket, 511);
	expect(socket, 511, 8);
	assert_int_equal(told.n, 1);
	assert_true(told_field("IOMMUBROKER_REASON=QUOTA_EXCEEDED"));
	fake.max[LEDGER_QUEUED_BYTES] = 0;
	log_set_sink(NULL);
	close(socket);
}

/* In the order in which they may go, also if the first to go comes last. */
static void test_order(void **state)
{
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	rate_set(RATE_REQUESTS, 1, 100, 1000);
	ask(socket, 10);
	expect(socket, 10, 0);
	for (uint64_t call = 11; call < 14; call++)
		ask(socket, call);
	await_held(3);
	rate_set(RATE_REFRESHES, 1, 5, 1000);
	refresh(socket, 14, 2);
	expect(socket, 14, 0);
	for (uint64_t call = 11; call < 14; call++)
		expect(socket, call, 0);
	close(socket);
}

/* A call that is not above a rate does not wait for those that are; what waits is charged. */
static void test_others_do_not_wait(void **state)
{
	int slow = fixture_open_session(&fixture, NULL),
	    fast = fixture_open_session(&fixture, NULL);

	(void)state;
	rate_set(RATE_REQUESTS, 1, HOUR_MS, 10 * HOUR_MS);
	ask(slow, 10);
	ask(slow, 11);
	expect(slow, 10, 0);
	await_held(1);
	assert_true(fake.used[LEDGER_QUEUED_BYTES] > 0);
	assert_int_equal(fake.used[LEDGER_CALLS], 1);
	for (uint64_t call = 10; call < 200; call++) {
		refresh(fast, call, 8);
		expect(fast, call, 0);
	}
	rate_set(RATE_REQUESTS, 0, 0, 1000);
	ask(fast, 200);
	expect(fast, 200, 0);
	assert_int_equal(held_now(), 1);
	fixture_on_loop(&fixture, (void (*)(void *))dispatcher_stop, fixture.dispatcher);
	expect(slow, 11, 0);
	close(slow);
	close(fast);
}

/* A refresh counts as often as it has ranges. */
static void test_refreshes(void **state)
{
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	rate_set(RATE_REFRESHES, 10, 10, 20);
	refresh(socket, 10, 8);
	expect(socket, 10, 0);
	refresh(socket, 11, 4);
	expect(socket, 11, 0);
	assert_int_equal(fake.rates[RATE_REFRESHES].taken, 12);
	refresh(socket, 12, 1);
	expect(socket, 12, 8);
	assert_int_equal(fake.rates[RATE_REFRESHES].taken, 12);
	close(socket);
}

/* Whoever is delayed and goes away leaves nothing: the fixture looks. */
static void test_connection_ends(void **state)
{
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	rate_set(RATE_REQUESTS, 1, 20, 1000);
	ask(socket, 10);
	ask(socket, 11);
	ask(socket, 12);
	close(socket);
	while (fake.used[LEDGER_CALLS] || fake.used[LEDGER_CONNECTIONS])
		clock_sleep_ns(MS);
	assert_int_equal(held_now(), 0);
}

/* A call of a session that ended meanwhile finds it ended. */
static void test_session_ends(void **state)
{
	Iommubroker__V1__ListGuestsRequest request = IOMMUBROKER__V1__LIST_GUESTS_REQUEST__INIT;
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	rate_set(RATE_REQUESTS, 1, HOUR_MS, 10 * HOUR_MS);
	ask(socket, 10);
	expect(socket, 10, 0);
	client_send(socket, M(LIST_GUESTS), 11, &request);
	await_held(1);
	fake.rates[RATE_REQUESTS].tokens = 0;
	close_session(socket, 12);
	expect(socket, 12, 0);
	assert_int_equal(held_now(), 1);
	fixture_on_loop(&fixture, (void (*)(void *))dispatcher_stop, fixture.dispatcher);
	expect(socket, 11, 0);
	close(socket);
}

/* Once it stops nothing is held any more: the next is refused rather than delayed. */
static void test_stop(void **state)
{
	int socket = fixture_open_session(&fixture, NULL);

	(void)state;
	rate_set(RATE_REQUESTS, 1, HOUR_MS, 10 * HOUR_MS);
	for (uint64_t call = 10; call < 14; call++)
		ask(socket, call);
	await_held(3);
	fixture_on_loop(&fixture, (void (*)(void *))dispatcher_stop, fixture.dispatcher);
	for (uint64_t call = 10; call < 14; call++)
		expect(socket, call, 0);
	ask(socket, 14);
	expect(socket, 14, 14);
	close(socket);
}

/* The first is served; the calls of the second wait; the third is told to come later, and is served
 * when it does. */
static void test_connections(void **state)
{
	int sockets[3];

	(void)state;
	rate_set(RATE_CONNECTIONS, 1, 60, 100);
	for (size_t i = 0; i < 3; i++)
		sockets[i] = fixture_connect(&fixture);
	ask(sockets[2], 1);
	expect(sockets[2], 1, 8);
	ask(sockets[0], 1);
	expect(sockets[0], 1, 0);
	ask(sockets[1], 1);
	expect(sockets[1], 1, 0);
	assert_int_equal(fake.used[LEDGER_CONNECTIONS], 2);
	fake.rates[RATE_CONNECTIONS].taken = 0;
	ask(sockets[2], 2);
	expect(sockets[2], 2, 0);
	assert_int_equal(fake.used[LEDGER_CONNECTIONS], 3);
	for (size_t i = 0; i < 3; i++)
		close(sockets[i]);
}

/* ── the throttle alone ───────────────────────────────────────────────────────────────────── */

static struct held places[5];
static size_t order[5], n_order;

static void note(struct held *held)
{
	order[n_order++] = (size_t)(held - places);
}

/* So many are held and no more; they go by their time, those of one time as they came. */
static void test_bound(void **state)
{
	static const size_t want[] = {1, 3, 0, 2};
	const uint64_t never = UINT64_MAX / 2;
	struct throttle throttle;
	struct loop *loop;

	(void)state;
	n_order = 0;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(throttle_init(&throttle, loop, 4, note), 0);
	assert_true(throttle_hold(&throttle, &places[0], never + 1));
	assert_true(throttle_hold(&throttle, &places[1], never));
	assert_true(throttle_hold(&throttle, &places[2], never + 1));
	assert_true(throttle_hold(&throttle, &places[3], never));
	assert_false(throttle_hold(&throttle, &places[4], 0));
	throttle_stop(&throttle);
	assert_int_equal(n_order, 4);
	assert_memory_equal(order, want, sizeof(want));
	assert_false(throttle_hold(&throttle, &places[4], 0));
	throttle_stop(&throttle);
	throttle_deinit(&throttle);
	loop_free(loop);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_delayed_then_refused),
		T(test_refusals_are_logged),
		T(test_order),
		T(test_others_do_not_wait),
		T(test_refreshes),
		T(test_connection_ends),
		T(test_session_ends),
		T(test_stop),
		T(test_connections),
		cmocka_unit_test(test_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
