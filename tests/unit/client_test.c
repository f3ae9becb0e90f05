/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libiommubroker's session against a fake daemon: every kind of refusal, and a daemon that stalls
 * or dies. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client_bench.h"
#include "google/rpc/error_details.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"

static void serve_nothing(struct fake_daemon *daemon, const struct fake_request *request,
			  void *user_data)
{
}

static void serve_death(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	fake_die(daemon);
}

/* ---- Refusals ---- */

struct refusal_case {
	int code;
	int result;
	const char *reason; /* ErrorInfo */
	int64_t retry_seconds;
	int32_t retry_nanos;
	uint64_t retry_after_ms;
};

static const struct refusal_case refusal_cases[] = {
	{1, -ECANCELED, "CANCELLED", 0, 0, 0},
	{2, -EIO, "X", 0, 0, 0},
	{3, -EINVAL, "X", 0, 0, 0},
	{4, -ETIMEDOUT, "X", 0, 0, 0},
	{5, -ENOENT, "X", 0, 0, 0},
	{6, -EEXIST, "X", 0, 0, 0},
	{7, -EACCES, "X", 0, 0, 0},
	{8, -EDQUOT, "QUOTA", 0, 0, 0},
	{8, -ENOMEM, "HOST_MEMLOCK", 0, 0, 0},
	{8, -ENOMEM, "HOST_RESOURCES", 0, 0, 0},
	{8, -EAGAIN, "RATE", 0, 1500001, 2},
	{9, -EBUSY, "X", 0, 0, 0},
	{10, -EAGAIN, "X", 0, 0, 0},
	{11, -EINVAL, "X", 0, 0, 0},
	{12, -EOPNOTSUPP, "UPDATE_RING", 0, 0, 0},
	{13, -EIO, "X", 0, 0, 0},
	{14, -EAGAIN, "RESTARTING", 3, 0, 3000},
	{15, -EIO, "X", 0, 0, 0},
	{16, -EPERM, "X", 0, 0, 0},
	{17, -EIO, "X", 0, 0, 0},
	{-1, -EIO, "X", 0, 0, 0},
};

static void serve_refusal(struct fake_daemon *daemon, const struct fake_request *request,
			  void *user_data)
{
	const struct refusal_case *refusal = *(const struct refusal_case **)user_data;
	Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
	Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
	Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
	struct fake_detail details[] = {{"ErrorInfo", &info.base}, {"RetryInfo", &retry.base}};

	info.reason = (char *)refusal->reason;
	delay.seconds = refusal->retry_seconds;
	delay.nanos = refusal->retry_nanos;
	retry.retry_delay = &delay;
	fake_refuse(daemon, request, refusal->code, "no", details,
		    refusal->retry_after_ms > 0 ? 2 : 1);
}

static void test_codes(void **state)
{
	const struct refusal_case *refusal = NULL;
	struct bench bench;

	bench_begin(&bench, serve_refusal, &refusal);
	for (size_t i = 0; i < sizeof(refusal_cases) / sizeof(refusal_cases[0]); i++) {
		struct iommubroker_error *error = NULL;
		struct iommubroker_usage *usage = NULL;

		refusal = &refusal_cases[i];
		assert_int_equal(iommubroker_usage(bench.session, &usage, &error), refusal->result);
		assert_null(usage);
		assert_int_equal(iommubroker_error_errno(error), refusal->result);
		assert_int_equal(iommubroker_error_code(error), refusal->code);
		assert_string_equal(iommubroker_error_message(error), "no");
		assert_string_equal(iommubroker_error_reason(error), refusal->reason);
		assert_int_equal(iommubroker_error_retry_after_ms(error), refusal->retry_after_ms);
		assert_null(iommubroker_error_free(error));
		/* Nobody has to want the details. */
		assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), refusal->result);
	}
	bench_end(&bench);
}

static void serve_quota(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	static const char *const pairs[][2] = {
		{"resource", "pinned_bytes"},
		{"limit", "18446744073709551615"},
		{"used", "100"},
		{"requested", "4096"},
		{"tenant", "machine-a.slice"},
		{"rule", "a.conf:7"},
		{"other", "thing"},
	};
	Google__Rpc__ErrorInfo__MetadataEntry entries[7], *pointers[7];
	Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
	Google__Rpc__BadRequest__FieldViolation violation =
		GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
	Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};
	Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
	struct fake_detail details[] = {{"ErrorInfo", &info.base}, {"BadRequest", &bad.base}};

	for (size_t i = 0; i < 7; i++) {
		entries[i] = (Google__Rpc__ErrorInfo__MetadataEntry)
			GOOGLE__RPC__ERROR_INFO__METADATA_ENTRY__INIT;
		entries[i].key = (char *)pairs[i][0];
		entries[i].value = (char *)pairs[i][1];
		pointers[i] = &entries[i];
	}
	info.reason = (char *)"QUOTA";
	info.n_metadata = 7;
	info.metadata = pointers;
	violation.field = (char *)"map[3].offset";
	bad.n_field_violations = 1;
	bad.field_violations = violations;
	fake_refuse(daemon, request, 8, "too much", details, 2);
}

static void test_details(void **state)
{
	struct iommubroker_error *error = NULL;
	struct iommubroker_guest *guest = NULL;
	struct bench bench;

	bench_begin(&bench, serve_quota, NULL);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, &error), -EDQUOT);
	assert_null(guest);
	assert_string_equal(iommubroker_error_resource(error), "pinned_bytes");
	assert_true(iommubroker_error_limit(error) == UINT64_MAX);
	assert_int_equal(iommubroker_error_used(error), 100);
	assert_int_equal(iommubroker_error_requested(error), 4096);
	assert_string_equal(iommubroker_error_tenant(error), "machine-a.slice");
	assert_string_equal(iommubroker_error_rule(error), "a.conf:7");
	assert_string_equal(iommubroker_error_field(error), "map[3].offset");
	iommubroker_error_free(error);
	bench_end(&bench);
}

