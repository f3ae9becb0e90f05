/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Request ids: what is remembered, for how long, and at what cost. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "iommubroker/v1/guests.pb-c.h"
#include "rpc/call.h"
#include "rpc/method_table.h"
#include "rpc/request_table.h"

static struct request_table table;
static const struct rpc_status ok = {.code = 0};
static const uint8_t digest_a[REQUEST_DIGEST_BYTES] = {1}, digest_b[REQUEST_DIGEST_BYTES] = {2};

static int setup(void **state)
{
	(void)state;
	request_table_init(&table);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_true(TAILQ_EMPTY(&table.running));
	request_table_deinit(&table);
	return 0;
}

static struct call *begin(uint64_t id, const uint8_t *digest, enum request_begun expected)
{
	struct call *call = calloc(1, sizeof(*call));
	struct request_answer *answer = NULL;

	assert_int_equal(request_table_begin(&table, call, id, digest, &answer), expected);
	request_answer_unref(answer);
	return call;
}

static void run(uint64_t id, const void *bytes, size_t n_bytes)
{
	struct call *call = begin(id, digest_a, REQUEST_NEW);

	assert_null(request_table_finish(call->entry, &ok, bytes, n_bytes));
	free(call);
}

static void again(uint64_t id, enum request_begun expected)
{
	struct call *call = begin(id, digest_a, expected);

	if (expected == REQUEST_NEW)
		assert_null(request_table_finish(call->entry, &ok, NULL, 0));
	free(call);
}

static void test_remembers_64(void **state)
{
	(void)state;
	for (uint64_t id = 1; id <= REQUEST_IDS_KEPT; id++)
		run(id, "answer", 6);
	for (uint64_t id = 1; id <= REQUEST_IDS_KEPT; id++)
		again(id, REQUEST_ANSWERED);
	run(UINT64_MAX, "answer", 6);
	again(2, REQUEST_ANSWERED);
	again(1, REQUEST_NEW); /* the oldest was forgotten, and is the newest now */
	again(2, REQUEST_NEW);
	again(1, REQUEST_ANSWERED);
}

/* Running ones do not count and are not forgotten. */
static void test_running_stays(void **state)
{
	struct call *running = begin(1000, digest_a, REQUEST_NEW), *joiner;

	(void)state;
	for (uint64_t id = 1; id <= REQUEST_IDS_KEPT + 10; id++)
		run(id, "answer", 6);
	joiner = begin(1000, digest_a, REQUEST_JOINED);
	assert_ptr_equal(request_table_finish(running->entry, &ok, NULL, 0), joiner);
	free(running);
	free(joiner);
}

static void test_joiners(void **state)
{
	struct call *owner = begin(5, digest_a, REQUEST_NEW);
	struct call *first = begin(5, digest_a, REQUEST_JOINED);
	struct call *second = begin(5, digest_a, REQUEST_JOINED);
	struct call *other = begin(5, digest_b, REQUEST_REFUSED), *joined;
	size_t n = 0;

	(void)state;
	assert_int_equal(other->refusal.kind, REFUSAL_INVALID);
	assert_string_equal(other->refusal.field, "request_id");
	joined = request_table_finish(owner->entry, &ok, NULL, 0);
	for (; joined; joined = joined->next_joiner) {
		assert_true(joined == first || joined == second);
		n++;
	}
	assert_int_equal(n, 2);
	free(owner);
	free(first);
	free(second);
	free(other);
}

static void test_kept_answer(void **state)
{
	struct call *call = begin(5, digest_a, REQUEST_NEW);
	struct request_answer *answer;
	struct rpc_status status = {.code = 8, .message = "no", .details_bytes = 3}, kept;
	const uint8_t *bytes;
	size_t n_bytes;

	(void)state;
	memcpy(status.details, "abc", 3);
	assert_null(request_table_finish(call->entry, &status, NULL, 0));
	assert_int_equal(request_table_begin(&table, call, 5, digest_a, &answer), REQUEST_ANSWERED);
	request_answer_get(answer, &kept, &bytes, &n_bytes);
	assert_int_equal(kept.code, 8);
	assert_string_equal(kept.message, "no");
	assert_int_equal(kept.details_bytes, 3);
	assert_memory_equal(kept.details, "abc", 3);
	assert_null(bytes);
	request_answer_unref(answer);
	free(call);
	call = begin(6, digest_a, REQUEST_NEW);
	assert_null(request_table_finish(call->entry, &ok, (const uint8_t *)"xyz", 3));
	assert_int_equal(request_table_begin(&table, call, 6, digest_a, &answer), REQUEST_ANSWERED);
	request_answer_get(answer, &kept, &bytes, &n_bytes);
	assert_int_equal(kept.code, 0);
	assert_int_equal(n_bytes, 3);
	assert_memory_equal(bytes, "xyz", 3);
	request_answer_unref(answer);
	free(call);
}

