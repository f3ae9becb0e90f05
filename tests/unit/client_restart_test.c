/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libiommubroker across the death of its daemon, at every point of an exchange: calls see a pause
 * and nothing else, refreshes are BUSY, watches go on; and a session that is lost says so.
 */

#include "client_restart.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 60000

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* ── blocking calls ───────────────────────────────────────────────────────────────────────── */

static const struct iommubroker_memory_update no_update = {.n_map = 0};

struct progress {
	unsigned int n, n_first, answer_at;
};

static int count_progress(void *user_data, uint64_t done_bytes, uint64_t total_bytes)
{
	struct progress *progress = user_data;

	progress->n++;
	progress->n_first += done_bytes == 1;
	assert_true(done_bytes <= total_bytes);
	return progress->answer_at == progress->n;
}

static void call_update(struct bench *bench)
{
	struct iommubroker_memory_change change = {0};
	struct progress progress = {0};

	assert_int_equal(iommubroker_memory_update(bench->guest, &no_update, count_progress,
						   &progress, &change, NULL),
			 0);
	assert_int_equal(change.region_bytes, 42);
	assert_true(!bench->progresses || progress.n > 0);
}

static void call_create(struct bench *bench)
{
	struct iommubroker_guest *guest = NULL;

	assert_int_equal(iommubroker_guest_create(bench->session, NULL, &guest, NULL), 0);
	assert_int_equal(iommubroker_guest_handle(guest),
			 bench->service.done[bench->service.n_done - 1]);
	iommubroker_guest_free(guest);
}

static void call_open(struct bench *bench)
{
	struct iommubroker_device *device = NULL;
	int fd = -1;

	assert_int_equal(iommubroker_device_open_function(bench->guest, 2, &device, &fd, NULL), 0);
	assert_int_equal(iommubroker_device_handle(device), 7);
	assert_true(fd >= 0);
	close(fd);
	iommubroker_device_free(device);
}

static void call_add_file(struct bench *bench)
{
	struct iommubroker_memory_file *file = NULL;

	assert_int_equal(iommubroker_memory_file_add(bench->guest, bench->service.listening, true,
						     &file, NULL),
			 0);
	iommubroker_memory_file_free(file);
}

static void call_usage(struct bench *bench)
{
	struct iommubroker_usage *usage = NULL;

	assert_int_equal(iommubroker_usage(bench->session, &usage, NULL), 0);
	iommubroker_usage_free(usage);
}

struct death_case {
	void (*call)(struct bench *bench);
	uint32_t method;
	enum death death;
	unsigned int n_requests, n_descriptors; /* that came through */
};

static const struct death_case death_cases[] = {
	{call_create, METHOD(CREATE_GUEST), DEATH_BEFORE, 2, 0},
	{call_create, METHOD(CREATE_GUEST), DEATH_DONE, 2, 0},
	{call_update, METHOD(UPDATE_MEMORY), DEATH_BEFORE, 2, 0},
	{call_update, METHOD(UPDATE_MEMORY), DEATH_PROGRESS, 2, 0},
	{call_update, METHOD(UPDATE_MEMORY), DEATH_DONE, 2, 0},
	{call_open, METHOD(OPEN_DEVICE), DEATH_BEFORE, 2, 0},
	{call_open, METHOD(OPEN_DEVICE), DEATH_DONE, 2, 1},
	{call_add_file, METHOD(ADD_MEMORY_FILE), DEATH_BEFORE, 2, 0},
	{call_add_file, METHOD(ADD_MEMORY_FILE), DEATH_DONE, 2, 0},
};

static void test_deaths(void **state)
{
	struct bench bench;

	for (size_t i = 0; i < sizeof(death_cases) / sizeof(death_cases[0]); i++) {
		const struct death_case *one = &death_cases[i];

		restart_begin(&bench);
		bench.progresses = true;
		restart_arm(&bench, one->method, one->death);
		one->call(&bench);
		assert_int_equal(bench.death, DEATH_NONE);
		assert_int_equal(bench.n_requests, one->n_requests);
		assert_int_equal(bench.n_done, 1);
		assert_int_equal(bench.n_repeated, one->death == DEATH_BEFORE ? 0 : 1);
		assert_int_equal(bench.n_descriptors, one->n_descriptors);
		assert_int_equal(bench.service.lives, 2);
		assert_int_equal(bench.service.joins, 1);
		assert_int_equal(iommubroker_session_state(bench.session), 0);
		restart_end(&bench);
	}
}

