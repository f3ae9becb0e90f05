/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Guarded reads of memory that somebody else can take away.
 *
 * Each primitive names the span that it is about to read in a thread-local record, takes a jump
 * point, reads and closes the span. The SIGBUS handler jumps back only when the fault lies inside
 * the faulting thread's own open span. Nothing between open and close takes a lock, allocates or
 * calls out, so that there is nothing to undo.
 *
 * The jump point keeps no signal mask (sigsetjmp(env, 0), no system call); the handler runs with
 * SA_NODEFER, so that leaving it by a jump leaves SIGBUS unblocked.
 *
 * On s390 the kernel reports only the page of a faulting address: spans are compared by page.
 */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "util/guest_read.h"

#define FAULT_GRANULE 4096u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
	__has_feature(memory_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif
#ifndef UNDER_SANITIZER
#define UNDER_SANITIZER 0
#endif

/* ThreadSanitizer runs our handler from its own, with every signal blocked. */
#define SAVE_MASK UNDER_SANITIZER

/* The guest writes while a filter reads: a race by design, and only the filters have it. */
#define RACES_WITH_GUEST                                                        \
	__attribute__((noinline, no_sanitize("address"), no_sanitize("thread"), \
		       no_sanitize("undefined")))

/* [first, last] is empty (first > last) unless this thread is inside a primitive. */
struct guest_span {
	volatile uintptr_t first, last;
	sigjmp_buf escape;
};

static _Thread_local struct guest_span span = {.first = 1, .last = 0};

static inline void span_open(const void *source, size_t bytes)
{
	span.first = (uintptr_t)source & ~(uintptr_t)(FAULT_GRANULE - 1);
	span.last = (uintptr_t)source + bytes - 1;
	/* Keeps the accesses that follow behind the stores above; no instruction. */
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void span_close(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	span.first = 1;
	span.last = 0;
}

static void handle_sigbus(int signal_number, siginfo_t *info, void *context)
{
	uintptr_t address = (uintptr_t)info->si_addr;

	/* si_code <= 0: sent by a process, si_addr means nothing. */
	if (info->si_code > 0 && span.first <= address && address <= span.last) {
		span_close();
		siglongjmp(span.escape, 1);
	}
	/* Not ours: die of it as without a handler, now or when the instruction is run again. */
	signal(SIGBUS, SIG_DFL);
	raise(SIGBUS);
}

int guest_read_init(void)
{
	struct sigaction action = {
		.sa_sigaction = handle_sigbus,
		.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK,
	};

	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

bool guest_read_u64(const void *source, uint64_t *ret)
{
	uint64_t word;

	if (sigsetjmp(span.escape, SAVE_MASK))
		return false;
	span_open(source, sizeof(word));
	word = __atomic_load_n((const uint64_t *)source, __ATOMIC_RELAXED);
	span_close();
	*ret = word;
	return true;
}

static void load_words(const uint64_t *source, uint64_t *ret, size_t n)
{
	for (size_t i = 0; i < n; i++)
		ret[i] = __atomic_load_n(&source[i], __ATOMIC_RELAXED);
}

bool guest_read_words(const void *source, uint64_t *ret, size_t n)
{
	if (!n)
		return true;
	if (sigsetjmp(span.escape, SAVE_MASK))
		return false;
	span_open(source, n * sizeof(*ret));
	load_words(source, ret, n);
	span_close();
	return true;
}

/* memcmp() of the C library is the fastest there is, but a sanitizer checks every byte of it and
 * calls the guest's writes a race. */
#if UNDER_SANITIZER
static RACES_WITH_GUEST int compare_words(const void *kept, const void *source, size_t bytes)
{
	const volatile uint64_t *a = kept, *b = source;

	for (size_t i = 0; i < bytes / sizeof(*a); i++)
		if (a[i] != b[i])
			return 1;
	return 0;
}
#else
#define compare_words memcmp
#endif

enum guest_compare guest_read_compare(const void *kept, const void *source, size_t bytes)
{
	int differs;

	if (sigsetjmp(span.escape, SAVE_MASK))
		return GUEST_FAULT;
	span_open(source, bytes);
	differs = compare_words(kept, source, bytes);
	span_close();
	return differs ? GUEST_DIFFERENT : GUEST_SAME;
}

typedef uint64_t vector __attribute__((vector_size(16), may_alias));

/* The bits that all n words have, 64 bytes a turn. */
static RACES_WITH_GUEST uint64_t common_bits(const void *source, size_t n)
{
	const vector *at = source, *stop = at + n / 2;
	vector a = at[0], b = at[1], c = at[2], d = at[3];

	for (at += 4; at < stop; at += 4) {
		a &= at[0];
		b &= at[1];
		c &= at[2];
		d &= at[3];
	}
	a = (a & b) & (c & d);
	return a[0] & a[1];
}

enum guest_compare guest_read_any_clear(const void *source, size_t n, uint64_t bit)
{
	uint64_t common;

	if (sigsetjmp(span.escape, SAVE_MASK))
		return GUEST_FAULT;
	span_open(source, n * sizeof(uint64_t));
	common = common_bits(source, n);
	span_close();
	return common & bit ? GUEST_SAME : GUEST_DIFFERENT;
}
