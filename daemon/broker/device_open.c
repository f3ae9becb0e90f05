/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening a device for a guest: judged by the device rules, by its name before and by what it is
 * afterwards; charged, opened, handed out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/root.h"
#include "util/crash_point.h"
#include "util/fd.h"

static void device_object_free(struct object *object)
{
	struct device *device = (struct device *)object;

	pthread_mutex_destroy(&device->call_lock);
	guest_unref(device->object.guest);
	free(device);
}

static struct device *device_alloc(struct guest *guest)
{
	struct device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	object_init(&device->object, OBJECT_DEVICE, guest->session, guest_ref(guest),
		    device_object_free);
	pthread_mutex_init(&device->call_lock, NULL);
	device->attachment = ATTACHMENT_BLOCKED;
	return device;
}

static int refuse_no_function(struct refusal *refusal)
{
	refuse(refusal, REFUSAL_NOT_FOUND, "NOT_FOUND",
	       "no such function, or it is not at the VFIO driver");
	snprintf(refusal->resource, sizeof(refusal->resource), "function");
	return REFUSED;
}

static int refuse_open(int error, bool by_descriptor, struct refusal *refusal)
{
	if (by_descriptor && error == EINVAL)
		return refuse_field(refusal, "descriptor", "is not that of a VFIO device");
	if (error == ENOENT || error == ENODEV)
		return refuse_no_function(refusal);
	if (error == EBUSY)
		return refuse(refusal, REFUSAL_PRECONDITION, "DEVICE_IN_USE",
			      "the function is open elsewhere, or its group is; it can be opened "
			      "once at a time");
	if (error == EACCES || error == EPERM)
		return refuse(refusal, REFUSAL_PRECONDITION, "DEVICE_NODE_ACCESS",
			      "the daemon may not open the function's VFIO device node");
	return refuse_errno(refusal, error, "opening the function");
}

static int device_open_backend(struct device *device, const struct device_open_request *request,
			       struct refusal *refusal)
{
	struct broker *broker = device->object.guest->broker;
	const struct iommu_backend_ops *ops = broker_ops(broker);
	int error;

	if (request->by_descriptor)
		error = ops->device_open_fd(broker->backend, request->consume_fd, &device->backend);
	else
		error = ops->device_open(broker->backend, &request->address, &device->backend);
	if (!error)
		error = ops->device_info(device->backend, &device->info);
	return error ? refuse_open(error, request->by_descriptor, refusal) : 0;
}

/* The opened device is what counts. */
static int device_grant(struct device *device, struct refusal *refusal)
{
	const struct device_client client = device_client(device->object.guest);
	struct device_judgement judgement;

	device_judge_open(device, &judgement);
	if (judgement.kind != DEVICE_ALLOWED)
		return device_refuse_judgement(&judgement, &client, &device->info, refusal);
	device->relaxed_granted = judgement.relaxed;
	return 0;
}

static void device_list_add(struct guest *guest, struct device *device)
{
	pthread_mutex_lock(&guest->lock);
	DL_APPEND(guest->devices, device);
	guest->n_devices++;
	pthread_mutex_unlock(&guest->lock);
}

/* Opened and charged; what is left is to hand it out. */
static int device_finish_open(struct device *device, int *ret_fd, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	const struct iommu_backend_ops *ops = broker_ops(guest->broker);
	int fd, error, status;

	CRASH_POINT(DEVICE_OPENED);
	if (save_device(device, refusal))
		return REFUSED;
	CRASH_POINT(DEVICE_STORED);
	error = ops->device_descriptor(device->backend, &fd);
	if (error) {
		save_forget_device(device);
		return refuse_errno(refusal, error, "a descriptor for the VMM");
	}
	status = handle_publish(guest->broker, &device->object, refusal);
	if (status) {
		save_forget_device(device);
		fd_close(fd);
		return status;
	}
	device_list_add(guest, device);
	CRASH_POINT(DEVICE_LISTED);
	*ret_fd = fd;
	return 0;
}

static int device_open_charged(struct guest *guest, const struct device_open_request *request,
			       uint64_t *ret_device, int *ret_fd, struct refusal *refusal)
{
	struct device *device = device_alloc(guest);
	int status;

	if (!device) {
		if (request->by_descriptor)
			fd_close(request->consume_fd);
		return refuse_errno(refusal, ENOMEM, "device");
	}
	device->passed = request->by_descriptor;
	status = device_open_backend(device, request, refusal);
	if (!status)
		status = device_grant(device, refusal);
	if (!status)
		status = device_finish_open(device, ret_fd, refusal);
	if (!status) {
		*ret_device = device->object.handle;
		return 0;
	}
	device_close_backend(device, NULL);
	device_unref(device);
	return status;
}

/* The name that was asked for, and nothing more. */
static struct iommu_device_info device_asked_for(const struct device_open_request *request)
{
	const struct iommu_device_address *address = &request->address;
	struct iommu_device_info info = {0};

	info.has_fid = !request->by_descriptor && address->by_fid;
	info.fid = address->fid;
	if (!request->by_descriptor && !address->by_fid)
		memcpy(info.pci_address, address->pci_address, sizeof(info.pci_address));
	return info;
}

