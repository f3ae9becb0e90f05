/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The bound on what a message may take when it is unpacked. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "iommubroker/v1/memory.pb-c.h"
#include "rpc/message_arena.h"

static struct message_arena arena;

static void test_alignment_and_separation(void **state)
{
	uint8_t *at[64];

	(void)state;
	message_arena_init(&arena, 1 << 20);
	for (size_t i = 0; i < 64; i++) {
		at[i] = message_arena_alloc(&arena, 1 + i * 37);
		assert_non_null(at[i]);
		assert_int_equal((uintptr_t)at[i] % 16, 0);
		memset(at[i], (int)i, 1 + i * 37);
	}
	for (size_t i = 0; i < 64; i++)
		for (size_t j = 0; j < 1 + i * 37; j++)
			assert_int_equal(at[i][j], i);
	message_arena_deinit(&arena);
}

static void test_bound(void **state)
{
	(void)state;
	message_arena_init(&arena, 4096);
	assert_non_null(message_arena_alloc(&arena, 4096));
	assert_false(arena.over_bound);
	assert_null(message_arena_alloc(&arena, 1));
	assert_true(arena.over_bound);
	assert_false(arena.out_of_memory);
	message_arena_reset(&arena);
	assert_false(arena.over_bound);
	/* what is handed out is rounded up, and counted so */
	for (size_t i = 0; i < 4096 / 16; i++)
		assert_non_null(message_arena_alloc(&arena, 1));
	assert_null(message_arena_alloc(&arena, 1));
	message_arena_deinit(&arena);
}

static void test_lengths_that_wrap(void **state)
{
	(void)state;
	message_arena_init(&arena, 4096);
	assert_null(message_arena_alloc(&arena, SIZE_MAX));
	assert_null(message_arena_alloc(&arena, SIZE_MAX - 14));
	assert_null(message_arena_array(&arena, SIZE_MAX / 8, 16));
	assert_null(message_arena_array(&arena, 2, SIZE_MAX / 2 + 2));
	assert_int_equal(arena.used_bytes, 0);
	message_arena_deinit(&arena);
}

static void test_array_is_zeroed(void **state)
{
	uint8_t *dirty, *clean;

	(void)state;
	message_arena_init(&arena, 1 << 20);
	dirty = message_arena_alloc(&arena, 100);
	memset(dirty, 0xff, 100);
	message_arena_reset(&arena);
	clean = message_arena_array(&arena, 10, 10);
	assert_ptr_equal(clean, dirty);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(clean[i], 0);
	message_arena_deinit(&arena);
}

static void *unpack(size_t bound, const uint8_t *bytes, size_t n_bytes)
{
	message_arena_init(&arena, bound);
	return protobuf_c_message_unpack(&iommubroker__v1__update_memory_request__descriptor,
					 &arena.allocator, n_bytes, bytes);
}

/* The largest legal request fits the bound that calls have; protobuf-c gives up below it at any
 * allocation, and nothing is left behind (seen by the address sanitizer). */
static void test_unpack_within_the_bound(void **state)
{
	static const uint8_t map[] = {0x22, 0x0d, 0x09, 1,    0,    0,    0,   0,
				      0,    0,    0,    0x18, 0x01, 0x30, 0x01};
	size_t n_bytes = 512 * sizeof(map), need;
	Iommubroker__V1__UpdateMemoryRequest *request;
	uint8_t *bytes = malloc(n_bytes);

	(void)state;
	for (size_t i = 0; i < 512; i++)
		memcpy(bytes + i * sizeof(map), map, sizeof(map));
	request = unpack(1 << 20, bytes, n_bytes);
	assert_non_null(request);
	assert_int_equal(request->n_map, 512);
	assert_int_equal(request->map[511]->memory_file, 1);
	need = arena.used_bytes;
	message_arena_deinit(&arena);
	assert_true(need < (1 << 19));
	for (size_t bound = 0; bound < need; bound += 16) {
		assert_null(unpack(bound, bytes, n_bytes));
		assert_true(arena.over_bound);
		message_arena_deinit(&arena);
	}
	assert_non_null(unpack(need, bytes, n_bytes));
	message_arena_deinit(&arena);
	free(bytes);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alignment_and_separation),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_lengths_that_wrap),
		cmocka_unit_test(test_array_is_zeroed),
		cmocka_unit_test(test_unpack_within_the_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
