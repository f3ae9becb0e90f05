/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Server reflection: its answers, and the stream that carries them. */

#include <stdlib.h>
#include <string.h>

#include <grpc/status.h>

#include "grpc/reflection/v1alpha/reflection.pb-c.h"
#include "grpc_fixture.h"
#include "rpc/descriptor_index.h"
#include "rpc/reflection.h"

typedef Grpc__Reflection__V1alpha__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1alpha__ServerReflectionResponse response_t;

#define REQUEST(kind) GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##kind
#define RESPONSE(kind) \
	GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##kind

static size_t request_pack(int kind, const char *text, uint8_t *ret)
{
	request_t request = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__INIT;

	request.host = (char *)"here";
	request.message_request_case =
		(Grpc__Reflection__V1alpha__ServerReflectionRequest__MessageRequestCase)kind;
	request.list_services = (char *)text; /* one union member for all strings */
	return grpc__reflection__v1alpha__server_reflection_request__pack(&request, ret);
}

static response_t *ask(enum rpc_door door, int kind, const char *text)
{
	uint8_t packed[2048], *bytes;
	size_t n = request_pack(kind, text, packed), n_bytes;
	response_t *response;

	assert_true(reflection_answer(door, packed, n, &bytes, &n_bytes));
	response =
		grpc__reflection__v1alpha__server_reflection_response__unpack(NULL, n_bytes, bytes);
	free(bytes);
	assert_non_null(response);
	assert_string_equal(response->valid_host, "here");
	assert_int_equal(response->original_request->message_request_case, kind);
	return response;
}

static void drop(response_t *response)
{
	grpc__reflection__v1alpha__server_reflection_response__free_unpacked(response, NULL);
}

static bool lists(const response_t *response, const char *name)
{
	for (size_t i = 0; i < response->list_services_response->n_service; i++)
		if (!strcmp(response->list_services_response->service[i]->name, name))
			return true;
	return false;
}

/* The fake dispatcher has methods of Host, and of Admin behind the admin door. */
static void test_services_are_those_of_the_door(void **state)
{
	response_t *response = ask(RPC_DOOR_CLIENT, REQUEST(LIST_SERVICES), "*");

	(void)state;
	assert_int_equal(response->message_response_case, RESPONSE(LIST_SERVICES_RESPONSE));
	assert_true(lists(response, "iommubroker.v1.Host"));
	assert_true(lists(response, "grpc.reflection.v1alpha.ServerReflection"));
	assert_int_equal(response->list_services_response->n_service, 2);
	drop(response);
	response = ask(RPC_DOOR_ADMIN, REQUEST(LIST_SERVICES), "");
	assert_true(lists(response, "iommubroker.v1.Admin"));
	assert_int_equal(response->list_services_response->n_service, 3);
	drop(response);
}

static bool contains(const response_t *response, size_t i, const char *name)
{
	ProtobufCBinaryData file = response->file_descriptor_response->file_descriptor_proto[i];
	struct wire_span span = {.bytes = file.data, .n_bytes = file.len};

	return wire_equals(descriptor_file_name(span), name, strlen(name));
}

/* The file itself first, then what it imports, also indirectly, each once. */
static void expect_file(const response_t *response, const char *name)
{
	size_t n, found = 0;

	assert_int_equal(response->message_response_case, RESPONSE(FILE_DESCRIPTOR_RESPONSE));
	n = response->file_descriptor_response->n_file_descriptor_proto;
	assert_true(contains(response, 0, name));
	for (size_t i = 0; i < n; i++) {
		ProtobufCBinaryData file =
			response->file_descriptor_response->file_descriptor_proto[i];
		struct wire_span rest = {.bytes = file.data, .n_bytes = file.len}, import;

		while (descriptor_next_import(&rest, &import)) {
			char text[256];

			assert_true(import.n_bytes < sizeof(text));
			memcpy(text, import.bytes, import.n_bytes);
			text[import.n_bytes] = 0;
			found = 0;
			for (size_t j = 0; j < n; j++)
				found += contains(response, j, text);
			assert_int_equal(found, 1);
		}
	}
}

