/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dispatch_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "google/rpc/error_details.pb-c.h"

uint8_t secret[BROKER_SECRET_BYTES];
struct test_call call;

int dispatch_setup(void **state)
{
	Iommubroker__V1__OpenSessionRequest request = IOMMUBROKER__V1__OPEN_SESSION_REQUEST__INIT;
	Iommubroker__V1__OpenSessionResponse *response;

	(void)state;
	fixture_init(&fixture);
	fixture_start(&fixture);
	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, NULL);
	assert_int_equal(test_call_run(&call, &fixture, PATH("Host/OpenSession"), &request), 0);
	response = iommubroker__v1__open_session_response__unpack(NULL, call.message_bytes,
								  call.message);
	assert_string_equal(response->tenant, "tenant-a");
	memcpy(secret, response->secret.data, sizeof(secret));
	iommubroker__v1__open_session_response__free_unpacked(response, NULL);
	test_call_deinit(&call);
	return 0;
}

int run(const char *path, const void *request)
{
	int code;

	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, secret);
	code = test_call_run(&call, &fixture, path, request);
	test_call_deinit(&call);
	return code;
}

int run_bytes(const char *path, const void *bytes, size_t n_bytes)
{
	const struct method *method = method_by_path(path, strlen(path), RPC_DOOR_CLIENT);

	test_call_init(&call, &fixture, RPC_DOOR_CLIENT, secret);
	call.rpc.request = bytes;
	call.rpc.request_bytes = n_bytes;
	dispatch_call(fixture.dispatcher, method, &call.rpc);
	test_call_wait(&call);
	test_call_deinit(&call);
	return call.status.code;
}

void *answer(const ProtobufCMessageDescriptor *descriptor)
{
	void *message =
		protobuf_c_message_unpack(descriptor, NULL, call.message_bytes, call.message);

	assert_non_null(message);
	return message;
}

void assert_field(const char *field)
{
	Google__Rpc__Status *status =
		google__rpc__status__unpack(NULL, call.status.details_bytes, call.status.details);
	Google__Rpc__BadRequest *bad;

	assert_int_equal(call.status.code, 3);
	assert_non_null(status);
	assert_int_equal(status->code, 3);
	bad = status_detail(status, "BadRequest", &google__rpc__bad_request__descriptor);
	assert_int_equal(bad->n_field_violations, 1);
	assert_string_equal(bad->field_violations[0]->field, field);
	assert_true(strlen(bad->field_violations[0]->description) > 5);
	protobuf_c_message_free_unpacked(&bad->base, NULL);
	google__rpc__status__free_unpacked(status, NULL);
}

void assert_reason(const char *reason)
{
	Google__Rpc__Status *status =
		google__rpc__status__unpack(NULL, call.status.details_bytes, call.status.details);
	Google__Rpc__ErrorInfo *info;

	assert_non_null(status);
	info = status_detail(status, "ErrorInfo", &google__rpc__error_info__descriptor);
	assert_string_equal(info->reason, reason);
	assert_string_equal(info->domain, "iommubroker");
	protobuf_c_message_free_unpacked(&info->base, NULL);
	google__rpc__status__free_unpacked(status, NULL);
}
