/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/refusal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void refusal_reset(struct refusal *r, enum refusal_kind kind, const char *reason)
{
	memset(r, 0, sizeof(*r));
	r->kind = kind;
	snprintf(r->reason, sizeof(r->reason), "%s", reason);
}

int refuse(struct refusal *ret, enum refusal_kind kind, const char *reason, const char *format, ...)
{
	va_list args;

	refusal_reset(ret, kind, reason);
	va_start(args, format);
	vsnprintf(ret->message, sizeof(ret->message), format, args);
	va_end(args);
	return REFUSED;
}

int refuse_field(struct refusal *ret, const char *field, const char *format, ...)
{
	va_list args;

	refusal_reset(ret, REFUSAL_INVALID, "INVALID_FIELD");
	snprintf(ret->field, sizeof(ret->field), "%s", field);
	va_start(args, format);
	vsnprintf(ret->message, sizeof(ret->message), format, args);
	va_end(args);
	return REFUSED;
}

int refuse_not_found(struct refusal *ret, const char *what)
{
	refusal_reset(ret, REFUSAL_NOT_FOUND, "NOT_FOUND");
	snprintf(ret->resource, sizeof(ret->resource), "%s", what);
	snprintf(ret->message, sizeof(ret->message), "no such %s", what);
	return REFUSED;
}

int refuse_unimplemented(struct refusal *ret, const char *reason, const char *format, ...)
{
	va_list args;

	refusal_reset(ret, REFUSAL_UNIMPLEMENTED, reason);
	va_start(args, format);
	vsnprintf(ret->message, sizeof(ret->message), format, args);
	va_end(args);
	return REFUSED;
}

int refuse_quota(struct refusal *ret, const char *resource, uint64_t limit, uint64_t used,
		 uint64_t requested, const char *tenant, const char *rule)
{
	refusal_reset(ret, REFUSAL_QUOTA, "QUOTA_EXCEEDED");
	snprintf(ret->resource, sizeof(ret->resource), "%s", resource);
	snprintf(ret->tenant, sizeof(ret->tenant), "%s", tenant);
	snprintf(ret->rule, sizeof(ret->rule), "%s", rule);
	ret->limit = limit;
	ret->used = used;
	ret->requested = requested;
	snprintf(ret->message, sizeof(ret->message),
		 "%s: %llu requested, %llu of %llu used (tenant %s, rule %s)", resource,
		 (unsigned long long)requested, (unsigned long long)used, (unsigned long long)limit,
		 tenant, rule);
	return REFUSED;
}

int refuse_errno(struct refusal *ret, int host_errno, const char *doing)
{
	bool resources = host_errno == ENOMEM || host_errno == EMFILE || host_errno == ENFILE;

	refusal_reset(ret, resources ? REFUSAL_HOST_RESOURCES : REFUSAL_HOST,
		      resources ? "HOST_RESOURCES" : "HOST_ERROR");
	ret->host_errno = host_errno;
	snprintf(ret->message, sizeof(ret->message), "%s: %s", doing, strerror(host_errno));
	return REFUSED;
}
