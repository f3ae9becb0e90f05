/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * iommubroker_refresh(), as vCPU threads call it: many at once, answered in any order, late,
 * wrongly or not at all, and never with an allocation.
 */

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_daemon.h"
#include "iommubroker.h"
#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"

#define METHOD(name)  IOMMUBROKER__V1__METHOD__METHOD_##name
#define SECOND_NS     UINT64_C(1000000000)
#define LONG_NS       (60 * SECOND_NS)
#define SHORT_NS      UINT64_C(2000000)
#define NESTED_HANDLE UINT64_C(0x8877665544332211)
#define BATCH_MAX     64

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_ALLOCATOR 0
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_ALLOCATOR 0
#endif
#ifndef OWN_ALLOCATOR
#define OWN_ALLOCATOR 1
#endif

/* What this thread allocated, through any library. */
static _Thread_local size_t n_allocations;

#if OWN_ALLOCATOR
void *__libc_malloc(size_t n_bytes);
void *__libc_calloc(size_t n, size_t n_bytes);
void *__libc_realloc(void *old, size_t n_bytes);

void *malloc(size_t n_bytes)
{
	n_allocations++;
	return __libc_malloc(n_bytes);
}

void *calloc(size_t n, size_t n_bytes)
{
	n_allocations++;
	return __libc_calloc(n, n_bytes);
}

void *realloc(void *old, size_t n_bytes)
{
	n_allocations++;
	return __libc_realloc(old, n_bytes);
}
#endif

struct bench {
	struct fake_daemon daemon;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested;
	_Atomic(fake_serve_fn) serve_refresh;
	void *user_data;
	size_t n_fds;
	/* Refreshes that wait to be answered together. */
	struct fake_request waiting[BATCH_MAX];
	uint64_t start[BATCH_MAX];
	unsigned int n_waiting;
	bool forwards;
	_Atomic unsigned int batch, n_refreshes;
	_Atomic int code;
};

static void serve(struct fake_daemon *daemon, const struct fake_request *request, void *user_data)
{
	Iommubroker__V1__OpenDeviceResponse opened = IOMMUBROKER__V1__OPEN_DEVICE_RESPONSE__INIT;
	Iommubroker__V1__DescriptorRef ref = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	Iommubroker__V1__CreateNestedResponse created =
		IOMMUBROKER__V1__CREATE_NESTED_RESPONSE__INIT;
	struct bench *bench = user_data;
	int fd;

	if (request->method == METHOD(REFRESH_NESTED)) {
		bench->n_refreshes++;
		bench->serve_refresh(daemon, request, bench);
	} else if (request->method == METHOD(OPEN_DEVICE)) {
		fd = memfd_create("device", MFD_CLOEXEC);
		ref.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
		opened.descriptor = &ref;
		fake_answer_fd(daemon, request, &opened.base, fd);
		close(fd);
	} else if (request->method == METHOD(CREATE_NESTED)) {
		created.nested = NESTED_HANDLE;
		created.verdict = IOMMUBROKER__V1__VERDICT__VERDICT_DONE;
		fake_answer(daemon, request, &created.base);
	} else if (request->method != METHOD(CANCEL_CALL)) {
		fake_answer(daemon, request, NULL);
	}
}

static void begin(struct bench *bench, fake_serve_fn serve_refresh)
{
	const struct iommubroker_anchor anchor = {0x804, 0, UINT64_MAX};
	struct iommubroker_registration registration;

	*bench = (struct bench){.serve_refresh = serve_refresh, .batch = 1};
	bench->n_fds = fake_count_fds();
	fake_start(&bench->daemon, serve, bench);
	assert_int_equal(
		iommubroker_session_open_fd(bench->daemon.client_fd, NULL, &bench->session, NULL),
		0);
	assert_int_equal(iommubroker_guest_create(bench->session, NULL, &bench->guest, NULL), 0);
	assert_int_equal(
		iommubroker_device_open_function(bench->guest, 1, &bench->device, NULL, NULL), 0);
	assert_int_equal(iommubroker_nested_create_s390(bench->device, &anchor, true, 0,
							&bench->nested, &registration, NULL),
			 0);
	assert_true(iommubroker_nested_handle(bench->nested) == NESTED_HANDLE);
}

