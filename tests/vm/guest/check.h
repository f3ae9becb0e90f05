/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_CHECK_H
#define IB_VM_CHECK_H

/*
 * Cases and their checks, for programs that start a daemon and VMMs under other users: what fails
 * in any process or thread of a case fails the case.
 *
 * Each case runs in a process of its own, as root, with a hard time limit; what it started dies
 * with it. A failed check prints one line, with its place, the step it belongs to and the values,
 * and lets the case go on. A failed requirement ends the process that it fails in.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iommubroker_error;

struct test_case {
	const char *name;
	void (*run)(void);
	unsigned int seconds; /* of the machine inside; 0: 600 */
};

/* Runs those whose names contain one of the arguments, or all. The last line printed is the tally.
 * What main() returns. */
int cases_main(const struct test_case *cases, size_t n, int argc, char **argv);

/* Shown with every failure of this thread from now on. */
void check_step(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* How many checks of this case have failed so far, in all its processes. */
unsigned int check_failures(void);
/* Ends this process. */
_Noreturn void check_give_up(void);

/* What the checks below are made of. */
bool check_true(const char *file, int line, const char *what, bool good);
bool check_equal(const char *file, int line, const char *what, uint64_t got, uint64_t want);
/* A call of libiommubroker. What it left in *error is freed. */
bool check_done(const char *file, int line, const char *what, int result,
		struct iommubroker_error **error);
/* want_reason may be NULL. */
bool check_refused(const char *file, int line, const char *what, int result,
		   struct iommubroker_error **error, int want_errno, const char *want_reason);

#define CHECK(condition)        check_true(__FILE__, __LINE__, #condition, (condition))
#define CHECK_EQUAL(got, want)  check_equal(__FILE__, __LINE__, #got, (got), (want))
#define CHECK_DONE(call, error) check_done(__FILE__, __LINE__, #call, (call), (error))
#define CHECK_REFUSED(call, error, want_errno, want_reason) \
	check_refused(__FILE__, __LINE__, #call, (call), (error), want_errno, want_reason)

#define REQUIRE_THAT(check)              \
	do {                             \
		if (!(check))            \
			check_give_up(); \
	} while (0)
#define REQUIRE(condition)        REQUIRE_THAT(CHECK(condition))
#define REQUIRE_EQUAL(got, want)  REQUIRE_THAT(CHECK_EQUAL(got, want))
#define REQUIRE_DONE(call, error) REQUIRE_THAT(CHECK_DONE(call, error))

#endif
