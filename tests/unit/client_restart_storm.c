/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The fake daemon's side of client_restart_test.c, and many threads under many deaths. */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "client_restart.h"
#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/events.pb-c.h"
#include "iommubroker/v1/guests.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/memory.pb-c.h"

#define THREADS 12
#define CALLS   150
#define DEATHS  60

/* ── the daemon's side ────────────────────────────────────────────────────────────────────── */

static bool dies(struct bench *bench, const struct fake_request *request, enum death death)
{
	if (bench->death_method != request->method || bench->death != (int)death)
		return false;
	bench->death = DEATH_NONE;
	fake_service_die(&bench->service);
	return true;
}

static void send_progress(struct bench *bench, const struct fake_request *request, uint64_t done)
{
	Iommubroker__V1__UpdateMemoryResponse response =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__INIT;
	Iommubroker__V1__Progress progress = IOMMUBROKER__V1__PROGRESS__INIT;

	progress.done_bytes = done;
	progress.total_bytes = 3;
	response.update_case = IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_PROGRESS;
	response.progress = &progress;
	fake_answer_more(&bench->service.daemon, request, &response.base);
}

static void note_order(struct bench *bench, const struct fake_request *request)
{
	Iommubroker__V1__UpdateMemoryRequest *update =
		iommubroker__v1__update_memory_request__unpack(NULL, request->n_message,
							       request->message);

	if (update->n_unmap > 0 && bench->n_order < 64)
		bench->order[bench->n_order++] = update->unmap[0]->first;
	iommubroker__v1__update_memory_request__free_unpacked(update, NULL);
}

static void serve_update(struct bench *bench, const struct fake_request *request)
{
	Iommubroker__V1__UpdateMemoryResponse response =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__INIT;
	Iommubroker__V1__UpdateMemoryResponse__Done done =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__DONE__INIT;

	note_order(bench, request);
	for (uint64_t i = 1; bench->progresses && i <= 3; i++) {
		send_progress(bench, request, i);
		if (i == 2 && dies(bench, request, DEATH_PROGRESS))
			return;
	}
	done.region_bytes = 42;
	response.update_case = IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_DONE;
	response.done = &done;
	if (!bench->holds)
		fake_answer(&bench->service.daemon, request, &response.base);
}

/* Only the first answer has the descriptor. */
static void serve_open(struct bench *bench, const struct fake_request *request, bool repeated)
{
	Iommubroker__V1__OpenDeviceResponse opened = IOMMUBROKER__V1__OPEN_DEVICE_RESPONSE__INIT;
	Iommubroker__V1__DescriptorRef ref = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	int fd = memfd_create("device", MFD_CLOEXEC);

	opened.device = 7;
	ref.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	if (!repeated)
		opened.descriptor = &ref;
	fake_answer_fd(&bench->service.daemon, request, &opened.base, repeated ? -1 : fd);
	close(fd);
}

static void serve_descriptor(struct bench *bench, const struct fake_request *request)
{
	Iommubroker__V1__GetDescriptorResponse response =
		IOMMUBROKER__V1__GET_DESCRIPTOR_RESPONSE__INIT;
	Iommubroker__V1__DescriptorRef ref = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	int fd = memfd_create("device", MFD_CLOEXEC);

	bench->n_descriptors++;
	ref.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	response.descriptor = &ref;
	fake_answer_fd(&bench->service.daemon, request, &response.base, fd);
	close(fd);
}

static void serve_refresh(struct bench *bench, const struct fake_request *request)
{
	Iommubroker__V1__RefreshNestedRequest *refresh =
		iommubroker__v1__refresh_nested_request__unpack(NULL, request->n_message,
								request->message);
	Iommubroker__V1__RefreshNestedResponse response =
		IOMMUBROKER__V1__REFRESH_NESTED_RESPONSE__INIT;
	Iommubroker__V1__RangeResult result = IOMMUBROKER__V1__RANGE_RESULT__INIT;
	Iommubroker__V1__RangeResult *results[1] = {&result};

	bench->n_refreshes++;
	result.verdict = IOMMUBROKER__V1__VERDICT__VERDICT_DONE;
	result.mapped = refresh->ranges[0]->start;
	response.n_results = 1;
	response.results = results;
	iommubroker__v1__refresh_nested_request__free_unpacked(refresh, NULL);
	fake_answer(&bench->service.daemon, request, &response.base);
}