static void finish(struct bench *bench)
{
	iommubroker_nested_free(bench->nested);
	iommubroker_device_free(bench->device);
	iommubroker_guest_free(bench->guest);
	iommubroker_session_free(bench->session);
	fake_stop(&bench->daemon);
	assert_int_equal(fake_count_fds(), bench->n_fds);
}

static uint32_t refresh(struct bench *bench, uint64_t start, uint64_t timeout_ns,
			struct iommubroker_result *ret)
{
	const struct iommubroker_range range = {start, 4096};
	struct iommubroker_result result;

	assert_int_equal(iommubroker_refresh(bench->nested, &range, 1, timeout_ns, &result), 0);
	if (ret != NULL)
		*ret = result;
	return result.verdict;
}

/* Answers say which question they answer: mapped is the range's start, unmapped its length. */
static void answer_ranges(struct fake_daemon *daemon, const struct fake_request *request,
			  const Iommubroker__V1__RefreshNestedRequest *refresh_request)
{
	Iommubroker__V1__RefreshNestedResponse response =
		IOMMUBROKER__V1__REFRESH_NESTED_RESPONSE__INIT;
	static Iommubroker__V1__RangeResult results[256], *pointers[256];

	for (size_t i = 0; i < refresh_request->n_ranges; i++) {
		results[i] = (Iommubroker__V1__RangeResult)IOMMUBROKER__V1__RANGE_RESULT__INIT;
		results[i].verdict = IOMMUBROKER__V1__VERDICT__VERDICT_DONE;
		results[i].mapped = refresh_request->ranges[i]->start;
		results[i].unmapped = refresh_request->ranges[i]->length;
		pointers[i] = &results[i];
	}
	response.n_results = refresh_request->n_ranges;
	response.results = pointers;
	fake_answer(daemon, request, &response.base);
}

static void serve_echo(struct fake_daemon *daemon, const struct fake_request *request,
		       void *user_data)
{
	Iommubroker__V1__RefreshNestedRequest *unpacked =
		iommubroker__v1__refresh_nested_request__unpack(NULL, request->n_message,
								request->message);

	if (unpacked->nested == NESTED_HANDLE)
		answer_ranges(daemon, request, unpacked);
	iommubroker__v1__refresh_nested_request__free_unpacked(unpacked, NULL);
}

static void test_ranges(void **state)
{
	static struct iommubroker_range ranges[257];
	static struct iommubroker_result results[257];
	struct bench bench;

	begin(&bench, serve_echo);
	for (size_t i = 0; i < 257; i++)
		ranges[i] = (struct iommubroker_range){UINT64_MAX - i, i * i * i * i * i};
	assert_int_equal(iommubroker_refresh(bench.nested, ranges, 256, LONG_NS, results), 0);
	for (size_t i = 0; i < 256; i++) {
		assert_int_equal(results[i].verdict, IOMMUBROKER_VERDICT_DONE);
		assert_true(results[i].mapped == ranges[i].start);
		assert_true(results[i].unmapped == ranges[i].length);
	}
	assert_int_equal(iommubroker_refresh(bench.nested, ranges, 0, LONG_NS, results), -EINVAL);
	assert_int_equal(iommubroker_refresh(bench.nested, ranges, 257, LONG_NS, results), -EINVAL);
	finish(&bench);
}

/* Gather as many refreshes as there are threads, then answer them all. */
static void serve_batch(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	Iommubroker__V1__RefreshNestedRequest *unpacked =
		iommubroker__v1__refresh_nested_request__unpack(NULL, request->n_message,
								request->message);
	struct bench *bench = user_data;

	bench->start[bench->n_waiting] = unpacked->ranges[0]->start;
	bench->waiting[bench->n_waiting++] = *request;
	if (bench->n_waiting >= bench->batch) {
		for (unsigned int i = 0; i < bench->n_waiting; i++) {
			unsigned int k = bench->forwards ? i : bench->n_waiting - 1 - i;

			unpacked->ranges[0]->start = bench->start[k];
			answer_ranges(daemon, &bench->waiting[k], unpacked);
		}
		bench->n_waiting = 0;
	}
	iommubroker__v1__refresh_nested_request__free_unpacked(unpacked, NULL);
}

