/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Runs the conformance suite. By default on the emulated backend, judged by its DMA engine; with
 * --backend=iommufd on this machine's kernel, on the PCI device of --device=dddd:bb:ss.f, which
 * must be at the VFIO driver. Exit status 77: no such kernel interface here.
 */

#include "conformance.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iommu/emulated/dma.h"
#include "iommu/emulated/emulated.h"

#define EXIT_SKIPPED 77

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

static int host_open(struct conformance_host *host, const char *backend, const char *device)
{
	int r;

	if (strcmp(backend, "emulated") == 0) {
		host->device = (struct iommu_device_address){.by_fid = true, .fid = 1};
		host->dma = &emulated_engine;
		host->pinned_pages = emulated_pinned_pages;
		return iommu_emulated_new(&host->backend, NULL, 0);
	}
	if (strcmp(backend, "iommufd") != 0 || !device ||
	    strlen(device) >= sizeof(host->device.pci_address))
		return -EINVAL;
	strcpy(host->device.pci_address, device);
	r = iommu_iommufd_new(&host->backend, "/dev/iommu", "/dev/vfio", "/sys");
	return r;
}

static int usage(const char *name)
{
	fprintf(stderr, "usage: %s [--backend=emulated|--backend=iommufd --device=PCI-ADDRESS]\n",
		name);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"backend", required_argument, NULL, 'b'},
		{"device", required_argument, NULL, 'd'},
		{0},
	};
	const char *backend = "emulated", *device = NULL;
	struct conformance_host host = {0};
	int c, r;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			backend = optarg;
		else if (c == 'd')
			device = optarg;
		else
			return usage(argv[0]);
	}
	r = host_open(&host, backend, device);
	if (r == -ENOENT)
		return EXIT_SKIPPED;
	if (r < 0)
		return usage(argv[0]);
	r = conformance_run(&host);
	host.backend->ops->free(host.backend);
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}
