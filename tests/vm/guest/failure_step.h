/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_FAILURE_STEP_H
#define IB_VM_FAILURE_STEP_H

/* The steps of a life (failure_life.h), one call of the library each, and what they share. */

#include "failure_life.h"
#include "failure_memory.h"

struct life {
	const char *fd_sock;
	struct guest_memory memory;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_memory_file *main, *side;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested, *managed;
	struct engine *engine;
	int device_fd;
	bool dma;
	bool stopped; /* the daemon blocked the device for good, and its VMM has to start it again
		       */
	uint64_t token;
	unsigned int n_events[16];
};

/* The VMM's side only: its descriptor and object. */
void device_forget(struct life *life);

struct outcome step_session(struct life *life);
struct outcome step_guest(struct life *life);
struct outcome step_main_file(struct life *life);
struct outcome step_side_file(struct life *life);
struct outcome step_memory(struct life *life);
struct outcome step_region_changes(struct life *life);
struct outcome step_region_goes(struct life *life);
struct outcome step_region_returns(struct life *life);
struct outcome step_grow(struct life *life);
struct outcome step_shrink(struct life *life);
struct outcome step_unmap_all(struct life *life);
struct outcome step_remove_file(struct life *life);
struct outcome step_open(struct life *life);
struct outcome step_bind(struct life *life);
struct outcome step_info(struct life *life);
struct outcome step_attach_relaxed(struct life *life);
struct outcome step_attach_parent(struct life *life);
struct outcome step_block(struct life *life);
struct outcome step_attach_managed(struct life *life);
struct outcome step_attach_again(struct life *life);
struct outcome step_close(struct life *life);
struct outcome step_register(struct life *life);
struct outcome step_refresh_maps(struct life *life);
struct outcome step_refresh_cuts(struct life *life);
struct outcome step_refresh_changes(struct life *life);
struct outcome step_replace(struct life *life);
struct outcome step_replace_relaxed(struct life *life);
struct outcome step_replace_back(struct life *life);
struct outcome step_managed(struct life *life);
struct outcome step_managed_update(struct life *life);
struct outcome step_managed_destroy(struct life *life);
struct outcome step_deregister(struct life *life);
struct outcome step_destroy(struct life *life);

#endif
