/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_TRACE_H
#define IB_UTIL_TRACE_H

/*
 * Static tracepoints (USDT): places that bpftrace, perf and systemtap can watch in the running
 * daemon. One that nobody watches is a nop. Built without sys/sdt.h they are nothing at all, and
 * their arguments are not evaluated.
 *
 * TRACE_POINTS is the list of all, from which docs/OBSERVABILITY.md is made and which a test
 * compares with the ELF notes of the program: name, number of arguments, what they are, when.
 * Arguments are integers or pointers to texts that end with a zero.
 */

#define TRACE_POINTS(X)                                                                        \
	X(request__start, 4, "method number, method path (text), session id, call",            \
	  "a call was decoded; method number 0: gRPC only; call: the "                         \
	  "same in request__done")                                                             \
	X(request__done, 6,                                                                    \
	  "method number, method path (text), session id, call, status code, duration in ns",  \
	  "it is answered; the status code is gRPC's")                                         \
	X(charge, 5, "resource (text), level (text), tenant (text), amount, used after it",    \
	  "the ledger charged one account; level: host, tenant, session or guest")             \
	X(refund, 5, "resource (text), level (text), tenant (text), amount, used after it",    \
	  "the ledger gave it back")                                                           \
	X(deny, 5, "resource (text), level (text), tenant (text), amount, limit",              \
	  "the ledger had no room at that account, and charged none")                          \
	X(ioctl__enter, 2, "call (text), ioctl number (0: emulated)",                          \
	  "the backend is about to call the kernel, or does the same in software")             \
	X(ioctl__exit, 3, "call (text), ioctl number (0: emulated), errno or 0",               \
	  "it has returned")                                                                   \
	X(restore__step, 4, "guest number, guest name (text), step (text), errno or 0",        \
	  "at the start, a step of taking over a guest has ended: state, guest, context, "     \
	  "files, regions, devices, rings, attached, memory, audited, relaxed, going, swept, " \
	  "reconciled, counted, announced, saved; released: it is not taken over")

#ifdef IB_TRACEPOINTS
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define TRACE(name, ...) STAP_PROBEV(iommubroker, name, __VA_ARGS__)
#else
/* Never called, and nowhere defined: it takes the arguments so that none counts as unused. */
int trace_arguments(int first, ...);
#define TRACE(name, ...) ((void)sizeof(trace_arguments(0, __VA_ARGS__)))
#endif

#endif
