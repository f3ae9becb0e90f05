/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_EMULATED_FIXTURE_H
#define IB_TESTS_EMULATED_FIXTURE_H

/* A context of the emulated backend, a memory file, and functions with their engines. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "iommu/emulated/device_file.h"
#include "iommu/emulated/dma.h"
#include "iommu/emulated/emulated.h"

#define PAGE         UINT64_C(4096)
#define MEMORY_PAGES 256u
#define RW           (IOMMU_PROT_READ | IOMMU_PROT_WRITE)
#define BASE         UINT64_C(0x100000000) /* start of DMA of the default functions */

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

struct fixture {
	struct iommu_backend *backend;
	const struct iommu_backend_ops *ops;
	struct iommu_context *context;
	struct iommu_file file;
	uint64_t *memory;
};

/* A bound function and its engine. */
struct function {
	struct iommu_device *device;
	struct emulated_dma *dma;
	uint32_t id;
};

void memory_new(struct iommu_file *ret, uint64_t **ret_memory);
void memory_free(struct iommu_file *file);
int setup(void **state);
int teardown(void **state);
struct function function_of(struct fixture *f, struct iommu_device *device);
struct function function_new(struct fixture *f, uint32_t fid);
void function_free(struct fixture *f, struct function *function);
uint32_t space_new(struct fixture *f, struct function *function, bool cuttable,
		   uint32_t *ret_table);
int map(struct fixture *f, uint32_t ioas, uint64_t iova, uint64_t memory_page, uint64_t n);
enum emulated_dma_reason dma_write(struct function *function, uint64_t iova, uint64_t value);
uint64_t word_of(struct fixture *f, uint64_t page);
struct iommu_emulated_counters counters_of(struct fixture *f);
int device_file_new(uint32_t fid, uint64_t first, uint64_t last);

#endif
