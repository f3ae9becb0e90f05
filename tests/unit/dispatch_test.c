/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The dispatcher over a fake broker: the table of methods, sessions, doors, peers, and what goes
 * wrong in the daemon itself.
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
#include "rpc/method_table.h"

/* ── the table ────────────────────────────────────────────────────────────────────────────── */

static const ProtobufCServiceDescriptor *const services[] = {
	&iommubroker__v1__host__descriptor,    &iommubroker__v1__guests__descriptor,
	&iommubroker__v1__memory__descriptor,  &iommubroker__v1__devices__descriptor,
	&iommubroker__v1__domains__descriptor, &iommubroker__v1__fast_path__descriptor,
	&iommubroker__v1__events__descriptor,  &iommubroker__v1__admin__descriptor,
	&grpc__health__v1__health__descriptor,
};

static size_t check_service(const ProtobufCServiceDescriptor *service)
{
	bool admin = service == &iommubroker__v1__admin__descriptor;
	enum rpc_door door = admin ? RPC_DOOR_ADMIN : RPC_DOOR_CLIENT;
	char path[128];

	for (size_t i = 0; i < service->n_methods; i++) {
		const struct method *method;

		snprintf(path, sizeof(path), "/%s/%s", service->name, service->methods[i].name);
		method = method_by_path(path, strlen(path), door);
		assert_non_null(method);
		assert_ptr_equal(method->request, service->methods[i].input);
		assert_true(method->handle || method->prepare);
		if (admin)
			assert_null(method_by_path(path, strlen(path), RPC_DOOR_CLIENT));
	}
	return service->n_methods;
}

static void test_table_has_every_method(void **state)
{
	size_t n, native_only = 3, methods = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
		methods += check_service(services[i]);
	method_table(&n);
	assert_int_equal(n, methods + native_only);
}

/* Every number of the enum but those that are no methods of the table, each once. */
static void test_table_has_every_number(void **state)
{
	const ProtobufCEnumDescriptor *numbers = &iommubroker__v1__method__descriptor;
	size_t n, numbered = 0;
	const struct method *table = method_table(&n);

	(void)state;
	for (unsigned int i = 0; i < numbers->n_values; i++) {
		uint32_t number = (uint32_t)numbers->values[i].value;

		if (number == M(UNSPECIFIED) || number == M(CANCEL_CALL)) {
			assert_null(method_by_number(number));
			continue;
		}
		assert_non_null(method_by_number(number));
		assert_int_equal(method_by_number(number)->number, number);
		numbered++;
	}
	for (size_t i = 0; i < n; i++)
		numbered -= table[i].number != 0;
	assert_int_equal(numbered, 0);
}

/* Its guest pays for it. */
static bool names_a_guest(const struct method *method)
{
	static const char *const names[] = {"guest", "device", "nested", "ring"};

	if (!method->handle || !(method->flags & METHOD_CLIENT))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const ProtobufCFieldDescriptor *field =
			protobuf_c_message_descriptor_get_field_by_name(method->request, names[i]);

		if (field && field->type == PROTOBUF_C_TYPE_FIXED64 &&
		    field->label != PROTOBUF_C_LABEL_REPEATED)
			return true;
	}
	return false;
}

/* Offsets and flags against the messages: who forgets one in the table is found here. */
static void test_table_fits_the_messages(void **state)
{
	size_t n;
	const struct method *table = method_table(&n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		const ProtobufCFieldDescriptor *id =
			protobuf_c_message_descriptor_get_field_by_name(table[i].request,
									"request_id");
		bool mutation = table[i].flags & METHOD_MUTATION;

		if (table[i].number == M(CANCEL_OPERATION))
			continue;
		assert_int_equal(mutation, id != NULL);
		assert_int_equal(table[i].request_id_offset, id ? id->offset : 0);
		assert_true(table[i].place != PLACE_LANE || table[i].handle_offset ||
			    table[i].lane);
		assert_int_equal(names_a_guest(&table[i]), table[i].handle_offset != 0);
		assert_true(!(table[i].flags & METHOD_NO_SESSION) || !mutation);
		assert_true(table[i].flags & (METHOD_CLIENT | METHOD_ADMIN));
	}
}