static void serve_watch(struct bench *bench, const struct fake_request *request)
{
	Iommubroker__V1__WatchEventsRequest *watch = iommubroker__v1__watch_events_request__unpack(
		NULL, request->n_message, request->message);
	Iommubroker__V1__Event event = IOMMUBROKER__V1__EVENT__INIT;

	bench->n_watches++;
	bench->since = watch->since;
	for (uint64_t i = watch->since + 1; i <= bench->n_events; i++) {
		event.sequence = i;
		event.kind = IOMMUBROKER__V1__EVENT_KIND__EVENT_KIND_DEVICE_FAULT;
		fake_answer_more(&bench->service.daemon, request, &event.base);
		if (i == bench->dies_after_events) {
			bench->dies_after_events = 0;
			fake_service_die(&bench->service);
			break;
		}
	}
	iommubroker__v1__watch_events_request__free_unpacked(watch, NULL);
}

static void serve_cancel(struct bench *bench, const struct fake_request *request)
{
	bench->cancelled = fake_request_id(request);
	bench->n_cancelled++;
	fake_answer(&bench->service.daemon, request, NULL);
}

static void answer_create(struct bench *bench, const struct fake_request *request)
{
	Iommubroker__V1__CreateGuestResponse created = IOMMUBROKER__V1__CREATE_GUEST_RESPONSE__INIT;
	Iommubroker__V1__CreateNestedResponse nested =
		IOMMUBROKER__V1__CREATE_NESTED_RESPONSE__INIT;

	/* Whoever made the request finds what was made for it, and nobody else. */
	created.guest = fake_request_id(request);
	nested.nested = NESTED_HANDLE;
	nested.verdict = IOMMUBROKER__V1__VERDICT__VERDICT_DONE;
	fake_answer(&bench->service.daemon, request,
		    request->method == METHOD(CREATE_GUEST) ? &created.base : &nested.base);
}

static void serve_change(struct bench *bench, const struct fake_request *request)
{
	bool repeated;

	bench->n_requests++;
	if (dies(bench, request, DEATH_BEFORE))
		return;
	repeated = fake_service_did(&bench->service, fake_request_id(request));
	if (repeated)
		bench->n_repeated++;
	else
		bench->n_done++;
	if (dies(bench, request, DEATH_DONE))
		return;
	if (repeated && request->method == METHOD(DESTROY_GUEST)) /* its answers went with it */
		fake_refuse(&bench->service.daemon, request, 5, "no such guest", NULL, 0);
	else if (request->method == METHOD(UPDATE_MEMORY))
		serve_update(bench, request);
	else if (request->method == METHOD(OPEN_DEVICE))
		serve_open(bench, request, repeated);
	else if (request->method == METHOD(CREATE_GUEST) ||
		 request->method == METHOD(CREATE_NESTED))
		answer_create(bench, request);
	else
		fake_answer(&bench->service.daemon, request, NULL);
}

static void serve(struct fake_daemon *daemon, const struct fake_request *request, void *user_data)
{
	struct bench *bench = user_data;

	switch (request->method) {
	case METHOD(REFRESH_NESTED):
		if (!dies(bench, request, DEATH_BEFORE))
			serve_refresh(bench, request);
		break;
	case METHOD(GET_DESCRIPTOR):
		if (!dies(bench, request, DEATH_BEFORE))
			serve_descriptor(bench, request);
		break;
	case METHOD(WATCH_EVENTS):
		serve_watch(bench, request);
		break;
	case METHOD(CANCEL_OPERATION):
		serve_cancel(bench, request);
		break;
	case METHOD(GET_USAGE):
	case METHOD(CLOSE_SESSION):
		if (!dies(bench, request, DEATH_BEFORE))
			fake_answer(daemon, request, NULL);
		break;
	case METHOD(CANCEL_CALL):
		break;
	default:
		serve_change(bench, request);
	}
}

/* ── the bench ────────────────────────────────────────────────────────────────────────────── */

void restart_arm(struct bench *bench, uint32_t method, enum death death)
{
	bench->death_method = method;
	bench->death = death;
}

