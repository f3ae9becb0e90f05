/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nested domains: verdicts of registration and refresh, and failures that block. Judged by DMA. */
#include "nested_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "broker/nested.h"
#include "broker_invariant.h"
#include "util/clock.h"

/* ── registration ──────────────────────────────────────────────────────────────────────────── */

static void test_anchor_faults(void **state)
{
	struct test *t = *state;
	const struct {
		uint64_t iota, first, last;
		enum s390_anchor_fault fault;
	} bad[] = {
		{anchor_of(t->root), LAST + 1, FIRST, S390_ANCHOR_PBA_ABOVE_PAL},
		{anchor_of(t->root), 0, LAST, S390_ANCHOR_PBA_BELOW_START},
		{anchor_of(t->root), FIRST, DMA_LAST + 1, S390_ANCHOR_PAL_ABOVE_END},
		{t->root | 0x810, FIRST, LAST, S390_ANCHOR_DESIGNATION},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct nested_create_request request = {
			.device = t->function.device,
			.attach = true,
			.iota = bad[i].iota,
			.first = bad[i].first,
			.last = bad[i].last,
		};
		struct nested_created created;

		assert_done(&t->f, nested_create(t->f.broker, t->f.session, &request, &created,
						 &t->f.refusal));
		assert_int_equal(created.verdict, VERDICT_OPERAND);
		assert_int_equal(created.anchor_fault, bad[i].fault);
		assert_int_equal(created.nested, 0);
		assert_nothing_reserved(t);
	}
}

static void test_designations_are_narrowed(void **state)
{
	struct test t;
	struct broker_settings settings = settings_default();
	struct device_description description;
	struct nested_created created;

	settings.designations = 1u << S390_LEVEL_SEGMENT;
	nested_test_init(&t, &settings);
	assert_done(&t.f, device_describe(t.f.broker, t.f.session, t.function.device, &description,
					  &t.f.refusal));
	assert_int_equal(description.info.designations, 1u << S390_LEVEL_SEGMENT);
	created = register_tables(&t, true); /* region-third */
	assert_int_equal(created.verdict, VERDICT_OPERAND);
	assert_int_equal(created.anchor_fault, S390_ANCHOR_DESIGNATION);
	function_free(&t.function);
	fixture_deinit(&t.f);
}

static void test_sequence(void **state)
{
	struct test *t = *state;
	uint64_t nested = register_attached(t);
	struct nested_created second = register_tables(t, true);

	assert_int_equal(second.verdict, VERDICT_SEQUENCE);
	assert_int_equal(second.nested, 0);
	second = register_tables(t, false); /* without attaching it there may be more */
	assert_int_equal(second.verdict, VERDICT_DONE);
	assert_int_equal(second.index, 1);
	destroy_nested(t, nested);
	destroy_nested(t, second.nested);
	assert_int_equal(register_tables(t, true).index, 0); /* the lowest that is free */
}

static void test_reservation(void **state)
{
	struct test *t = *state;
	uint64_t nested = register_attached(t);
	struct nested_created small;

	assert_int_equal(describe_nested(t, nested).mappings_reserved, 65536); /* the default */
	destroy_nested(t, nested);
	small = nested_make_s390(&t->f, t->function.device, t->root, FIRST, FIRST + MIB - 1, true);
	assert_int_equal(describe_nested(t, small.nested).mappings_reserved, 256); /* its window */
	destroy_nested(t, small.nested);
	assert_nothing_reserved(t);
}

/* A reset guest registers filled tables and refreshes nothing. */
static void test_first_walk(void **state)
{
	struct test *t = *state;
	struct nested_created created;

	for (uint64_t i = 0; i < 300; i++)
		table_map(&t->f, t->root, IOVA + i * PAGE, i * PAGE, i % 2);
	created = register_tables(t, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.mapped, 300);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_READ_ONLY);
	assert_int_equal(dma_write_at(t, IOVA + 299 * PAGE), EMULATED_DMA_OK);
	assert_int_equal(describe_nested(t, created.nested).live_leaves, 300);
}

