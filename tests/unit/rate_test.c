/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Token buckets against a model that counts tokens one by one in exact fractions, and at the ends
 * of their numbers.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "broker/rate.h"

#define SECOND UINT64_C(1000000000)
#define STEPS  1000000

static uint64_t seed = 88172645463325252u;

static uint64_t draw(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

/* A bucket as the books have it: tokens in units of 1/SECOND, that drip in and are taken out, below
 * zero if what was taken is still to be waited for. */
struct model {
	__int128 tokens;
	uint64_t at_ns;
};

static void model_drip(struct model *model, const struct rate_limit *limit, uint64_t now_ns)
{
	__int128 full = (__int128)limit->burst * SECOND;

	model->tokens += (__int128)(now_ns - model->at_ns) * limit->per_second;
	if (model->tokens > full)
		model->tokens = full;
	model->at_ns = now_ns;
}

static uint64_t model_wait_ns(const struct model *model, const struct rate_limit *limit, uint64_t n)
{
	__int128 lacks = (__int128)n * SECOND - model->tokens;

	return lacks <= 0 ? 0 : (uint64_t)((lacks + limit->per_second - 1) / limit->per_second);
}

/* Two levels; each decision is the model's, and each wait, but for the nanosecond that each taking
 * may be rounded up by since the bucket was last full. */
static void model_run(const struct rate_limit limits[2])
{
	struct rate_bucket buckets[2] = {0};
	struct rate_level levels[2] = {{&buckets[0], limits[0]}, {&buckets[1], limits[1]}};
	struct model models[2] = {{.tokens = (__int128)limits[0].burst * SECOND},
				  {.tokens = (__int128)limits[1].burst * SECOND}};
	uint64_t now = SECOND, slack = 0, taken = 0, refused = 0;

	models[0].at_ns = models[1].at_ns = now;
	for (int i = 0; i < STEPS / 10; i++) {
		uint64_t n = 1 + draw(4), delay_max = draw(SECOND / 4), wait = 0, expected = 0;
		size_t level;
		bool took;

		now += draw(3) ? draw(SECOND / 300) : draw(SECOND / 20);
		for (int k = 0; k < 2; k++) {
			uint64_t own;

			model_drip(&models[k], &limits[k], now);
			own = model_wait_ns(&models[k], &limits[k], n);
			expected = own > expected ? own : expected;
		}
		took = rate_take(levels, 2, n, now, delay_max, &wait, &level);
		assert_in_range(wait, expected > slack + 2 ? expected - slack - 2 : 0,
				expected + slack + 2);
		if (wait > slack + 2 &&
		    (delay_max + slack + 2 < wait || delay_max > wait + slack + 2))
			assert_int_equal(took, expected <= delay_max);
		if (took) {
			models[0].tokens -= (__int128)n * SECOND;
			models[1].tokens -= (__int128)n * SECOND;
			slack += 2;
			taken += n;
		} else {
			refused++;
		}
		if (buckets[0].paid_ns <= now && buckets[1].paid_ns <= now)
			slack = 0;
	}
	assert_true(taken > 0);
	assert_true(refused > 0);
}

static void test_model(void **state)
{
	static const struct rate_limit limits[][2] = {
		{{100, 100}, {1000, 10}}, {{7, 3}, {RATE_NONE - 1, 1}},
		{{333, 1}, {500, 500}},   {{999, 17}, {501, 2}},
		{{3, 9}, {4, 1}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		model_run(limits[i]);
}

/* Never more in any span of time than a burst and the rate times the span. */
static void test_never_above_the_rate(void **state)
{
	const struct rate_limit limit = {200, 20};
	struct rate_bucket bucket = {0};
	struct rate_level level = {&bucket, limit};
	uint64_t now = 5 * SECOND, start = now, taken = 0, wait;
	size_t at;

	(void)state;
	for (int i = 0; i < STEPS; i++) {
		now += draw(SECOND / 1000);
		taken += rate_take(&level, 1, 1, now, 0, &wait, &at);
		assert_true(taken <= 20 + 1 + (now - start) / (SECOND / 200));
	}
	assert_true(taken >= (now - start) / (SECOND / 200) - 20);
}

/* N at once, not one more, a token's time later one more; refusals cost nothing. */
static void test_burst(void **state)
{
	struct rate_bucket bucket = {0};
	struct rate_level level = {&bucket, {10, 5}};
	uint64_t wait;
	size_t at;

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_true(rate_take(&level, 1, 1, SECOND, 0, &wait, &at));
	for (int i = 0; i < 100; i++) {
		assert_false(rate_take(&level, 1, 1, SECOND, SECOND / 10 - 1, &wait, &at));
		assert_int_equal(wait, SECOND / 10);
	}
	assert_true(rate_take(&level, 1, 1, SECOND, SECOND / 10, &wait, &at));
	assert_int_equal(wait, SECOND / 10);
	/* who comes next waits behind that one */
	assert_false(rate_take(&level, 1, 1, SECOND, SECOND / 10, &wait, &at));
	assert_int_equal(wait, 2 * (SECOND / 10));
	/* after a refusal, as long as it said, it is served at once */
	assert_true(rate_take(&level, 1, 1, SECOND + wait, 0, &wait, &at));
}

/* One level's refusal takes nothing at the others. */
static void test_all_or_nothing(void **state)
{
	struct rate_bucket own = {0}, host = {0};
	struct rate_level levels[] = {{&own, {100, 100}}, {&host, {10, 1}}};
	uint64_t wait;
	size_t at;

	(void)state;
	assert_true(rate_take(levels, 2, 1, SECOND, 0, &wait, &at));
	for (int i = 0; i < 1000; i++) {
		assert_false(rate_take(levels, 2, 1, SECOND, 0, &wait, &at));
		assert_int_equal(at, 1);
	}
	assert_int_equal(own.paid_ns, SECOND + SECOND / 100);
}

/* A third of a second is rounded up: three of them are no less than a second. */
static void test_rounds_up(void **state)
{
	struct rate_bucket bucket = {0};
	struct rate_level level = {&bucket, {3, 1}};
	uint64_t wait;
	size_t at;

	(void)state;
	assert_true(rate_take(&level, 1, 1, SECOND, 0, &wait, &at));
	assert_int_equal(bucket.paid_ns, SECOND + 333333334);
}

static void test_ends_of_numbers(void **state)
{
	static const uint64_t ends[] = {0,         1, 2, SECOND, UINT64_MAX / 2, UINT64_MAX - 1,
					UINT64_MAX};
	enum { N = sizeof(ends) / sizeof(ends[0]) };

	(void)state;
	for (size_t i = 0; i < N * N * N * N; i++) {
		struct rate_bucket bucket = {.paid_ns = ends[i % N]};
		struct rate_limit limit = {ends[i / N % N], ends[i / N / N % N]};
		struct rate_level level = {&bucket, limit};
		uint64_t n = ends[i / N / N / N % N], before = bucket.paid_ns, wait;
		size_t at;
		bool took = rate_take(&level, 1, n, SECOND, SECOND, &wait, &at);

		assert_int_equal(took, wait <= SECOND);
		if (limit.per_second == RATE_NONE || !n)
			assert_true(took && wait == 0);
		else if (!limit.per_second)
			assert_int_equal(wait, UINT64_MAX);
		assert_true(bucket.paid_ns >= before);
		if (!took)
			assert_int_equal(bucket.paid_ns, before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),     cmocka_unit_test(test_never_above_the_rate),
		cmocka_unit_test(test_burst),     cmocka_unit_test(test_all_or_nothing),
		cmocka_unit_test(test_rounds_up), cmocka_unit_test(test_ends_of_numbers),
	};

	return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
