/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libiommubroker's blocking calls against a fake daemon: what goes out, what comes back, every kind
 * of refusal, and a daemon that lies, stalls or dies.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_daemon.h"
#include "google/rpc/error_details.pb-c.h"
#include "iommubroker.h"
#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/guests.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/memory.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"

#define METHOD(name) IOMMUBROKER__V1__METHOD__METHOD_##name

struct bench {
	struct fake_daemon daemon;
	struct iommubroker_session *session;
	size_t n_fds;
};

static void begin(struct bench *bench, fake_serve_fn serve, void *user_data)
{
	bench->n_fds = fake_count_fds();
	fake_start(&bench->daemon, serve, user_data);
	assert_int_equal(
		iommubroker_session_open_fd(bench->daemon.client_fd, "test", &bench->session, NULL),
		0);
}

/* Nothing may be left open. */
static void finish(struct bench *bench)
{
	assert_null(iommubroker_session_free(bench->session));
	fake_stop(&bench->daemon);
	assert_int_equal(fake_count_fds(), bench->n_fds);
}

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

	begin(&bench, serve_refusal, &refusal);
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
	finish(&bench);
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

	begin(&bench, serve_quota, NULL);
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
	finish(&bench);
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

struct seen {
	uint64_t request_ids[64];
	size_t n;
	bool good;
	ino_t ino;
};

static void serve_guests(struct fake_daemon *daemon, const struct fake_request *request,
			 void *user_data)
{
	Iommubroker__V1__CreateGuestRequest *create = iommubroker__v1__create_guest_request__unpack(
		NULL, request->n_message, request->message);
	Iommubroker__V1__CreateGuestResponse response =
		IOMMUBROKER__V1__CREATE_GUEST_RESPONSE__INIT;
	struct seen *seen = user_data;

	seen->request_ids[seen->n++] = create->request_id;
	seen->good = request->method == METHOD(CREATE_GUEST) && create->uuid.len == 16 &&
		     create->uuid.data[15] == 15 && strcmp(create->name, "g") == 0 &&
		     create->n_labels == 2 && strcmp(create->labels[1]->key, "k2") == 0 &&
		     strcmp(create->labels[1]->value, "v2") == 0 && create->limits != NULL &&
		     create->limits->pinned_bytes_max == 7 && create->limits->mappings_max == 8 &&
		     create->on_behalf_of == NULL;
	response.guest = UINT64_C(0xfedcba9876543210);
	fake_answer(daemon, request, &response.base);
	iommubroker__v1__create_guest_request__free_unpacked(create, NULL);
}

static void test_create_guest(void **state)
{
	const uint8_t uuid[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	const struct iommubroker_label labels[] = {{"k1", "v1"}, {"k2", "v2"}};
	struct iommubroker_guest_options options = {
		.struct_bytes = sizeof(options),
		.uuid = uuid,
		.name = "g",
		.n_labels = 2,
		.labels = labels,
		.pinned_bytes_max = 7,
		.mappings_max = 8,
	};
	struct iommubroker_guest *guest = NULL;
	struct iommubroker_error *error = NULL;
	struct seen seen = {.n = 0};
	struct bench bench;

	begin(&bench, serve_guests, &seen);
	assert_string_equal(iommubroker_session_tenant(bench.session), "tenant-a");
	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(iommubroker_guest_create(bench.session, &options, &guest, NULL),
				 0);
		assert_true(seen.good);
		assert_true(iommubroker_guest_handle(guest) == UINT64_C(0xfedcba9876543210));
		assert_null(iommubroker_guest_free(guest));
	}
	for (size_t i = 0; i < seen.n; i++) {
		assert_true(seen.request_ids[i] != 0);
		for (size_t k = 0; k < i; k++)
			assert_true(seen.request_ids[i] != seen.request_ids[k]);
	}
	options.n_labels = 9;
	assert_int_equal(iommubroker_guest_create(bench.session, &options, &guest, &error),
			 -EINVAL);
	assert_string_equal(iommubroker_error_field(error), "labels");
	iommubroker_error_free(error);
	options.n_labels = 0;
	options.struct_bytes--;
	assert_int_equal(iommubroker_guest_create(bench.session, &options, &guest, NULL), -EINVAL);
	finish(&bench);
}

/* A daemon with one guest, one file, one device, that refuses nothing. */
static int memory_fd(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	return fd;
}

