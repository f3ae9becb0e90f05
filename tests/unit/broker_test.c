/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The main job from a session's beginning to its end, judged by DMA. */
#include "broker_fixture.h"

#include <string.h>
#include <unistd.h>

#define IOVA (DMA_BASE + 0x10000)
#define LAST (DMA_BASE + 256 * MIB - 1)

static int setup(void **state)
{
	static struct fixture f;
	struct broker_settings settings = settings_default();

	fixture_init_guest(&f, &settings);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_deinit(*state);
	return 0;
}

static uint64_t memory_word(struct fixture *f, uint64_t gpa)
{
	uint64_t word;

	memcpy(&word, f->memory + gpa, sizeof(word));
	return word;
}

static void test_main_job(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	uint64_t root = table_root(f), value = 0x1122334455667788, dropped;
	struct nested_created created;
	struct range_result result;

	table_map(f, root, IOVA, 0x3000, true);
	created = nested_make_s390(f, function.device, root, DMA_BASE, LAST, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.mapped, 1);
	assert_int_equal(emulated_dma_write(function.dma, IOVA, &value, 8, NULL), EMULATED_DMA_OK);
	assert_int_equal(memory_word(f, 0x3000), value);

	table_map(f, root, IOVA + PAGE, 0x5000, false);
	table_unmap(f, root, IOVA);
	result = refresh_one(f, created.nested, IOVA, 2 * PAGE);
	assert_int_equal(result.verdict, VERDICT_DONE);
	assert_int_equal(result.mapped, 1);
	assert_int_equal(result.unmapped, 1);
	assert_int_equal(emulated_dma_write(function.dma, IOVA, &value, 8, NULL),
			 EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(emulated_dma_write(function.dma, IOVA + PAGE, &value, 8, NULL),
			 EMULATED_DMA_READ_ONLY);

	assert_done(f,
		    nested_destroy(f->broker, f->session, created.nested, &dropped, &f->refusal));
	assert_int_equal(dropped, 1);
	assert_int_equal(emulated_dma_read(function.dma, IOVA + PAGE, &value, 8, NULL),
			 EMULATED_DMA_BLOCKED);
	assert_done(f, guest_destroy(f->broker, f->session, f->guest, &f->refusal));
	assert_ledger_empty(f);
	function_free(&function);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_main_job, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