/* What it was answered went with the guest. */
static void test_destroy(void **state)
{
	struct bench bench;

	restart_begin(&bench);
	restart_arm(&bench, METHOD(DESTROY_GUEST), DEATH_DONE);
	assert_int_equal(iommubroker_guest_destroy(bench.guest, NULL), 0);
	assert_int_equal(bench.n_repeated, 1);
	restart_end(&bench);
}

/* A socket that nobody can bring any more: the delegation is taken back. */
static void test_delegate(void **state)
{
	const struct iommubroker_delegation_options options = {
		.struct_bytes = sizeof(options),
		.rights = IOMMUBROKER_RIGHTS_ALL,
		.peer_pidfd = -1,
	};
	struct bench bench;
	uint64_t delegation;
	int fd = -1;

	restart_begin(&bench);
	restart_arm(&bench, METHOD(DELEGATE), DEATH_DONE);
	assert_int_equal(iommubroker_guest_delegate(bench.guest, &options, &delegation, &fd, NULL),
			 -EAGAIN);
	assert_int_equal(fd, -1);
	assert_int_equal(bench.n_done, 2); /* RevokeDelegation is the other */
	restart_end(&bench);
}

/* What changes nothing is asked again, too. */
static void test_reads(void **state)
{
	struct bench bench;

	restart_begin(&bench);
	restart_arm(&bench, METHOD(GET_USAGE), DEATH_BEFORE);
	call_usage(&bench);
	assert_int_equal(bench.service.lives, 2);
	/* In the middle of getting what a repeated OpenDevice lacks. */
	restart_arm(&bench, METHOD(OPEN_DEVICE), DEATH_DONE);
	call_open(&bench);
	assert_int_equal(bench.service.lives, 3);
	restart_end(&bench);
}

/* It lies in the socket of who dies. */
static void test_unread(void **state)
{
	struct bench bench;

	restart_begin(&bench);
	bench.service.dies_unread = true;
	call_usage(&bench);
	call_update(&bench);
	assert_int_equal(bench.service.lives, 2);
	assert_int_equal(bench.n_requests, 1);
	assert_int_equal(bench.n_done, 1);
	restart_end(&bench);
}

/* Dead while nobody looks: the next call finds out. */
static void test_death_between_calls(void **state)
{
	struct bench bench;

	restart_begin(&bench);
	for (unsigned int i = 0; i < 20; i++) {
		fake_service_die(&bench.service);
		call_create(&bench);
	}
	assert_int_equal(bench.n_done, 20);
	restart_end(&bench);
}

/* Nothing is there to connect to; then somebody who hangs up, then who is not ready. */
static void *show_later(void *user_data)
{
	struct bench *bench = user_data;
	struct timespec pause = {0, 30000000};

	nanosleep(&pause, NULL);
	bench->service.joins_refused = 3;
	bench->service.hangs_up = true;
	fake_service_show(&bench->service);
	nanosleep(&pause, NULL);
	bench->service.hangs_up = false;
	return NULL;
}

static void test_slow_return(void **state)
{
	struct bench bench;
	pthread_t thread;

	restart_begin(&bench);
	fake_service_hide(&bench.service);
	fake_service_die(&bench.service);
	assert_int_equal(pthread_create(&thread, NULL, show_later, &bench), 0);
	call_update(&bench);
	pthread_join(thread, NULL);
	assert_int_equal(bench.n_done, 1);
	assert_int_equal(bench.service.joins, 4);
	restart_end(&bench);
}

/* One that gives up is not asked for again; the others are. */
static void test_timeout(void **state)
{
	struct bench bench;

	restart_begin(&bench);
	fake_service_hide(&bench.service);
	fake_service_die(&bench.service);
	iommubroker_session_set_timeout(bench.session, 20000000);
	assert_int_equal(iommubroker_memory_update(bench.guest, &no_update, NULL, NULL, NULL, NULL),
			 -ETIMEDOUT);
	assert_int_equal(iommubroker_session_state(bench.session), -EAGAIN);
	iommubroker_session_set_timeout(bench.session, IOMMUBROKER_NO_TIMEOUT);
	fake_service_show(&bench.service);
	call_update(&bench);
	assert_int_equal(bench.n_requests, 1);
	restart_end(&bench);
}

