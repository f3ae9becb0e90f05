/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The order in which a guest is taken down: every device is stopped and blocked before anything
 * that one of them could still use goes, and nothing is closed before it is empty. */
#include "nested_fixture.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "backend_tap.h"

#define CALLS_MAX 1024

static struct {
	const char *call;
	const void *object;
} calls[CALLS_MAX];
static size_t n_calls;

static int record(const char *call, const void *object)
{
	assert_true(n_calls < CALLS_MAX);
	calls[n_calls].call = call;
	calls[n_calls++].object = object;
	return 0;
}

/* Place of the first or last call of that name. */
static size_t first_call(const char *call)
{
	size_t i = 0;

	while (i < n_calls && strcmp(calls[i].call, call))
		i++;
	if (i == n_calls)
		fail_msg("%s was never called", call);
	return i;
}

static size_t last_call(const char *call)
{
	size_t last = first_call(call);

	for (size_t i = last; i < n_calls; i++)
		if (!strcmp(calls[i].call, call))
			last = i;
	return last;
}

static size_t times_before(const char *call, size_t place)
{
	const void *seen[8];
	size_t n = 0;

	for (size_t i = 0; i < place; i++) {
		bool again = false;

		for (size_t k = 0; k < n; k++)
			again |= seen[k] == calls[i].object;
		if (!strcmp(calls[i].call, call) && !again)
			seen[n++] = calls[i].object;
	}
	return n;
}

static int setup(void **state)
{
	static struct test t;
	struct broker_settings settings = settings_default();

	nested_test_init(&t, &settings);
	table_map(&t.f, t.root, IOVA, PAGE, true);
	register_attached(&t);
	backend_tap(t.f.backend, record);
	*state = &t;
	return 0;
}

/* Two devices, one of them with a nested domain, the other with a relaxed mapping. */
static struct function second_device(struct test *t)
{
	struct function two = function_bind(&t->f, 2);
	struct range_result walk;

	assert_done(&t->f, device_attach(t->f.broker, t->f.session, two.device, ATTACHMENT_RELAXED,
					 0, &walk, &t->f.refusal));
	n_calls = 0;
	return two;
}

static void check_order(void)
{
	size_t destroyed = first_call("destroy");

	assert_int_equal(times_before("device_stop", destroyed), 2);
	assert_int_equal(times_before("detach", destroyed), 2);
	assert_true(first_call("device_stop") < first_call("detach"));
	assert_true(destroyed < first_call("device_close"));
	assert_true(last_call("device_close") < first_call("unmap"));
	assert_true(last_call("unmap") < last_call("destroy")); /* of the parent */
	assert_int_equal(first_call("context_free"), n_calls - 1);
}

static void test_destroy_guest(void **state)
{
	struct test *t = *state;
	struct function two = second_device(t);

	assert_done(&t->f, guest_destroy(t->f.broker, t->f.session, t->f.guest, &t->f.refusal));
	check_order();
	function_free(&two);
}

static void on_closed(void *context)
{
	*(atomic_bool *)context = true;
}

static void test_end_of_the_session(void **state)
{
	struct test *t = *state;
	struct function two = second_device(t);
	atomic_bool closed = false;

	session_close(t->f.session, on_closed, &closed);
	while (!closed)
		usleep(1000);
	check_order();
	function_free(&two);
}

/* In slices: 32 MiB of memory, 1 MiB a call. */
static void test_unmap_in_slices(void **state)
{
	struct test *t = *state;
	size_t unmaps = 0;

	n_calls = 0;
	assert_done(&t->f, guest_destroy(t->f.broker, t->f.session, t->f.guest, &t->f.refusal));
	for (size_t i = 0; i < n_calls; i++)
		unmaps += !strcmp(calls[i].call, "unmap");
	assert_int_equal(unmaps, MEMORY_BYTES / MIB);
}

/* The guest deregisters: its device goes on elsewhere, so it is blocked and not reset. */
static void test_deregistration_does_not_reset(void **state)
{
	struct test *t = *state;
	uint64_t dropped;
	struct guest_description *guest;

	assert_done(&t->f,
		    guest_describe(t->f.broker, t->f.session, t->f.guest, &guest, &t->f.refusal));
	n_calls = 0;
	assert_done(&t->f, nested_destroy(t->f.broker, t->f.session, guest->nested[0].nested,
					  &dropped, &t->f.refusal));
	guest_description_free(guest);
	assert_true(first_call("detach") < first_call("destroy"));
	for (size_t i = 0; i < n_calls; i++)
		assert_string_not_equal(calls[i].call, "device_stop");
}

/* One frame at so many places that the kernel would be long about them in one call. */
static void test_crowded_frame_goes_in_parts(void **state)
{
	struct test *t = *state;
	const uint64_t places = 512;
	struct range_result result;
	struct guest_description *guest;
	uint64_t dropped;
	size_t cuts = 0;

	for (uint64_t i = 0; i < places; i++)
		table_map(&t->f, t->root, IOVA + i * PAGE, PAGE, true);
	assert_done(&t->f,
		    guest_describe(t->f.broker, t->f.session, t->f.guest, &guest, &t->f.refusal));
	result = refresh_one(&t->f, guest->nested[0].nested, IOVA, places * PAGE);
	assert_int_equal(result.verdict, VERDICT_DONE);
	n_calls = 0;
	assert_done(&t->f, nested_destroy(t->f.broker, t->f.session, guest->nested[0].nested,
					  &dropped, &t->f.refusal));
	guest_description_free(guest);
	assert_int_equal(dropped, places);
	for (size_t i = 0; i < n_calls; i++)
		cuts += !strcmp(calls[i].call, "cut");
	assert_in_range(cuts, 2, 8);
	assert_true(first_call("detach") < first_call("cut"));
	assert_true(last_call("cut") < first_call("destroy"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, nested_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_destroy_guest),
		TEST(test_end_of_the_session),
		TEST(test_unmap_in_slices),
		TEST(test_deregistration_does_not_reset),
		TEST(test_crowded_frame_goes_in_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
