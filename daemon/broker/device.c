/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/describe.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "util/clock.h"
#include "util/crash_point.h"
#include "util/fd.h"

#define ATTACH_TRIES      50
#define ATTACH_RETRY_NS   10000000ull /* a function's reset takes some 100 ms */
#define ZPCI_FUNCTION_ISM 5           /* reset before its translation changes */

struct device *device_find(struct broker *broker, struct session *session, uint64_t handle,
			   struct refusal *refusal)
{
	return (struct device *)handle_find(broker, session, handle, OBJECT_DEVICE, refusal);
}

void device_unref(struct device *device)
{
	if (device)
		object_unref(&device->object);
}

/* ── whose ──────────────────────────────────────────────────────────────────────────────────── */

struct device_client device_client(const struct guest *guest)
{
	return (struct device_client){
		.tenant = guest->tenant_name,
		.uid = guest->owner_uid,
	};
}

void device_judge_open(const struct device *device, struct device_judgement *ret)
{
	const struct guest *guest = device->object.guest;
	const struct device_client client = device_client(guest);
	struct policy *policy = policy_get(guest->broker);

	device_judge(&policy->settings, &client, device->passed, &device->info, ret);
	policy_unref(policy);
}

/* ── bind ──────────────────────────────────────────────────────────────────────────────────── */

static int refuse_bind(int error, struct refusal *refusal)
{
	if (error == EBUSY)
		return refuse(refusal, REFUSAL_PRECONDITION, "DEVICE_IN_USE",
			      "the function is bound already, or another of its group is bound "
			      "elsewhere");
	if (error == EACCES || error == EINVAL)
		return refuse(refusal, REFUSAL_PRECONDITION, "BIND_REFUSED",
			      "the kernel refused to bind the function: a virtual function needs "
			      "its owner's vf_token");
	return refuse_errno(refusal, error, "binding the function");
}

int device_read_bound(struct device *device, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	const struct iommu_backend_ops *ops = broker_ops(guest->broker);
	struct iommu_range ranges[IOMMU_IOVA_RANGES_MAX];
	struct iommu_device_info info;
	size_t n = 0;
	int error = ops->device_info(device->backend, &info);

	if (!error)
		error = ops->iova_ranges(guest->context, guest->parent.ioas, ranges,
					 IOMMU_IOVA_RANGES_MAX, &n);
	if (error)
		return refuse_errno(refusal, error, "reading what the function can do");
	n = n < IOMMU_IOVA_RANGES_MAX ? n : IOMMU_IOVA_RANGES_MAX;
	info.kernel_device_id = device->kernel_id;
	pthread_mutex_lock(&guest->lock);
	device->info = info;
	device->n_iova_ranges = n;
	memcpy(device->iova_ranges, ranges, n * sizeof(ranges[0]));
	device->bound = true;
	pthread_mutex_unlock(&guest->lock);
	device->object.stage = RECORD_LIVE;
	CRASH_POINT(BIND_DONE);
	return 0;
}

/* VFIO unbinds a function only when its last descriptor is closed, and the VMM holds one: after a
 * bind that has to be undone the device is closed, and said so. */
static int device_undo_bind(struct device *device, struct refusal *refusal)
{
	size_t used = strlen(refusal->message);

	device_take_down(device, NULL);
	snprintf(refusal->message + used, sizeof(refusal->message) - used,
		 "; the device was closed: close its descriptor and open it again");
	return REFUSED;
}

/* Written down first: bound by a process that died at once, it can only be told from others by
 * having no record. */
static int device_bind_backend(struct device *device, const uint8_t *vf_token,
			       struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	int error;

	device->object.stage = RECORD_BINDING;
	if (save_guest(guest, refusal)) {
		device->object.stage = RECORD_LIVE;
		return REFUSED;
	}
	CRASH_POINT(BIND_WRITTEN);
	if (device->kernel_bound) /* by a process before this one */
		return 0;
	pthread_mutex_lock(&device->call_lock);
	error = broker_ops(guest->broker)
			->device_bind(device->backend, guest->context, vf_token,
				      &device->kernel_id);
	pthread_mutex_unlock(&device->call_lock);
	device->kernel_bound = !error;
	CRASH_POINT(BIND_BOUND);
	if (!error) {
		save_note_id(guest, device->kernel_id);
		return 0;
	}
	device->object.stage = RECORD_LIVE;
	return refuse_bind(error, refusal);
}

