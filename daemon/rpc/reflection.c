/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Answers come from the descriptor set that the build embeds: the .proto files themselves, not a
 * copy of what they said once. A file is answered together with everything it imports, as other
 * servers do, each file once.
 */

#include "rpc/reflection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/status.h>

#include "grpc/reflection/v1alpha/reflection.pb-c.h"
#include "rpc/descriptor_index.h"

#define FILES_MAX      64
#define SERVICES_MAX   64
#define NAME_BYTES_MAX 128
#define MESSAGE_BYTES  (REFLECTION_REQUEST_BYTES_MAX + 64)

typedef Grpc__Reflection__V1alpha__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1alpha__ServerReflectionResponse response_t;
typedef Grpc__Reflection__V1alpha__FileDescriptorResponse files_t;
typedef Grpc__Reflection__V1alpha__ListServiceResponse services_t;
typedef Grpc__Reflection__V1alpha__ServiceResponse service_t;
typedef Grpc__Reflection__V1alpha__ErrorResponse failure_t;

/* The embedded set: proto/meson.build. */
extern const unsigned char descriptor_set_bytes[];
extern const size_t descriptor_set_size;

/* An answer and all that it points to. */
struct answer {
	enum rpc_door door;
	struct wire_span set;
	response_t response;
	failure_t error;
	char message[MESSAGE_BYTES];
	files_t files;
	ProtobufCBinaryData file[FILES_MAX];
	services_t services;
	service_t service[SERVICES_MAX], *service_at[SERVICES_MAX];
	char service_name[SERVICES_MAX][NAME_BYTES_MAX];
};

static void answer_error(struct answer *answer, int code, const char *what, const char *name)
{
	snprintf(answer->message, sizeof(answer->message), "%s%s", what, name);
	grpc__reflection__v1alpha__error_response__init(&answer->error);
	answer->error.error_code = code;
	answer->error.error_message = answer->message;
	answer->response.message_response_case =
		GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
	answer->response.error_response = &answer->error;
}

/* ── files ────────────────────────────────────────────────────────────────────────────────── */

static bool answer_add_file(struct answer *answer, struct wire_span file)
{
	for (size_t i = 0; i < answer->files.n_file_descriptor_proto; i++)
		if (answer->file[i].data == file.bytes)
			return true;
	if (answer->files.n_file_descriptor_proto == FILES_MAX)
		return false;
	answer->file[answer->files.n_file_descriptor_proto++] =
		(ProtobufCBinaryData){.data = (uint8_t *)file.bytes, .len = file.n_bytes};
	return true;
}

/* The list grows while it is walked: each file's imports come behind it. */
static bool answer_add_imports(struct answer *answer)
{
	struct wire_span rest, name, file;

	for (size_t i = 0; i < answer->files.n_file_descriptor_proto; i++) {
		rest.bytes = answer->file[i].data;
		rest.n_bytes = answer->file[i].len;
		while (descriptor_next_import(&rest, &name))
			if (!descriptor_find_file(answer->set, name, &file) ||
			    !answer_add_file(answer, file))
				return false;
	}
	return true;
}

static void answer_file(struct answer *answer, struct wire_span file)
{
	grpc__reflection__v1alpha__file_descriptor_response__init(&answer->files);
	answer->files.file_descriptor_proto = answer->file;
	if (!answer_add_file(answer, file) || !answer_add_imports(answer)) {
		answer_error(answer, GRPC_STATUS_INTERNAL, "imports are incomplete", "");
		return;
	}
	answer->response.message_response_case =
		GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
	answer->response.file_descriptor_response = &answer->files;
}

static void answer_by_filename(struct answer *answer, const char *name)
{
	struct wire_span file, wanted = {.bytes = (const uint8_t *)name, .n_bytes = strlen(name)};

	if (descriptor_find_file(answer->set, wanted, &file))
		answer_file(answer, file);
	else
		answer_error(answer, GRPC_STATUS_NOT_FOUND, "no such file: ", name);
}

static void answer_by_symbol(struct answer *answer, const char *symbol)
{
	struct wire_span file;

	if (descriptor_find_symbol(answer->set, symbol, &file))
		answer_file(answer, file);
	else
		answer_error(answer, GRPC_STATUS_NOT_FOUND, "no such symbol: ", symbol);
}

/* ── services ─────────────────────────────────────────────────────────────────────────────── */

/* A service is there if the dispatch table has a method of it behind this door; reflection itself
 * is behind each. */