static void test_cancel(void **state)
{
	struct progress progress = {.answer_at = 2};
	struct bench bench;

	restart_begin(&bench);
	bench.progresses = true;
	restart_arm(&bench, METHOD(UPDATE_MEMORY), DEATH_PROGRESS);
	assert_int_equal(iommubroker_memory_update(bench.guest, &no_update, count_progress,
						   &progress, NULL, NULL),
			 0);
	/* To the one that died, perhaps; to its successor in any case. */
	call_usage(&bench);
	if (progress.n_first > 1 || bench.n_cancelled > 0)
		assert_int_equal(bench.cancelled, bench.service.done[bench.service.n_done - 1]);
	restart_end(&bench);
}

/* ── refreshes ────────────────────────────────────────────────────────────────────────────── */

static uint32_t refresh(struct bench *bench)
{
	const struct iommubroker_range range = {4096, 4096};
	struct iommubroker_result result = {0};

	assert_int_equal(iommubroker_refresh(bench->nested, &range, 1, LONG_NS, &result), 0);
	assert_int_equal(result.condition_code, result.verdict == IOMMUBROKER_VERDICT_BUSY   ? 2
						: result.verdict == IOMMUBROKER_VERDICT_GONE ? 3
											     : 0);
	return result.verdict;
}

/* At once, however long it is away; and refreshes alone bring it back. */
static void test_refresh(void **state)
{
	struct bench bench;
	unsigned int n;

	restart_begin(&bench);
	assert_int_equal(refresh(&bench), IOMMUBROKER_VERDICT_DONE);
	fake_service_hide(&bench.service);
	restart_arm(&bench, METHOD(REFRESH_NESTED), DEATH_BEFORE);
	for (n = 0; n < 20; n++)
		assert_int_equal(refresh(&bench), IOMMUBROKER_VERDICT_BUSY);
	assert_int_equal(bench.n_refreshes, 1);
	fake_service_show(&bench.service);
	while (refresh(&bench) == IOMMUBROKER_VERDICT_BUSY)
		assert_true(n++ < 60000);
	assert_int_equal(bench.n_refreshes, 2);
	assert_int_equal(bench.service.lives, 2);
	restart_end(&bench);
}

static void *update_thread(void *user_data)
{
	struct bench *bench = user_data;

	REQUIRE_EQUAL(iommubroker_memory_update(bench->guest, &no_update, NULL, NULL, NULL, NULL),
		      0);
	return NULL;
}

/* A vCPU does not wait for what others wait for: all slots are taken by calls that do. */
static void test_refresh_beside_calls(void **state)
{
	struct bench bench;
	pthread_t threads[70];

	restart_begin(&bench);
	fake_service_hide(&bench.service);
	fake_service_die(&bench.service);
	for (int i = 0; i < 70; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, update_thread, &bench), 0);
	for (int i = 0; i < 30; i++)
		assert_int_equal(refresh(&bench), IOMMUBROKER_VERDICT_BUSY);
	assert_int_equal(bench.n_requests, 0);
	fake_service_show(&bench.service);
	for (int i = 0; i < 70; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(bench.n_done, 70);
	assert_int_equal(refresh(&bench), IOMMUBROKER_VERDICT_DONE);
	restart_end(&bench);
}

struct log {
	unsigned int n_events, n_last, n_restarting, n_resumed, n_progress, n_states;
	uint64_t sequence;
	int result, state;
	bool in_order;
	uint32_t verdict;
	uint64_t local_sequence;
};

static void log_refresh(void *user_data, int result, const struct iommubroker_result *results,
			size_t n)
{
	struct log *log = user_data;

	log->n_last++;
	log->result = result;
	log->verdict = n > 0 ? results[0].verdict : 0;
}

/* ── asynchronous calls ───────────────────────────────────────────────────────────────────── */

static void process_until(struct bench *bench, const unsigned int *count, unsigned int wanted)
{
	while (*count < wanted) {
		struct pollfd poll_fd = {iommubroker_session_fd(bench->session), POLLIN, 0};

		assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
		iommubroker_process(bench->session);
	}
}