static void test_walk_error_is_no_failure_of_the_registration(void **state)
{
	struct test *t = *state;
	struct nested_created created;

	table_map(&t->f, t->root, IOVA, 0, true);
	table_break(&t->f, t->root, FIRST + 2048 * MIB);
	created = register_tables(t, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.verdict, VERDICT_ERROR);
	assert_int_equal(created.walk.fault.code, S390_PEC_INVALTE);
	assert_int_equal(created.walk.fault.level, S390_LEVEL_REGION_THIRD);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
}

/* Tables that do not fit the reservation: the guest is told, and nothing is left. */
static void test_registration_out_of_mappings(void **state)
{
	struct test t;
	struct broker_settings settings = settings_default();
	struct nested_created created;

	settings.nested_mappings_default = 4;
	nested_test_init(&t, &settings);
	for (uint64_t i = 0; i < 5; i++)
		table_map(&t.f, t.root, IOVA + 2 * i * PAGE, i * PAGE, true);
	created = register_tables(&t, true);
	assert_int_equal(created.verdict, VERDICT_RESOURCES);
	assert_int_equal(created.nested, 0);
	assert_nothing_reserved(&t);
	assert_int_equal(dma_write_at(&t, IOVA), EMULATED_DMA_BLOCKED);
	table_unmap(&t.f, t.root, IOVA);
	assert_int_equal(register_tables(&t, true).verdict, VERDICT_DONE);
	function_free(&t.function);
	fixture_deinit(&t.f);
}

static void test_unbound_device(void **state)
{
	struct test *t = *state;
	struct function two = function_open(&t->f, 2);
	const struct nested_create_request request = {.device = two.device};
	struct nested_created created;

	assert_refused(&t->f,
		       nested_create(t->f.broker, t->f.session, &request, &created, &t->f.refusal),
		       REFUSAL_PRECONDITION);
	assert_string_equal(t->f.refusal.reason, "DEVICE_UNBOUND");
	function_free(&two);
}

/* ── refresh ───────────────────────────────────────────────────────────────────────────────── */

static void test_refresh_verdicts(void **state)
{
	struct test *t = *state;
	uint64_t nested = register_attached(t);
	struct range_result result;

	table_map(&t->f, t->root, IOVA, PAGE, true);
	result = refresh_one(&t->f, nested, IOVA + 5, 1); /* widened to the page */
	assert_int_equal(result.verdict, VERDICT_DONE);
	assert_int_equal(result.mapped, 1);
	result = refresh_one(&t->f, nested, IOVA, 0);
	assert_int_equal(result.verdict, VERDICT_DONE);
	result = refresh_one(&t->f, nested, LAST, 2);
	assert_int_equal(result.verdict, VERDICT_ERROR);
	assert_int_equal(result.fault.code, S390_PEC_OORANGE);
	table_break(&t->f, t->root, FIRST);
	result = refresh_one(&t->f, nested, IOVA, PAGE);
	assert_int_equal(result.verdict, VERDICT_ERROR);
	assert_int_equal(result.fault.code, S390_PEC_INVALTE);
	assert_int_equal(result.unmapped, 1); /* what stood under the bad entry went */
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_NOT_MAPPED);
}

static void test_refresh_batch(void **state)
{
	struct test *t = *state;
	struct refresh refresh = {.nested = register_attached(t), .n_ranges = 3};

	table_map(&t->f, t->root, IOVA, PAGE, true);
	table_map(&t->f, t->root, IOVA + 8 * PAGE, 2 * PAGE, true);
	refresh.ranges[0] = (struct refresh_range){IOVA, PAGE};
	refresh.ranges[1] = (struct refresh_range){0, PAGE};
	refresh.ranges[2] = (struct refresh_range){IOVA + 8 * PAGE, PAGE};
	assert_done(&t->f, refresh_status(&t->f, &refresh));
	assert_int_equal(refresh.results[0].mapped, 1);
	assert_int_equal(refresh.results[1].verdict, VERDICT_ERROR);
	assert_int_equal(refresh.results[2].mapped, 1);
	assert_int_equal(dma_write_at(t, IOVA + 8 * PAGE), EMULATED_DMA_OK);
}