static int device_bind_in(struct device *device, const uint8_t *vf_token,
			  struct operation *operation, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;

	if (device->bound)
		return refuse(refusal, REFUSAL_PRECONDITION, "DEVICE_BOUND",
			      "the device is bound already");
	if (broker_refuse_draining(guest->broker, refusal))
		return REFUSED;
	if (device_bind_backend(device, vf_token, refusal))
		return REFUSED;
	if (!guest->pinned && parent_pin(guest, device, operation, refusal))
		return device_undo_bind(device, refusal);
	if (device_read_bound(device, refusal))
		return device_undo_bind(device, refusal);
	return 0;
}

int device_bind(struct broker *broker, struct session *session, uint64_t handle,
		const uint8_t *vf_token, struct operation *operation,
		struct device_description *ret, struct refusal *refusal)
{
	struct device *device = device_find(broker, session, handle, refusal);
	int status;

	if (!device)
		return REFUSED;
	status = device_bind_in(device, vf_token, operation, refusal);
	if (!status)
		device_fill_description(device, ret);
	device_unref(device);
	return status;
}

/* ── attached to what ──────────────────────────────────────────────────────────────────────── */

void device_set_attachment(struct device *device, enum attachment attachment, struct nested *nested)
{
	struct guest *guest = device->object.guest;

	pthread_mutex_lock(&guest->lock);
	if (device->attached)
		device->attached->attached = false;
	device->attachment = attachment;
	device->attached = nested;
	if (nested)
		nested->attached = true;
	pthread_mutex_unlock(&guest->lock);
}

enum attachment device_attachment(struct device *device, struct nested **ret_nested)
{
	struct guest *guest = device->object.guest;
	enum attachment attachment;

	pthread_mutex_lock(&guest->lock);
	attachment = device->attachment;
	if (ret_nested)
		*ret_nested = device->attached;
	pthread_mutex_unlock(&guest->lock);
	return attachment;
}

/* Shadows are made by software and fit any IOMMU: a device that names no designations, as it is no
 * s390 function, restricts none. */
unsigned int device_designations(const struct device *device)
{
	struct policy *policy = policy_get(device->object.guest->broker);
	unsigned int supported = policy->settings.designations;

	policy_unref(policy);

	return device->info.designations ? device->info.designations & supported : supported;
}

int device_refuse_unbound(struct refusal *refusal)
{
	return refuse(refusal, REFUSAL_PRECONDITION, "DEVICE_UNBOUND",
		      "the device is not bound yet");
}

int device_refuse_attach(int error, struct refusal *refusal)
{
	if (error != EBUSY)
		return refuse_errno(refusal, error, "attaching the device");
	refuse(refusal, REFUSAL_BUSY, "DEVICE_RESET", "the device is in reset");
	refusal->retry_after_ms = 100;
	return REFUSED;
}

static int device_stop_locked(struct device *device)
{
	return broker_ops(device->object.guest->broker)->device_stop(device->backend);
}

int device_backend_attach(struct device *device, uint32_t page_table)
{
	const struct iommu_backend_ops *ops = broker_ops(device->object.guest->broker);
	int error = EBUSY;

	pthread_mutex_lock(&device->call_lock);
	if (device->info.pft == ZPCI_FUNCTION_ISM && device->info.has_fid)
		device_stop_locked(device);
	for (int i = 0; error == EBUSY && i < ATTACH_TRIES; i++) {
		if (i)
			clock_sleep_ns(ATTACH_RETRY_NS);
		error = ops->attach(device->backend, page_table);
	}
	if (!error) {
		device->page_table = page_table;
		device->has_page_table = true;
	}
	/* EADDRINUSE: the IOMMU's driver was not asked. */
	device->disturbed = error && error != EADDRINUSE;
	pthread_mutex_unlock(&device->call_lock);
	return error;
}

/* The kernel takes a device whose attach failed for attached as before; but an IOMMU's driver may
 * have blocked it before it failed (VT-d, s390), and to attach it where it is taken to be attached
 * does nothing. So it is detached first. */
static int device_reattach_locked(struct device *device)
{
	const struct iommu_backend_ops *ops = broker_ops(device->object.guest->broker);
	int error = EBUSY;

	for (int i = 0; error && i < BROKER_TRIES; i++) {
		error = ops->detach(device->backend);
		if (!error)
			error = ops->attach(device->backend, device->page_table);
	}
	return error;
}

void device_attach_back(struct device *device)
{
	struct nested *nested;
	int error = 0;

	device_attachment(device, &nested);
	pthread_mutex_lock(&device->call_lock);
	/* Whoever blocked it meanwhile did so with this lock. */
	if (device->disturbed && device->has_page_table)
		error = device_reattach_locked(device);
	device->disturbed = false;
	pthread_mutex_unlock(&device->call_lock);
	if (error)
		device_block_broken(device, nested ? nested->object.handle : 0);
}