/* Who adds a method says what a delegation must have given for it; whoever forgets it is found
 * here. Tells at the same time which session may do what. */
static void test_table_says_every_right(void **state)
{
	size_t n;
	const struct method *table = method_table(&n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		bool session = !(table[i].flags & METHOD_NO_SESSION);

		assert_int_equal(session, table[i].right != 0);
		assert_true(table[i].right != GUEST_RIGHTS_END);
	}
}

/* With all rights but its own each method is refused before it looks at anything, and with its own
 * alone it is not refused for want of it. */
static void test_each_method_wants_its_right(void **state)
{
	size_t n;
	const struct method *table = method_table(&n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		ProtobufCMessage *request = calloc(1, table[i].request->sizeof_message);

		protobuf_c_message_init(table[i].request, request);
		if (table[i].path && table[i].right && table[i].number != M(CLOSE_SESSION) &&
		    table[i].number != M(WATCH_EVENTS)) {
			fake.rights_lacking = 1u << table[i].right;
			assert_int_equal(run(table[i].path, request), 7);
			assert_reason("NO_RIGHT");
		}
		free(request);
	}
	fake.rights_lacking = 0;
}

/* wire_check() counts the elements of so many fields of a message. */
static void test_messages_are_small_enough(void **state)
{
	size_t n;
	const struct method *table = method_table(&n);

	(void)state;
	for (size_t i = 0; i < n; i++)
		assert_true(table[i].request->n_fields <= 32);
}

static void test_unknown_paths(void **state)
{
	static const char *const paths[] = {"",
					    "/",
					    PATH("Host/GetInf"),
					    PATH("Host/GetInfoo"),
					    PATH("Host/getInfo"),
					    "iommubroker.v1.Host/GetInfo"};

	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		assert_null(method_by_path(paths[i], strlen(paths[i]), RPC_DOOR_CLIENT));
	assert_null(method_by_number(0));
	assert_null(method_by_number(4711));
}

/* ── sessions ─────────────────────────────────────────────────────────────────────────────── */

static void test_needs_session(void **state)
{
	Iommubroker__V1__ListGuestsRequest request = IOMMUBROKER__V1__LIST_GUESTS_REQUEST__INIT;
	Iommubroker__V1__GetInfoRequest info = IOMMUBROKER__V1__GET_INFO_REQUEST__INIT;
	uint8_t wrong[BROKER_SECRET_BYTES];

	(void)state;
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, NULL);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Guests/ListGuests"), &request), 16);
	assert_reason("NO_SESSION");
	test_call_deinit(&call);
	memcpy(wrong, secret, sizeof(wrong));
	wrong[15] ^= 1;
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, wrong);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Guests/ListGuests"), &request), 16);
	assert_false(call.rpc.secret_good);
	test_call_deinit(&call);
	/* a method that wants no session does not make it a good one */
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, wrong);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Host/GetInfo"), &info), 0);
	assert_false(call.rpc.secret_good);
	test_call_deinit(&call);
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, secret);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Guests/ListGuests"), &request), 0);
	assert_true(call.rpc.secret_good);
	test_call_deinit(&call);
}

static void test_secret_of_another_process(void **state)
{
	Iommubroker__V1__ListGuestsRequest request = IOMMUBROKER__V1__LIST_GUESTS_REQUEST__INIT;
	struct peer other = fixture.peer;

	(void)state;
	other.pid = 1;
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, secret);
	call.rpc.peer = &other;
	assert_int_equal(test_call_run(&call, &fixture, PATH("Guests/ListGuests"), &request), 16);
	test_call_deinit(&call);
}

static void test_close_session(void **state)
{
	Iommubroker__V1__CloseSessionRequest request = IOMMUBROKER__V1__CLOSE_SESSION_REQUEST__INIT;

	(void)state;
	assert_int_equal(run(PATH("Host/CloseSession"), &request), 0);
	assert_int_equal(fake.closed, 1);
	assert_int_equal(run(PATH("Host/CloseSession"), &request), 16);
}