static void assert_refresh_refused(struct test *t, struct refresh *refresh, enum refusal_kind kind)
{
	assert_int_equal(refresh_status(&t->f, refresh), REFUSED);
	assert_int_equal(refresh->refusal.kind, kind);
}

static void test_refresh_refused(void **state)
{
	struct test *t = *state;
	struct refresh refresh = {.nested = register_attached(t)};

	assert_refresh_refused(t, &refresh, REFUSAL_INVALID);
	assert_string_equal(refresh.refusal.field, "ranges");
	refresh.n_ranges = BROKER_REFRESH_RANGES_MAX + 1;
	assert_refresh_refused(t, &refresh, REFUSAL_INVALID);
	refresh.n_ranges = 1;
	refresh.nested++;
	assert_refresh_refused(t, &refresh, REFUSAL_NOT_FOUND);
	refresh.nested = t->function.device; /* a handle of another type */
	assert_refresh_refused(t, &refresh, REFUSAL_NOT_FOUND);
}

/* More than one slice: it goes on from the pool, and comes to the same. */
static void test_long_refresh(void **state)
{
	struct test *t = *state;
	struct refresh refresh = {.nested = register_attached(t), .n_ranges = 256};
	uint64_t mapped = 0;

	/* 2,800 pages that join to nothing: more ioctls than a slice makes. */
	for (uint64_t i = 0; i < 2800; i++)
		table_map(&t->f, t->root, FIRST + i * PAGE, (2800 - i) % 4000 * PAGE, true);
	for (uint64_t i = 0; i < 256; i++)
		refresh.ranges[i] = (struct refresh_range){FIRST, 4096 * MIB};
	assert_done(&t->f, refresh_status(&t->f, &refresh));
	for (uint64_t i = 0; i < 256; i++) {
		assert_int_equal(refresh.results[i].verdict, VERDICT_DONE);
		mapped += refresh.results[i].mapped;
	}
	assert_int_equal(mapped, 2800);
	assert_int_equal(dma_write_at(t, FIRST + 2799 * PAGE), EMULATED_DMA_OK);
}

struct flagged {
	struct refresh refresh;
	atomic_bool done;
};

static void flag_done(struct refresh *refresh, int status)
{
	assert_int_equal(status, 0);
	((struct flagged *)refresh)->done = true;
}

/* While somebody else is in the nested domain a refresh waits, and its thread does not. */
static void test_refresh_waits_for_the_lane(void **state)
{
	struct test *t = *state;
	struct flagged flagged = {.refresh = {.n_ranges = 1, .done = flag_done}};
	struct nested *nested;

	flagged.refresh.nested = register_attached(t);
	flagged.refresh.ranges[0] = (struct refresh_range){IOVA, PAGE};
	table_map(&t->f, t->root, IOVA, PAGE, true);
	nested = nested_find(t->f.broker, t->f.session, flagged.refresh.nested, &t->f.refusal);
	nested_lane_enter(nested);
	broker_refresh_run(t->f.broker, t->f.session, &flagged.refresh);
	clock_sleep_ns(20000000);
	assert_false(flagged.done);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_NOT_MAPPED);
	nested_lane_leave(nested);
	while (!flagged.done)
		clock_sleep_ns(1000000);
	assert_int_equal(flagged.refresh.results[0].mapped, 1);
	nested_unref(nested);
}

struct whose {
	struct refresh refresh;
	pthread_t thread; /* that told */
	atomic_bool done;
};

static void whose_done(struct refresh *refresh, int status)
{
	struct whose *whose = (struct whose *)refresh;

	assert_int_equal(status, 0);
	whose->thread = pthread_self();
	whose->done = true;
}