static void test_refresh_submit(void **state)
{
	const struct iommubroker_range range = {4096, 4096};
	struct log log = {0};
	struct bench bench;

	restart_begin(&bench);
	restart_arm(&bench, METHOD(REFRESH_NESTED), DEATH_BEFORE);
	fake_service_hide(&bench.service);
	for (unsigned int i = 1; i <= 3; i++) {
		assert_int_equal(iommubroker_refresh_submit(bench.nested, &range, 1, log_refresh,
							    &log, NULL),
				 0);
		process_until(&bench, &log.n_last, i);
		assert_int_equal(log.result, 0);
		assert_int_equal(log.verdict, IOMMUBROKER_VERDICT_BUSY);
	}
	fake_service_show(&bench.service);
	restart_end(&bench);
}

static void log_event(void *user_data, int result, const struct iommubroker_event *event,
		      const struct iommubroker_error *error)
{
	struct log *log = user_data;

	if (event == NULL) {
		log->n_last++;
		log->result = result;
	} else if (event->kind == IOMMUBROKER_EVENT_RESTARTING) {
		log->n_restarting++;
		log->local_sequence = event->sequence;
		log->in_order = log->in_order && log->n_restarting == log->n_resumed + 1;
	} else if (event->kind == IOMMUBROKER_EVENT_RESUMED) {
		log->n_resumed++;
		log->in_order = log->in_order && log->n_restarting == log->n_resumed &&
				event->time_ns > 0 && event->guest != 0;
	} else {
		log->n_events++;
		log->in_order = log->in_order && event->sequence == log->sequence + 1;
		log->sequence = event->sequence;
	}
}

static void log_state(void *user_data, int state)
{
	struct log *log = user_data;

	log->n_states++;
	log->state = state;
}

/* An event loop, and nothing else: every event once, and what the library tells between them. */
static void test_watch(void **state)
{
	struct log log = {.in_order = true};
	struct bench bench;

	restart_begin(&bench);
	iommubroker_session_on_state(bench.session, log_state, &log);
	bench.n_events = 20;
	bench.dies_after_events = 5;
	assert_int_equal(iommubroker_watch_events(bench.guest, 2, log_event, &log, NULL), 0);
	log.sequence = 2;
	process_until(&bench, &log.n_events, 18);
	assert_true(log.in_order);
	assert_int_equal(log.n_restarting, 1);
	assert_int_equal(log.n_resumed, 1);
	assert_true(bench.since <= 5 && bench.since >= 2);
	assert_int_equal(bench.n_watches, 2);
	assert_true(log.n_states >= 1);
	assert_int_equal(log.state, 0);
	/* With nothing more to come. */
	fake_service_die(&bench.service);
	process_until(&bench, &log.n_resumed, 2);
	assert_true(log.in_order);
	assert_int_equal(log.local_sequence, 20);
	while (bench.n_watches < 3)
		call_usage(&bench);
	assert_int_equal(bench.since, 20);
	assert_int_equal(log.n_last, 0);
	restart_end(&bench);
}

static int log_progress(void *user_data, uint64_t done_bytes, uint64_t total_bytes)
{
	struct log *log = user_data;

	log->n_progress++;
	return 0;
}

static void log_update(void *user_data, int result, const struct iommubroker_memory_change *change,
		       const struct iommubroker_error *error)
{
	struct log *log = user_data;

	log->n_last++;
	log->result = result;
	assert_int_equal(iommubroker_error_errno(error), result);
}

static void test_update_submit(void **state)
{
	struct log log = {0};
	struct bench bench;

	restart_begin(&bench);
	bench.progresses = true;
	restart_arm(&bench, METHOD(UPDATE_MEMORY), DEATH_PROGRESS);
	assert_int_equal(iommubroker_memory_update_submit(bench.guest, &no_update, log_progress,
							  log_update, &log, NULL),
			 0);
	process_until(&bench, &log.n_last, 1);
	assert_int_equal(log.result, 0);
	assert_true(log.n_progress >= 3);
	assert_int_equal(bench.n_done, 1);
	assert_int_equal(bench.n_repeated, 1);
	restart_end(&bench);
}

