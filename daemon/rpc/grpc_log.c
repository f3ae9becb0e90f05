/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/grpc_log.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <grpc/support/log.h>
#include <seccomp.h>

#include "util/clock.h"
#include "rpc/dispatch.h"
#include "util/log.h"

#ifdef SYS_socketcall
/*
 * libc's own go through socketcall() on such a machine (s390x), which hides the flags in memory: a
 * filter can only compare whatever the registers happen to hold, and would fail reads at random. So
 * gRPC is given these in place of libc's.
 */
__attribute__((visibility("default"))) ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	if (flags & MSG_ERRQUEUE) {
		errno = EAGAIN;
		return -1;
	}
	return syscall(SYS_recvmsg, fd, message, flags);
}

__attribute__((visibility("default"))) int recvmmsg(int fd, struct mmsghdr *messages,
						    unsigned int n_messages, int flags,
						    struct timespec *timeout)
{
	if (flags & MSG_ERRQUEUE) {
		errno = EAGAIN;
		return -1;
	}
	return (int)syscall(SYS_recvmmsg, fd, messages, n_messages, flags, timeout);
}

static int errqueue_filter_load(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}
#else
static int errqueue_rule(scmp_filter_ctx filter, int syscall, unsigned int argument)
{
	return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAGAIN), syscall, 1,
				SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, MSG_ERRQUEUE, MSG_ERRQUEUE));
}

static int errqueue_filter_load(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int status;

	if (!filter)
		return -ENOMEM;
	/* This filter is no sandbox: speculative-store mitigations would cost and bring nothing. */
	seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
	status = errqueue_rule(filter, SCMP_SYS(recvmsg), 2);
	if (!status)
		status = errqueue_rule(filter, SCMP_SYS(recvmmsg), 3);
	if (!status)
		status = seccomp_load(filter);
	seccomp_release(filter);
	return status;
}
#endif

bool grpc_errqueue_guard(void)
{
	int status = errqueue_filter_load();

	if (!status)
		return true;
	log_warning("no system call filter against error-queue reads: %s", strerror(-status));
	return false;
}

/* Clients can cause lines as fast as they connect. */
static bool line_allowed(uint32_t *ret_suppressed)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct log_rate rate;
	bool allowed;

	pthread_mutex_lock(&lock);
	allowed = log_rate_allow(&rate, clock_monotonic_ns(), ret_suppressed);
	pthread_mutex_unlock(&lock);
	return allowed;
}

static void on_grpc_log(gpr_log_func_args *args)
{
	uint32_t suppressed;

	if (args->severity < GPR_LOG_SEVERITY_ERROR || !line_allowed(&suppressed))
		return;
	log_warning("gRPC core reports an error at %s:%d (%u lines suppressed)", args->file,
		    args->line, suppressed);
}

void grpc_log_filter(void)
{
	gpr_set_log_function(on_grpc_log);
	gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
}
