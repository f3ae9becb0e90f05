/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See restart_dma.h: functions of the emulated backend, whose mappings can be looked at. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "iommu/emulated/dma.h"
#include "restart_dma.h"

struct restart_dma {
	struct emulated_dma *engine;
	struct stat memory;
};

const struct restart_kind restart_kind;

static _Thread_local char said[96];

int restart_device_open(struct iommubroker_guest *guest, const char *name,
			struct iommubroker_device **ret, int *ret_fd,
			struct iommubroker_error **ret_error)
{
	return iommubroker_device_open_function(guest, (uint32_t)strtoul(name, NULL, 0), ret,
						ret_fd, ret_error);
}

const char *restart_dma_open(struct restart_dma **ret, int borrow_device_fd, int borrow_memory_fd,
			     const struct restart_workspace *workspace)
{
	struct restart_dma *dma = calloc(1, sizeof(*dma));

	(void)workspace;
	if (!dma || fstat(borrow_memory_fd, &dma->memory) ||
	    emulated_dma_open(&dma->engine, borrow_device_fd) ||
	    emulated_dma_add_memory(dma->engine, borrow_memory_fd))
		return "it cannot be opened";
	*ret = dma;
	return NULL;
}

struct restart_dma *restart_dma_close(struct restart_dma *dma)
{
	emulated_dma_close(dma->engine);
	free(dma);
	return NULL;
}

const char *restart_dma_transfer(struct restart_dma *dma, uint64_t iova, const void *bytes,
				 void *ret_back, size_t n)
{
	struct emulated_dma_fault fault;

	if (!emulated_dma_write(dma->engine, iova, bytes, n, &fault) &&
	    !emulated_dma_read(dma->engine, iova, ret_back, n, &fault))
		return NULL;
	snprintf(said, sizeof(said), "%s at %#" PRIx64, emulated_dma_reason_name(fault.reason),
		 fault.iova);
	return said;
}

bool restart_dma_wants_look(struct restart_dma *dma)
{
	(void)dma;
	return true;
}

const char *restart_dma_look(struct restart_dma *dma, uint64_t iova, uint8_t *host, uint64_t offset)
{
	struct emulated_dma_target target = {0};
	enum emulated_dma_reason reason = emulated_dma_translate(dma->engine, iova, &target);

	(void)host;
	if (reason != EMULATED_DMA_OK)
		return emulated_dma_reason_name(reason);
	if (target.ino == dma->memory.st_ino && target.offset == offset)
		return NULL;
	snprintf(said, sizeof(said), "what is at %#" PRIx64 " in memory", target.offset);
	return said;
}

bool restart_dma_reaches(struct restart_dma *dma, uint64_t iova)
{
	return emulated_dma_translate(dma->engine, iova, &(struct emulated_dma_target){0}) ==
	       EMULATED_DMA_OK;
}