/* Cancelled while nobody is there: the successor is told. */
static void test_cancel_submit(void **state)
{
	struct log log = {0};
	struct bench bench;
	uint64_t call = 0;

	restart_begin(&bench);
	bench.holds = true;
	assert_int_equal(iommubroker_memory_update_submit(bench.guest, &no_update, NULL, log_update,
							  &log, &call),
			 0);
	call_usage(&bench);
	fake_service_hide(&bench.service);
	fake_service_die(&bench.service);
	while (iommubroker_session_state(bench.session) == 0)
		;
	assert_int_equal(iommubroker_cancel(bench.session, call), 0);
	fake_service_show(&bench.service);
	call_usage(&bench);
	while (bench.n_cancelled == 0)
		call_usage(&bench);
	assert_int_equal(bench.cancelled, bench.service.done[bench.service.n_done - 1]);
	assert_int_equal(bench.n_repeated, 1);
	/* A watch just ends. */
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, &call), 0);
	fake_service_hide(&bench.service);
	fake_service_die(&bench.service);
	while (iommubroker_session_state(bench.session) == 0)
		;
	assert_int_equal(iommubroker_cancel(bench.session, call), 0);
	fake_service_show(&bench.service);
	process_until(&bench, &log.n_last, 1);
	assert_int_equal(log.result, -ECANCELED);
	restart_end(&bench);
}

/* Changes are asked for again in the order in which they were asked for. */
static void test_order(void **state)
{
	struct iommubroker_address_range range;
	struct iommubroker_memory_update update = {.n_unmap = 1, .unmap = &range};
	struct log log = {0};
	struct bench bench;

	restart_begin(&bench);
	fake_service_hide(&bench.service);
	fake_service_die(&bench.service);
	for (uint64_t i = 0; i < 40; i++) {
		range = (struct iommubroker_address_range){i * 4096, i * 4096 + 4095};
		assert_int_equal(iommubroker_memory_update_submit(bench.guest, &update, NULL,
								  log_update, &log, NULL),
				 0);
	}
	fake_service_show(&bench.service);
	process_until(&bench, &log.n_last, 40);
	assert_int_equal(bench.n_order, 40);
	for (uint64_t i = 0; i < 40; i++)
		assert_int_equal(bench.order[i], i * 4096);
	restart_end(&bench);
}

/* ── lost for good ────────────────────────────────────────────────────────────────────────── */

static void *lost_thread(void *user_data)
{
	struct bench *bench = user_data;
	struct iommubroker_error *error = NULL;

	REQUIRE_EQUAL(iommubroker_memory_update(bench->guest, &no_update, NULL, NULL, NULL, &error),
		      -EPERM);
	REQUIRE_EQUAL(strcmp(iommubroker_error_reason(error), "SESSION_LOST"), 0);
	REQUIRE_EQUAL(iommubroker_error_code(error), 16);
	iommubroker_error_free(error);
	return NULL;
}

static void test_forgotten(void **state)
{
	struct log log = {.in_order = true};
	struct iommubroker_usage *usage = NULL;
	pthread_t threads[8];
	struct bench bench;

	restart_begin(&bench);
	iommubroker_session_on_state(bench.session, log_state, &log);
	bench.holds = true;
	bench.service.forgets = true;
	assert_int_equal(iommubroker_watch_events(bench.guest, 0, log_event, &log, NULL), 0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, lost_thread, &bench), 0);
	while (bench.n_requests < 8)
		sched_yield();
	fake_service_die(&bench.service);
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	process_until(&bench, &log.n_last, 1);
	assert_int_equal(log.result, -EPERM);
	assert_int_equal(log.n_resumed, 0);
	assert_int_equal(log.state, -EPERM);
	assert_int_equal(iommubroker_session_state(bench.session), -EPERM);
	assert_int_equal(iommubroker_process(bench.session), -EPERM);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), -EPERM);
	assert_int_equal(refresh(&bench), IOMMUBROKER_VERDICT_GONE);
	/* It is over, as was wanted. */
	assert_int_equal(iommubroker_session_close(bench.session, NULL), 0);
	assert_int_equal(bench.service.joins, 1);
	restart_end(&bench);
}

