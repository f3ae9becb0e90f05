/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libiommubroker's blocking calls on guests, memory and devices against a fake daemon: what goes
 * out, what comes back. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client_bench.h"
#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/guests.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/memory.pb-c.h"

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

	bench_begin(&bench, serve_guests, &seen);
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
	bench_end(&bench);
}

/* ── a description in pages ────────────────────────────────────────────────────────────────── */

#define PAGED_REGIONS 1500u

struct pages_script {
	unsigned int answers;
	bool stands_still;
};

static uint64_t paged_gpa(uint64_t i)
{
	return i << 12;
}

static void serve_pages(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	static Iommubroker__V1__GuestDescription__Region regions[PAGED_REGIONS];
	static Iommubroker__V1__GuestDescription__Region *list[PAGED_REGIONS];
	Iommubroker__V1__GuestDescription description = IOMMUBROKER__V1__GUEST_DESCRIPTION__INIT;
	Iommubroker__V1__DescribeGuestResponse response =
		IOMMUBROKER__V1__DESCRIBE_GUEST_RESPONSE__INIT;
	Iommubroker__V1__DescribeGuestRequest *ask;
	struct pages_script *script = user_data;

	if (request->method != METHOD(DESCRIBE_GUEST)) {
		fake_answer(daemon, request, NULL);
		return;
	}
	ask = iommubroker__v1__describe_guest_request__unpack(NULL, request->n_message,
							      request->message);
	for (uint64_t i = ask->regions_from >> 12; i < PAGED_REGIONS; i++) {
		if (description.n_regions == ask->regions_max) {
			response.regions_next = script->stands_still ? 4096 : paged_gpa(i);
			break;
		}
		iommubroker__v1__guest_description__region__init(&regions[i]);
		regions[i].gpa = paged_gpa(i);
		list[description.n_regions++] = &regions[i];
	}
	description.regions = list;
	description.name = (char *)"paged";
	response.description = &description;
	script->answers++;
	fake_answer(daemon, request, &response.base);
	iommubroker__v1__describe_guest_request__free_unpacked(ask, NULL);
}

static void test_description_in_pages(void **state)
{
	struct pages_script script = {0};
	struct iommubroker_guest_info *info = NULL;
	struct iommubroker_guest *guest = NULL;
	struct bench bench;

	bench_begin(&bench, serve_pages, &script);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_guest_describe(guest, &info, NULL), 0);
	assert_true(script.answers > 1);
	assert_string_equal(info->name, "paged");
	assert_int_equal(info->n_regions, PAGED_REGIONS);
	for (uint64_t i = 0; i < PAGED_REGIONS; i++)
		assert_int_equal(info->regions[i].gpa, paged_gpa(i));
	iommubroker_guest_info_free(info);
	/* One that never comes to an end. */
	script.stands_still = true;
	assert_int_equal(iommubroker_guest_describe(guest, &info, NULL), -EBADMSG);
	iommubroker_guest_free(guest);
	bench_end(&bench);
}

/* A daemon with one guest, one file, one device, that refuses nothing. */
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
	int fd = bench_memory_fd();

	bench_begin(&bench, serve_file, &seen);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_memory_file_add(guest, fd, true, &file, NULL), 0);
	assert_int_equal(fstat(fd, &st), 0); /* borrowed */
	assert_true(seen.ino == st.st_ino);
	assert_int_equal(iommubroker_memory_file_length(file), 4096);
	assert_int_equal(iommubroker_memory_file_page_bytes(file), 2 << 20);
	iommubroker_memory_file_free(file);
	assert_int_equal(iommubroker_memory_file_add(guest, -1, true, &file, NULL), -EINVAL);
	iommubroker_guest_free(guest);
	bench_end(&bench);
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
	fd = bench_memory_fd();
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

	bench_begin(&bench, serve_device, &attached);
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
	bench_end(&bench);
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

	bench_begin(&bench, serve_update, &script);
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
	bench_end(&bench);
}

static void test_cancel_from_progress(void **state)
{
	const struct iommubroker_memory_update update = {.n_map = 0};
	struct update_script script = {.n_progress = 1};
	struct iommubroker_guest *guest = NULL;
	struct iommubroker_error *error = NULL;
	struct progress_log log = {.answer = 1};
	struct bench bench;

	bench_begin(&bench, serve_update, &script);
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
	bench_end(&bench);
}

static void test_too_large(void **state)
{
	static struct iommubroker_address_range unmap[513];
	const struct iommubroker_memory_update update = {.n_unmap = 513, .unmap = unmap};
	struct update_script script = {.n_progress = 0};
	struct iommubroker_guest *guest = NULL;
	struct bench bench;

	bench_begin(&bench, serve_update, &script);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_memory_update(guest, &update, NULL, NULL, NULL, NULL),
			 -EMSGSIZE);
	iommubroker_guest_free(guest);
	bench_end(&bench);
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

	bench_begin(&bench, serve_bind, &ends_in_progress);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_device_open_function(guest, 1, &device, NULL, NULL), 0);
	assert_int_equal(iommubroker_device_bind(device, NULL, NULL, NULL, NULL), 0);
	ends_in_progress = true;
	assert_int_equal(iommubroker_device_bind(device, NULL, NULL, NULL, NULL), -EBADMSG);
	iommubroker_device_free(device);
	iommubroker_guest_free(guest);
	bench_end(&bench);
}

/* ---- A daemon that lies, stalls or dies ---- */

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_guest), cmocka_unit_test(test_description_in_pages),
		cmocka_unit_test(test_memory_file),  cmocka_unit_test(test_open_device),
		cmocka_unit_test(test_progress),     cmocka_unit_test(test_cancel_from_progress),
		cmocka_unit_test(test_too_large),    cmocka_unit_test(test_bind),
	};

	return cmocka_run_group_tests_name("client_object", tests, NULL, NULL);
}
