/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Refreshes, request ids, streams, and descriptors beside gRPC.
 */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dispatch_fixture.h"
#include "rpc/call.h"

/* ── refreshes ────────────────────────────────────────────────────────────────────────────── */

static Iommubroker__V1__RefreshNestedResponse *refresh(uint64_t nested, size_t n)
{
	Iommubroker__V1__RefreshNestedRequest request =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__INIT;
	Iommubroker__V1__RefreshNestedRequest__Range range =
		IOMMUBROKER__V1__REFRESH_NESTED_REQUEST__RANGE__INIT;
	Iommubroker__V1__RefreshNestedRequest__Range *pointers[BROKER_REFRESH_RANGES_MAX + 1];

	range.length = 0x3000;
	for (size_t i = 0; i < n; i++)
		pointers[i] = &range;
	request.nested = nested;
	request.n_ranges = n;
	request.ranges = pointers;
	if (run(PATH("Domains/RefreshNested"), &request))
		return NULL;
	return answer(&iommubroker__v1__refresh_nested_response__descriptor);
}

static void test_refresh(void **state)
{
	static const uint64_t where[] = {1, FAKE_NESTED_LATER};
	Iommubroker__V1__RefreshNestedResponse *response;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		response = refresh(where[i], 2);
		assert_non_null(response);
		assert_int_equal(response->n_results, 2);
		assert_int_equal(response->results[1]->verdict,
				 IOMMUBROKER__V1__VERDICT__VERDICT_DONE);
		assert_int_equal(response->results[1]->mapped, 3);
		assert_null(response->results[1]->fault);
		protobuf_c_message_free_unpacked(&response->base, NULL);
	}
	assert_null(refresh(1, 0));
	assert_field("ranges");
	assert_null(refresh(1, BROKER_REFRESH_RANGES_MAX + 1));
	assert_field("ranges");
	assert_null(refresh(0, 1));
	assert_field("nested");
	assert_null(refresh(4711, 1));
	assert_int_equal(call.status.code, 5);
}

/* The longest answer there can be, with every number at its longest. */
static void test_refresh_longest_answer(void **state)
{
	Iommubroker__V1__RefreshNestedResponse *response =
		refresh(FAKE_NESTED_ERROR, BROKER_REFRESH_RANGES_MAX);
	const Iommubroker__V1__RangeResult *result;

	(void)state;
	assert_non_null(response);
	result = response->results[BROKER_REFRESH_RANGES_MAX - 1];
	assert_int_equal(result->verdict, IOMMUBROKER__V1__VERDICT__VERDICT_ERROR);
	assert_int_equal(result->condition_code, 1);
	assert_int_equal(result->status, 8);
	assert_int_equal(result->fault->event_code, S390_PEC_TT);
	assert_int_equal(result->fault->level, IOMMUBROKER__V1__TABLE_LEVEL__TABLE_LEVEL_SEGMENT);
	assert_true(result->fault->outside_memory);
	assert_true(result->unmapped == UINT64_MAX);
	protobuf_c_message_free_unpacked(&response->base, NULL);
}

/* Whatever is refused for now is a verdict that a guest understands. */
static void test_refresh_for_now_is_busy(void **state)
{
	Iommubroker__V1__RefreshNestedResponse *response = refresh(FAKE_NESTED_BUSY, 3);

	(void)state;
	assert_non_null(response);
	assert_int_equal(response->n_results, 3);
	assert_int_equal(response->results[2]->verdict, IOMMUBROKER__V1__VERDICT__VERDICT_BUSY);
	assert_int_equal(response->results[2]->condition_code, 2);
	protobuf_c_message_free_unpacked(&response->base, NULL);
}

/* ── request ids ──────────────────────────────────────────────────────────────────────────── */

static void test_same_request_same_answer(void **state)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	uint8_t first[256];
	size_t first_bytes;

	(void)state;
	request.request_id = 5;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 0);
	first_bytes = call.message_bytes;
	memcpy(first, call.message, first_bytes);
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 0);
	assert_int_equal(call.message_bytes, first_bytes);
	assert_memory_equal(call.message, first, first_bytes);
	assert_int_equal(fake.creates, 1);
	/* no id, no protection */
	request.request_id = 0;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 0);
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 0);
	assert_int_equal(fake.creates, 3);
}