static void test_no_error(void **state)
{
	assert_int_equal(iommubroker_error_errno(NULL), 0);
	assert_int_equal(iommubroker_error_code(NULL), 0);
	assert_string_equal(iommubroker_error_message(NULL), "");
	assert_string_equal(iommubroker_error_reason(NULL), "");
	assert_string_equal(iommubroker_error_field(NULL), "");
	assert_string_equal(iommubroker_error_resource(NULL), "");
	assert_string_equal(iommubroker_error_tenant(NULL), "");
	assert_string_equal(iommubroker_error_rule(NULL), "");
	assert_int_equal(iommubroker_error_limit(NULL), 0);
	assert_int_equal(iommubroker_error_used(NULL), 0);
	assert_int_equal(iommubroker_error_requested(NULL), 0);
	assert_int_equal(iommubroker_error_retry_after_ms(NULL), 0);
	assert_null(iommubroker_error_free(NULL));
}

static void test_open_errors(void **state)
{
	struct iommubroker_session *session = NULL;
	struct iommubroker_error *error = NULL;
	char path[200];

	assert_int_equal(iommubroker_session_open("/dev/null/fd.sock", NULL, &session, &error),
			 -ENOTDIR);
	assert_int_equal(iommubroker_error_errno(error), -ENOTDIR);
	assert_non_null(strstr(iommubroker_error_message(error), "/dev/null/fd.sock"));
	iommubroker_error_free(error);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(iommubroker_session_open(path, NULL, &session, NULL), -ENAMETOOLONG);
	assert_null(session);
}

static void serve_denied(struct fake_daemon *daemon, const struct fake_request *request,
			 void *user_data)
{
	fake_refuse(daemon, request, 7, "no rule for uid 5", NULL, 0);
}

static void test_open_denied(void **state)
{
	struct iommubroker_session *session = NULL;
	struct iommubroker_error *error = NULL;
	size_t n_fds = fake_count_fds();
	struct fake_daemon daemon;

	fake_start_raw(&daemon, serve_denied, NULL);
	assert_int_equal(iommubroker_session_open_fd(daemon.client_fd, NULL, &session, &error),
			 -EACCES);
	assert_null(session);
	assert_string_equal(iommubroker_error_message(error), "no rule for uid 5");
	iommubroker_error_free(error);
	fake_stop(&daemon);
	assert_int_equal(fake_count_fds(), n_fds);
}

/* ---- Requests and answers ---- */

static void test_death(void **state)
{
	struct iommubroker_usage *usage = NULL;
	struct iommubroker_error *error = NULL;
	struct bench bench;

	bench_begin(&bench, serve_death, NULL);
	assert_int_equal(iommubroker_session_state(bench.session), 0);
	assert_int_equal(iommubroker_usage(bench.session, &usage, &error), -ECONNRESET);
	assert_int_equal(iommubroker_error_code(error), 14);
	iommubroker_error_free(error);
	assert_int_equal(iommubroker_session_state(bench.session), -ECONNRESET);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), -ECONNRESET);
	bench_end(&bench);
}

struct late {
	struct fake_request request;
	_Atomic bool seen;
};

static void serve_late(struct fake_daemon *daemon, const struct fake_request *request,
		       void *user_data)
{
	struct late *late = user_data;

	if (late->seen) {
		fake_answer(daemon, request, NULL);
		return;
	}
	late->request = *request;
	late->seen = true;
}

static void test_timeout(void **state)
{
	struct late late = {.seen = false};
	struct iommubroker_usage *usage = NULL;
	struct pollfd poll_fd = {.events = POLLIN};
	struct bench bench;

	bench_begin(&bench, serve_late, &late);
	poll_fd.fd = fcntl(bench.daemon.client_fd, F_DUPFD_CLOEXEC, 0);
	iommubroker_session_set_timeout(bench.session, 1000000);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), -ETIMEDOUT);
	iommubroker_session_set_timeout(bench.session, IOMMUBROKER_NO_TIMEOUT);
	while (!late.seen)
		sched_yield();
	fake_answer(&bench.daemon, &late.request, NULL);
	/* The late answer is there; it is nobody's, and no event loop is to wake up for it. */
	assert_int_equal(poll(&poll_fd, 1, -1), 1);
	close(poll_fd.fd);
	poll_fd.fd = iommubroker_session_fd(bench.session);
	assert_int_equal(poll(&poll_fd, 1, 0), 0);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), 0);
	assert_null(iommubroker_usage_free(usage));
	bench_end(&bench);
}

static void test_silence(void **state)
{
	struct iommubroker_session *session = NULL;
	struct fake_daemon daemon;

	/* The session cannot be opened over a socket that dies. */
	fake_start_raw(&daemon, serve_death, NULL);
	assert_int_equal(iommubroker_session_open_fd(daemon.client_fd, "x", &session, NULL),
			 -ECONNRESET);
	fake_stop(&daemon);
	fake_start(&daemon, serve_nothing, NULL);
	assert_int_equal(iommubroker_session_open_fd(daemon.client_fd, "x", &session, NULL), 0);
	iommubroker_session_free(session);
	fake_stop(&daemon);
	assert_null(iommubroker_session_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codes),       cmocka_unit_test(test_details),
		cmocka_unit_test(test_no_error),    cmocka_unit_test(test_open_errors),
		cmocka_unit_test(test_open_denied), cmocka_unit_test(test_death),
		cmocka_unit_test(test_timeout),     cmocka_unit_test(test_silence),
	};

	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