/* Before anything is opened: to open a function can disturb whoever it is for. Whether it exists,
 * and what it is, is told only to whom a rule gives it: a refusal names it as the request did, and
 * in the log all that a rule could go by. */
static int device_may_open(struct guest *guest, const struct policy *policy,
			   const struct device_open_request *request, struct refusal *refusal)
{
	const struct iommu_device_info asked = device_asked_for(request);
	const struct device_client client = device_client(guest);
	const struct broker *broker = guest->broker;
	struct device_judgement judgement = {.kind = DEVICE_NO_RULE};
	struct iommu_device_info info = asked;
	int error = 0;

	if (request->by_descriptor) {
		if (device_may_pass(&policy->settings, &client))
			judgement.kind = DEVICE_ALLOWED;
	} else {
		error = broker_ops(broker)->device_identify(broker->backend, &request->address,
							    &info);
		device_judge(&policy->settings, &client, false, &info, &judgement);
	}
	if (judgement.kind != DEVICE_ALLOWED) {
		device_refuse_judgement(&judgement, &client, &asked, refusal);
		if (!request->by_descriptor && !error)
			device_note(&info, refusal);
		return REFUSED;
	}
	return error ? refuse_open(error, false, refusal) : 0;
}

static int device_open_in(struct guest *guest, const struct device_open_request *request,
			  uint64_t *ret_device, int *ret_fd, struct refusal *refusal)
{
	struct broker *broker = guest->broker;
	struct policy *policy = policy_get(broker);
	int status = broker_refuse_draining(broker, refusal);

	if (!status)
		status = device_may_open(guest, policy, request, refusal);
	policy_unref(policy);
	if (!status)
		status = ledger_charge_one(&broker->ledger, &guest->account, LEDGER_DEVICES, 1,
					   refusal);
	if (status) {
		if (request->by_descriptor)
			fd_close(request->consume_fd);
		return status;
	}
	status = device_open_charged(guest, request, ret_device, ret_fd, refusal);
	if (status)
		ledger_refund_one(&broker->ledger, &guest->account, LEDGER_DEVICES, 1);
	return status;
}

int device_open(struct broker *broker, struct session *session, uint64_t guest_handle,
		const struct device_open_request *request, uint64_t *ret_device, int *ret_fd,
		struct refusal *refusal)
{
	struct guest *guest = NULL;
	int status;

	if (!delegation_refuse_part(session, refusal))
		guest = guest_find(broker, session, guest_handle, refusal);
	if (!guest) {
		if (request->by_descriptor)
			fd_close(request->consume_fd);
		return REFUSED;
	}
	status = device_open_in(guest, request, ret_device, ret_fd, refusal);
	guest_unref(guest);
	return status;
}

/* ── of a process before this one ──────────────────────────────────────────────────────────── */

/* A descriptor of another function, or a record of one. */
static bool is_the_same(const struct iommu_device_info *info, const struct record_device *record)
{
	if (info->pci_address[0] && record->pci_address[0])
		return !strcmp(info->pci_address, record->pci_address);
	return !info->has_fid || !record->has_fid || info->fid == record->fid;
}

static int device_adopt(struct device *device, const struct record_device *record, int consume_fd,
			uint32_t kernel_id, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	const struct iommu_backend_ops *ops = broker_ops(guest->broker);
	struct iommu_device_address address = {.by_fid = record->has_fid, .fid = record->fid};
	int error;

	memcpy(address.pci_address, record->pci_address, sizeof(address.pci_address));
	error = ops->device_adopt(guest->broker->backend, consume_fd, &address,
				  kernel_id ? guest->context : NULL, kernel_id, &device->backend);
	if (!error)
		error = ops->device_info(device->backend, &device->info);
	if (!error && !is_the_same(&device->info, record))
		error = ESTALE;
	if (error)
		return refuse_errno(refusal, error, "taking the function over");
	device->passed = record->passed;
	device->relaxed_granted = record->relaxed_granted;
	device->index = record->index;
	device->kernel_id = kernel_id;
	device->kernel_bound = kernel_id != 0;
	/* A bind that was under way is begun again by whoever asks for it. */
	return record->bound ? device_read_bound(device, refusal) : 0;
}

int device_restore(struct guest *guest, const struct record_device *record, int consume_fd,
		   uint32_t kernel_id, struct refusal *refusal)
{
	struct ledger_amounts one = {.amount[LEDGER_DEVICES] = 1};
	struct device *device = device_alloc(guest);
	int status;

	if (!device) {
		fd_close(consume_fd);
		return refuse_errno(refusal, ENOMEM, "device");
	}
	status = device_adopt(device, record, consume_fd, kernel_id, refusal);
	if (!status)
		status = handle_publish_as(guest->broker, &device->object, record->handle, refusal);
	if (status) {
		device_close_backend(device, NULL);
		device_unref(device);
		return status;
	}
	device->object.stage = record->stage == RECORD_GOING ? RECORD_GOING : RECORD_LIVE;
	ledger_take_over(&guest->broker->ledger, &guest->account, &one);
	device_list_add(guest, device);
	return 0;
}