static void test_other_request_under_used_id(void **state)
{
	Iommubroker__V1__CreateGuestRequest create = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__ResetGuestRequest reset = IOMMUBROKER__V1__RESET_GUEST_REQUEST__INIT;
	Iommubroker__V1__DestroyGuestRequest destroy = IOMMUBROKER__V1__DESTROY_GUEST_REQUEST__INIT;

	(void)state;
	create.request_id = reset.request_id = destroy.request_id = 5;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &create), 0);
	create.name = (char *)"other";
	assert_int_equal(run(PATH("Guests/CreateGuest"), &create), 3);
	assert_field("request_id");
	/* the same bytes, another method */
	reset.guest = destroy.guest = 1;
	reset.request_id = destroy.request_id = 6;
	assert_int_equal(run(PATH("Guests/ResetGuest"), &reset), 0);
	assert_int_equal(run(PATH("Guests/DestroyGuest"), &destroy), 3);
	assert_field("request_id");
	assert_int_equal(fake.creates, 1);
}

/* Maps have no order on the wire. */
static void test_labels_in_another_order(void **state)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__CreateGuestRequest__LabelsEntry a =
		IOMMUBROKER__V1__CREATE_GUEST_REQUEST__LABELS_ENTRY__INIT;
	Iommubroker__V1__CreateGuestRequest__LabelsEntry b = a, *forth[] = {&a, &b},
							 *back[] = {&b, &a};

	(void)state;
	a.key = (char *)"a";
	b.key = (char *)"b";
	request.request_id = 5;
	request.n_labels = 2;
	request.labels = forth;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 0);
	request.labels = back;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 0);
	assert_int_equal(fake.creates, 1);
}

static void test_refusals_are_remembered_too(void **state)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	struct rpc_status first;

	(void)state;
	refuse_quota(&fake.refusal, "guests", 3, 3, 1, "tenant-a", "a.conf:7");
	fake.refuse_creates = true;
	request.request_id = 5;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 8);
	first = call.status;
	fake.refuse_creates = false;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 8);
	assert_int_equal(fake.creates, 1);
	assert_string_equal(call.status.message, first.message);
	assert_int_equal(call.status.details_bytes, first.details_bytes);
	assert_memory_equal(call.status.details, first.details, first.details_bytes);
	/* what was refused for its form was never begun */
	request.request_id = 6;
	request.uuid = (ProtobufCBinaryData){1, (uint8_t *)"x"};
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 3);
	request.uuid.len = 0;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 0);
}

/* Once for each mutation, with its answer if that is to be repeated; a refused one as well, for it
 * may have changed something; what can be done twice, and what changes nothing, not at all. */
static void test_mutations_are_settled(void **state)
{
	Iommubroker__V1__CreateGuestRequest create = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__ResetGuestRequest reset = IOMMUBROKER__V1__RESET_GUEST_REQUEST__INIT;
	Iommubroker__V1__DescribeGuestRequest describe =
		IOMMUBROKER__V1__DESCRIBE_GUEST_REQUEST__INIT;

	(void)state;
	create.request_id = 5;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &create), 0);
	assert_int_equal(fake.settled, 1);
	assert_false(fake.settled_on_lane);
	assert_int_equal(fake.settled_answer.request_id, 5);
	assert_int_equal(fake.settled_answer.n_bytes, call.message_bytes);
	assert_int_equal(run(PATH("Guests/CreateGuest"), &create), 0); /* repeated */
	assert_int_equal(fake.settled, 1);
	reset.guest = 1;
	assert_int_equal(run(PATH("Guests/ResetGuest"), &reset), 0);
	assert_int_equal(fake.settled, 2);
	assert_true(fake.settled_on_lane);
	assert_int_equal(fake.settled_answer.request_id, 5); /* it had no id */
	describe.guest = 1;
	run(PATH("Guests/DescribeGuest"), &describe);
	protobuf_c_message_free_unpacked((ProtobufCMessage *)refresh(1, 1), NULL);
	assert_int_equal(fake.settled, 2);
}

static void start_update(struct test_call *update, uint64_t id)
{
	Iommubroker__V1__UpdateMemoryRequest request = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;

	request.request_id = id;
	request.guest = 1;
	test_call_init(update, &fixture, RPC_DOOR_CLIENT, secret);
	test_call_start(update, &fixture, PATH("Memory/UpdateMemory"), &request);
}