static void test_death_ends_session(void **state)
{
	Iommubroker__V1__OpenSessionRequest request = IOMMUBROKER__V1__OPEN_SESSION_REQUEST__INIT;
	struct peer child = {.uid = geteuid(), .gid = getegid()};
	int pipe_ends[2];
	char byte;

	(void)state;
	assert_int_equal(pipe(pipe_ends), 0);
	child.pid = fork();
	if (!child.pid) {
		close(pipe_ends[1]);
		_exit(read(pipe_ends[0], &byte, 1) != 0);
	}
	child.pidfd = (int)syscall(SYS_pidfd_open, child.pid, 0);
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, NULL);
	call.rpc.peer = &child;
	assert_int_equal(test_call_run(&call, &fixture, PATH("Host/OpenSession"), &request), 0);
	test_call_deinit(&call);
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	wait_for_count(&fake.closed, 1);
	assert_int_equal(waitpid(child.pid, NULL, 0), child.pid);
	close(child.pidfd);
}

/* ── doors ────────────────────────────────────────────────────────────────────────────────── */

static void test_admin_only_behind_its_door(void **state)
{
	Iommubroker__V1__GetStatusRequest request = IOMMUBROKER__V1__GET_STATUS_REQUEST__INIT;
	const struct method *method = method_by_number(M(ADMIN_GET_STATUS));
	Iommubroker__V1__GetStatusResponse *response;

	(void)state;
	/* Also when a transport asks no further than the number. */
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, secret);
	dispatch_call(fixture.dispatcher, method, &call.rpc);
	test_call_wait(&call);
	assert_int_equal(call.status.code, 12);
	test_call_deinit(&call);
	test_call_init(&call, &fixture, RPC_DOOR_ADMIN, NULL);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Admin/GetStatus"), &request), 0);
	response = answer(&iommubroker__v1__get_status_response__descriptor);
	assert_string_equal(response->info->backend, "fake");
	assert_int_equal(response->sessions, 1);
	assert_int_equal(response->n_usage, 2);
	assert_string_equal(response->usage[0]->tenant, "host");
	assert_int_equal(response->calls, 3);
	assert_int_equal(response->refusals, 1);
	protobuf_c_message_free_unpacked(&response->base, NULL);
	test_call_deinit(&call);
}

static int show(const char *guest)
{
	Iommubroker__V1__ShowGuestRequest request = IOMMUBROKER__V1__SHOW_GUEST_REQUEST__INIT;
	int code;

	request.guest = (char *)guest;
	test_call_init(&call, &fixture, RPC_DOOR_ADMIN, NULL);
	code = test_call_run(&call, &fixture, PATH("Admin/ShowGuest"), &request);
	test_call_deinit(&call);
	return code;
}

static void test_show_guest_by_any_name(void **state)
{
	(void)state;
	assert_int_equal(show(""), 0);
	assert_int_equal(call.sends, 3);
	assert_int_equal(show("0x2"), 0);
	assert_int_equal(call.sends, 1);
	assert_int_equal(show("0000000000000003"), 0);
	assert_int_equal(show("abababab-abab-abab-abab-abababababab"), 0);
	assert_int_equal(show("single"), 0);
	assert_int_equal(show("twin"), 3);
	assert_field("guest");
	assert_int_equal(show("nobody"), 5);
	assert_int_equal(show("0x77"), 5);
	assert_int_equal(show("0x2 "), 5);
}

/* Of a guest with thousands of regions a description takes its time: the loop, and whoever asks,
 * have other things to do. */
static void test_show_guest_on_a_worker(void **state)
{
	(void)state;
	fake.described_by = pthread_self();
	assert_int_equal(show(""), 0);
	assert_false(pthread_equal(fake.described_by, pthread_self()));
	assert_false(pthread_equal(fake.described_by, fixture.thread));
}

