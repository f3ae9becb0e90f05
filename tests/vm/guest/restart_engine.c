/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The devices of tests/scenario/restart_vmm.c in a machine: real ones, whose DMA tells what is
 * mapped, where it is. See restart_dma.h.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "restart_dma.h"

#define STAMP_WORDS 8u
/* An edu takes 200 ms of the machine's time for a look. */
#ifdef __s390x__
#define LOOK_EVERY 4u
#else
#define LOOK_EVERY 127u
#endif

_Static_assert(RESTART_WORKSPACE_PAGES == ENGINE_WORKSPACE_PAGES, "the engine's workspace");

struct restart_dma {
	struct engine *engine;
	pthread_mutex_t lock; /* the engine */
	size_t stamp_at;      /* in a page; two devices may show the same */
	_Atomic unsigned int looks;
};

const struct restart_kind restart_kind = {
	.faults = true,
#ifdef __s390x__
	.forgets = true,
#endif
};

static _Thread_local char said[96];

static const char *said_errno(const char *what, int r)
{
	snprintf(said, sizeof(said), "%s: %s", what, strerror(-r));
	return said;
}

int restart_device_open(struct iommubroker_guest *guest, const char *name,
			struct iommubroker_device **ret, int *ret_fd,
			struct iommubroker_error **ret_error)
{
	return iommubroker_device_open_pci(guest, name, ret, ret_fd, ret_error);
}

const char *restart_dma_open(struct restart_dma **ret, int borrow_device_fd, int borrow_memory_fd,
			     const struct restart_workspace *workspace)
{
	const struct engine_workspace engine_workspace = {
		.iova = workspace->iova,
		.host = workspace->host,
	};
	static _Atomic unsigned int opened;
	struct restart_dma *dma = calloc(1, sizeof(*dma));
	int r;

	(void)borrow_memory_fd;
	if (!dma)
		return "no memory";
	r = engine_open(&dma->engine, borrow_device_fd, &engine_workspace);
	if (r < 0)
		return said_errno("its registers", r);
	r = engine_start(dma->engine);
	if (r < 0)
		return said_errno("it does not start", r);
	pthread_mutex_init(&dma->lock, NULL);
	dma->stamp_at = 64 * (size_t)(atomic_fetch_add(&opened, 1) % 64);
	*ret = dma;
	return NULL;
}

struct restart_dma *restart_dma_close(struct restart_dma *dma)
{
	engine_close(dma->engine);
	pthread_mutex_destroy(&dma->lock);
	free(dma);
	return NULL;
}

const char *restart_dma_transfer(struct restart_dma *dma, uint64_t iova, const void *bytes,
				 void *ret_back, size_t n)
{
	int r;

	pthread_mutex_lock(&dma->lock);
	r = engine_write(dma->engine, iova, bytes, n);
	if (!r)
		r = engine_read(dma->engine, iova, ret_back, n);
	pthread_mutex_unlock(&dma->lock);
	return r < 0 ? said_errno("the device tells of an error", r) : NULL;
}

bool restart_dma_wants_look(struct restart_dma *dma)
{
	return atomic_fetch_add(&dma->looks, 1) % LOOK_EVERY == 0;
}

const char *restart_dma_look(struct restart_dma *dma, uint64_t iova, uint8_t *host, uint64_t offset)
{
	static _Atomic uint64_t serial;
	uint64_t stamp[STAMP_WORDS];
	int r;

	(void)offset;
	for (size_t i = 0; i < STAMP_WORDS; i++)
		stamp[i] = (atomic_fetch_add(&serial, 1) + 1) * UINT64_C(0x9e3779b97f4a7c15);
	pthread_mutex_lock(&dma->lock);
	r = engine_write(dma->engine, iova + dma->stamp_at, stamp, sizeof(stamp));
	pthread_mutex_unlock(&dma->lock);
	if (r < 0)
		return said_errno("the device tells of an error", r);
	if (memcmp(host + dma->stamp_at, stamp, sizeof(stamp)))
		return "another page, or none";
	return NULL;
}

bool restart_dma_reaches(struct restart_dma *dma, uint64_t iova)
{
	(void)dma;
	(void)iova;
	return false;
}
