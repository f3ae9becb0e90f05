/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An attach that fails leaves a device blocked that the kernel still takes for attached (VT-d,
 * s390): it goes back to what it was attached to, or is blocked and said to be. */
#include "nested_fixture.h"

#include <errno.h>
#include <string.h>

#define RELAXED_ANCHOR 0

static struct test *t;
static uint64_t nested;

static int setup(void **state)
{
	nested_setup(state);
	t = *state;
	table_map(&t->f, t->root, IOVA, PAGE, true);
	return 0;
}

static int device_attach_to(enum attachment to)
{
	struct range_result walk;

	return device_attach(t->f.broker, t->f.session, t->function.device, to, 0, &walk,
			     &t->f.refusal);
}

static void test_switch(void **state)
{
	nested = register_attached(t);
	iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_ATTACH, 1, ENOMEM);
	assert_refused(&t->f, device_attach_to(ATTACHMENT_RELAXED), REFUSAL_HOST_RESOURCES);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	assert_true(describe_nested(t, nested).attached);
	assert_done(&t->f, device_attach_to(ATTACHMENT_RELAXED));
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
}

static void test_replace(void **state)
{
	struct nested_created replaced;

	nested = register_attached(t);
	iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_ATTACH, 1, ENOMEM);
	replaced = replace_anchor(t, nested, RELAXED_ANCHOR, FIRST, LAST);
	assert_int_equal(replaced.verdict, VERDICT_RESOURCES);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	assert_int_equal(dma_write_at(t, IOVA + PAGE), EMULATED_DMA_NOT_MAPPED);
	replaced = replace_anchor(t, nested, RELAXED_ANCHOR, FIRST, LAST);
	assert_int_equal(replaced.verdict, VERDICT_DONE);
	assert_int_equal(dma_write_at(t, IOVA + PAGE), EMULATED_DMA_OK);
}

/* What the guest is told is s390-zPCI's "out of resources", not an operand or host error. */
static void test_register(void **state)
{
	struct nested_created created;

	iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_ATTACH, 1, ENOMEM);
	created = register_tables(t, true);
	assert_int_equal(created.verdict, VERDICT_RESOURCES);
	assert_int_equal(created.nested, 0);
	assert_nothing_reserved(t);
	nested = register_attached(t);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
}

/* What was blocked stays blocked. */
static void test_blocked(void **state)
{
	nested = register_attached(t);
	assert_done(&t->f, device_attach_to(ATTACHMENT_BLOCKED));
	iommu_emulated_fail_nth(t->f.backend, IOMMU_EMULATED_ATTACH, 1, ENOMEM);
	assert_refused(&t->f, device_attach_to(ATTACHMENT_RELAXED), REFUSAL_HOST_RESOURCES);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_BLOCKED);
}

static void on_wake(void *context)
{
}

static bool was_told(struct event_watch *watch, enum event_kind kind)
{
	struct event event;

	while (event_watch_next(watch, &event))
		if (event.kind == kind)
			return true;
	return false;
}

static void test_not_even_back(void **state)
{
	struct event_watch *watch;

	nested = register_attached(t);
	assert_done(&t->f, event_watch_new(&watch, t->f.broker, t->f.session, t->f.guest, 0,
					   on_wake, NULL, &t->f.refusal));
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_ATTACH, ENOMEM);
	assert_refused(&t->f, device_attach_to(ATTACHMENT_RELAXED), REFUSAL_HOST_RESOURCES);
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_ATTACH, 0);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_DISABLED);
	assert_false(describe_nested(t, nested).attached);
	assert_true(was_told(watch, EVENT_DEVICE_BLOCKED));
	event_watch_free(watch);
	assert_int_equal(attach_function(t, ATTACHMENT_NESTED, nested).verdict, VERDICT_DONE);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, nested_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_switch),  TEST(test_replace),       TEST(test_register),
		TEST(test_blocked), TEST(test_not_even_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