static void test_admin_explain(void **state)
{
	Iommubroker__V1__ExplainRequest request = IOMMUBROKER__V1__EXPLAIN_REQUEST__INIT;
	Iommubroker__V1__ExplainTranslationResponse *response;

	(void)state;
	test_call_init(&call, &fixture, RPC_DOOR_ADMIN, NULL);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Admin/Explain"), &request), 3);
	assert_field("guest");
	test_call_deinit(&call);
	request.guest = (char *)"single";
	request.function_id = 0x12;
	request.iova = 0x5000;
	test_call_init(&call, &fixture, RPC_DOOR_ADMIN, NULL);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Admin/Explain"), &request), 0);
	response = answer(&iommubroker__v1__explain_translation_response__descriptor);
	assert_int_equal(response->explanation->iova, 0x5000);
	assert_int_equal(response->explanation->gpa, 44); /* the nested domain that it went to */
	assert_int_equal(response->explanation->n_steps, 1);
	protobuf_c_message_free_unpacked(&response->base, NULL);
	test_call_deinit(&call);
	request.function_id = 0x13;
	test_call_init(&call, &fixture, RPC_DOOR_ADMIN, NULL);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Admin/Explain"), &request), 5);
	test_call_deinit(&call);
}

/* ── Revoke and Drain ─────────────────────────────────────────────────────────────────────── */

static int ask_revoke(const char *guest, const char *tenant, const char *device, const char *reason)
{
	Iommubroker__V1__RevokeRequest request = IOMMUBROKER__V1__REVOKE_REQUEST__INIT;
	int code;

	request.guest = (char *)guest;
	request.tenant = (char *)tenant;
	request.device = (char *)device;
	request.reason = (char *)reason;
	test_call_init(&call, &fixture, RPC_DOOR_ADMIN, NULL);
	code = test_call_run(&call, &fixture, PATH("Admin/Revoke"), &request);
	test_call_deinit(&call);
	return code;
}

static void test_revoke_names_one_thing(void **state)
{
	char reason[129];

	(void)state;
	memset(reason, 'r', 128);
	reason[128] = '\0';
	fake.revoke_n = 1;
	assert_int_equal(ask_revoke("", "", "", ""), 3);
	assert_field("guest");
	assert_int_equal(ask_revoke("single", "tenant-a", "", ""), 3);
	assert_int_equal(ask_revoke("", "t", "0000:00:04.0", ""), 3);
	assert_int_equal(ask_revoke("", "t", "", reason), 3);
	assert_field("reason");
	reason[127] = '\0';
	assert_int_equal(ask_revoke("", "t", "", reason), 0);
	assert_int_equal(fake.revoke.what, REVOKE_TENANT);
	assert_string_equal(fake.revoke.tenant, "t");
	assert_int_equal(ask_revoke("twin", "", "", ""), 3);
	assert_int_equal(ask_revoke("nobody", "", "", ""), 5);
	assert_int_equal(ask_revoke("single", "", "", ""), 0);
	assert_int_equal(fake.revoke.what, REVOKE_GUEST);
	assert_int_equal(fake.revoke.guest, 3);
	for (const char **bad = (const char *[]){"fid:", "fid:0x", "fid:123456789", "fid:12g", "12",
						 "0000:00:04.8", NULL};
	     *bad; bad++) {
		assert_int_equal(ask_revoke("", "", *bad, ""), 3);
		assert_field("device");
	}
	assert_int_equal(ask_revoke("", "", "fid:0x12", ""), 0);
	assert_true(fake.revoke.device.by_fid && fake.revoke.device.fid == 0x12);
	assert_int_equal(ask_revoke("", "", "0000:00:0A.0", ""), 0);
	assert_string_equal(fake.revoke.device.pci_address, "0000:00:0a.0");
	fake.revoke_n = 0;
	assert_int_equal(ask_revoke("", "", "fid:12", ""), 5);
	fake.refuse_revokes = true;
	refuse_errno(&fake.refusal, ENOMEM, "revoking");
	assert_int_equal(ask_revoke("", "", "fid:12", ""), 8);
	fake.refuse_revokes = false;
}

static Iommubroker__V1__RevokeResponse *revoke_tenant(size_t n)
{
	Iommubroker__V1__RevokeRequest request = IOMMUBROKER__V1__REVOKE_REQUEST__INIT;
	Iommubroker__V1__RevokeResponse *response;

	fake.revoke_n = n;
	request.tenant = (char *)"tenant-a";
	test_call_init(&call, &fixture, RPC_DOOR_ADMIN, NULL);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Admin/Revoke"), &request), 0);
	response = answer(&iommubroker__v1__revoke_response__descriptor);
	test_call_deinit(&call);
	return response;
}

