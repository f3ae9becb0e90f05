/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libiommubroker's asynchronous calls: callbacks from iommubroker_process() and nowhere else,
 * beside blocking calls, through cancelling, overflow and the daemon's death.
 */

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_daemon.h"
#include "iommubroker.h"
#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/events.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/memory.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"

#define METHOD(name) IOMMUBROKER__V1__METHOD__METHOD_##name
#define WAIT_MS      60000

struct bench {
	struct fake_daemon daemon;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	size_t n_fds;
	/* The fake's: */
	struct fake_request waiting;
	uint64_t cancelled_call, cancelled_operation, request_id;
	unsigned int n_events; /* sent at once to who watches */
	bool ends, silent, answers_with_usage, dies;
	int code;
};

static void send_events(struct bench *bench, const struct fake_request *request)
{
	Iommubroker__V1__Event event = IOMMUBROKER__V1__EVENT__INIT;

	for (unsigned int i = 0; i < bench->n_events; i++) {
		event.sequence = i + 1;
		event.kind = IOMMUBROKER__V1__EVENT_KIND__EVENT_KIND_DEVICE_FAULT;
		event.iova = i * UINT64_C(4096);
		event.text = (char *)"what happened";
		fake_answer_more(&bench->daemon, request, &event.base);
	}
	if (bench->ends)
		fake_answer(&bench->daemon, request, NULL);
}

static void send_update(struct bench *bench, const struct fake_request *request, uint64_t progress)
{
	Iommubroker__V1__UpdateMemoryResponse response =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__INIT;
	Iommubroker__V1__UpdateMemoryResponse__Done done =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__DONE__INIT;
	Iommubroker__V1__Progress message = IOMMUBROKER__V1__PROGRESS__INIT;

	if (progress > 0) {
		message.done_bytes = progress;
		message.total_bytes = 3;
		response.update_case = IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_PROGRESS;
		response.progress = &message;
		fake_answer_more(&bench->daemon, request, &response.base);
	} else {
		done.region_bytes = 42;
		response.update_case = IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_DONE;
		response.done = &done;
		fake_answer(&bench->daemon, request, &response.base);
	}
}

static void serve_update(struct bench *bench, const struct fake_request *request)
{
	Iommubroker__V1__UpdateMemoryRequest *update =
		iommubroker__v1__update_memory_request__unpack(NULL, request->n_message,
							       request->message);

	bench->request_id = update->request_id;
	iommubroker__v1__update_memory_request__free_unpacked(update, NULL);
	for (uint64_t i = 1; i <= 3; i++)
		send_update(bench, request, i);
	if (!bench->silent)
		send_update(bench, request, 0);
}

static void serve(struct fake_daemon *daemon, const struct fake_request *request, void *user_data)
{
	Iommubroker__V1__CancelOperationRequest *cancel;
	struct bench *bench = user_data;

	switch (request->method) {
	case METHOD(WATCH_EVENTS):
		bench->waiting = *request;
		if (!bench->silent)
			send_events(bench, request);
		break;
	case METHOD(UPDATE_MEMORY):
		bench->waiting = *request;
		serve_update(bench, request);
		break;
	case METHOD(CANCEL_OPERATION):
		cancel = iommubroker__v1__cancel_operation_request__unpack(NULL, request->n_message,
									   request->message);
		bench->cancelled_operation = cancel->request_id;
		iommubroker__v1__cancel_operation_request__free_unpacked(cancel, NULL);
		fake_answer(daemon, request, NULL);
		fake_refuse(daemon, &bench->waiting, 1, "undone", NULL, 0);
		break;
	case METHOD(CANCEL_CALL):
		bench->cancelled_call = request->call;
		break;
	case METHOD(GET_USAGE):
		/* Somebody else's answers come before. */
		if (bench->dies)
			fake_die(daemon);
		else if (bench->answers_with_usage)
			send_events(bench, &bench->waiting);
		fake_answer(daemon, request, NULL);
		break;
	default:
		fake_answer(daemon, request, NULL);
	}
}

static void begin(struct bench *bench)
{
	*bench = (struct bench){.n_fds = fake_count_fds()};
	fake_start(&bench->daemon, serve, bench);
	assert_int_equal(
		iommubroker_session_open_fd(bench->daemon.client_fd, NULL, &bench->session, NULL),
		0);
	assert_int_equal(iommubroker_guest_create(bench->session, NULL, &bench->guest, NULL), 0);
}

static void finish(struct bench *bench)
{
	iommubroker_guest_free(bench->guest);
	iommubroker_session_free(bench->session);
	fake_stop(&bench->daemon);
	assert_int_equal(fake_count_fds(), bench->n_fds);
}