#define THREADS 8
#define ROUNDS  500

struct vcpu {
	struct bench *bench;
	pthread_t thread;
	uint64_t first;
	unsigned int n_wrong, n_rounds;
};

static void *run_vcpu(void *user_data)
{
	struct vcpu *vcpu = user_data;

	for (uint64_t i = 0; i < vcpu->n_rounds; i++) {
		const struct iommubroker_range range = {vcpu->first + i, 1};
		struct iommubroker_result result = {0};
		int r = iommubroker_refresh(vcpu->bench->nested, &range, 1, LONG_NS, &result);

		vcpu->n_wrong += r != 0 || result.verdict != IOMMUBROKER_VERDICT_DONE ||
				 result.mapped != range.start;
	}
	return NULL;
}

static void run_vcpus(struct bench *bench, unsigned int n_rounds)
{
	struct vcpu vcpus[THREADS];

	for (uint64_t i = 0; i < THREADS; i++) {
		vcpus[i] = (struct vcpu){bench, .first = i << 32, .n_rounds = n_rounds};
		pthread_create(&vcpus[i].thread, NULL, run_vcpu, &vcpus[i]);
	}
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(vcpus[i].thread, NULL);
		assert_int_equal(vcpus[i].n_wrong, 0);
	}
}

/* Every answer has to reach its own thread, or the batch never fills and nobody goes on. */
static void test_threads(void **state)
{
	struct bench bench;

	begin(&bench, serve_batch);
	bench.batch = THREADS;
	run_vcpus(&bench, ROUNDS);
	assert_int_equal(bench.n_refreshes, THREADS * ROUNDS);
	finish(&bench);
}

/* The first to wait is the first to be answered, and leaves for good: another has to read on. */
static void test_readers_leave(void **state)
{
	struct bench bench;

	begin(&bench, serve_batch);
	bench.batch = THREADS;
	bench.forwards = true;
	for (unsigned int i = 0; i < ROUNDS / 10; i++)
		run_vcpus(&bench, 1);
	finish(&bench);
}

static void serve_nothing(struct fake_daemon *daemon, const struct fake_request *request,
			  void *user_data)
{
}

static void serve_odd_silence(struct fake_daemon *daemon, const struct fake_request *request,
			      void *user_data)
{
	if (((struct bench *)user_data)->n_refreshes % 2 == 0)
		serve_echo(daemon, request, user_data);
}

static void test_deadline(void **state)
{
	struct iommubroker_result result;
	struct bench bench;

	begin(&bench, serve_odd_silence);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(refresh(&bench, 1, SHORT_NS, &result), IOMMUBROKER_VERDICT_BUSY);
		assert_int_equal(result.condition_code, 2);
		assert_int_equal(result.mapped, 0);
		/* One that is given up does not hold up the next. */
		assert_int_equal(refresh(&bench, 7, LONG_NS, &result), IOMMUBROKER_VERDICT_DONE);
		assert_int_equal(result.mapped, 7);
	}
	assert_int_equal(refresh(&bench, 1, 0, NULL), IOMMUBROKER_VERDICT_BUSY);
	finish(&bench);
}

/* Answers come when nobody waits any more, and must not be taken for later ones. */
static void test_slots(void **state)
{
	struct iommubroker_result result;
	struct bench bench;

	begin(&bench, serve_batch);
	bench.batch = 63;
	for (uint64_t i = 0; i < 62; i++)
		assert_int_equal(refresh(&bench, i, 1, NULL), IOMMUBROKER_VERDICT_BUSY);
	/* The 63rd makes the daemon answer them all. */
	assert_int_equal(refresh(&bench, 99, LONG_NS, &result), IOMMUBROKER_VERDICT_DONE);
	assert_int_equal(result.mapped, 99);
	assert_int_equal(bench.n_refreshes, 63);
	/* And again with none left: waiting for a slot ends at the deadline too. */
	bench.batch = BATCH_MAX;
	for (uint64_t i = 0; i < 63; i++)
		refresh(&bench, i, 1, NULL);
	assert_int_equal(refresh(&bench, 1, SHORT_NS, NULL), IOMMUBROKER_VERDICT_BUSY);
	while (bench.n_refreshes < 63 + 63)
		sched_yield();
	finish(&bench);
	assert_int_equal(bench.n_refreshes, 63 + 63); /* the last was never sent */
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECOND_NS + now.tv_nsec;
}

