/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The one place where a refusal becomes a google.rpc.Status.
 *
 *   quota                     RESOURCE_EXHAUSTED   QuotaFailure, ErrorInfo with the numbers
 *   the kernel's memlock      RESOURCE_EXHAUSTED   ErrorInfo HOST_MEMLOCK
 *   host ran out              RESOURCE_EXHAUSTED   ErrorInfo
 *   rate                      RESOURCE_EXHAUSTED   RetryInfo, QuotaFailure, ErrorInfo
 *   busy, restarting          UNAVAILABLE          RetryInfo, ErrorInfo
 *   a field                   INVALID_ARGUMENT     BadRequest, ErrorInfo
 *   not now                   FAILED_PRECONDITION  PreconditionFailure, ErrorInfo
 *   overlap, again            ALREADY_EXISTS       ErrorInfo, BadRequest if a field is named
 *   unknown, someone else's   NOT_FOUND            ResourceInfo, ErrorInfo
 *   no rule                   PERMISSION_DENIED    ErrorInfo
 *   we or the kernel lack it  UNIMPLEMENTED        ErrorInfo; kernel_feature if it is the kernel
 *
 * It allocates nothing, so that want of memory can be told as well. Every text of a refusal has a
 * fixed length, so that all of it together fits the status; what would not is left out.
 */

#include "rpc/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "rpc/dispatch.h"
#include "util/utf8.h"

#define DETAILS_MAX         4
#define DETAIL_BYTES_MAX    3072
#define VIOLATIONS_MAX      32
#define METADATA_MAX        8
#define METADATA_TEXT_BYTES 136

static enum rpc_code code_of(enum refusal_kind kind)
{
	switch (kind) {
	case REFUSAL_INVALID:
		return RPC_INVALID_ARGUMENT;
	case REFUSAL_NOT_FOUND:
		return RPC_NOT_FOUND;
	case REFUSAL_EXISTS:
		return RPC_ALREADY_EXISTS;
	case REFUSAL_DENIED:
		return RPC_PERMISSION_DENIED;
	case REFUSAL_UNAUTHENTICATED:
		return RPC_UNAUTHENTICATED;
	case REFUSAL_PRECONDITION:
		return RPC_FAILED_PRECONDITION;
	case REFUSAL_QUOTA:
	case REFUSAL_HOST_MEMLOCK:
	case REFUSAL_HOST_RESOURCES:
	case REFUSAL_RATE:
		return RPC_RESOURCE_EXHAUSTED;
	case REFUSAL_BUSY:
		return RPC_UNAVAILABLE;
	case REFUSAL_CANCELLED:
		return RPC_CANCELLED;
	case REFUSAL_UNIMPLEMENTED:
		return RPC_UNIMPLEMENTED;
	case REFUSAL_NONE:
	case REFUSAL_HOST:
		break;
	}
	return RPC_INTERNAL;
}