static bool readable(struct bench *bench, int timeout_ms)
{
	struct pollfd poll_fd = {iommubroker_session_fd(bench->session), POLLIN, 0};

	return poll(&poll_fd, 1, timeout_ms) > 0;
}

/* The daemon has taken in all that was sent before: a round trip. */
static void settle(struct bench *bench)
{
	struct iommubroker_usage *usage = NULL;

	assert_int_equal(iommubroker_usage(bench->session, &usage, NULL), 0);
	iommubroker_usage_free(usage);
}

/* ---- What callbacks saw ---- */

struct log {
	struct bench *bench;
	unsigned int n_events, n_last, n_progress;
	uint64_t sequence, progress, region_bytes;
	int result;
	bool in_order;
	int progress_answer;
	uint64_t cancel_at; /* sequence number to cancel at */
	uint64_t call;
	bool calls_back;
};

static void log_event(void *user_data, int result, const struct iommubroker_event *event,
		      const struct iommubroker_error *error)
{
	struct log *log = user_data;

	if (event == NULL) {
		log->n_last++;
		log->result = result;
		assert_int_equal(iommubroker_error_errno(error), result);
		return;
	}
	log->n_events++;
	log->in_order = event->sequence == log->sequence + 1 &&
			event->iova == log->sequence * 4096 &&
			event->kind == IOMMUBROKER_EVENT_DEVICE_FAULT &&
			strcmp(event->text, "what happened") == 0;
	log->sequence = event->sequence;
	if (log->calls_back) {
		assert_int_equal(iommubroker_process(log->bench->session), -EBUSY);
		settle(log->bench);
	}
	if (event->sequence == log->cancel_at)
		assert_int_equal(iommubroker_cancel(log->bench->session, log->call), 0);
}

static int log_progress(void *user_data, uint64_t done_bytes, uint64_t total_bytes)
{
	struct log *log = user_data;

	log->n_progress++;
	log->in_order = done_bytes == log->progress + 1 && total_bytes == 3;
	log->progress = done_bytes;
	return log->progress_answer;
}

static void log_update(void *user_data, int result, const struct iommubroker_memory_change *change,
		       const struct iommubroker_error *error)
{
	struct log *log = user_data;

	log->n_last++;
	log->result = result;
	if (change != NULL)
		log->region_bytes = change->region_bytes;
	assert_int_equal(iommubroker_error_errno(error), result);
	assert_true((change != NULL) == (result == 0));
}

/* As an event loop would, until the last callback. */
static void run_until_last(struct bench *bench, struct log *log)
{
	while (log->n_last == 0) {
		assert_true(readable(bench, WAIT_MS));
		assert_true(iommubroker_process(bench->session) >= 0);
	}
}

/* ---- Tests ---- */

static void test_events(void **state)
{
	struct bench bench;
	struct log log = {.bench = &bench};

	begin(&bench);
	bench.n_events = 200;
	bench.ends = true;
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, &log.call), 0);
	run_until_last(&bench, &log);
	assert_int_equal(log.n_events, 200);
	assert_true(log.in_order);
	assert_int_equal(log.n_last, 1);
	assert_int_equal(log.result, 0);
	/* Done with: nothing to read, nothing to cancel. */
	assert_int_equal(iommubroker_process(bench.session), 0);
	assert_false(readable(&bench, 0));
	assert_int_equal(iommubroker_cancel(bench.session, log.call), -ENOENT);
	finish(&bench);
}

/* A blocking call reads what is another's; the event loop has to learn of it. */
static void test_read_by_others(void **state)
{
	struct bench bench;
	struct log log = {.bench = &bench};

	begin(&bench);
	bench.n_events = 5;
	bench.ends = bench.silent = bench.answers_with_usage = true;
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, NULL), 0);
	assert_false(readable(&bench, 0));
	settle(&bench);
	assert_int_equal(log.n_events + log.n_last, 0); /* callbacks come from process() alone */
	assert_true(readable(&bench, 0));
	assert_int_equal(iommubroker_process(bench.session), 6);
	assert_int_equal(log.n_events, 5);
	assert_int_equal(log.n_last, 1);
	assert_false(readable(&bench, 0));
	finish(&bench);
}

static void test_calls_in_callbacks(void **state)
{
	struct bench bench;
	struct log log = {.bench = &bench, .calls_back = true};

	begin(&bench);
	bench.n_events = 20;
	bench.ends = true;
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, NULL), 0);
	run_until_last(&bench, &log);
	assert_int_equal(log.n_events, 20);
	finish(&bench);
}

