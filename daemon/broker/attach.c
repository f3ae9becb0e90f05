/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/attach.h"

#include "broker/device.h"
#include "broker/guest.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "util/crash_point.h"

static int attach_relaxed(struct device *device, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	bool made = device->relaxed.domain.made;
	int error;

	if (!device->relaxed_granted)
		return refuse(refusal, REFUSAL_DENIED, "RELAXED_NOT_GRANTED",
			      "no device rule grants relaxed translation for that function");
	if (!made && relaxed_new(guest, device, device->info.dma_first, device->info.dma_last,
				 &device->relaxed, refusal))
		return REFUSED;
	error = device_backend_attach(device, device->relaxed.domain.page_table);
	if (!error)
		return 0;
	if (!made)
		relaxed_free(guest, &device->relaxed);
	return device_refuse_attach(error, refusal);
}

static int attach_nested(struct device *device, struct nested *nested, struct refusal *refusal)
{
	int error;

	if (nested->broken)
		return nested_refuse_broken(refusal);
	error = device_backend_attach(device, nested_backing_page_table(&nested->backing));
	return error ? device_refuse_attach(error, refusal) : 0;
}

static int attach_to(struct device *device, enum attachment to, struct nested *nested,
		     struct refusal *refusal)
{
	switch (to) {
	case ATTACHMENT_PARENT:
		return parent_attach(device->object.guest, device, refusal);
	case ATTACHMENT_RELAXED:
		return attach_relaxed(device, refusal);
	case ATTACHMENT_NESTED:
		return attach_nested(device, nested, refusal);
	case ATTACHMENT_BLOCKED:
		break;
	}
	if (device_block(device, false))
		return 0;
	return refuse(refusal, REFUSAL_HOST, "NOT_BLOCKED", "the device could not be blocked");
}

/* The device is attached already, and is blocked again if that fails. */
static int attach_fill_relaxed(struct device *device, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	int error = relaxed_fill(guest, &device->relaxed);

	CRASH_POINT(ATTACH_FILLED);
	if (!error)
		return 0;
	device_block(device, true);
	relaxed_free(guest, &device->relaxed);
	return refuse_errno(refusal, error, "filling the relaxed mapping; the device is blocked");
}

int device_switch(struct device *device, enum attachment to, struct nested *nested,
		  struct refusal *refusal)
{
	struct nested *left;
	enum attachment from = device_attachment(device, &left);

	if (attach_to(device, to, nested, refusal)) {
		device_attach_back(device);
		return REFUSED;
	}
	CRASH_POINT(ATTACH_DONE);
	device_set_attachment(device, to, to == ATTACHMENT_NESTED ? nested : NULL);
	if (from == ATTACHMENT_RELAXED && to != ATTACHMENT_RELAXED)
		relaxed_leave(device->object.guest, &device->relaxed);
	if (left && left != nested)
		nested_leave(left);
	CRASH_POINT(ATTACH_LEFT);
	return to == ATTACHMENT_RELAXED ? attach_fill_relaxed(device, refusal) : 0;
}

static int attach_find_nested(struct device *device, uint64_t handle, struct nested **ret,
			      struct refusal *refusal)
{
	struct nested *nested =
		nested_find(device->object.guest->broker, device->object.session, handle, refusal);

	if (!nested)
		return REFUSED;
	if (nested->device == device) {
		*ret = nested;
		return 0;
	}
	nested_unref(nested);
	return refuse_field(refusal, "nested", "is not a nested domain of that device");
}

static int device_attach_on(struct device *device, enum attachment to, uint64_t handle,
			    struct range_result *ret_walk, struct refusal *refusal)
{
	struct range_result walk = {.verdict = VERDICT_DONE};
	struct nested *nested = NULL;
	int status;

	if (!device->bound)
		return device_refuse_unbound(refusal);
	if (to == ATTACHMENT_NESTED && attach_find_nested(device, handle, &nested, refusal))
		return REFUSED;
	status = device_switch(device, to, nested, refusal);
	if (!status && nested)
		nested_reconcile(nested, &walk);
	CRASH_POINT(ATTACH_WALKED);
	nested_unref(nested);
	if (!status)
		*ret_walk = walk;
	return status;
}

int device_attach(struct broker *broker, struct session *session, uint64_t handle,
		  enum attachment to, uint64_t nested, struct range_result *ret_walk,
		  struct refusal *refusal)
{
	struct device *device = device_find(broker, session, handle, refusal);
	int status;

	if (!device)
		return REFUSED;
	status = device_attach_on(device, to, nested, ret_walk, refusal);
	device_unref(device);
	return status;
}