static void test_join_running(void **state)
{
	static struct test_call first, second, third;

	(void)state;
	fake.hold_updates = true;
	start_update(&first, 9);
	wait_for_count(&fake.updating, 1);
	start_update(&second, 9);
	start_update(&third, 9);
	assert_false(second.finished);
	fake.hold_updates = false;
	test_call_wait(&first);
	test_call_wait(&second);
	test_call_wait(&third);
	assert_int_equal(fake.updates, 1);
	assert_int_equal(first.status.code, 0);
	assert_int_equal(second.message_bytes, first.message_bytes);
	assert_memory_equal(second.message, first.message, first.message_bytes);
	assert_memory_equal(third.message, first.message, first.message_bytes);
	test_call_deinit(&first);
	test_call_deinit(&second);
	test_call_deinit(&third);
}

/* Small messages that are large in memory, while the pool is busy: one tenant's take a bounded part
 * of the daemon's, and what is over it is refused at once. */
static void test_waiting_calls_have_a_bound(void **state)
{
	enum { FIELDS = 8000, FIELD_BYTES_MIN = 40 };
	Iommubroker__V1__UpdateMemoryRequest request = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	static ProtobufCMessageUnknownField fields[FIELDS];
	const size_t bytes_max = 8 << 20;
	size_t n, max = bytes_max / (FIELDS * FIELD_BYTES_MIN) + 1;
	struct test_call **calls = calloc(max + 1, sizeof(*calls));
	static uint8_t one = 1;

	(void)state;
	for (size_t i = 0; i < FIELDS; i++)
		fields[i] =
			(ProtobufCMessageUnknownField){99, PROTOBUF_C_WIRE_TYPE_VARINT, 1, &one};
	request.guest = 1;
	request.base.n_unknown_fields = FIELDS;
	request.base.unknown_fields = fields;
	fake.max[LEDGER_QUEUED_BYTES] = bytes_max;
	fake.hold_updates = true;
	for (n = 0; n <= max; n++) {
		calls[n] = calloc(1, sizeof(*calls[n]));
		test_call_init(calls[n], &fixture, RPC_DOOR_CLIENT, secret);
		test_call_start(calls[n], &fixture, PATH("Memory/UpdateMemory"), &request);
		if (n && calls[n]->finished)
			break;
	}
	assert_in_range(n, bytes_max / (CALL_ARENA_BYTES_MAX + sizeof(struct call)) - 1, max);
	assert_int_equal(calls[n]->status.code, 8);
	assert_in_range(fake.used[LEDGER_QUEUED_BYTES], 1, bytes_max);
	fake.hold_updates = false;
	for (size_t i = 0; i <= n; i++) {
		test_call_wait(calls[i]);
		assert_int_equal(calls[i]->status.code, i < n ? 0 : 8);
		test_call_deinit(calls[i]);
		free(calls[i]);
	}
	assert_int_equal(fake.used[LEDGER_QUEUED_BYTES], 0);
	free(calls);
}

/* A connection's end stops nothing that has begun. */
static void test_cancelled_call_goes_on(void **state)
{
	static struct test_call update;

	(void)state;
	fake.hold_updates = true;
	start_update(&update, 9);
	wait_for_count(&fake.updating, 1);
	dispatch_cancelled(&update.rpc);
	assert_false(update.finished);
	fake.hold_updates = false;
	test_call_wait(&update);
	assert_int_equal(update.status.code, 0);
	test_call_deinit(&update);
}

static void test_cancel_operation(void **state)
{
	Iommubroker__V1__CancelOperationRequest cancel =
		IOMMUBROKER__V1__CANCEL_OPERATION_REQUEST__INIT;
	static struct test_call update;

	(void)state;
	assert_int_equal(run(PATH("Host/CancelOperation"), &cancel), 3);
	assert_field("request_id");
	cancel.request_id = 9;
	assert_int_equal(run(PATH("Host/CancelOperation"), &cancel), 5);
	fake.hold_updates = true;
	start_update(&update, 9);
	wait_for_count(&fake.updating, 1);
	cancel.request_id = 8;
	assert_int_equal(run(PATH("Host/CancelOperation"), &cancel), 5);
	cancel.request_id = 9;
	assert_int_equal(run(PATH("Host/CancelOperation"), &cancel), 0);
	test_call_wait(&update);
	assert_int_equal(update.status.code, 1);
	test_call_deinit(&update);
	assert_int_equal(run(PATH("Host/CancelOperation"), &cancel), 5);
}