void restart_begin(struct bench *bench)
{
	const struct iommubroker_anchor anchor = {0x804, 0, UINT64_MAX};
	struct iommubroker_registration registration;

	memset(bench, 0, sizeof(*bench));
	bench->n_fds = fake_count_fds();
	fake_service_start(&bench->service, serve, bench);
	assert_int_equal(iommubroker_session_open(bench->service.address.sun_path, "test",
						  &bench->session, NULL),
			 0);
	assert_int_equal(iommubroker_guest_create(bench->session, NULL, &bench->guest, NULL), 0);
	assert_int_equal(
		iommubroker_device_open_function(bench->guest, 1, &bench->device, NULL, NULL), 0);
	assert_int_equal(iommubroker_nested_create_s390(bench->device, &anchor, true, 0,
							&bench->nested, &registration, NULL),
			 0);
	bench->n_requests = bench->n_done = 0;
}

void restart_end(struct bench *bench)
{
	iommubroker_nested_free(bench->nested);
	iommubroker_device_free(bench->device);
	iommubroker_guest_free(bench->guest);
	iommubroker_session_free(bench->session);
	fake_service_stop(&bench->service);
	assert_false(bench->service.broken);
	assert_int_equal(fake_count_fds(), bench->n_fds);
}

/* ── the storm ────────────────────────────────────────────────────────────────────────────── */

struct storm {
	struct bench *bench;
	pthread_t threads[THREADS];
	_Atomic unsigned int n_created, n_updated, n_refreshed, n_busy, n_ended;
};

static void storm_create(struct storm *storm)
{
	struct iommubroker_guest *guest = NULL;

	REQUIRE_EQUAL(iommubroker_guest_create(storm->bench->session, NULL, &guest, NULL), 0);
	REQUIRE_EQUAL(iommubroker_guest_handle(guest) != 0, true);
	iommubroker_guest_free(guest);
	storm->n_created++;
}

static void storm_update(struct storm *storm)
{
	const struct iommubroker_memory_update update = {.n_map = 0};
	struct iommubroker_memory_change change = {0};

	REQUIRE_EQUAL(
		iommubroker_memory_update(storm->bench->guest, &update, NULL, NULL, &change, NULL),
		0);
	REQUIRE_EQUAL(change.region_bytes, 42);
	storm->n_updated++;
}

/* A verdict is for the range that was asked for, or BUSY. */
static void storm_refresh(struct storm *storm, uint64_t start)
{
	const struct iommubroker_range range = {start, 4096};
	struct iommubroker_result result;

	REQUIRE_EQUAL(iommubroker_refresh(storm->bench->nested, &range, 1, LONG_NS, &result), 0);
	if (result.verdict == IOMMUBROKER_VERDICT_BUSY) {
		storm->n_busy++;
	} else {
		REQUIRE_EQUAL(result.verdict, IOMMUBROKER_VERDICT_DONE);
		REQUIRE_EQUAL(result.mapped, start);
		storm->n_refreshed++;
	}
}

static void *storm_thread(void *user_data)
{
	struct storm *storm = user_data;

	for (unsigned int i = 0; i < CALLS; i++) {
		if (i % 3 == 0)
			storm_create(storm);
		else if (i % 3 == 1)
			storm_update(storm);
		else
			storm_refresh(storm, i * UINT64_C(4096));
	}
	storm->n_ended++;
	return NULL;
}

static void pause_ns(uint64_t ns)
{
	struct timespec pause = {ns / SECOND_NS, ns % SECOND_NS};

	nanosleep(&pause, NULL);
}

/* Every change is made once, whatever the daemon dies of, and everybody has their own answer. */
void test_storm(void **state)
{
	static struct bench bench;
	struct storm storm = {.bench = &bench};
	unsigned int deaths = 0;

	restart_begin(&bench);
	bench.progresses = true;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&storm.threads[i], NULL, storm_thread, &storm), 0);
	while (storm.n_ended < THREADS) {
		pause_ns(1000000 + (deaths % 7) * 700000);
		if (deaths++ < DEATHS)
			fake_service_die(&bench.service);
		else if (deaths == DEATHS + 1)
			fake_service_hide(&bench.service);
		else if (deaths == DEATHS + 2)
			fake_service_show(&bench.service);
	}
	if (bench.service.hidden)
		fake_service_show(&bench.service);
	for (int i = 0; i < THREADS; i++)
		pthread_join(storm.threads[i], NULL);
	assert_int_equal(storm.n_created, THREADS * CALLS / 3);
	assert_int_equal(storm.n_updated, THREADS * CALLS / 3);
	assert_int_equal(storm.n_refreshed + storm.n_busy, THREADS * CALLS / 3);
	assert_int_equal(bench.n_done, storm.n_created + storm.n_updated);
	assert_true(bench.service.lives > 1);
	restart_end(&bench);
}