/* Large answers go before their ids do: nothing is done twice, and memory stays bounded. */
static void test_answers_are_bounded(void **state)
{
	size_t n_bytes = 60000;
	uint8_t *bytes = calloc(1, n_bytes);
	struct call *call;

	(void)state;
	for (uint64_t id = 1; id <= 20; id++) {
		run(id, bytes, n_bytes);
		assert_true(table.answer_bytes <= REQUEST_ANSWER_BYTES_MAX);
	}
	again(20, REQUEST_ANSWERED);
	again(17, REQUEST_ANSWERED);
	call = begin(1, digest_a, REQUEST_REFUSED);
	assert_int_equal(call->refusal.kind, REFUSAL_PRECONDITION);
	assert_string_equal(call->refusal.reason, "ANSWER_NOT_KEPT");
	free(call);
	free(bytes);
}

static void restore(const struct method *method, uint64_t id, size_t n_bytes)
{
	static const uint8_t bytes[4096];
	struct broker_answer answer = {
		.request_id = id,
		.method = method->number,
		.bytes = bytes,
		.n_bytes = n_bytes,
	};

	memcpy(answer.digest, digest_a, sizeof(answer.digest));
	request_table_restore(&table, &answer);
}

/* A repeated request, of the method; or a new one, which then ends. */
static void repeat(const struct method *method, uint64_t id, enum request_begun expected)
{
	struct request_answer *answer = NULL;
	struct call call = {.method = method};

	assert_int_equal(request_table_begin(&table, &call, id, digest_a, &answer), expected);
	request_answer_unref(answer);
	if (expected == REQUEST_NEW)
		request_table_finish(call.entry, &ok, NULL, 0);
}

/* Those of several guests are more than 64, and more than the bound of bytes; whichever of them was
 * not heard is repeated after others that came in between. */
static void test_restored_stay_until_64_are_newer(void **state)
{
	const uint64_t n = 3 * REQUEST_IDS_KEPT;
	const struct method *method;

	(void)state;
	method = method_table(&(size_t){0});
	while (!(method->flags & METHOD_MUTATION) || !method->number)
		method++;
	for (uint64_t id = 1; id <= n; id++)
		restore(method, id, 4096);
	for (uint64_t id = 1; id <= REQUEST_IDS_KEPT; id++) {
		repeat(method, 1, REQUEST_ANSWERED);
		repeat(method, n, REQUEST_ANSWERED);
		repeat(method, n + id, REQUEST_NEW);
	}
	repeat(method, 1, REQUEST_ANSWERED);
	repeat(method, n + 100, REQUEST_NEW);
	for (uint64_t id = 1; id <= 3; id++)
		repeat(method, n + REQUEST_IDS_KEPT + 1 - id, REQUEST_ANSWERED);
	repeat(method, n + 1, REQUEST_NEW);
	repeat(method, n, REQUEST_NEW);
	repeat(method, 1, REQUEST_NEW);
}

static void test_no_id_is_no_id(void **state)
{
	struct call *first = begin(0, NULL, REQUEST_NEW), *second = begin(0, NULL, REQUEST_NEW);

	(void)state;
	assert_false(request_table_cancel(&table, 0));
	request_table_cancel_all(&table);
	assert_true(first->entry->operation.cancelled);
	assert_true(second->entry->operation.cancelled);
	assert_null(request_table_finish(first->entry, &ok, NULL, 0));
	assert_null(request_table_finish(second->entry, &ok, NULL, 0));
	assert_int_equal(table.n_answered, 0);
	free(first);
	free(second);
}

static void test_cancel(void **state)
{
	struct call *call = begin(5, digest_a, REQUEST_NEW);

	(void)state;
	assert_false(request_table_cancel(&table, 4));
	assert_false(call->entry->operation.cancelled);
	assert_true(request_table_cancel(&table, 5));
	assert_true(call->entry->operation.cancelled);
	assert_null(request_table_finish(call->entry, &ok, NULL, 0));
	assert_false(request_table_cancel(&table, 5));
	free(call);
}

static void digest_of(const void *bytes, size_t n_bytes, uint8_t ret[REQUEST_DIGEST_BYTES])
{
	Iommubroker__V1__CreateGuestRequest *request =
		iommubroker__v1__create_guest_request__unpack(NULL, n_bytes, bytes);

	assert_non_null(request);
	request_digest(&request->base, ret);
	iommubroker__v1__create_guest_request__free_unpacked(request, NULL);
}

/* Field order and long varints are how a message came, not what it says; a value is. */
static void test_digest_is_of_the_content(void **state)
{
	uint8_t first[REQUEST_DIGEST_BYTES], second[REQUEST_DIGEST_BYTES];

	(void)state;
	digest_of("\x08\x05\x1a\x01x", 5, first);
	digest_of("\x1a\x01x\x08\x85\x00", 6, second);
	assert_memory_equal(first, second, sizeof(first));
	digest_of("\x08\x05\x1a\x01y", 5, second);
	assert_memory_not_equal(first, second, sizeof(first));
	digest_of("\x08\x05\x1a\x01x\x2a\x02\x08\x01", 9, second);
	assert_memory_not_equal(first, second, sizeof(first));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_remembers_64),
		T(test_running_stays),
		T(test_joiners),
		T(test_kept_answer),
		T(test_answers_are_bounded),
		T(test_restored_stay_until_64_are_newer),
		T(test_no_id_is_no_id),
		T(test_cancel),
		T(test_digest_is_of_the_content),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
