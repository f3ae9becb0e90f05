/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See check.h. Counts lie in memory that all processes of a case share. */

#include "check.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "iommubroker.h"

/* Ends what hangs; nothing is judged by it. The machine has a limit of its own outside. */
#define SECONDS_DEFAULT 600

/* Of a case; what comes after the first is mostly their consequence. */
#define FAILURES_SHOWN 20

struct counts {
	_Atomic unsigned int checks, failures;
};

static struct counts *counts;
static __thread char step[160];

void check_step(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(step, sizeof(step), format, arguments);
	va_end(arguments);
}

unsigned int check_failures(void)
{
	return atomic_load(&counts->failures);
}

void check_give_up(void)
{
	fflush(NULL);
	_exit(EXIT_FAILURE);
}

/* In one write: several processes share the console. */
__attribute__((format(printf, 3, 4))) static bool fail(const char *file, int line,
						       const char *format, ...)
{
	const char *name = strrchr(file, '/');
	char text[900];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (atomic_fetch_add(&counts->failures, 1) >= FAILURES_SHOWN)
		return false;
	printf("  %s:%d: %s%s%s\n", name != NULL ? name + 1 : file, line, step,
	       step[0] != '\0' ? ": " : "", text);
	fflush(stdout);
	return false;
}

bool check_true(const char *file, int line, const char *what, bool good)
{
	atomic_fetch_add(&counts->checks, 1);
	return good || fail(file, line, "%s is not so (errno %d)", what, errno);
}

bool check_equal(const char *file, int line, const char *what, uint64_t got, uint64_t want)
{
	atomic_fetch_add(&counts->checks, 1);
	if (got == want)
		return true;
	return fail(file, line,
		    "%s is %" PRId64 " (%#" PRIx64 "), expected %" PRId64 " (%#" PRIx64 ")", what,
		    (int64_t)got, got, (int64_t)want, want);
}

static const char *errno_text(int result)
{
	const char *name = result == 0 ? "0" : strerrorname_np(-result);

	return name != NULL ? name : "a strange result";
}

bool check_done(const char *file, int line, const char *what, int result,
		struct iommubroker_error **error)
{
	atomic_fetch_add(&counts->checks, 1);
	if (result >= 0)
		return true;
	fail(file, line, "%s: %s, %s: %s", what, errno_text(result),
	     iommubroker_error_reason(*error), iommubroker_error_message(*error));
	*error = iommubroker_error_free(*error);
	return false;
}

bool check_refused(const char *file, int line, const char *what, int result,
		   struct iommubroker_error **error, int want_errno, const char *want_reason)
{
	const char *reason = result < 0 ? iommubroker_error_reason(*error) : "";
	bool good =
		result == want_errno && (want_reason == NULL || strcmp(reason, want_reason) == 0);

	atomic_fetch_add(&counts->checks, 1);
	if (!good)
		fail(file, line, "%s: %s, %s: %s; expected %s, %s", what, errno_text(result),
		     reason, result < 0 ? iommubroker_error_message(*error) : "",
		     errno_text(want_errno), want_reason != NULL ? want_reason : "");
	if (result < 0)
		*error = iommubroker_error_free(*error);
	return good;
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static pid_t case_start(const struct test_case *test)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Ends the case, and with it what it started. */
	signal(SIGALRM, SIG_DFL);
	alarm(test->seconds != 0 ? test->seconds : SECONDS_DEFAULT);
	test->run();
	fflush(NULL);
	_exit(EXIT_SUCCESS);
}

static const char *ending(int status)
{
	static char text[80];

	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		return "its time is up";
	if (WIFSIGNALED(status))
		snprintf(text, sizeof(text), "ended by signal %d", WTERMSIG(status));
	else
		snprintf(text, sizeof(text), "given up, status %d", WEXITSTATUS(status));
	return text;
}

static bool case_run(const struct test_case *test)
{
	double started = now_s();
	unsigned int failures;
	int status = 0;
	pid_t pid;

	atomic_store(&counts->checks, 0);
	atomic_store(&counts->failures, 0);
	pid = case_start(test);
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		printf("FAIL %s: no process: %s\n", test->name, strerror(errno));
		return false;
	}
	failures = atomic_load(&counts->failures);
	if (status == 0 && failures == 0 && atomic_load(&counts->checks) > 0) {
		printf("ok   %-40s %5u checks, %.1f s\n", test->name, atomic_load(&counts->checks),
		       now_s() - started);
		return true;
	}
	printf("FAIL %-40s %5u of %u checks failed%s%s\n", test->name, failures,
	       atomic_load(&counts->checks), status != 0 ? ", " : "",
	       status != 0 ? ending(status) : "");
	return false;
}

static bool is_wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strstr(name, argv[i]) != NULL)
			return true;
	return argc < 2;
}

int cases_main(const struct test_case *cases, size_t n, int argc, char **argv)
{
	unsigned int passed = 0, failed = 0;

	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (counts == MAP_FAILED) {
		perror("mmap");
		return EXIT_FAILURE;
	}
	for (size_t i = 0; i < n; i++) {
		if (!is_wanted(cases[i].name, argc, argv))
			continue;
		if (case_run(&cases[i]))
			passed++;
		else
			failed++;
		fflush(stdout);
	}
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
	return failed == 0 && passed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