static void serve_file(struct fake_daemon *daemon, const struct fake_request *request,
		       void *user_data)
{
	Iommubroker__V1__AddMemoryFileResponse response =
		IOMMUBROKER__V1__ADD_MEMORY_FILE_RESPONSE__INIT;
	struct seen *seen = user_data;
	struct stat st = {0};

	if (request->method == METHOD(CREATE_GUEST)) {
		fake_answer(daemon, request, NULL);
		return;
	}
	if (request->n_fds == 1)
		fstat(request->fds[0], &st);
	seen->ino = st.st_ino;
	response.memory_file = 5;
	response.length = 4096;
	response.page_bytes = 2 << 20;
	fake_answer(daemon, request, &response.base);
}

static void test_memory_file(void **state)
{
	struct iommubroker_memory_file *file = NULL;
	struct iommubroker_guest *guest = NULL;
	struct seen seen = {.n = 0};
	struct bench bench;
	struct stat st;
	int fd = memory_fd();

	begin(&bench, serve_file, &seen);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_memory_file_add(guest, fd, true, &file, NULL), 0);
	assert_int_equal(fstat(fd, &st), 0); /* borrowed */
	assert_true(seen.ino == st.st_ino);
	assert_int_equal(iommubroker_memory_file_length(file), 4096);
	assert_int_equal(iommubroker_memory_file_page_bytes(file), 2 << 20);
	iommubroker_memory_file_free(file);
	assert_int_equal(iommubroker_memory_file_add(guest, -1, true, &file, NULL), -EINVAL);
	iommubroker_guest_free(guest);
	finish(&bench);
	close(fd);
}

static void serve_device(struct fake_daemon *daemon, const struct fake_request *request,
			 void *user_data)
{
	Iommubroker__V1__OpenDeviceResponse response = IOMMUBROKER__V1__OPEN_DEVICE_RESPONSE__INIT;
	Iommubroker__V1__DescriptorRef ref = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	const int *attached = user_data;
	int fd;

	if (request->method == METHOD(CREATE_GUEST)) {
		fake_answer(daemon, request, NULL);
		return;
	}
	fd = memory_fd();
	response.device = 9;
	response.descriptor = &ref;
	ref.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	ref.attached = *attached;
	fake_answer_fd(daemon, request, *attached == -2 ? NULL : &response.base,
		       *attached == -1 ? -1 : fd);
	close(fd);
}

static void test_open_device(void **state)
{
	struct iommubroker_device *device = NULL;
	struct iommubroker_guest *guest = NULL;
	struct bench bench;
	int attached = 0;
	int fd = -1;

	begin(&bench, serve_device, &attached);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_device_open_function(guest, 1, &device, &fd, NULL), 0);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(iommubroker_device_handle(device), 9);
	iommubroker_device_free(device);
	close(fd);
	/* Nobody wants it: closed. finish() would find it. */
	assert_int_equal(iommubroker_device_open_pci(guest, "0000:00:04.0", &device, NULL, NULL),
			 0);
	iommubroker_device_free(device);
	fd = -7;
	for (attached = -2; attached < 20; attached += attached == -1 ? 2 : 1) {
		/* -2: no reference; -1: a reference and no descriptor; others: a wrong place. */
		if (attached == 0)
			continue;
		assert_int_equal(iommubroker_device_open_function(guest, 1, &device, &fd, NULL),
				 -EBADMSG);
		assert_int_equal(fd, -7);
	}
	iommubroker_guest_free(guest);
	finish(&bench);
}

/* ---- Progress and cancelling ---- */

struct update_script {
	struct fake_request waiting; /* UpdateMemory, not answered yet */
	uint64_t request_id, cancelled_id;
	unsigned int n_progress;
	bool answers_after_progress;
};

static void send_progress(struct fake_daemon *daemon, const struct fake_request *request,
			  uint64_t done)
{
	Iommubroker__V1__UpdateMemoryResponse response =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__INIT;
	Iommubroker__V1__Progress progress = IOMMUBROKER__V1__PROGRESS__INIT;

	progress.done_bytes = done;
	progress.total_bytes = 100;
	response.update_case = IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_PROGRESS;
	response.progress = &progress;
	fake_answer_more(daemon, request, &response.base);
}

static void send_done(struct fake_daemon *daemon, const struct fake_request *request)
{
	Iommubroker__V1__UpdateMemoryResponse response =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__INIT;
	Iommubroker__V1__UpdateMemoryResponse__Done done =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__DONE__INIT;

	done.pinned = true;
	done.region_bytes = 11;
	done.leaves_dropped = 12;
	done.leaves_restored = 13;
	response.update_case = IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_DONE;
	response.done = &done;
	fake_answer(daemon, request, &response.base);
}