static bool service_served(const struct answer *answer, const char *name, struct wire_span service)
{
	char path[2 * NAME_BYTES_MAX + 3];
	struct wire_span method;

	while (descriptor_next_method(&service, &method)) {
		struct wire_span last = descriptor_name(method);
		int n = snprintf(path, sizeof(path), "/%s/%.*s", name, (int)last.n_bytes,
				 (const char *)last.bytes);

		if (n < 0 || (size_t)n >= sizeof(path))
			continue;
		if (!strcmp(path, REFLECTION_PATH) || method_by_path(path, (size_t)n, answer->door))
			return true;
	}
	return false;
}

static void answer_add_service(struct answer *answer, struct wire_span package,
			       struct wire_span service)
{
	size_t i = answer->services.n_service;
	struct wire_span last = descriptor_name(service);
	char *name;
	int n;

	if (i == SERVICES_MAX)
		return;
	name = answer->service_name[i];
	n = snprintf(name, NAME_BYTES_MAX, "%.*s.%.*s", (int)package.n_bytes,
		     (const char *)package.bytes, (int)last.n_bytes, (const char *)last.bytes);
	if (n < 0 || n >= NAME_BYTES_MAX || !service_served(answer, name, service))
		return;
	grpc__reflection__v1alpha__service_response__init(&answer->service[i]);
	answer->service[i].name = name;
	answer->service_at[i] = &answer->service[i];
	answer->services.n_service++;
}

static void answer_services(struct answer *answer)
{
	struct wire_span set = answer->set, file, rest, service;

	grpc__reflection__v1alpha__list_service_response__init(&answer->services);
	answer->services.service = answer->service_at;
	while (descriptor_next_file(&set, &file))
		for (rest = file; descriptor_next_service(&rest, &service);)
			answer_add_service(answer, descriptor_file_package(file), service);
	answer->response.message_response_case =
		GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
	answer->response.list_services_response = &answer->services;
}

/* ── requests ─────────────────────────────────────────────────────────────────────────────── */

static void answer_request(struct answer *answer, request_t *request)
{
	grpc__reflection__v1alpha__server_reflection_response__init(&answer->response);
	answer->response.valid_host = request->host;
	answer->response.original_request = request;
	switch (request->message_request_case) {
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
		answer_by_filename(answer, request->file_by_filename);
		break;
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
		answer_by_symbol(answer, request->file_containing_symbol);
		break;
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
		answer_services(answer);
		break;
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
		answer_error(answer, GRPC_STATUS_NOT_FOUND, "proto3 has no extensions", "");
		break;
	default:
		answer_error(answer, GRPC_STATUS_INVALID_ARGUMENT, "nothing was asked", "");
	}
}

static bool answer_pack(const struct answer *answer, uint8_t **ret_bytes, size_t *ret_n_bytes)
{
	const response_t *response = &answer->response;
	size_t n = grpc__reflection__v1alpha__server_reflection_response__get_packed_size(response);
	uint8_t *bytes = malloc(n);

	if (!bytes)
		return false;
	grpc__reflection__v1alpha__server_reflection_response__pack(response, bytes);
	*ret_bytes = bytes;
	*ret_n_bytes = n;
	return true;
}

/* protobuf-c takes any bytes for a string; what we echo must be UTF-8, or the client's own library
 * refuses our answer. Names are ASCII. */
static bool request_is_ascii(const request_t *request)
{
	const char *texts[] = {request->host, NULL};

	switch (request->message_request_case) {
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
		texts[1] = request->list_services; /* one union member for all strings */
		break;
	case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
		texts[1] = request->file_containing_extension->containing_type;
		break;
	default:
		break;
	}
	for (int i = 0; i < 2; i++)
		for (const char *c = texts[i]; c && *c; c++)
			if ((unsigned char)*c >= 0x80)
				return false;
	return true;
}

bool reflection_answer(enum rpc_door door, const uint8_t *request, size_t request_bytes,
		       uint8_t **ret_bytes, size_t *ret_n_bytes)
{
	struct answer *answer = calloc(1, sizeof(*answer));
	request_t *unpacked = NULL;
	bool done = false;

	if (answer)
		unpacked = grpc__reflection__v1alpha__server_reflection_request__unpack(
			NULL, request_bytes, request);
	if (unpacked && request_is_ascii(unpacked)) {
		answer->door = door;
		answer->set = (struct wire_span){.bytes = descriptor_set_bytes,
						 .n_bytes = descriptor_set_size};
		answer_request(answer, unpacked);
		done = answer_pack(answer, ret_bytes, ret_n_bytes);
	}
	if (unpacked)
		grpc__reflection__v1alpha__server_reflection_request__free_unpacked(unpacked, NULL);
	free(answer);
	return done;
}