/* true: on this thread. */
static bool refreshed_here(struct test *t, struct nested *nested, uint64_t iova, uint64_t length)
{
	struct whose whose = {.refresh = {.n_ranges = 1, .done = whose_done}};

	whose.refresh.nested = nested->object.handle;
	whose.refresh.ranges[0] = (struct refresh_range){iova, length};
	broker_refresh_run(t->f.broker, t->f.session, &whose.refresh);
	while (!whose.done)
		clock_sleep_ns(1000000);
	assert_int_equal(whose.refresh.results[0].verdict, VERDICT_DONE);
	nested_lane_enter(nested); /* whoever told is through with it */
	nested_lane_leave(nested);
	return pthread_equal(whose.thread, pthread_self());
}

/* One table can be too much for its caller's thread: the rest is done in the pool, and as the step
 * ended within the table little was overspent, which the next pays by going to the pool. */
static void test_overspent_on_the_callers_thread(void **state)
{
	struct test *t = *state;
	struct nested *nested;
	unsigned int elsewhere = 0;

	nested = nested_find(t->f.broker, t->f.session, register_attached(t), &t->f.refusal);
	table_map(&t->f, t->root, FIRST + 16 * MIB, PAGE, true);
	assert_true(refreshed_here(t, nested, FIRST + 16 * MIB, PAGE));
	/* One table, of pages that join to nothing. */
	for (uint64_t i = 0; i < 256; i++)
		table_map(&t->f, t->root, FIRST + i * PAGE, (256 - i) * PAGE, true);
	assert_false(refreshed_here(t, nested, FIRST, MIB));
	while (!refreshed_here(t, nested, FIRST + 16 * MIB, PAGE))
		assert_true(++elsewhere < 100);
	assert_in_range(elsewhere, 0, 2);
	assert_true(refreshed_here(t, nested, FIRST + 16 * MIB, PAGE));
	nested_unref(nested);
}

/* A page that the guest gave up without a refresh goes by itself in the end. */
static void test_sweep(void **state)
{
	struct test *t = *state;
	uint64_t nested = register_attached(t), unmapped = 0;

	table_map(&t->f, t->root, IOVA, 0, true);
	refresh_one(&t->f, nested, IOVA, PAGE);
	table_unmap(&t->f, t->root, IOVA); /* and no refresh */
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	for (uint64_t i = 16; i < 4096 && dma_write_at(t, IOVA) == EMULATED_DMA_OK; i++) {
		table_map(&t->f, t->root, IOVA + i * PAGE, PAGE, true);
		unmapped += refresh_one(&t->f, nested, IOVA + i * PAGE, PAGE).unmapped;
	}
	assert_int_equal(unmapped, 1); /* told in the answer of the call that swept */
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_NOT_MAPPED);
}

static void test_refresh_out_of_mappings(void **state)
{
	struct test t;
	struct broker_settings settings = settings_default();
	struct range_result result;
	uint64_t nested;

	settings.nested_mappings_default = 2;
	nested_test_init(&t, &settings);
	table_map(&t.f, t.root, IOVA, PAGE, true);
	nested = register_attached(&t);
	table_unmap(&t.f, t.root, IOVA);
	for (uint64_t i = 1; i < 4; i++)
		table_map(&t.f, t.root, IOVA + 2 * i * PAGE, i * PAGE, true);
	result = refresh_one(&t.f, nested, IOVA, MIB / 2);
	assert_int_equal(result.verdict, VERDICT_RESOURCES);
	assert_int_equal(result.unmapped, 1); /* it is gone all the same */
	assert_int_equal(dma_write_at(&t, IOVA), EMULATED_DMA_NOT_MAPPED);
	function_free(&t.function);
	fixture_deinit(&t.f);
}

/* ── a cut that fails ──────────────────────────────────────────────────────────────────────── */

static pthread_t woken_on;

static void on_wake(void *context)
{
	woken_on = pthread_self();
	++*(unsigned int *)context;
}

