/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_MEMORY_FIXTURE_H
#define IB_TESTS_MEMORY_FIXTURE_H

/* A guest with a second file, a managed nested domain that shows what is asked for, and one request
 * to be filled and run. */

#include "broker_fixture.h"

#define HIGH  (1ull << 40) /* guest address of a second file */
#define OTHER (1 * MIB)    /* its length */

struct test {
	struct fixture f;
	int fd; /* of the second file */
	uint8_t *host;
	uint64_t file;
	struct function function;
	uint64_t nested;
	struct memory_update_request request;
	struct memory_updated updated;
};

void memory_test_init(struct test *t, const struct broker_settings *settings);
int memory_setup(void **state);
int memory_teardown(void **state);
void memory_bind(struct test *t);
void memory_show(struct test *t, uint64_t iova, uint64_t gpa, uint64_t length);
enum emulated_dma_reason memory_write(struct test *t, uint64_t iova, uint8_t value);
void request_clear(struct test *t);
struct memory_map_entry *request_map(struct test *t, uint64_t file, uint64_t offset, uint64_t gpa,
				     uint64_t length);
void request_unmap(struct test *t, uint64_t first, uint64_t last);
int request_run(struct test *t);
uint64_t pinned_bytes(struct test *t);
size_t region_count(struct test *t);

#endif
