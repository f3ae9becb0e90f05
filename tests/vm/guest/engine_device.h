/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_ENGINE_DEVICE_H
#define IB_VM_ENGINE_DEVICE_H

/*
 * What engine.c and the drivers of single devices (engine_edu.c, engine_nvme.c) share: a device's
 * registers through its VFIO descriptor, and waiting with a limit.
 *
 * Registers are little-endian, whatever the machine is. They are reached by pread and pwrite, which
 * the kernel turns into the access of the architecture; a mapping of the BAR would need s390's own
 * instructions or system calls.
 */

#include "engine.h"

struct engine_kind {
	const char *name;
	uint16_t vendor, device;
	int (*start)(struct engine *engine);
	int (*write)(struct engine *engine, uint64_t iova, const void *bytes, size_t n);
	int (*read)(struct engine *engine, uint64_t iova, void *ret_bytes, size_t n);
};

extern const struct engine_kind engine_edu, engine_nvme;

/* A queue pair of nvme, in two pages of the workspace. */
struct nvme_queue {
	unsigned int id;    /* 0: admin */
	uint32_t *commands; /* NVME_QUEUE_ENTRIES of 16 words */
	uint32_t *answers;  /* NVME_QUEUE_ENTRIES of 4 words */
	unsigned int tail, head;
	unsigned int phase; /* of the answers of this round */
};

struct nvme {
	struct nvme_queue admin, io;
	unsigned int doorbell_bytes;
	unsigned int block_bytes;
	uint16_t command_id;
};

struct engine {
	const struct engine_kind *kind;
	int fd;                     /* borrowed */
	uint64_t registers, config; /* where BAR 0 and the configuration space begin in fd */
	struct engine_workspace workspace;
	bool ready; /* started, and nothing went wrong since */
	struct nvme nvme;
};

/* 0 or a negative errno; -EIO also where the kernel did a part of it. */
int engine_get32(struct engine *engine, unsigned int at, uint32_t *ret);
int engine_put32(struct engine *engine, unsigned int at, uint32_t value);
int engine_get64(struct engine *engine, unsigned int at, uint64_t *ret);
int engine_put64(struct engine *engine, unsigned int at, uint64_t value);

/* Memory space and bus mastering, on or off. */
int engine_enable(struct engine *engine, bool on);

/* One page of the workspace, as the device and as we see it. */
uint64_t engine_page_iova(const struct engine *engine, unsigned int page);
void *engine_page(const struct engine *engine, unsigned int page);

/* Waiting for a device: for (…; engine_patience_left(&p); ) look. Sleeps between the looks. */
struct engine_patience {
	uint64_t deadline_ns; /* CLOCK_MONOTONIC */
	uint64_t sleep_ns;
};

struct engine_patience engine_patience(uint64_t limit_ns, uint64_t sleep_ns);
bool engine_patience_left(const struct engine_patience *patience);
void engine_sleep(uint64_t ns);

#endif
