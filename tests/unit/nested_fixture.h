/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_NESTED_FIXTURE_H
#define IB_TESTS_NESTED_FIXTURE_H

/* A guest with memory, a bound function, and an empty table to register. */

#include "broker_fixture.h"

#define IOVA  (DMA_BASE + 0x10000)
#define FIRST DMA_BASE
#define LAST  (DMA_BASE + 4096 * MIB - 1)

struct test {
	struct fixture f;
	struct function function;
	uint64_t root;
};

void nested_test_init(struct test *t, const struct broker_settings *settings);
int nested_setup(void **state);
int nested_teardown(void **state);
struct nested_created register_tables(struct test *t, bool attach);
uint64_t register_attached(struct test *t);
enum emulated_dma_reason dma_write_at(struct test *t, uint64_t iova);
struct range_result attach_function(struct test *t, enum attachment to, uint64_t nested);
struct nested_created replace_anchor(struct test *t, uint64_t nested, uint64_t iota, uint64_t pba,
				     uint64_t pal);
struct nested_description describe_nested(struct test *t, uint64_t nested);
void destroy_nested(struct test *t, uint64_t nested);
void assert_nothing_reserved(struct test *t);

#endif