static void serve_death(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	fake_die(daemon);
}

static void test_death(void **state)
{
	struct bench bench;
	uint64_t before;

	begin(&bench, serve_death);
	assert_int_equal(refresh(&bench, 1, LONG_NS, NULL), IOMMUBROKER_VERDICT_BUSY);
	/* A guest tries again at once: it must not spin. */
	before = now_ns();
	assert_int_equal(refresh(&bench, 1, LONG_NS, NULL), IOMMUBROKER_VERDICT_BUSY);
	assert_true(now_ns() - before >= 1000000);
	assert_int_equal(iommubroker_session_state(bench.session), -ECONNRESET);
	finish(&bench);
}

static void *run_until_lost(void *user_data)
{
	struct vcpu *vcpu = user_data;

	vcpu->n_wrong =
		refresh(vcpu->bench, vcpu->first, LONG_NS, NULL) != IOMMUBROKER_VERDICT_BUSY;
	return NULL;
}

static void serve_death_of_eighth(struct fake_daemon *daemon, const struct fake_request *request,
				  void *user_data)
{
	if (((struct bench *)user_data)->n_refreshes == THREADS)
		fake_die(daemon);
}

/* It dies under eight waiting threads: all of them get an answer. */
static void test_death_of_many(void **state)
{
	struct vcpu vcpus[THREADS];
	struct bench bench;

	begin(&bench, serve_death_of_eighth);
	for (size_t i = 0; i < THREADS; i++) {
		vcpus[i] = (struct vcpu){&bench, .first = i};
		pthread_create(&vcpus[i].thread, NULL, run_until_lost, &vcpus[i]);
	}
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(vcpus[i].thread, NULL);
		assert_int_equal(vcpus[i].n_wrong, 0);
	}
	finish(&bench);
}

static void serve_code(struct fake_daemon *daemon, const struct fake_request *request,
		       void *user_data)
{
	fake_refuse(daemon, request, ((struct bench *)user_data)->code, "no", NULL, 0);
}

static void test_codes(void **state)
{
	static const struct {
		int code;
		uint32_t verdict, condition_code, status;
	} cases[] = {
		{1, IOMMUBROKER_VERDICT_BUSY, 2, 0},   {2, IOMMUBROKER_VERDICT_ERROR, 1, 8},
		{4, IOMMUBROKER_VERDICT_BUSY, 2, 0},   {5, IOMMUBROKER_VERDICT_GONE, 3, 0},
		{8, IOMMUBROKER_VERDICT_BUSY, 2, 0},   {10, IOMMUBROKER_VERDICT_BUSY, 2, 0},
		{13, IOMMUBROKER_VERDICT_ERROR, 1, 8}, {14, IOMMUBROKER_VERDICT_BUSY, 2, 0},
		{16, IOMMUBROKER_VERDICT_GONE, 3, 0},
	};
	const struct iommubroker_range range = {0, 4096};
	struct iommubroker_result result;
	struct bench bench;

	begin(&bench, serve_code);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bench.code = cases[i].code;
		assert_int_equal(refresh(&bench, 1, LONG_NS, &result), cases[i].verdict);
		assert_int_equal(result.condition_code, cases[i].condition_code);
		assert_int_equal(result.status, cases[i].status);
		assert_int_equal(result.event_code, 0);
	}
	bench.code = 3;
	assert_int_equal(iommubroker_refresh(bench.nested, &range, 1, LONG_NS, &result), -EINVAL);
	finish(&bench);
}

static void serve_fault(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	Iommubroker__V1__RefreshNestedResponse response =
		IOMMUBROKER__V1__REFRESH_NESTED_RESPONSE__INIT;
	Iommubroker__V1__RangeResult result = IOMMUBROKER__V1__RANGE_RESULT__INIT,
				     *results = &result;
	Iommubroker__V1__WalkFault fault = IOMMUBROKER__V1__WALK_FAULT__INIT;

	fault.event_code = 9;
	fault.iova = UINT64_C(0x123456789a000);
	fault.level = IOMMUBROKER__V1__TABLE_LEVEL__TABLE_LEVEL_SEGMENT;
	fault.entry = UINT64_MAX;
	fault.outside_memory = true;
	fault.text = (char *)"for people";
	result.verdict = IOMMUBROKER__V1__VERDICT__VERDICT_ERROR;
	result.condition_code = 1;
	result.status = 8;
	result.fault = &fault;
	response.n_results = 1;
	response.results = &results;
	fake_answer(daemon, request, &response.base);
}