static void expect_file_of(int kind, const char *text, const char *name, size_t n_files)
{
	response_t *response = ask(RPC_DOOR_CLIENT, kind, text);

	expect_file(response, name);
	assert_int_equal(response->file_descriptor_response->n_file_descriptor_proto, n_files);
	drop(response);
}

static void test_files_by_name_and_symbol(void **state)
{
	static const char status[] = "google/rpc/status.proto", any[] = "google/protobuf/any.proto";
	static const char reflection[] = "grpc/reflection/v1alpha/reflection.proto";
	static const char health[] = "grpc/health/v1/health.proto";

	(void)state;
	expect_file_of(REQUEST(FILE_BY_FILENAME), any, any, 1);
	expect_file_of(REQUEST(FILE_BY_FILENAME), status, status, 2);
	expect_file_of(REQUEST(FILE_CONTAINING_SYMBOL), "google.rpc.Status", status, 2);
	expect_file_of(REQUEST(FILE_CONTAINING_SYMBOL), "google.rpc.Status.code", status, 2);
	expect_file_of(REQUEST(FILE_CONTAINING_SYMBOL), "grpc.reflection.v1alpha.ServerReflection",
		       reflection, 1);
	expect_file_of(REQUEST(FILE_CONTAINING_SYMBOL),
		       "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo", reflection,
		       1);
	/* an enum within a message, and a value of it */
	expect_file_of(REQUEST(FILE_CONTAINING_SYMBOL),
		       "grpc.health.v1.HealthCheckResponse.ServingStatus", health, 1);
	expect_file_of(REQUEST(FILE_CONTAINING_SYMBOL),
		       "grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING", health, 1);
}

static void test_every_service_of_ours_is_found(void **state)
{
	response_t *response =
		ask(RPC_DOOR_CLIENT, REQUEST(FILE_CONTAINING_SYMBOL), "iommubroker.v1.Domains");

	(void)state;
	expect_file(response, "iommubroker/v1/domains.proto");
	drop(response);
}

static void expect_error(int kind, const char *text, int code)
{
	response_t *response = ask(RPC_DOOR_CLIENT, kind, text);

	assert_int_equal(response->message_response_case, RESPONSE(ERROR_RESPONSE));
	assert_int_equal(response->error_response->error_code, code);
	drop(response);
}

static void test_what_is_not_there(void **state)
{
	(void)state;
	expect_error(REQUEST(FILE_BY_FILENAME), "", GRPC_STATUS_NOT_FOUND);
	expect_error(REQUEST(FILE_BY_FILENAME), "google/rpc/status.prot", GRPC_STATUS_NOT_FOUND);
	expect_error(REQUEST(FILE_CONTAINING_SYMBOL), "", GRPC_STATUS_NOT_FOUND);
	expect_error(REQUEST(FILE_CONTAINING_SYMBOL), "google.rpc", GRPC_STATUS_NOT_FOUND);
	expect_error(REQUEST(FILE_CONTAINING_SYMBOL), "google.rpc.", GRPC_STATUS_NOT_FOUND);
	expect_error(REQUEST(FILE_CONTAINING_SYMBOL), "google.rpc.Statu", GRPC_STATUS_NOT_FOUND);
	expect_error(REQUEST(FILE_CONTAINING_SYMBOL), "google.rpc.Status.none",
		     GRPC_STATUS_NOT_FOUND);
	expect_error(REQUEST(ALL_EXTENSION_NUMBERS_OF_TYPE), "google.rpc.Status",
		     GRPC_STATUS_NOT_FOUND);
}

static void test_empty_and_bad_requests(void **state)
{
	uint8_t *bytes, packed[64];
	response_t *response;
	size_t n_bytes, n;

	(void)state;
	assert_true(reflection_answer(RPC_DOOR_CLIENT, (const uint8_t *)"", 0, &bytes, &n_bytes));
	response =
		grpc__reflection__v1alpha__server_reflection_response__unpack(NULL, n_bytes, bytes);
	free(bytes);
	assert_int_equal(response->error_response->error_code, GRPC_STATUS_INVALID_ARGUMENT);
	drop(response);
	assert_false(reflection_answer(RPC_DOOR_CLIENT, (const uint8_t *)"\xff\xff", 2, &bytes,
				       &n_bytes));
	n = request_pack(REQUEST(FILE_BY_FILENAME), "caf\xc3\xa9", packed);
	assert_false(reflection_answer(RPC_DOOR_CLIENT, packed, n, &bytes, &n_bytes));
}