static void test_close(void **state)
{
	struct bench bench;

	restart_begin(&bench);
	bench.service.forgets = true;
	restart_arm(&bench, METHOD(CLOSE_SESSION), DEATH_BEFORE);
	assert_int_equal(iommubroker_session_close(bench.session, NULL), 0);
	restart_end(&bench);
}

static void test_limit(void **state)
{
	struct bench bench;
	uint64_t begun;

	for (int i = 0; i < 3; i++) {
		restart_begin(&bench);
		iommubroker_session_set_reconnect_limit(bench.session, i > 0 ? 50000000 : 0);
		if (i == 2)
			bench.service.silent = true; /* somebody listens, and never answers */
		else
			fake_service_hide(&bench.service);
		begun = now_ns();
		fake_service_die(&bench.service);
		assert_int_equal(
			iommubroker_memory_update(bench.guest, &no_update, NULL, NULL, NULL, NULL),
			-ECONNRESET);
		assert_true(i == 0 || now_ns() - begun >= 45000000);
		assert_int_equal(iommubroker_session_state(bench.session), -ECONNRESET);
		assert_int_equal(refresh(&bench), IOMMUBROKER_VERDICT_BUSY);
		if (i < 2)
			fake_service_show(&bench.service);
		assert_int_equal(
			iommubroker_memory_update(bench.guest, &no_update, NULL, NULL, NULL, NULL),
			-ECONNRESET);
		restart_end(&bench);
	}
}

/* Without a call, nor anybody who polls. */
static void test_state(void **state)
{
	struct bench bench;

	restart_begin(&bench);
	assert_int_equal(iommubroker_session_state(bench.session), 0);
	fake_service_hide(&bench.service);
	fake_service_die(&bench.service);
	while (iommubroker_session_state(bench.session) == 0)
		;
	assert_int_equal(iommubroker_session_state(bench.session), -EAGAIN);
	fake_service_show(&bench.service);
	while (iommubroker_session_state(bench.session) == -EAGAIN)
		;
	assert_int_equal(iommubroker_session_state(bench.session), 0);
	assert_int_equal(bench.service.joins, 1);
	restart_end(&bench);
}

/* A socket that somebody else connected: found by its name, or by the one that is set. */
static void test_path(void **state)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1];
	struct iommubroker_session *session = NULL;
	struct bench bench;
	int fd;

	restart_begin(&bench);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&bench.service.address,
				 sizeof(bench.service.address)),
			 0);
	fake_service_die(&bench.service);
	assert_int_equal(iommubroker_session_open_fd(fd, NULL, &session, NULL), 0);
	fake_service_die(&bench.service);
	while (bench.service.joins == 0 || iommubroker_session_state(session) == -EAGAIN)
		iommubroker_session_state(session);
	assert_int_equal(iommubroker_session_state(session), 0);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(iommubroker_session_set_reconnect_path(session, path), -ENAMETOOLONG);
	assert_int_equal(iommubroker_session_set_reconnect_path(session, ""), 0);
	fake_service_die(&bench.service);
	while (iommubroker_session_state(session) == 0)
		;
	assert_int_equal(iommubroker_session_state(session), -ECONNRESET);
	iommubroker_session_free(session);
	restart_end(&bench);
}

/* With the request ids of one process that uses gRPC beside it. */
static void test_request_ids(void **state)
{
	struct bench bench;

	restart_begin(&bench);
	for (int i = 0; i < 100; i++)
		call_create(&bench);
	assert_int_equal(bench.n_done, 100);
	for (size_t i = 0; i < bench.service.n_done; i++)
		assert_true(bench.service.done[i] != 0);
	restart_end(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deaths),
		cmocka_unit_test(test_destroy),
		cmocka_unit_test(test_delegate),
		cmocka_unit_test(test_reads),
		cmocka_unit_test(test_unread),
		cmocka_unit_test(test_death_between_calls),
		cmocka_unit_test(test_slow_return),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_refresh),
		cmocka_unit_test(test_refresh_beside_calls),
		cmocka_unit_test(test_refresh_submit),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_update_submit),
		cmocka_unit_test(test_cancel_submit),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_forgotten),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_state),
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_request_ids),
		cmocka_unit_test(test_storm),
	};

	return cmocka_run_group_tests_name("client_restart", tests, NULL, NULL);
}