static void serve_update(struct fake_daemon *daemon, const struct fake_request *request,
			 void *user_data)
{
	struct update_script *script = user_data;

	if (request->method == METHOD(UPDATE_MEMORY)) {
		Iommubroker__V1__UpdateMemoryRequest *update =
			iommubroker__v1__update_memory_request__unpack(NULL, request->n_message,
								       request->message);

		script->request_id = update->request_id;
		script->waiting = *request;
		iommubroker__v1__update_memory_request__free_unpacked(update, NULL);
		for (unsigned int i = 0; i < script->n_progress; i++)
			send_progress(daemon, request, i + 1);
		if (script->answers_after_progress)
			send_done(daemon, request);
	} else if (request->method == METHOD(CANCEL_OPERATION)) {
		Iommubroker__V1__CancelOperationRequest *cancel =
			iommubroker__v1__cancel_operation_request__unpack(NULL, request->n_message,
									  request->message);

		script->cancelled_id = cancel->request_id;
		iommubroker__v1__cancel_operation_request__free_unpacked(cancel, NULL);
		fake_answer(daemon, request, NULL);
		fake_refuse(daemon, &script->waiting, 1, "undone", NULL, 0);
	} else {
		fake_answer(daemon, request, NULL);
	}
}

struct progress_log {
	unsigned int n;
	uint64_t last;
	bool in_order;
	int answer;
};

static int log_progress(void *user_data, uint64_t done_bytes, uint64_t total_bytes)
{
	struct progress_log *log = user_data;

	log->in_order = (log->n == 0 || done_bytes > log->last) && total_bytes == 100;
	log->last = done_bytes;
	log->n++;
	return log->answer;
}

static void test_progress(void **state)
{
	const struct iommubroker_address_range unmap = {0, 4095};
	const struct iommubroker_memory_update update = {.n_unmap = 1, .unmap = &unmap};
	struct update_script script = {.n_progress = 5, .answers_after_progress = true};
	struct iommubroker_memory_change change = {0};
	struct iommubroker_guest *guest = NULL;
	struct progress_log log = {.in_order = true};
	struct bench bench;

	begin(&bench, serve_update, &script);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(
		iommubroker_memory_update(guest, &update, log_progress, &log, &change, NULL), 0);
	/* What is overtaken need not be reported, but what is must be in order. */
	assert_true(log.in_order);
	assert_true(log.n <= 5);
	assert_true(change.pinned);
	assert_int_equal(change.region_bytes, 11);
	assert_int_equal(change.leaves_dropped, 12);
	assert_int_equal(change.leaves_restored, 13);
	/* All of that is optional. */
	assert_int_equal(iommubroker_memory_update(guest, &update, NULL, NULL, NULL, NULL), 0);
	iommubroker_guest_free(guest);
	finish(&bench);
}

static void test_cancel_from_progress(void **state)
{
	const struct iommubroker_memory_update update = {.n_map = 0};
	struct update_script script = {.n_progress = 1};
	struct iommubroker_guest *guest = NULL;
	struct iommubroker_error *error = NULL;
	struct progress_log log = {.answer = 1};
	struct bench bench;

	begin(&bench, serve_update, &script);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(
		iommubroker_memory_update(guest, &update, log_progress, &log, NULL, &error),
		-ECANCELED);
	assert_string_equal(iommubroker_error_message(error), "undone");
	iommubroker_error_free(error);
	assert_int_equal(log.n, 1);
	assert_true(script.request_id != 0);
	assert_int_equal(script.cancelled_id, script.request_id);
	iommubroker_guest_free(guest);
	finish(&bench);
}

static void test_too_large(void **state)
{
	static struct iommubroker_address_range unmap[513];
	const struct iommubroker_memory_update update = {.n_unmap = 513, .unmap = unmap};
	struct update_script script = {.n_progress = 0};
	struct iommubroker_guest *guest = NULL;
	struct bench bench;

	begin(&bench, serve_update, &script);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_memory_update(guest, &update, NULL, NULL, NULL, NULL),
			 -EMSGSIZE);
	iommubroker_guest_free(guest);
	finish(&bench);
}