static void test_fault(void **state)
{
	struct iommubroker_result result;
	struct bench bench;

	begin(&bench, serve_fault);
	assert_int_equal(refresh(&bench, 1, LONG_NS, &result), IOMMUBROKER_VERDICT_ERROR);
	assert_int_equal(result.condition_code, 1);
	assert_int_equal(result.status, 8);
	assert_int_equal(result.event_code, 9);
	assert_true(result.fault_iova == UINT64_C(0x123456789a000));
	assert_int_equal(result.fault_level, IOMMUBROKER_LEVEL_SEGMENT);
	assert_true(result.fault_entry == UINT64_MAX);
	assert_int_equal(result.fault_outside_memory, 1);
	finish(&bench);
}

/* Answers that are no answers: the guest is told BUSY, and the daemon is not believed again. */
struct wrong {
	const char *bytes;
	size_t n_bytes;
};

static const struct wrong wrongs[] = {
	{"", 0},                                                      /* no result for one range */
	{"\x0a\x02\x08\x01\x0a\x02\x08\x01", 8},                      /* two */
	{"\x0a\x00", 2},                                              /* no verdict */
	{"\x0a\x02\x08\x08", 4},                                      /* one that does not exist */
	{"\x0a\x0b\x08\x81\x80\x80\x80\x80\x80\x80\x80\x80\x7f", 13}, /* cut off it would be DONE */
	{"\x0a\x05\x08\x01", 4},                                      /* longer than the message */
	{"\x0a\x04\x08\x05\x22\x7f", 6},                              /* a fault beyond its end */
	{"\x08\x01", 2}, /* a number in place of a message */
	{"\x0b\x0c", 2}, /* a group */
};

static void serve_wrong(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	const struct wrong *wrong = ((struct bench *)user_data)->user_data;

	fake_answer_bytes(daemon, request, (const uint8_t *)wrong->bytes, wrong->n_bytes);
}

static void test_wrong_answers(void **state)
{
	for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
		struct iommubroker_result result;
		struct bench bench;

		begin(&bench, serve_wrong);
		bench.user_data = (void *)&wrongs[i];
		assert_int_equal(refresh(&bench, 1, LONG_NS, &result), IOMMUBROKER_VERDICT_BUSY);
		assert_int_equal(result.mapped, 0);
		assert_int_equal(iommubroker_session_state(bench.session), -EBADMSG);
		finish(&bench);
	}
}

static void test_no_allocation(void **state)
{
	struct bench bench;
	size_t before;

	if (!OWN_ALLOCATOR)
		skip();
	begin(&bench, serve_echo);
	before = n_allocations;
	free(malloc(1));
	assert_int_equal(n_allocations, before + 1); /* it does count */
	before = n_allocations;
	for (uint64_t i = 0; i < 10000; i++) {
		const struct iommubroker_range range = {i, 1};
		struct iommubroker_result result;

		if (iommubroker_refresh(bench.nested, &range, 1, LONG_NS, &result) != 0 ||
		    result.mapped != i)
			fail();
	}
	/* Nor when it ends badly. */
	bench.serve_refresh = serve_nothing; /* no refresh is under way */
	refresh(&bench, 1, 1, NULL);
	fake_die(&bench.daemon);
	refresh(&bench, 1, LONG_NS, NULL);
	assert_int_equal(n_allocations, before);
	finish(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges),        cmocka_unit_test(test_threads),
		cmocka_unit_test(test_readers_leave), cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_slots),         cmocka_unit_test(test_death),
		cmocka_unit_test(test_death_of_many), cmocka_unit_test(test_codes),
		cmocka_unit_test(test_fault),         cmocka_unit_test(test_wrong_answers),
		cmocka_unit_test(test_no_allocation),
	};

	return cmocka_run_group_tests_name("client_refresh", tests, NULL, NULL);
}
