/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_DEVICE_H
#define IB_BROKER_DEVICE_H

/*
 * A device of a guest: opened, bound, attached to something or to nothing.
 *
 * All calls of the backend on one device are made under device->call_lock, for a nested domain that
 * could not be emptied is blocked by the thread that finds it so, which holds only that nested
 * domain's lane. The lock is held across the call, which may be a reset; it is taken with lanes
 * held, and no lane is entered while it is.
 */

#include <pthread.h>

#include "broker/device_rule.h"
#include "broker/handle.h"
#include "broker/relaxed.h"

struct nested;

struct device {
	struct object object;
	struct iommu_device *backend; /* NULL once it was closed */
	pthread_mutex_t call_lock;
	bool passed;            /* as a descriptor that the client opened; fixed */
	struct relaxed relaxed; /* what ATTACHMENT_RELAXED is attached to; lane */
	uint32_t index;         /* of its stored descriptor; fixed */
	/* lane. The kernel has it bound, as kernel_id; bound says that all that belongs to it is
	 * done as well. */
	bool kernel_bound;
	uint32_t kernel_id;

	/* call_lock */
	bool has_page_table; /* attached, as far as we had it done */
	bool disturbed;      /* an attach failed since */
	uint32_t page_table;

	/* guest->lock to change */
	bool relaxed_granted;
	bool bound;
	enum attachment attachment;
	struct nested *attached; /* with ATTACHMENT_NESTED */
	struct iommu_device_info info;
	size_t n_iova_ranges;
	struct iommu_range iova_ranges[IOMMU_IOVA_RANGES_MAX];

	struct device *prev, *next;
};

/* A reference on the guest's lane, or NULL and REFUSED. */
struct device *device_find(struct broker *broker, struct session *session, uint64_t handle,
			   struct refusal *refusal);
void device_unref(struct device *device);

/* The kernel's errno. Waits a little while the device is in reset. */
int device_backend_attach(struct device *device, uint32_t page_table);
int device_refuse_attach(int error, struct refusal *refusal);
/* After an attach that failed for good: to what it was attached to, or blocked, and told. */
void device_attach_back(struct device *device);

/* One of a process before this one, whose descriptor was stored: in its guest's list, not yet
 * looked at whether it is attached as it should be. kernel_id 0: not bound. 0, REFUSED or a
 * negative errno. */
struct record_device;
int device_restore(struct guest *guest, const struct record_device *record, int consume_fd,
		   uint32_t kernel_id, struct refusal *refusal);
/* What it can do, read again once it is bound. 0 or REFUSED. */
int device_read_bound(struct device *device, struct refusal *refusal);

/* What of a user page table's designations may be registered for it. */
unsigned int device_designations(const struct device *device);
int device_refuse_unbound(struct refusal *refusal);

/* What it is attached to; ret_nested may be NULL. */
enum attachment device_attachment(struct device *device, struct nested **ret_nested);
/* What it is attached to from now on. nested: with ATTACHMENT_NESTED. */
void device_set_attachment(struct device *device, enum attachment attachment,
			   struct nested *nested);

/* Detach it, whatever it is attached to, after a stop if asked. false: the backend would not. */
bool device_block(struct device *device, bool stop);
/* The same because something that must be gone could not be taken away, and tell it. */
void device_block_broken(struct device *device, uint64_t nested);

/* Close our descriptor, if it is open. ret_still_held may be NULL. */
void device_close_backend(struct device *device, bool *ret_still_held);
/* Stop, block, drop its nested domains and its relaxed mapping, close: teardown.c. */
void device_take_down(struct device *device, bool *ret_still_held);

/* Whose device it is. Borrowed from the guest. */
struct device_client device_client(const struct guest *guest);
/* What the rules that hold now say of an opened device. Any thread. */
void device_judge_open(const struct device *device, struct device_judgement *ret);

#endif