static void test_revoke_tells_what_went(void **state)
{
	Iommubroker__V1__RevokeResponse *response = revoke_tenant(2);

	(void)state;
	assert_int_equal(response->n_revoked, 2);
	assert_string_equal(response->revoked[0],
			    "guest 'guest' (1) of tenant 'tenant-a', devices: 0");
	assert_non_null(strstr(response->revoked[1], "its VMM still holds a device's descriptor"));
	protobuf_c_message_free_unpacked(&response->base, NULL);
	response = revoke_tenant(256);
	assert_int_equal(response->n_revoked, 256);
	protobuf_c_message_free_unpacked(&response->base, NULL);
	response = revoke_tenant(FAKE_REVOKED_MAX);
	assert_int_equal(response->n_revoked, 257);
	assert_string_equal(response->revoked[256], "and 1244 more");
	protobuf_c_message_free_unpacked(&response->base, NULL);
}

/* ── the rest ─────────────────────────────────────────────────────────────────────────────── */

static void test_check_fit_and_usage(void **state)
{
	Iommubroker__V1__CheckFitRequest fit = IOMMUBROKER__V1__CHECK_FIT_REQUEST__INIT;
	Iommubroker__V1__GetUsageRequest usage = IOMMUBROKER__V1__GET_USAGE_REQUEST__INIT;
	Iommubroker__V1__CheckFitResponse *response;
	Iommubroker__V1__GetUsageResponse *used;

	(void)state;
	assert_int_equal(run(PATH("Host/CheckFit"), &fit), 0);
	response = answer(&iommubroker__v1__check_fit_response__descriptor);
	assert_true(response->fits);
	protobuf_c_message_free_unpacked(&response->base, NULL);
	fit.pinned_bytes = 101;
	assert_int_equal(run(PATH("Host/CheckFit"), &fit), 0);
	response = answer(&iommubroker__v1__check_fit_response__descriptor);
	assert_false(response->fits);
	assert_int_equal(response->n_missing, 1);
	assert_string_equal(response->missing[0]->resource, "pinned_bytes");
	assert_string_equal(response->missing[0]->level, "host");
	protobuf_c_message_free_unpacked(&response->base, NULL);
	fit.update_rings = 2;
	assert_int_equal(run(PATH("Host/CheckFit"), &fit), 12);
	assert_int_equal(run(PATH("Host/GetUsage"), &usage), 0);
	used = answer(&iommubroker__v1__get_usage_response__descriptor);
	assert_string_equal(used->tenant, "tenant-a");
	assert_int_equal(used->usage[0]->current, 42);
	protobuf_c_message_free_unpacked(&used->base, NULL);
}

static void test_describe_guest(void **state)
{
	Iommubroker__V1__DescribeGuestRequest request =
		IOMMUBROKER__V1__DESCRIBE_GUEST_REQUEST__INIT;
	Iommubroker__V1__DescribeGuestResponse *response;

	(void)state;
	request.guest = 4711;
	assert_int_equal(run(PATH("Guests/DescribeGuest"), &request), 5);
	request.guest = 1;
	assert_int_equal(run(PATH("Guests/DescribeGuest"), &request), 0);
	response = answer(&iommubroker__v1__describe_guest_response__descriptor);
	assert_string_equal(response->description->labels[0]->value, "value");
	assert_int_equal(response->description->regions[0]->gpa, 0x1000);
	assert_int_equal(response->description->devices[0]->nested, 44);
	assert_int_equal(response->description->devices[0]->info->function_id, 0x12);
	assert_string_equal(response->description->nested[0]->format, "relaxed");
	protobuf_c_message_free_unpacked(&response->base, NULL);
}

