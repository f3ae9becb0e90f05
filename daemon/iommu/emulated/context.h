/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_CONTEXT_H
#define IB_IOMMU_EMULATED_CONTEXT_H

/*
 * A context: the table of its objects, and what they share.
 *
 * Locks, in the order in which they are taken:
 *   1. the lock of an IOAS; of two, the one with the lower id first
 *   2. context->lock: the object table
 *   3. the locks of the arenas and of the table of memories; none of them under another
 * The backend's lock (open functions) is never held together with any of them. All calls on one
 * device are serialised by the caller, but what is done to an IOAS also writes the tables of the
 * devices attached to it: these belong to the lock of the IOAS that the device is attached to.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "iommu/backend.h"
#include "iommu/emulated/arena.h"
#include "iommu/emulated/emulated.h"
#include "iommu/emulated/memory.h"
#include "iommu/emulated/radix.h"

struct emulated_backend;

struct emulated_object {
	uint32_t id;
	enum emulated_object_kind kind;
	unsigned int users; /* context->lock: calls that use it, and objects that refer to it */
};

struct emulated_ioas {
	struct emulated_object object;
	struct iommu_context *context;
	bool cuttable;
	pthread_rwlock_t lock; /* of what follows */
	struct radix radix;
	unsigned int n_page_tables;
	struct iommu_device *devices; /* attached through any of them, linked by next_attached */
};

struct emulated_page_table {
	struct emulated_object object;
	struct emulated_ioas *ioas; /* holds a use */
};

struct iommu_context {
	struct emulated_backend *backend;
	struct arena arena; /* its file is the context's descriptor */
	struct emulated_memory_table memory;

	pthread_mutex_t lock;
	struct emulated_object **objects; /* EMULATED_OBJECTS_MAX */
	uint32_t lowest_free;
	struct emulated_object_record *records; /* in the file, written and never read */
	struct iommu_device *devices;           /* bound, linked by next_bound */

	struct {
		_Atomic uint64_t maps, copies, unmaps, cuts;
	} counters; /* calls that succeeded */
};

/* 0 or an errno. */
int emulated_context_new(struct emulated_backend *backend, struct iommu_context **ret);
/* One that another process made, from its state file, which is consumed also on failure: adopt.c.
 * 0, EINVAL (it is none), ENOMEM. Its devices are to be adopted; until then an object that nobody
 * can destroy stands for each. */
int emulated_context_adopt(struct emulated_backend *backend, int consume_fd,
			   struct iommu_context **ret);
/* A bound device takes its object's place. EINVAL: there is none for it. */
int emulated_context_adopt_device(struct iommu_context *context, struct iommu_device *device,
				  uint32_t id, uint32_t *ret_page_table);
bool emulated_context_has_device(struct iommu_context *context, uint32_t id);
/* Objects of devices that were never adopted. */
void emulated_context_drop_absent(struct iommu_context *context);
/* For adopt.c: empty, without a file; and what comes with the file. emulated_context_free() frees
 * it at any time. */
struct iommu_context *emulated_context_alloc(
	struct emulated_backend *backend); /* NULL: no memory */
int emulated_context_init(struct iommu_context *context);

/* Blocks and unbinds what is still bound. Returns NULL; NULL is fine. */
struct iommu_context *emulated_context_free(struct iommu_context *context);

/* Give the object the lowest free id and publish it. record: what the state file says of it. 0, or
 * ENOMEM. */
int emulated_object_add(struct iommu_context *context, struct emulated_object *object,
			enum emulated_object_kind kind, uint32_t cuttable, uint32_t over,
			uint32_t root);
/* The object of that kind, with a use that emulated_object_put() gives back, or NULL. */
struct emulated_object *emulated_object_get(struct iommu_context *context, uint32_t id,
					    enum emulated_object_kind kind);
void emulated_object_put(struct iommu_context *context, struct emulated_object *object);
/* Take it out of the table. 0, or EBUSY while anyone but the caller uses it. */
int emulated_object_remove(struct iommu_context *context, struct emulated_object *object,
			   unsigned int own_uses);
/* A device's record: attached to this page table, or to 0. */
void emulated_object_attached(struct iommu_context *context, uint32_t id, uint32_t page_table);

int emulated_page_table_new(struct iommu_context *context, struct iommu_device *device,
			    uint32_t ioas, uint32_t *ret_page_table);
/* An IOAS or a page table. 0, ENOENT, EBUSY. */
int emulated_context_destroy(struct iommu_context *context, uint32_t id);

#endif
