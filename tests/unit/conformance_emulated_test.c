/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Runs the conformance suite on the emulated backend, judged by its DMA engine. */

#include "conformance.h"

#include <stdlib.h>

#include "iommu/emulated/dma.h"
#include "iommu/emulated/emulated.h"

static void *emulated_open(int borrow_device_fd)
{
	struct emulated_dma *dma = NULL;

	assert_int_equal(emulated_dma_open(&dma, borrow_device_fd), 0);
	return dma;
}

static void emulated_close(void *dma)
{
	emulated_dma_close(dma);
}

static void emulated_add_memory(void *dma, int borrow_fd)
{
	assert_int_equal(emulated_dma_add_memory(dma, borrow_fd), 0);
}

static bool emulated_write(void *dma, uint64_t iova, uint64_t value)
{
	return emulated_dma_write(dma, iova, &value, sizeof(value), NULL) == EMULATED_DMA_OK;
}

static bool emulated_read(void *dma, uint64_t iova, uint64_t *ret)
{
	return emulated_dma_read(dma, iova, ret, sizeof(*ret), NULL) == EMULATED_DMA_OK;
}

static const struct conformance_dma_ops emulated_engine = {
	.open = emulated_open,
	.close = emulated_close,
	.add_memory = emulated_add_memory,
	.write = emulated_write,
	.read = emulated_read,
};

static uint64_t emulated_pinned_pages(struct iommu_context *context)
{
	struct iommu_emulated_counters counters;

	iommu_emulated_counters(context, &counters);
	return counters.pinned_pages;
}

int main(void)
{
	struct conformance_host host = {
		.device = {.by_fid = true, .fid = 1},
		.dma = &emulated_engine,
		.pinned_pages = emulated_pinned_pages,
		.counts_by_context = true,
	};
	int failed;

	if (iommu_emulated_new(&host.backend, NULL, 0) < 0)
		return EXIT_FAILURE;
	failed = conformance_run(&host);
	host.backend->ops->free(host.backend);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