static void serve_bind(struct fake_daemon *daemon, const struct fake_request *request,
		       void *user_data)
{
	Iommubroker__V1__BindDeviceResponse response = IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__INIT;
	Iommubroker__V1__Progress progress = IOMMUBROKER__V1__PROGRESS__INIT;
	Iommubroker__V1__DeviceInfo info = IOMMUBROKER__V1__DEVICE_INFO__INIT;
	const bool *ends_in_progress = user_data;
	int attached = 0;

	if (request->method != METHOD(BIND_DEVICE)) {
		serve_device(daemon, request, &attached);
	} else if (*ends_in_progress) {
		response.update_case = IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__UPDATE_PROGRESS;
		response.progress = &progress;
		fake_answer(daemon, request, &response.base);
	} else {
		response.update_case = IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__UPDATE_DONE;
		response.done = &info;
		fake_answer(daemon, request, &response.base);
	}
}

static void test_bind(void **state)
{
	struct iommubroker_device *device = NULL;
	struct iommubroker_guest *guest = NULL;
	bool ends_in_progress = false;
	struct bench bench;

	begin(&bench, serve_bind, &ends_in_progress);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_device_open_function(guest, 1, &device, NULL, NULL), 0);
	assert_int_equal(iommubroker_device_bind(device, NULL, NULL, NULL, NULL), 0);
	ends_in_progress = true;
	assert_int_equal(iommubroker_device_bind(device, NULL, NULL, NULL, NULL), -EBADMSG);
	iommubroker_device_free(device);
	iommubroker_guest_free(guest);
	finish(&bench);
}

/* ---- A daemon that lies, stalls or dies ---- */

static void test_death(void **state)
{
	struct iommubroker_usage *usage = NULL;
	struct iommubroker_error *error = NULL;
	struct bench bench;

	begin(&bench, serve_death, NULL);
	assert_int_equal(iommubroker_session_state(bench.session), 0);
	assert_int_equal(iommubroker_usage(bench.session, &usage, &error), -ECONNRESET);
	assert_int_equal(iommubroker_error_code(error), 14);
	iommubroker_error_free(error);
	assert_int_equal(iommubroker_session_state(bench.session), -ECONNRESET);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), -ECONNRESET);
	finish(&bench);
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

	begin(&bench, serve_late, &late);
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
	finish(&bench);
}

struct lie {
	const char *what;
	int result;
	void (*tell)(struct fake_daemon *daemon, const struct fake_request *request);
};

static void lie_short(struct fake_daemon *daemon, const struct fake_request *request)
{
	fake_send(daemon, (const uint8_t *)"0123456789abcde", 15, NULL, 0);
}

static void lie_reserved(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[16];

	fake_header(packet, request->method, request->call);
	packet[5] = 1;
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_method(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[16];

	fake_header(packet, request->method + 1, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_envelope(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[20] = {[16] = 0x1a, 0xff, 0xff, 0x7f}; /* message of 2 MiB */

	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_varint(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[32];

	memset(packet, 0xff, sizeof(packet));
	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_status(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[20] = {[16] = 0x12, 0x02, 0x08, 0x80}; /* a code without its end */

	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_oversized(struct fake_daemon *daemon, const struct fake_request *request)
{
	/* Right, but for its last byte: an unknown field that fills the 65,536 bytes of a packet.
	 */
	static uint8_t packet[65537] = {[16] = 0x7a, 0xec, 0xff, 0x03};

	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_descriptors(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[16];
	int fds[9];

	fds[0] = memory_fd();
	for (size_t i = 1; i < 9; i++)
		fds[i] = fds[0];
	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), fds, 9);
	close(fds[0]);
}

static void lie_empty(struct fake_daemon *daemon, const struct fake_request *request)
{
	fake_send(daemon, NULL, 0, NULL, 0);
}

static void lie_garbage(struct fake_daemon *daemon, const struct fake_request *request)
{
	fake_answer_bytes(daemon, request, (const uint8_t *)"\xff\xff\xff\xff\xff", 5);
}

static const struct lie lies[] = {
	{"short", -EBADMSG, lie_short},         {"reserved", -EBADMSG, lie_reserved},
	{"method", -EBADMSG, lie_method},       {"envelope", -EBADMSG, lie_envelope},
	{"varint", -EBADMSG, lie_varint},       {"status", -EBADMSG, lie_status},
	{"oversized", -EBADMSG, lie_oversized}, {"descriptors", -EBADMSG, lie_descriptors},
	{"empty", -ECONNRESET, lie_empty},
};

static void serve_lie(struct fake_daemon *daemon, const struct fake_request *request,
		      void *user_data)
{
	((const struct lie *)user_data)->tell(daemon, request);
}

static void test_lies(void **state)
{
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct pollfd poll_fd = {.events = POLLIN};
		struct iommubroker_usage *usage = NULL;
		struct bench bench;

		begin(&bench, serve_lie, (void *)&lies[i]);
		assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), lies[i].result);
		assert_int_equal(iommubroker_session_state(bench.session), lies[i].result);
		assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), lies[i].result);
		assert_null(usage);
		/* Both the daemon and an event loop are to see that it is over. */
		poll_fd.fd = iommubroker_session_fd(bench.session);
		assert_int_equal(poll(&poll_fd, 1, 0), 1);
		finish(&bench);
	}
}