/* A device that cannot be stopped is blocked all the same: that is what keeps memory safe. */
static bool device_block_locked(struct device *device, bool stop)
{
	const struct iommu_backend_ops *ops = broker_ops(device->object.guest->broker);
	bool blocked = false;

	if (stop || (device->info.pft == ZPCI_FUNCTION_ISM && device->info.has_fid))
		device_stop_locked(device);
	for (int i = 0; !blocked && i < BROKER_TRIES; i++)
		blocked = !ops->detach(device->backend);
	return blocked;
}

bool device_block(struct device *device, bool stop)
{
	bool blocked = true;

	pthread_mutex_lock(&device->call_lock);
	if (device->backend && device->bound)
		blocked = device_block_locked(device, stop);
	device->has_page_table = false;
	pthread_mutex_unlock(&device->call_lock);
	device_set_attachment(device, ATTACHMENT_BLOCKED, NULL);
	return blocked;
}

void device_block_broken(struct device *device, uint64_t nested)
{
	const struct event event = {
		.kind = EVENT_DEVICE_BLOCKED,
		.guest = device->object.guest->object.handle,
		.device = device->object.handle,
		.nested = nested,
	};

	device_block(device, true);
	event_post(device->object.guest->events, &event);
}

/* ── the rest ──────────────────────────────────────────────────────────────────────────────── */

int device_descriptor(struct broker *broker, struct session *session, uint64_t handle, int *ret_fd,
		      struct refusal *refusal)
{
	struct device *device = device_find(broker, session, handle, refusal);
	int error;

	if (!device)
		return REFUSED;
	pthread_mutex_lock(&device->call_lock);
	error = broker_ops(broker)->device_descriptor(device->backend, ret_fd);
	pthread_mutex_unlock(&device->call_lock);
	device_unref(device);
	return error ? refuse_errno(refusal, error, "a descriptor for the VMM") : 0;
}

void device_close_backend(struct device *device, bool *ret_still_held)
{
	const struct iommu_backend_ops *ops = broker_ops(device->object.guest->broker);

	pthread_mutex_lock(&device->call_lock);
	if (device->backend && ret_still_held && ops->device_held(device->backend, ret_still_held))
		*ret_still_held = true; /* it could not be told: the safe answer */
	if (device->backend)
		device->backend = ops->device_close(device->backend);
	pthread_mutex_unlock(&device->call_lock);
}

/* Nested domains go while the device is blocked and still open. */
static void device_drop_domains(struct device *device)
{
	struct guest *guest = device->object.guest;
	struct nested *nested, *next;

	DL_FOREACH_SAFE(guest->nested, nested, next)
	if (nested->device == device)
		nested_drop(nested);
	relaxed_free(guest, &device->relaxed);
}

void device_take_down(struct device *device, bool *ret_still_held)
{
	struct guest *guest = device->object.guest;

	handle_withdraw(guest->broker, &device->object);
	if (device->object.stage != RECORD_GOING) {
		device->object.stage = RECORD_GOING;
		save_now(guest);
	}
	CRASH_POINT(CLOSE_WRITTEN);
	device_block(device, true);
	CRASH_POINT(CLOSE_BLOCKED);
	device_drop_domains(device);
	CRASH_POINT(CLOSE_DROPPED);
	/* Whoever keeps its descriptor for us keeps it open. */
	save_forget_device(device);
	save_barrier(guest);
	CRASH_POINT(CLOSE_FORGOTTEN);
	device_close_backend(device, ret_still_held);
	CRASH_POINT(CLOSE_CLOSED);
	pthread_mutex_lock(&guest->lock);
	DL_DELETE(guest->devices, device);
	guest->n_devices--;
	pthread_mutex_unlock(&guest->lock);
	save_now(guest);
	CRASH_POINT(CLOSE_DONE);
	ledger_refund_one(&guest->broker->ledger, &guest->account, LEDGER_DEVICES, 1);
	device_unref(device);
}

int device_close(struct broker *broker, struct session *session, uint64_t handle,
		 bool *ret_still_held, struct refusal *refusal)
{
	struct device *device = device_find(broker, session, handle, refusal);
	bool still_held = false;

	if (!device)
		return REFUSED;
	device_take_down(device, &still_held);
	device_unref(device);
	*ret_still_held = still_held;
	return 0;
}