static void test_cancel_watch(void **state)
{
	struct bench bench;
	struct log log = {.bench = &bench, .cancel_at = 3};

	begin(&bench);
	bench.n_events = 3;
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, &log.call), 0);
	run_until_last(&bench, &log);
	assert_int_equal(log.n_events, 3);
	assert_int_equal(log.result, -ECANCELED);
	settle(&bench);
	assert_true(bench.cancelled_call == log.call);
	/* Its late answers are nobody's. */
	bench.answers_with_usage = true;
	settle(&bench);
	assert_int_equal(iommubroker_process(bench.session), 0);
	assert_int_equal(log.n_last, 1);
	finish(&bench);
}

static void test_overflow(void **state)
{
	struct bench bench;
	struct log log = {.bench = &bench};

	begin(&bench);
	bench.n_events = 300;
	bench.silent = bench.answers_with_usage = true;
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, &log.call), 0);
	settle(&bench);
	bench.answers_with_usage = false;
	run_until_last(&bench, &log);
	assert_int_equal(log.n_events, 256);
	assert_true(log.in_order);
	assert_int_equal(log.result, -EOVERFLOW);
	settle(&bench);
	assert_true(bench.cancelled_call == log.call);
	finish(&bench);
}

static void test_update(void **state)
{
	const struct iommubroker_memory_update update = {.n_map = 0};
	struct bench bench;
	struct log log = {.bench = &bench};

	begin(&bench);
	assert_int_equal(iommubroker_memory_update_submit(bench.guest, &update, log_progress,
							  log_update, &log, NULL),
			 0);
	run_until_last(&bench, &log);
	assert_int_equal(log.result, 0);
	assert_int_equal(log.region_bytes, 42);
	assert_int_equal(log.n_progress, 3);
	assert_true(log.in_order);
	finish(&bench);
}

static void test_cancel_update(void **state)
{
	const struct iommubroker_memory_update update = {.n_map = 0};
	struct bench bench;
	struct log log = {.bench = &bench};

	begin(&bench);
	bench.silent = true;
	assert_int_equal(iommubroker_memory_update_submit(bench.guest, &update, NULL, log_update,
							  &log, &log.call),
			 0);
	assert_int_equal(iommubroker_cancel(bench.session, log.call), 0);
	run_until_last(&bench, &log);
	assert_int_equal(log.result, -ECANCELED);
	assert_true(bench.request_id != 0);
	assert_int_equal(bench.cancelled_operation, bench.request_id);
	/* From progress too, once. */
	log = (struct log){.bench = &bench, .progress_answer = 1};
	assert_int_equal(iommubroker_memory_update_submit(bench.guest, &update, log_progress,
							  log_update, &log, NULL),
			 0);
	run_until_last(&bench, &log);
	assert_int_equal(log.result, -ECANCELED);
	assert_int_equal(log.n_progress, 1);
	finish(&bench);
}

static void test_death(void **state)
{
	const struct iommubroker_memory_update update = {.n_map = 0};
	struct iommubroker_usage *usage = NULL;
	struct bench bench;
	struct log update_log = {.bench = &bench}, event_log = {.bench = &bench};

	begin(&bench);
	bench.silent = bench.dies = true;
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &event_log, NULL), 0);
	assert_int_equal(iommubroker_memory_update_submit(bench.guest, &update, NULL, log_update,
							  &update_log, NULL),
			 0);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), -ECONNRESET);
	run_until_last(&bench, &event_log);
	run_until_last(&bench, &update_log);
	assert_int_equal(event_log.result, -ECONNRESET);
	assert_int_equal(update_log.result, -ECONNRESET);
	assert_true(readable(&bench, 0));
	assert_int_equal(iommubroker_process(bench.session), -ECONNRESET);
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &event_log, NULL),
			 -ECONNRESET);
	assert_int_equal(event_log.n_last + update_log.n_last, 2);
	finish(&bench);
}

static void test_death_noticed_by_loop(void **state)
{
	struct bench bench;
	struct log log = {.bench = &bench};

	begin(&bench);
	bench.silent = true;
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, NULL), 0);
	fake_die(&bench.daemon);
	run_until_last(&bench, &log);
	assert_int_equal(log.result, -ECONNRESET);
	finish(&bench);
}

/* 63 calls at once and no more; and a session may go while they are out. */
static void test_limit(void **state)
{
	struct bench bench;
	struct log log = {.bench = &bench};

	begin(&bench);
	bench.silent = true;
	for (int i = 0; i < 63; i++)
		assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, NULL),
				 0);
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, NULL), -EAGAIN);
	finish(&bench);
	assert_int_equal(log.n_last, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_read_by_others),
		cmocka_unit_test(test_calls_in_callbacks),
		cmocka_unit_test(test_cancel_watch),
		cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_update),
		cmocka_unit_test(test_cancel_update),
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_death_noticed_by_loop),
		cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests_name("client_async", tests, NULL, NULL);
}