static void test_garbage_message(void **state)
{
	const struct lie lie = {"garbage", -EBADMSG, lie_garbage};
	struct iommubroker_usage *usage = NULL;
	struct bench bench;

	begin(&bench, serve_lie, (void *)&lie);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), -EBADMSG);
	/* The envelope was right, so others need not suffer. */
	assert_int_equal(iommubroker_session_state(bench.session), 0);
	finish(&bench);
}

/* Answers to calls that nobody made, with descriptors, then the right one. */
static void serve_strangers(struct fake_daemon *daemon, const struct fake_request *request,
			    void *user_data)
{
	uint8_t packet[16];
	int fd = memory_fd();

	for (uint64_t call = 0; call < 200; call += 13) {
		fake_header(packet, request->method, request->call + 1 + call);
		fake_send(daemon, packet, sizeof(packet), &fd, 1);
	}
	/* The same slot at another time. */
	fake_refuse(daemon,
		    &(struct fake_request){.method = request->method, .call = request->call - 64},
		    5, "not yours", NULL, 0);
	fake_header(packet, request->method, request->call + 64);
	fake_send(daemon, packet, sizeof(packet), &fd, 1);
	/* Nobody asked for a descriptor. */
	fake_answer_fd(daemon, request, NULL, fd);
	close(fd);
}

static void test_strangers(void **state)
{
	struct iommubroker_usage *usage = NULL;
	struct bench bench;

	begin(&bench, serve_strangers, NULL);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), 0);
	iommubroker_usage_free(usage);
	finish(&bench);
}

/* Messages of every kind that are almost right: whatever is in them, nothing may crash. */
static void serve_noise(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	unsigned int *seed = user_data;
	uint8_t bytes[96];
	size_t n = rand_r(seed) % sizeof(bytes);

	for (size_t i = 0; i < n; i++)
		bytes[i] = rand_r(seed) % 4 == 0 ? rand_r(seed) : 1 << rand_r(seed) % 6;
	if (request->method == METHOD(CREATE_GUEST) || request->method == METHOD(OPEN_DEVICE))
		n = 0;
	fake_answer_bytes(daemon, request, bytes, n);
}

static void noise_round(struct bench *bench, struct iommubroker_guest *guest)
{
	const struct iommubroker_memory_update update = {.n_map = 0};
	struct iommubroker_guest_info *info = NULL;
	struct iommubroker_host_info *host = NULL;
	struct iommubroker_usage *usage = NULL;
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_guest_describe(guest, &info, &error);
	assert_true(r == 0 ? info != NULL && error == NULL : info == NULL && error != NULL);
	iommubroker_guest_info_free(info);
	iommubroker_error_free(error);
	if (iommubroker_host_info(bench->session, &host, NULL) == 0)
		iommubroker_host_info_free(host);
	if (iommubroker_usage(bench->session, &usage, NULL) == 0)
		iommubroker_usage_free(usage);
	iommubroker_memory_update(guest, &update, NULL, NULL, NULL, NULL);
}

static void test_noise(void **state)
{
	struct iommubroker_guest *guest = NULL;
	unsigned int seed = 1;
	struct bench bench;

	begin(&bench, serve_noise, &seed);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	for (int i = 0; i < 2000; i++)
		noise_round(&bench, guest);
	assert_int_equal(iommubroker_session_state(bench.session), 0);
	iommubroker_guest_free(guest);
	finish(&bench);
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
		cmocka_unit_test(test_open_denied), cmocka_unit_test(test_create_guest),
		cmocka_unit_test(test_memory_file), cmocka_unit_test(test_open_device),
		cmocka_unit_test(test_progress),    cmocka_unit_test(test_cancel_from_progress),
		cmocka_unit_test(test_too_large),   cmocka_unit_test(test_bind),
		cmocka_unit_test(test_death),       cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_lies),        cmocka_unit_test(test_garbage_message),
		cmocka_unit_test(test_strangers),   cmocka_unit_test(test_noise),
		cmocka_unit_test(test_silence),
	};

	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
