/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a failure was: google.rpc.Status with its details, flattened into one object of fixed size.
 * Strings that are too long are cut; details of unknown types are skipped.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "lib/error.h"

#define TYPE_PREFIX "type.googleapis.com/google.rpc."

enum grpc_code {
	GRPC_CANCELLED = 1,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_ALREADY_EXISTS = 6,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_ABORTED = 10,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_UNAUTHENTICATED = 16,
};

struct iommubroker_error {
	int result;
	int code;
	uint64_t limit, used, requested;
	uint64_t retry_after_ms;
	char reason[64];
	char field[128];
	char resource[64];
	char tenant[128];
	char rule[256];
	char message[512];
};

static void copy(char *to, size_t n, const char *from)
{
	snprintf(to, n, "%s", from);
}
#define COPY(to, from) copy(to, sizeof(to), from)

static void take_metadata(struct iommubroker_error *error, const char *key, const char *value)
{
	if (strcmp(key, "resource") == 0)
		COPY(error->resource, value);
	else if (strcmp(key, "tenant") == 0)
		COPY(error->tenant, value);
	else if (strcmp(key, "rule") == 0)
		COPY(error->rule, value);
	else if (strcmp(key, "limit") == 0)
		error->limit = strtoull(value, NULL, 10);
	else if (strcmp(key, "used") == 0)
		error->used = strtoull(value, NULL, 10);
	else if (strcmp(key, "requested") == 0)
		error->requested = strtoull(value, NULL, 10);
}

static void take_error_info(struct iommubroker_error *error, const ProtobufCBinaryData *data)
{
	Google__Rpc__ErrorInfo *info = google__rpc__error_info__unpack(NULL, data->len, data->data);

	if (info == NULL)
		return;
	COPY(error->reason, info->reason);
	for (size_t i = 0; i < info->n_metadata; i++)
		take_metadata(error, info->metadata[i]->key, info->metadata[i]->value);
	google__rpc__error_info__free_unpacked(info, NULL);
}

static void take_bad_request(struct iommubroker_error *error, const ProtobufCBinaryData *data)
{
	Google__Rpc__BadRequest *bad =
		google__rpc__bad_request__unpack(NULL, data->len, data->data);

	if (bad == NULL)
		return;
	if (bad->n_field_violations > 0)
		COPY(error->field, bad->field_violations[0]->field);
	google__rpc__bad_request__free_unpacked(bad, NULL);
}

static void take_precondition(struct iommubroker_error *error, const ProtobufCBinaryData *data)
{
	Google__Rpc__PreconditionFailure *failure =
		google__rpc__precondition_failure__unpack(NULL, data->len, data->data);

	if (failure == NULL)
		return;
	if (failure->n_violations > 0 && error->reason[0] == '\0')
		COPY(error->reason, failure->violations[0]->type);
	google__rpc__precondition_failure__free_unpacked(failure, NULL);
}

static void take_resource(struct iommubroker_error *error, const ProtobufCBinaryData *data)
{
	Google__Rpc__ResourceInfo *info =
		google__rpc__resource_info__unpack(NULL, data->len, data->data);

	if (info == NULL)
		return;
	COPY(error->resource, info->resource_type);
	google__rpc__resource_info__free_unpacked(info, NULL);
}

static void take_retry(struct iommubroker_error *error, const ProtobufCBinaryData *data)
{
	Google__Rpc__RetryInfo *info = google__rpc__retry_info__unpack(NULL, data->len, data->data);

	if (info == NULL)
		return;
	if (info->retry_delay != NULL && info->retry_delay->seconds >= 0 &&
	    info->retry_delay->seconds < INT32_MAX && info->retry_delay->nanos >= 0)
		error->retry_after_ms = (uint64_t)info->retry_delay->seconds * 1000 +
					(info->retry_delay->nanos + 999999) / 1000000;
	google__rpc__retry_info__free_unpacked(info, NULL);
}

static void take_detail(struct iommubroker_error *error, const Google__Protobuf__Any *any)
{
	static const struct {
		const char *type;
		void (*take)(struct iommubroker_error *error, const ProtobufCBinaryData *data);
	} details[] = {
		{TYPE_PREFIX "ErrorInfo", take_error_info},
		{TYPE_PREFIX "BadRequest", take_bad_request},
		{TYPE_PREFIX "PreconditionFailure", take_precondition},
		{TYPE_PREFIX "ResourceInfo", take_resource},
		{TYPE_PREFIX "RetryInfo", take_retry},
	};

	for (size_t i = 0; i < sizeof(details) / sizeof(details[0]); i++)
		if (strcmp(any->type_url, details[i].type) == 0)
			details[i].take(error, &any->value);
}

/* Three things share RESOURCE_EXHAUSTED: our ledger, a rate, and the host behind the ledger. */
static int exhausted_errno(const struct iommubroker_error *error)
{
	if (error->retry_after_ms > 0)
		return -EAGAIN;
	return strncmp(error->reason, "HOST_", 5) == 0 ? -ENOMEM : -EDQUOT;
}

static int code_errno(const struct iommubroker_error *error)
{
	switch (error->code) {
	case GRPC_CANCELLED:
		return -ECANCELED;
	case GRPC_INVALID_ARGUMENT:
	case GRPC_OUT_OF_RANGE:
		return -EINVAL;
	case GRPC_DEADLINE_EXCEEDED:
		return -ETIMEDOUT;
	case GRPC_NOT_FOUND:
		return -ENOENT;
	case GRPC_ALREADY_EXISTS:
		return -EEXIST;
	case GRPC_PERMISSION_DENIED:
		return -EACCES;
	case GRPC_RESOURCE_EXHAUSTED:
		return exhausted_errno(error);
	case GRPC_FAILED_PRECONDITION:
		return -EBUSY;
	case GRPC_ABORTED:
	case GRPC_UNAVAILABLE:
		return -EAGAIN;
	case GRPC_UNIMPLEMENTED:
		return -EOPNOTSUPP;
	case GRPC_UNAUTHENTICATED:
		return -EPERM;
	default:
		return -EIO;
	}
}

