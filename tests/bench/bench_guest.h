/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_BENCH_GUEST_H
#define IB_TESTS_BENCH_GUEST_H

/* A guest with s390 tables of one segment at a running daemon, for the benchmarks, and their
 * arithmetic. Whatever fails ends the program with a word about it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommubroker.h"

#define BENCH_MEMORY_BYTES  (64u << 20)
#define BENCH_REGION_TABLE  0x100000u
#define BENCH_SEGMENT_TABLE 0x104000u
#define BENCH_PAGE_TABLE    0x108000u
#define BENCH_WINDOW_FIRST  UINT64_C(0x100000000)
#define BENCH_WINDOW_LAST   UINT64_C(0x17fffffff)

struct bench_guest {
	uint8_t *memory;
	int memory_fd;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_memory_file *file;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested;
	uint32_t nested_index;
	int device_fd;
	bool mapped;
};

void must(bool holds, const char *what);
double now_ns(void);
/* p from 0 to 1; sorts the values. */
double percentile(double *values, size_t n, double p);
double median(double *values, size_t n);

/* Memory and empty tables; then all else, with the device of that function, attached. */
void bench_memory_make(struct bench_guest *guest);
void bench_guest_make(struct bench_guest *guest, const char *runtime_dir, uint32_t function);
/* Ends the session, and with it all that it had; the memory stays. */
void bench_guest_end(struct bench_guest *guest);
void bench_entry_write(struct bench_guest *guest, uint64_t gpa, uint64_t entry);
/* Changes the first leaf, by turns valid and invalid, and refreshes it; must do something. */
void bench_leaf_change(struct bench_guest *guest);
void bench_leaf_refresh(struct bench_guest *guest);

#endif