const char *rpc_code_name(int code)
{
	static const char *const names[] = {
		[RPC_OK] = "OK",
		[RPC_CANCELLED] = "CANCELLED",
		[RPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
		[RPC_NOT_FOUND] = "NOT_FOUND",
		[RPC_ALREADY_EXISTS] = "ALREADY_EXISTS",
		[RPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
		[RPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
		[RPC_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
		[RPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
		[RPC_INTERNAL] = "INTERNAL",
		[RPC_UNAVAILABLE] = "UNAVAILABLE",
		[RPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
	};
	size_t n = sizeof(names) / sizeof(names[0]);

	return code >= 0 && (size_t)code < n && names[code] ? names[code] : "UNKNOWN";
}

/* The details of one status while they are put together; all of it on the stack. */
struct details {
	size_t n;
	Google__Protobuf__Any any[DETAILS_MAX];
	Google__Protobuf__Any *pointers[DETAILS_MAX];
	uint8_t bytes[DETAILS_MAX][DETAIL_BYTES_MAX];
};

static void details_add(struct details *details, const char *type_url,
			const ProtobufCMessage *message)
{
	Google__Protobuf__Any *any = &details->any[details->n];

	if (details->n == DETAILS_MAX ||
	    protobuf_c_message_get_packed_size(message) > sizeof(details->bytes[details->n]))
		return;
	google__protobuf__any__init(any);
	any->type_url = (char *)type_url;
	any->value.data = details->bytes[details->n];
	any->value.len = protobuf_c_message_pack(message, any->value.data);
	details->pointers[details->n++] = any;
}

/* ErrorInfo.metadata while it is put together. */
struct metadata {
	size_t n;
	Google__Rpc__ErrorInfo__MetadataEntry entries[METADATA_MAX];
	Google__Rpc__ErrorInfo__MetadataEntry *pointers[METADATA_MAX];
	char text[METADATA_MAX][METADATA_TEXT_BYTES];
};

static void metadata_add(struct metadata *metadata, const char *key, const char *value)
{
	Google__Rpc__ErrorInfo__MetadataEntry *entry = &metadata->entries[metadata->n];
	char *text = metadata->text[metadata->n];

	if (!value[0] || metadata->n == METADATA_MAX)
		return;
	snprintf(text, METADATA_TEXT_BYTES, "%s", value);
	utf8_repair(text);
	google__rpc__error_info__metadata_entry__init(entry);
	entry->key = (char *)key;
	entry->value = text;
	metadata->pointers[metadata->n++] = entry;
}

static void metadata_add_number(struct metadata *metadata, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	metadata_add(metadata, key, text);
}

static void add_error_info(struct details *details, const struct refusal *refusal,
			   const char *reason)
{
	Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
	struct metadata metadata = {.n = 0};

	if (refusal->kind == REFUSAL_QUOTA || refusal->kind == REFUSAL_HOST_MEMLOCK) {
		metadata_add(&metadata, "resource", refusal->resource);
		metadata_add_number(&metadata, "limit", refusal->limit);
		metadata_add_number(&metadata, "used", refusal->used);
		metadata_add_number(&metadata, "requested", refusal->requested);
	}
	if (refusal->kind == REFUSAL_RATE && refusal->resource[0]) {
		metadata_add(&metadata, "resource", refusal->resource);
		metadata_add_number(&metadata, "limit", refusal->limit);
	}
	if (refusal->kind == REFUSAL_UNIMPLEMENTED)
		metadata_add(&metadata, "kernel_feature", refusal->resource);
	metadata_add(&metadata, "tenant", refusal->tenant);
	metadata_add(&metadata, "rule", refusal->rule);
	if (refusal->host_errno)
		metadata_add_number(&metadata, "errno", (uint64_t)refusal->host_errno);
	info.reason = (char *)reason;
	info.domain = (char *)RPC_ERROR_DOMAIN;
	info.n_metadata = metadata.n;
	info.metadata = metadata.pointers;
	details_add(details, "type.googleapis.com/google.rpc.ErrorInfo", &info.base);
}

static void add_bad_request(struct details *details, char *field, char *message)
{
	Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
	Google__Rpc__BadRequest__FieldViolation violation =
		GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
	Google__Rpc__BadRequest__FieldViolation *violations = &violation;

	violation.field = field;
	violation.description = message;
	bad.n_field_violations = 1;
	bad.field_violations = &violations;
	details_add(details, "type.googleapis.com/google.rpc.BadRequest", &bad.base);
}

static void add_quota_failure(struct details *details, char *tenant, char *message)
{
	Google__Rpc__QuotaFailure quota = GOOGLE__RPC__QUOTA_FAILURE__INIT;
	Google__Rpc__QuotaFailure__Violation violation =
		GOOGLE__RPC__QUOTA_FAILURE__VIOLATION__INIT;
	Google__Rpc__QuotaFailure__Violation *violations = &violation;

	violation.subject = tenant;
	violation.description = message;
	quota.n_violations = 1;
	quota.violations = &violations;
	details_add(details, "type.googleapis.com/google.rpc.QuotaFailure", &quota.base);
}

/* Each line is one violation, as many as there is room for. */
static void add_preconditions(struct details *details, char *reason, const char *lines)
{
	Google__Rpc__PreconditionFailure failure = GOOGLE__RPC__PRECONDITION_FAILURE__INIT;
	Google__Rpc__PreconditionFailure__Violation violations[VIOLATIONS_MAX];
	Google__Rpc__PreconditionFailure__Violation *pointers[VIOLATIONS_MAX];
	char copy[DETAIL_BYTES_MAX], *rest = copy;

	snprintf(copy, sizeof(copy), "%s", lines);
	utf8_repair(copy);
	failure.violations = pointers;
	for (char *line; failure.n_violations < VIOLATIONS_MAX && (line = strsep(&rest, "\n"));) {
		size_t n = failure.n_violations;

		if (!*line)
			continue;
		google__rpc__precondition_failure__violation__init(&violations[n]);
		violations[n].type = reason;
		violations[n].description = line;
		pointers[n] = &violations[n];
		failure.n_violations++;
	}
	while (failure.n_violations &&
	       google__rpc__precondition_failure__get_packed_size(&failure) > DETAIL_BYTES_MAX)
		failure.n_violations--;
	details_add(details, "type.googleapis.com/google.rpc.PreconditionFailure", &failure.base);
}

static void add_precondition(struct details *details, char *reason, char *field, char *message)
{
	Google__Rpc__PreconditionFailure failure = GOOGLE__RPC__PRECONDITION_FAILURE__INIT;
	Google__Rpc__PreconditionFailure__Violation violation =
		GOOGLE__RPC__PRECONDITION_FAILURE__VIOLATION__INIT;
	Google__Rpc__PreconditionFailure__Violation *violations = &violation;

	violation.type = reason;
	violation.subject = field;
	violation.description = message;
	failure.n_violations = 1;
	failure.violations = &violations;
	details_add(details, "type.googleapis.com/google.rpc.PreconditionFailure", &failure.base);
}

static void add_resource_info(struct details *details, char *resource, char *message)
{
	Google__Rpc__ResourceInfo info = GOOGLE__RPC__RESOURCE_INFO__INIT;

	info.resource_type = resource;
	info.description = message;
	details_add(details, "type.googleapis.com/google.rpc.ResourceInfo", &info.base);
}

static void add_retry_info(struct details *details, uint32_t retry_after_ms)
{
	Google__Rpc__RetryInfo info = GOOGLE__RPC__RETRY_INFO__INIT;
	Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;

	delay.seconds = retry_after_ms / 1000;
	delay.nanos = (int32_t)(retry_after_ms % 1000 * 1000000);
	info.retry_delay = &delay;
	details_add(details, "type.googleapis.com/google.rpc.RetryInfo", &info.base);
}

static void add_details(struct details *details, struct refusal *refusal)
{
	switch (refusal->kind) {
	case REFUSAL_QUOTA:
		add_quota_failure(details, refusal->tenant, refusal->message);
		break;
	case REFUSAL_RATE:
		add_retry_info(details, refusal->retry_after_ms);
		if (refusal->resource[0])
			add_quota_failure(details, refusal->tenant, refusal->message);
		break;
	case REFUSAL_BUSY:
		add_retry_info(details, refusal->retry_after_ms);
		break;
	case REFUSAL_PRECONDITION:
		if (refusal->lines)
			add_preconditions(details, refusal->reason, refusal->lines);
		else
			add_precondition(details, refusal->reason, refusal->field,
					 refusal->message);
		break;
	case REFUSAL_NOT_FOUND:
		add_resource_info(details, refusal->resource, refusal->message);
		break;
	default:
		break;
	}
	/* "" is the message as a whole. */
	if (refusal->kind == REFUSAL_INVALID ||
	    (refusal->field[0] && refusal->kind != REFUSAL_PRECONDITION))
		add_bad_request(details, refusal->field, refusal->message);
	add_error_info(details, refusal,
		       refusal->kind == REFUSAL_HOST_MEMLOCK ? "HOST_MEMLOCK" : refusal->reason);
}

/* Texts are cut to their fixed lengths, perhaps within a character; protobuf strings must be
 * UTF-8, or the client's library refuses the whole status. */
static void repair(struct refusal *refusal)
{
	utf8_repair(refusal->reason);
	utf8_repair(refusal->field);
	utf8_repair(refusal->resource);
	utf8_repair(refusal->tenant);
	utf8_repair(refusal->rule);
	utf8_repair(refusal->message);
}

void rpc_status_from_refusal(struct rpc_status *ret, const struct refusal *refusal)
{
	Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
	struct refusal clean = *refusal;
	struct details details;

	repair(&clean);
	details.n = 0;
	add_details(&details, &clean);
	ret->code = code_of(clean.kind);
	snprintf(ret->message, sizeof(ret->message), "%s", clean.message);
	status.code = ret->code;
	status.message = ret->message;
	status.n_details = details.n;
	status.details = details.pointers;
	while (status.n_details &&
	       google__rpc__status__get_packed_size(&status) > sizeof(ret->details))
		status.n_details--;
	ret->details_bytes = google__rpc__status__pack(&status, ret->details);
}