/* Whatever could not be taken away is not left in front of a device. */
static void test_failed_cut_blocks_the_device(void **state)
{
	struct test *t = *state;
	uint64_t nested = register_attached(t), dropped;
	struct event_watch *watch;
	struct event event;
	struct range_result walk;
	unsigned int wakes = 0;

	assert_done(&t->f, event_watch_new(&watch, t->f.broker, t->f.session, t->f.guest, 0,
					   on_wake, &wakes, &t->f.refusal));
	table_map(&t->f, t->root, IOVA, PAGE, true);
	refresh_one(&t->f, nested, IOVA, PAGE);
	table_unmap(&t->f, t->root, IOVA);
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_CUT, ENOMEM);
	assert_int_equal(refresh_one(&t->f, nested, IOVA, PAGE).verdict, VERDICT_GONE);
	iommu_emulated_fail_every(t->f.backend, 0, 0);
	assert_int_not_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	assert_int_equal(event_watch_next(watch, &event), 1);
	assert_int_equal(event.kind, EVENT_DEVICE_BLOCKED);
	assert_int_equal(event.device, t->function.device);
	assert_int_equal(event.nested, nested);
	assert_true(wakes > 0);
	/* A reset takes its time: never on the thread that brought the refresh. */
	assert_false(pthread_equal(woken_on, pthread_self()));
	event_watch_free(watch);

	assert_int_equal(refresh_one(&t->f, nested, IOVA, PAGE).verdict, VERDICT_GONE);
	assert_false(describe_nested(t, nested).attached);
	assert_int_equal(describe_nested(t, nested).live_leaves, 0);
	assert_refused(&t->f,
		       device_attach(t->f.broker, t->f.session, t->function.device,
				     ATTACHMENT_NESTED, nested, &walk, &t->f.refusal),
		       REFUSAL_PRECONDITION);
	assert_string_equal(t->f.refusal.reason, "NESTED_BROKEN");
	assert_done(&t->f,
		    nested_destroy(t->f.broker, t->f.session, nested, &dropped, &t->f.refusal));
	assert_nothing_reserved(t);
	/* The device itself is as good as ever. */
	table_map(&t->f, t->root, IOVA, PAGE, true);
	register_attached(t);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
}

/* The same when guest memory goes: the memory is unpinned in any case. */
static void test_failed_cut_while_memory_goes(void **state)
{
	struct test *t = *state;
	uint64_t nested;

	assert_done(&t->f, memory_map_one(&t->f, t->f.memory_file, 0, 1ull << 40, PAGE, true));
	table_map(&t->f, t->root, IOVA, 1ull << 40, true);
	nested = register_attached(t);
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_CUT, ENOMEM);
	assert_done(&t->f, memory_unmap_one(&t->f, 1ull << 40, UINT64_MAX));
	iommu_emulated_fail_every(t->f.backend, 0, 0);
	assert_int_not_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	assert_int_equal(refresh_one(&t->f, nested, IOVA, PAGE).verdict, VERDICT_GONE);
	assert_int_equal(host_usage(&t->f, LEDGER_PINNED_BYTES).current, MEMORY_BYTES);
	assert_ledger_is_held(t->f.broker); /* and so are the pins */
	destroy_nested(t, nested);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, nested_setup, nested_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_anchor_faults),
		cmocka_unit_test(test_designations_are_narrowed),
		TEST(test_sequence),
		TEST(test_reservation),
		TEST(test_first_walk),
		TEST(test_walk_error_is_no_failure_of_the_registration),
		cmocka_unit_test(test_registration_out_of_mappings),
		TEST(test_unbound_device),
		TEST(test_refresh_verdicts),
		TEST(test_refresh_batch),
		TEST(test_refresh_refused),
		TEST(test_long_refresh),
		TEST(test_refresh_waits_for_the_lane),
		TEST(test_overspent_on_the_callers_thread),
		TEST(test_sweep),
		cmocka_unit_test(test_refresh_out_of_mappings),
		TEST(test_failed_cut_blocks_the_device),
		TEST(test_failed_cut_while_memory_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