/* Regions at 0x1000 and 0x5000, one after the other; the rest comes each time. */
static void test_describe_guest_in_pages(void **state)
{
	const struct {
		uint64_t from;
		uint32_t max;
		uint64_t first, n, next;
	} looks[] = {
		{0, 0, 0x1000, 2, 0},      {0, 1, 0x1000, 1, 0x5000}, {0x5000, 1, 0x5000, 1, 0},
		{0x1fff, 0, 0x1000, 2, 0}, {0x2000, 0, 0x5000, 1, 0}, {0x6000, 1, 0, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
		Iommubroker__V1__DescribeGuestRequest request =
			IOMMUBROKER__V1__DESCRIBE_GUEST_REQUEST__INIT;
		Iommubroker__V1__DescribeGuestResponse *response;

		request.guest = 1;
		request.regions_from = looks[i].from;
		request.regions_max = looks[i].max;
		assert_int_equal(run(PATH("Guests/DescribeGuest"), &request), 0);
		response = answer(&iommubroker__v1__describe_guest_response__descriptor);
		assert_int_equal(response->description->n_regions, looks[i].n);
		assert_int_equal(response->regions_next, looks[i].next);
		assert_int_equal(response->description->n_devices, 1);
		if (looks[i].n)
			assert_int_equal(response->description->regions[0]->gpa, looks[i].first);
		protobuf_c_message_free_unpacked(&response->base, NULL);
	}
}

/* Sessions end before the transports do, and none comes after them. */
static void test_stop(void **state)
{
	Iommubroker__V1__OpenSessionRequest request = IOMMUBROKER__V1__OPEN_SESSION_REQUEST__INIT;

	(void)state;
	dispatcher_stop(fixture.dispatcher);
	wait_for_count(&fake.closed, 1);
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, NULL);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Host/OpenSession"), &request), 14);
	assert_reason("STOPPING");
	test_call_deinit(&call);
}

/* A negative status is the daemon's own: the client learns no more than that, the loop ends. */
static void test_broken_daemon(void **state)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;

	(void)state;
	fake.broken_status = -5;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 13);
	assert_reason("DAEMON_BROKEN");
	pthread_join(fixture.thread, NULL);
	assert_int_equal(fixture.loop_status, -5);
	fixture.joined = true;
}

static void test_peer_allowed(void **state)
{
	struct peer peer = fixture.peer;

	(void)state;
	fixture_stop(&fixture);
	fixture.settings.client_uids[0] = 4000;
	fixture.settings.n_client_uids = 1;
	fixture.settings.client_gids[0] = 5000;
	fixture.settings.n_client_gids = 1;
	fixture_start(&fixture);
	peer = fixture.peer;
	assert_true(peer_allowed(fixture.dispatcher, &peer, RPC_DOOR_CLIENT));
	assert_true(peer_allowed(fixture.dispatcher, &peer, RPC_DOOR_ADMIN));
	peer.uid = 4000;
	assert_true(peer_allowed(fixture.dispatcher, &peer, RPC_DOOR_CLIENT));
	assert_false(peer_allowed(fixture.dispatcher, &peer, RPC_DOOR_ADMIN));
	peer.uid = 4001;
	peer.gid = 4001;
	assert_false(peer_allowed(fixture.dispatcher, &peer, RPC_DOOR_CLIENT));
	peer.gid = 5000;
	assert_true(peer_allowed(fixture.dispatcher, &peer, RPC_DOOR_CLIENT));
	peer.uid = 0;
	assert_true(peer_allowed(fixture.dispatcher, &peer, RPC_DOOR_ADMIN));
}

#define T(name) cmocka_unit_test_setup_teardown(name, dispatch_setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_table_has_every_method),
		T(test_table_has_every_number),
		T(test_table_fits_the_messages),
		T(test_table_says_every_right),
		T(test_each_method_wants_its_right),
		T(test_messages_are_small_enough),
		T(test_unknown_paths),
		T(test_needs_session),
		T(test_secret_of_another_process),
		T(test_close_session),
		T(test_death_ends_session),
		T(test_admin_only_behind_its_door),
		T(test_show_guest_by_any_name),
		T(test_show_guest_on_a_worker),
		T(test_admin_explain),
		T(test_revoke_names_one_thing),
		T(test_revoke_tells_what_went),
		T(test_check_fit_and_usage),
		T(test_describe_guest),
		T(test_describe_guest_in_pages),
		T(test_stop),
		T(test_broken_daemon),
		T(test_peer_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
