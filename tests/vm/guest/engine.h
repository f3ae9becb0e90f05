/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_ENGINE_H
#define IB_VM_ENGINE_H

/*
 * A real device's DMA, driven by the VMM that holds its descriptor: QEMU's "edu"
 * (docs/specs/edu.rst) on x86-64 and its "nvme" (NVM Express 1.4, a polled driver with one queue
 * pair) on s390x.
 *
 * Both can only copy between memory and a place of their own, so an engine has a workspace: pages
 * that are mapped for reading and writing, at consecutive IOVAs, in whatever the device is attached
 * to whenever a function below is called that says so. Data takes the way memory, device, memory,
 * all of it by DMA.
 *
 * One engine is used by one thread at a time. Results are 0 or a negative errno.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENGINE_PAGE_BYTES      4096u
#define ENGINE_WORKSPACE_PAGES 8u

struct engine;

struct engine_workspace {
	uint64_t iova; /* first page's */
	uint8_t *host; /* ENGINE_WORKSPACE_PAGES pages; borrowed for the engine's life */
};

/* Whether there is a driver for devices with these PCI ids. */
bool engine_knows(uint16_t vendor, uint16_t device);
/* For a bound device's descriptor, which is borrowed for the engine's life. -ENODEV: neither kind
 * of device. Does no DMA. */
int engine_open(struct engine **ret, int borrow_device_fd,
		const struct engine_workspace *workspace);
/* Leaves the device as it is. NULL is fine. Returns NULL. */
struct engine *engine_close(struct engine *engine);
const char *engine_name(const struct engine *engine); /* "edu", "nvme" */

/* Makes the device ready, also again after engine_reset() or a fault. Workspace mapped. -ETIMEDOUT:
 * the device does not become ready, as when its DMA is blocked. */
int engine_start(struct engine *engine);

/*
 * The device writes to, or reads from, n bytes at iova: 8 to ENGINE_PAGE_BYTES, all in one page.
 * Workspace mapped. 0: as far as the device can tell it happened (edu never tells; look at the
 * memory, and expect nothing of what was read). -EIO: the device reported an error. -ETIMEDOUT: it
 * does not answer any more; engine_reset() and engine_start() are next. On s390x every blocked
 * access puts the function into error state, which is the one or the other.
 */
int engine_write(struct engine *engine, uint64_t iova, const void *bytes, size_t n);
int engine_read(struct engine *engine, uint64_t iova, void *ret_bytes, size_t n);

/* VFIO_DEVICE_RESET, as a VMM does it, or where the kernel knows no reset for the device bus
 * mastering off; engine_start() is next. Does no DMA. */
int engine_reset(struct engine *engine);

#endif
