/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The system call filter against error-queue reads, and what of gRPC's log comes through. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <grpc/support/log.h>

#include "rpc/grpc_log.h"
#include "util/log.h"

static int receive(int fd, int flags)
{
	char bytes[64];
	struct iovec vector = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};

	return recvmsg(fd, &message, flags) < 0 ? -errno : 0;
}

static int receive_many(int fd, int flags)
{
	char bytes[64];
	struct iovec vector = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct mmsghdr message = {.msg_hdr = {.msg_iov = &vector, .msg_iovlen = 1}};

	return recvmmsg(fd, &message, 1, (unsigned int)flags, NULL) < 0 ? -errno : 0;
}

/* In a child: the filter stays for the rest of a process' life. On AF_UNIX the kernel takes an
 * error-queue read for an ordinary one, descriptors and all: so there is something to read. */
static int filtered_child(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return 1;
	if (send(pair[1], "one two three", 13, 0) != 13)
		return 2;
	if (!grpc_errqueue_guard())
		return 77;
	if (receive(pair[0], MSG_ERRQUEUE) != -EAGAIN ||
	    receive(pair[0], MSG_ERRQUEUE | MSG_DONTWAIT) != -EAGAIN ||
	    receive_many(pair[0], MSG_ERRQUEUE) != -EAGAIN)
		return 3;
	if (receive(pair[0], MSG_DONTWAIT | MSG_PEEK) ||
	    receive_many(pair[0], MSG_DONTWAIT | MSG_CMSG_CLOEXEC))
		return 4;
	return 0;
}

static void test_errqueue_reads_fail(void **state)
{
	pid_t child = fork();
	int status;

	(void)state;
	assert_true(child >= 0);
	if (!child)
		_exit(filtered_child());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip(); /* filters cannot be had here; the daemon says so and goes on */
	assert_int_equal(WEXITSTATUS(status), 0);
}

static char last_line[LOG_TEXT_BYTES];
static int n_lines;

static void on_line(enum log_level level, const char *text, const char (*fields)[LOG_FIELD_BYTES],
		    size_t n_fields)
{
	(void)level;
	(void)fields;
	(void)n_fields;
	n_lines++;
	strncpy(last_line, text, sizeof(last_line) - 1);
}

static void test_grpc_lines_carry_no_bytes_of_clients(void **state)
{
	(void)state;
	log_set_sink(on_line);
	grpc_log_filter();
	gpr_log("core/some_file.cc", 42, GPR_LOG_SEVERITY_INFO, "chatter");
	gpr_log("core/some_file.cc", 43, GPR_LOG_SEVERITY_DEBUG, "chatter");
	assert_int_equal(n_lines, 0);
	gpr_log("core/some_file.cc", 44, GPR_LOG_SEVERITY_ERROR, "bad frame: %s", "EVIL\x1b[2J");
	assert_int_equal(n_lines, 1);
	assert_non_null(strstr(last_line, "some_file.cc:44"));
	assert_null(strstr(last_line, "EVIL"));
}

/* Far more than the rate lets through. */
static void test_lines_have_a_rate(void **state)
{
	(void)state;
	n_lines = 0;
	for (int i = 0; i < 10000; i++)
		gpr_log("core/some_file.cc", 44, GPR_LOG_SEVERITY_ERROR, "bad frame");
	assert_true(n_lines > 0);
	assert_true(n_lines <= 100);
	log_set_sink(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errqueue_reads_fail),
		cmocka_unit_test(test_grpc_lines_carry_no_bytes_of_clients),
		cmocka_unit_test(test_lines_have_a_rate),
	};

	return cmocka_run_group_tests_name("grpc_log", tests, NULL, NULL);
}