static int errno_code(int result)
{
	switch (result) {
	case -EINVAL:
	case -EMSGSIZE:
		return GRPC_INVALID_ARGUMENT;
	case -ECANCELED:
		return GRPC_CANCELLED;
	case -ETIMEDOUT:
		return GRPC_DEADLINE_EXCEEDED;
	case -ENOENT:
		return GRPC_NOT_FOUND;
	case -EACCES:
		return GRPC_PERMISSION_DENIED;
	case -EPERM:
		return GRPC_UNAUTHENTICATED;
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
	case -EOVERFLOW:
		return GRPC_RESOURCE_EXHAUSTED;
	case -EBADMSG:
		return GRPC_INTERNAL;
	default:
		return GRPC_UNAVAILABLE;
	}
}

bool error_is_not_found(const struct answer *answer)
{
	return answer->code == GRPC_NOT_FOUND;
}

int error_from_answer(const struct answer *answer, struct iommubroker_error **ret_error)
{
	struct iommubroker_error error = {.code = answer->code};
	Google__Rpc__Status *status =
		google__rpc__status__unpack(NULL, answer->n_status, answer->status);

	if (status != NULL) {
		COPY(error.message, status->message);
		for (size_t i = 0; i < status->n_details; i++)
			take_detail(&error, status->details[i]);
		google__rpc__status__free_unpacked(status, NULL);
	}
	error.result = code_errno(&error);
	if (ret_error != NULL) {
		*ret_error = malloc(sizeof(error));
		if (*ret_error != NULL)
			**ret_error = error;
	}
	return error.result;
}

static struct iommubroker_error *error_new(int result, struct iommubroker_error **ret_error)
{
	if (ret_error == NULL)
		return NULL;
	*ret_error = calloc(1, sizeof(**ret_error));
	if (*ret_error != NULL) {
		(*ret_error)->result = result;
		(*ret_error)->code = errno_code(result);
	}
	return *ret_error;
}

int error_local(int result, struct iommubroker_error **ret_error, const char *format, ...)
{
	struct iommubroker_error *error = error_new(result, ret_error);
	va_list args;

	if (error != NULL) {
		va_start(args, format);
		vsnprintf(error->message, sizeof(error->message), format, args);
		va_end(args);
	}
	return result;
}

int error_field(struct iommubroker_error **ret_error, const char *field, const char *format, ...)
{
	struct iommubroker_error *error = error_new(-EINVAL, ret_error);
	va_list args;

	if (error != NULL) {
		COPY(error->field, field);
		va_start(args, format);
		vsnprintf(error->message, sizeof(error->message), format, args);
		va_end(args);
	}
	return -EINVAL;
}

int error_transport(int result, struct iommubroker_error **ret_error)
{
	switch (result) {
	case -ECONNRESET:
		return error_local(result, ret_error, "the connection to iommubrokerd is gone");
	case -EPERM:
		error_local(result, ret_error,
			    "iommubrokerd was restarted and does not know this session any more: "
			    "its guests were released");
		if (ret_error != NULL && *ret_error != NULL)
			COPY((*ret_error)->reason, "SESSION_LOST");
		return result;
	case -EBADMSG:
		return error_local(result, ret_error,
				   "iommubrokerd answered something that is not its protocol");
	case -ETIMEDOUT:
		return error_local(result, ret_error, "iommubrokerd did not answer in time");
	default:
		return error_local(result, ret_error, "cannot talk to iommubrokerd: %s",
				   strerrordesc_np(-result));
	}
}

int iommubroker_error_errno(const struct iommubroker_error *error)
{
	return error != NULL ? error->result : 0;
}

int iommubroker_error_code(const struct iommubroker_error *error)
{
	return error != NULL ? error->code : 0;
}

const char *iommubroker_error_message(const struct iommubroker_error *error)
{
	return error != NULL ? error->message : "";
}

const char *iommubroker_error_reason(const struct iommubroker_error *error)
{
	return error != NULL ? error->reason : "";
}

const char *iommubroker_error_field(const struct iommubroker_error *error)
{
	return error != NULL ? error->field : "";
}

const char *iommubroker_error_resource(const struct iommubroker_error *error)
{
	return error != NULL ? error->resource : "";
}

uint64_t iommubroker_error_limit(const struct iommubroker_error *error)
{
	return error != NULL ? error->limit : 0;
}

uint64_t iommubroker_error_used(const struct iommubroker_error *error)
{
	return error != NULL ? error->used : 0;
}

uint64_t iommubroker_error_requested(const struct iommubroker_error *error)
{
	return error != NULL ? error->requested : 0;
}

const char *iommubroker_error_tenant(const struct iommubroker_error *error)
{
	return error != NULL ? error->tenant : "";
}

const char *iommubroker_error_rule(const struct iommubroker_error *error)
{
	return error != NULL ? error->rule : "";
}

uint64_t iommubroker_error_retry_after_ms(const struct iommubroker_error *error)
{
	return error != NULL ? error->retry_after_ms : 0;
}

struct iommubroker_error *iommubroker_error_free(struct iommubroker_error *error)
{
	free(error);
	return NULL;
}