/* Descriptors that are cut at any byte are searched without reading past the cut. */
static void test_cut_descriptors(void **state)
{
	response_t *response =
		ask(RPC_DOOR_CLIENT, REQUEST(FILE_BY_FILENAME), "grpc/health/v1/health.proto");
	ProtobufCBinaryData file = response->file_descriptor_response->file_descriptor_proto[0];

	(void)state;
	for (size_t n = 0; n < file.len; n++) {
		uint8_t *copy = malloc(n + 2);
		struct wire_span set = {.bytes = copy, .n_bytes = n + 2}, found;

		assert_non_null(copy);
		copy[0] = 0x0a; /* file, of one byte more than there is */
		copy[1] = 0x7f;
		memcpy(copy + 2, file.data, n);
		assert_false(descriptor_find_symbol(set, "grpc.health.v1.None", &found));
		free(copy);
	}
	drop(response);
}

/* ── the stream ───────────────────────────────────────────────────────────────────────────── */

static struct client_stream *reflection_open(struct grpc_client *client)
{
	struct client_request request = {.path = REFLECTION_PATH};

	return grpc_client_open_stream(client, &request);
}

static void test_many_questions_on_one_stream(void **state)
{
	struct grpc_fixture fixture;
	struct client_stream *stream;
	struct grpc_client *client;
	uint8_t packed[256], *bytes;
	size_t n, n_bytes;

	(void)state;
	grpc_fixture_open(&fixture, 60000, RPC_DOOR_CLIENT);
	client = grpc_fixture_client(&fixture);
	stream = reflection_open(client);
	n = request_pack(REQUEST(FILE_CONTAINING_SYMBOL), "iommubroker.v1.Domains", packed);
	/* Asked without reading: more than the outbox takes. */
	for (int i = 0; i < 40; i++)
		assert_true(client_stream_write(stream, packed, n));
	for (int i = 0; i < 40; i++) {
		assert_true(client_stream_read(stream, &bytes, &n_bytes));
		assert_true(n_bytes > 1000);
		free(bytes);
	}
	client_stream_half_close(stream);
	assert_false(client_stream_read(stream, &bytes, &n_bytes));
	assert_int_equal(client_stream_close(stream), 0);
	grpc_client_free(client);
	grpc_fixture_close(&fixture);
}

static void test_bad_question_ends_the_stream(void **state)
{
	static const uint8_t garbage[] = {0xff, 0xff, 0xff};
	uint8_t huge[REFLECTION_REQUEST_BYTES_MAX + 1] = {0};
	struct grpc_fixture fixture;
	struct client_stream *stream;
	struct grpc_client *client;

	(void)state;
	grpc_fixture_open(&fixture, 60000, RPC_DOOR_CLIENT);
	client = grpc_fixture_client(&fixture);
	stream = reflection_open(client);
	client_stream_write(stream, garbage, sizeof(garbage));
	assert_int_equal(client_stream_close(stream), GRPC_STATUS_INVALID_ARGUMENT);
	stream = reflection_open(client);
	client_stream_write(stream, huge, sizeof(huge));
	assert_int_equal(client_stream_close(stream), GRPC_STATUS_INVALID_ARGUMENT);
	stream = reflection_open(client);
	client_stream_cancel(stream);
	assert_int_equal(client_stream_close(stream), GRPC_STATUS_CANCELLED);
	grpc_client_free(client);
	grpc_fixture_close(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_services_are_those_of_the_door),
		cmocka_unit_test(test_files_by_name_and_symbol),
		cmocka_unit_test(test_every_service_of_ours_is_found),
		cmocka_unit_test(test_what_is_not_there),
		cmocka_unit_test(test_empty_and_bad_requests),
		cmocka_unit_test(test_cut_descriptors),
		cmocka_unit_test(test_many_questions_on_one_stream),
		cmocka_unit_test(test_bad_question_ends_the_stream),
	};

	return cmocka_run_group_tests_name("reflection", tests, NULL, NULL);
}
