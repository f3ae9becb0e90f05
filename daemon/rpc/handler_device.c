/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include <stdio.h>
#include <string.h>

#include "rpc/check.h"
#include "rpc/convert.h"
#include "rpc/descriptor.h"
#include "rpc/log_device.h"
#include "rpc/progress.h"
#include "util/fd.h"

typedef Iommubroker__V1__OpenDeviceRequest OpenDeviceRequest;

#define ADDRESS(name) IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_##name

int prepare_open_device(struct call *call)
{
	const OpenDeviceRequest *request = (const OpenDeviceRequest *)call->request;
	struct device_open_request *plain = call_array(call, 1, sizeof(*plain));
	int status = check_handle(call, "guest", request->guest);

	if (!plain)
		return call_refuse_memory(call);
	if (status)
		return status;
	plain->consume_fd = -1;
	call->plain = plain;
	switch (request->address_case) {
	case ADDRESS(PCI_ADDRESS):
		return check_pci_address(call, "pci_address", request->pci_address,
					 plain->address.pci_address);
	case ADDRESS(FUNCTION_ID):
		plain->address.by_fid = true;
		plain->address.fid = request->function_id;
		return 0;
	case ADDRESS(DESCRIPTOR):
		plain->by_descriptor = true;
		return descriptor_check(call, request->descriptor, "descriptor");
	default:
		return refuse_field(&call->refusal, "address",
				    "address: pci_address, function_id or descriptor must be set");
	}
}

/* Nothing is told of a device that went at once, with its session. */
static void log_opened(struct call *call, uint64_t device)
{
	struct device_description description;
	struct refusal refusal;

	if (!device_describe(call_broker(call), call_session(call), device, &description, &refusal))
		log_device(call, &description, true);
}

/* The device is open from here on, whether or not the answer can carry its descriptor. */
static int open_device_answer(struct call *call, uint64_t device, int consume_fd)
{
	Iommubroker__V1__OpenDeviceResponse response = IOMMUBROKER__V1__OPEN_DEVICE_RESPONSE__INIT;
	Iommubroker__V1__DescriptorRef ref;
	size_t without_descriptor;
	int status;

	response.device = device;
	without_descriptor = iommubroker__v1__open_device_response__get_packed_size(&response);
	status = descriptor_answer(call, consume_fd, &ref);
	if (status)
		return status;
	response.descriptor = &ref;
	status = call_answer(call, &response.base);
	/* Fields are packed in the order of their numbers: a repeated request gets the device and
	 * no descriptor that would not be there. */
	if (!status)
		call->repeat_bytes = without_descriptor;
	return status;
}

static int open_device_reserved(struct call *call, const OpenDeviceRequest *request)
{
	struct device_open_request *plain = call->plain;
	int fd, status = 0;
	uint64_t device;

	if (plain->by_descriptor)
		status = descriptor_take(call, request->descriptor, "descriptor",
					 &plain->consume_fd);
	if (!status)
		status = device_open(call_broker(call), call_session(call), request->guest, plain,
				     &device, &fd, &call->refusal);
	if (status) {
		descriptor_unreserve(call);
		return status;
	}
	log_opened(call, device);
	return open_device_answer(call, device, fd);
}

int handle_open_device(struct call *call)
{
	int status = descriptor_reserve(call);

	return status ? status
		      : open_device_reserved(call, (const OpenDeviceRequest *)call->request);
}

int prepare_bind_device(struct call *call)
{
	const Iommubroker__V1__BindDeviceRequest *request =
		(const Iommubroker__V1__BindDeviceRequest *)call->request;
	int status = check_handle(call, "device", request->device);

	return status ? status : check_bytes(call, "vf_token", &request->vf_token, 16, true);
}

int handle_bind_device(struct call *call)
{
	const Iommubroker__V1__BindDeviceRequest *request =
		(const Iommubroker__V1__BindDeviceRequest *)call->request;
	Iommubroker__V1__BindDeviceResponse response = IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__INIT;
	const uint8_t *vf_token = request->vf_token.len ? request->vf_token.data : NULL;
	struct operation *operation = call_operation(call);
	struct device_description description;
	Iommubroker__V1__DeviceInfo info;
	int status;

	operation->progress = progress_bind_device;
	status = device_bind(call_broker(call), call_session(call), request->device, vf_token,
			     operation, &description, &call->refusal);
	if (!status)
		status = convert_device(call, &description, &info);
	if (status)
		return status;
	response.update_case = IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__UPDATE_DONE;
	response.done = &info;
	return call_answer(call, &response.base);
}

int prepare_get_device_info(struct call *call)
{
	const Iommubroker__V1__GetDeviceInfoRequest *request =
		(const Iommubroker__V1__GetDeviceInfoRequest *)call->request;

	return check_handle(call, "device", request->device);
}

int handle_get_device_info(struct call *call)
{
	const Iommubroker__V1__GetDeviceInfoRequest *request =
		(const Iommubroker__V1__GetDeviceInfoRequest *)call->request;
	Iommubroker__V1__GetDeviceInfoResponse response =
		IOMMUBROKER__V1__GET_DEVICE_INFO_RESPONSE__INIT;
	struct device_description description;
	Iommubroker__V1__DeviceInfo info;
	int status = device_describe(call_broker(call), call_session(call), request->device,
				     &description, &call->refusal);

	if (!status)
		status = convert_device(call, &description, &info);
	if (status)
		return status;
	response.info = &info;
	return call_answer(call, &response.base);
}

int prepare_get_descriptor(struct call *call)
{
	const Iommubroker__V1__GetDescriptorRequest *request =
		(const Iommubroker__V1__GetDescriptorRequest *)call->request;

	return check_handle(call, "device", request->device);
}

int handle_get_descriptor(struct call *call)
{
	const Iommubroker__V1__GetDescriptorRequest *request =
		(const Iommubroker__V1__GetDescriptorRequest *)call->request;
	Iommubroker__V1__GetDescriptorResponse response =
		IOMMUBROKER__V1__GET_DESCRIPTOR_RESPONSE__INIT;
	Iommubroker__V1__DescriptorRef ref;
	int fd, status = descriptor_reserve(call);

	if (status)
		return status;
	status = device_descriptor(call_broker(call), call_session(call), request->device, &fd,
				   &call->refusal);
	if (status) {
		descriptor_unreserve(call);
		return status;
	}
	status = descriptor_answer(call, fd, &ref);
	if (status)
		return status;
	response.descriptor = &ref;
	return call_answer(call, &response.base);
}

int prepare_close_device(struct call *call)
{
	const Iommubroker__V1__CloseDeviceRequest *request =
		(const Iommubroker__V1__CloseDeviceRequest *)call->request;

	return check_handle(call, "device", request->device);
}

int handle_close_device(struct call *call)
{
	const Iommubroker__V1__CloseDeviceRequest *request =
		(const Iommubroker__V1__CloseDeviceRequest *)call->request;
	Iommubroker__V1__CloseDeviceResponse response =
		IOMMUBROKER__V1__CLOSE_DEVICE_RESPONSE__INIT;
	struct device_description description;
	bool still_held;
	int status = device_describe(call_broker(call), call_session(call), request->device,
				     &description, &call->refusal);

	if (!status)
		status = device_close(call_broker(call), call_session(call), request->device,
				      &still_held, &call->refusal);
	if (status)
		return status;
	log_device(call, &description, false);
	response.still_held = still_held;
	return call_answer(call, &response.base);
}