/* Also what runs under no id. */
static void test_session_end_cancels(void **state)
{
	Iommubroker__V1__CloseSessionRequest request = IOMMUBROKER__V1__CLOSE_SESSION_REQUEST__INIT;
	static struct test_call update;

	(void)state;
	fake.hold_updates = true;
	start_update(&update, 0);
	wait_for_count(&fake.updating, 1);
	assert_int_equal(run(PATH("Host/CloseSession"), &request), 0);
	test_call_wait(&update);
	assert_int_equal(update.status.code, 1);
	test_call_deinit(&update);
}

/* ── streams ──────────────────────────────────────────────────────────────────────────────── */

static void start_watch(struct test_call *watch, uint64_t guest)
{
	Iommubroker__V1__WatchEventsRequest request = IOMMUBROKER__V1__WATCH_EVENTS_REQUEST__INIT;

	request.guest = guest;
	test_call_init(watch, &fixture, RPC_DOOR_CLIENT, secret);
	test_call_start(watch, &fixture, PATH("Events/WatchEvents"), &request);
}

static uint64_t last_sequence(const struct test_call *watch)
{
	Iommubroker__V1__Event *event =
		iommubroker__v1__event__unpack(NULL, watch->message_bytes, watch->message);
	uint64_t sequence;

	assert_non_null(event);
	assert_int_equal(event->kind, IOMMUBROKER__V1__EVENT_KIND__EVENT_KIND_TRANSLATION_ERROR);
	assert_int_equal(event->fault->event_code, S390_PEC_TT);
	sequence = event->sequence;
	iommubroker__v1__event__free_unpacked(event, NULL);
	return sequence;
}

static void test_watch_events(void **state)
{
	static struct test_call watch;

	(void)state;
	start_watch(&watch, 4711);
	test_call_wait(&watch);
	assert_int_equal(watch.status.code, 5);
	test_call_deinit(&watch);
	start_watch(&watch, 1);
	fake_event_emit(3);
	test_call_wait_sends(&watch, 3);
	fake_event_emit(1000);
	test_call_wait_sends(&watch, 1003);
	assert_int_equal(last_sequence(&watch), 1003);
	fake_guest_gone();
	test_call_wait(&watch);
	assert_int_equal(watch.status.code, 0);
	assert_false(watch.has_message);
	assert_int_equal(fake.watches, 0);
	test_call_deinit(&watch);
}

/* What the client has no room for is neither lost nor sent twice. */
static void test_watch_waits_for_room(void **state)
{
	static struct test_call watch;

	(void)state;
	start_watch(&watch, 1);
	watch.no_room = true;
	fake_event_emit(5);
	pthread_mutex_lock(&watch.lock);
	while (!watch.refused_sends)
		pthread_cond_wait(&watch.changed, &watch.lock);
	watch.no_room = false;
	pthread_mutex_unlock(&watch.lock);
	dispatch_writable(&watch.rpc);
	test_call_wait_sends(&watch, 5);
	assert_int_equal(last_sequence(&watch), 5);
	dispatch_cancelled(&watch.rpc);
	test_call_wait(&watch);
	assert_int_equal(watch.sends, 5);
	test_call_deinit(&watch);
}

static void test_watch_cancelled(void **state)
{
	static struct test_call watch;

	(void)state;
	start_watch(&watch, 1);
	dispatch_cancelled(&watch.rpc);
	test_call_wait(&watch);
	assert_int_equal(watch.status.code, 1);
	assert_int_equal(fake.watches, 0);
	dispatch_cancelled(&watch.rpc); /* too late, and harmless */
	dispatch_writable(&watch.rpc);
	test_call_deinit(&watch);
}

static void test_health(void **state)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	static struct test_call watch;

	(void)state;
	assert_int_equal(run("/grpc.health.v1.Health/Check", &request), 0);
	assert_memory_equal(call.message, "\x08\x01", 2);
	request.service = (char *)"iommubroker.v1.Host";
	assert_int_equal(run("/grpc.health.v1.Health/Check", &request), 0);
	request.service = (char *)"iommubroker.v1.Hos";
	assert_int_equal(run("/grpc.health.v1.Health/Check", &request), 5);
	test_call_init(&watch, &fixture, RPC_DOOR_CLIENT, NULL);
	test_call_start(&watch, &fixture, "/grpc.health.v1.Health/Watch", &request);
	test_call_wait_sends(&watch, 1);
	assert_memory_equal(watch.message, "\x08\x03", 2);
	assert_false(watch.finished);
	dispatch_cancelled(&watch.rpc);
	test_call_wait(&watch);
	test_call_deinit(&watch);
}

