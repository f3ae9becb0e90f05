/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_REFUSAL_H
#define IB_UTIL_REFUSAL_H

/*
 * Why a request was refused.
 *
 * Functions below rpc/ answer in three scopes, visible in their result:
 *
 *     0   success
 *   > 0   the request failed, always REFUSED; a struct refusal says why
 *   < 0   the daemon itself is broken: a negative errno that goes up unchanged to main
 *
 * A client's fault, and a want of memory or descriptors on behalf of a client, is a refusal and
 * never a negative result. rpc/status.c is the one place that turns a refusal into a gRPC status
 * with google.rpc details.
 *
 * A refusal is a plain value: fixed size, owns nothing, may be copied. It is written only when the
 * function returns REFUSED.
 */

#include <stdint.h>

#define REFUSED 1

enum refusal_kind {
	REFUSAL_NONE,
	REFUSAL_INVALID,         /* a field's value; field is set: BadRequest */
	REFUSAL_NOT_FOUND,       /* unknown or someone else's: one answer for both */
	REFUSAL_EXISTS,          /* overlap, or the same again */
	REFUSAL_DENIED,          /* no rule lets this caller do it */
	REFUSAL_UNAUTHENTICATED, /* no session, or a secret that opens none */
	REFUSAL_PRECONDITION, /* legal, not now: wrong order, unpopulated memory; reason is the type
			       */
	REFUSAL_QUOTA, /* our ledger; resource, limit, used, requested, tenant, rule are set */
	REFUSAL_HOST_MEMLOCK,   /* the kernel's locked-memory limit, behind our ledger */
	REFUSAL_HOST_RESOURCES, /* memory or descriptors of the host ran out for this request */
	REFUSAL_RATE,           /* too many; as QUOTA without used, and retry_after_ms */
	REFUSAL_BUSY,           /* come back later; retry_after_ms is set */
	REFUSAL_CANCELLED,      /* CancelOperation, or its session ended */
	REFUSAL_UNIMPLEMENTED,  /* this daemon or this kernel lacks it; reason names what */
	REFUSAL_HOST, /* the kernel or the device answered something unexpected; host_errno */
};

struct refusal {
	enum refusal_kind kind;
	int host_errno; /* 0, or the kernel's errno behind it */
	uint32_t retry_after_ms;
	uint64_t limit, used, requested;
	char reason[48];   /* UPPER_SNAKE, stable: the ErrorInfo reason */
	char field[64];    /* path of the request's field, "map[3].offset" */
	char resource[32]; /* quota resource, or the kind of object not found */
	char tenant[64];   /* who is charged */
	char rule[128];    /* file:line of the rule that set the limit */
	/* NULL, or every sentence of what is wrong, one a line; borrowed for as long as the call.
	 */
	const char *lines;
	char note[96];     /* for the operator's log only, never told to the client; or "" */
	char message[256]; /* one sentence for people, names the value and what is wrong with it */
};

/* Each fills *ret and returns REFUSED. field, reason and format are truncated to fit. */
int refuse(struct refusal *ret, enum refusal_kind kind, const char *reason, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
int refuse_field(struct refusal *ret, const char *field, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int refuse_not_found(struct refusal *ret, const char *what);
int refuse_unimplemented(struct refusal *ret, const char *reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int refuse_quota(struct refusal *ret, const char *resource, uint64_t limit, uint64_t used,
		 uint64_t requested, const char *tenant, const char *rule);
/* host_errno > 0. ENOMEM, EMFILE and ENFILE become HOST_RESOURCES, all else HOST. */
int refuse_errno(struct refusal *ret, int host_errno, const char *doing);

#endif