/* ── descriptors beside gRPC ──────────────────────────────────────────────────────────────── */

static void test_open_device_token(void **state)
{
	Iommubroker__V1__OpenDeviceRequest request = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;
	Iommubroker__V1__JoinSessionRequest join = IOMMUBROKER__V1__JOIN_SESSION_REQUEST__INIT;
	Iommubroker__V1__TakeDescriptorRequest take =
		IOMMUBROKER__V1__TAKE_DESCRIPTOR_REQUEST__INIT;
	Iommubroker__V1__OpenDeviceResponse *response;
	int socket = fixture_connect(&fixture);
	struct reply reply;

	(void)state;
	request.request_id = 3;
	request.guest = 1;
	request.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_FUNCTION_ID;
	assert_int_equal(run(PATH("Devices/OpenDevice"), &request), 0);
	response = answer(&iommubroker__v1__open_device_response__descriptor);
	assert_int_equal(response->descriptor->source_case,
			 IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_TOKEN);
	take.token = response->descriptor->token;
	protobuf_c_message_free_unpacked(&response->base, NULL);
	join.secret = (ProtobufCBinaryData){sizeof(secret), secret};
	client_call(socket, M(JOIN_SESSION), &join, &reply, NULL);
	assert_int_equal(reply.code, 0);
	reply_clear(&reply);
	client_call(socket, M(TAKE_DESCRIPTOR), &take, &reply, NULL);
	assert_int_equal(reply.code, 0);
	assert_int_equal(reply.n_fds, 1);
	assert_int_equal(fcntl(reply.fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
	reply_clear(&reply);
	client_call(socket, M(TAKE_DESCRIPTOR), &take, &reply, NULL);
	assert_int_equal(reply.code, 5);
	reply_clear(&reply);
	/* the same again has the device, and no descriptor that would not be there */
	assert_int_equal(run(PATH("Devices/OpenDevice"), &request), 0);
	response = answer(&iommubroker__v1__open_device_response__descriptor);
	assert_int_equal(response->device, 21);
	assert_null(response->descriptor);
	protobuf_c_message_free_unpacked(&response->base, NULL);
	assert_int_equal(fake.opens, 1);
	close(socket);
}

/* A place is kept before the device is opened. */
static void test_too_many_descriptors_wait(void **state)
{
	Iommubroker__V1__GetDescriptorRequest get = IOMMUBROKER__V1__GET_DESCRIPTOR_REQUEST__INIT;
	Iommubroker__V1__OpenDeviceRequest open = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;

	(void)state;
	get.device = 4711;
	assert_int_equal(run(PATH("Devices/GetDescriptor"), &get), 5);
	open.guest = 4711;
	open.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_FUNCTION_ID;
	for (size_t i = 0; i < 17; i++) {
		/* what fails gives its place back */
		assert_int_equal(run(PATH("Devices/GetDescriptor"), &get), 5);
		assert_int_equal(run(PATH("Devices/OpenDevice"), &open), 5);
	}
	fake.opens = 0;
	get.device = 1;
	for (size_t i = 0; i < 16; i++)
		assert_int_equal(run(PATH("Devices/GetDescriptor"), &get), 0);
	open.guest = 1;
	open.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_FUNCTION_ID;
	assert_int_equal(run(PATH("Devices/OpenDevice"), &open), 8);
	assert_reason("QUOTA_EXCEEDED");
	assert_int_equal(fake.opens, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, dispatch_setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_refresh),
		T(test_refresh_longest_answer),
		T(test_refresh_for_now_is_busy),
		T(test_same_request_same_answer),
		T(test_other_request_under_used_id),
		T(test_labels_in_another_order),
		T(test_refusals_are_remembered_too),
		T(test_mutations_are_settled),
		T(test_join_running),
		T(test_waiting_calls_have_a_bound),
		T(test_cancelled_call_goes_on),
		T(test_cancel_operation),
		T(test_session_end_cancels),
		T(test_watch_events),
		T(test_watch_waits_for_room),
		T(test_watch_cancelled),
		T(test_health),
		T(test_open_device_token),
		T(test_too_many_descriptors_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
