/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Devices: open, bind, attach, close. */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/async.h"
#include "lib/result.h"
#include "lib/session.h"

#define VF_TOKEN_BYTES 16

typedef Iommubroker__V1__OpenDeviceRequest OpenRequest;

/* The descriptor that an answer names, or -1. */
static int named_descriptor(struct descriptors *fds, const Iommubroker__V1__DescriptorRef *ref)
{
	if (ref == NULL || ref->source_case != IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED)
		return -1;
	return descriptors_take(fds, ref->attached);
}

/* ret_fd may be NULL: then the descriptor is closed. -EBADMSG: there is none. */
static int fetch_descriptor(struct descriptors *fds, const Iommubroker__V1__DescriptorRef *ref,
			    int *ret_fd)
{
	int fd = named_descriptor(fds, ref);

	descriptors_close(fds);
	if (fd < 0)
		return -EBADMSG;
	if (ret_fd != NULL)
		*ret_fd = fd;
	else
		close(fd);
	return 0;
}

static int open_device(struct iommubroker_guest *guest, OpenRequest *request, int borrow_fd,
		       struct iommubroker_device **ret_device, int *ret_fd,
		       struct iommubroker_error **ret_error)
{
	struct descriptors fds = {.n = 0};
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_OPEN_DEVICE,
		.request = &request->base,
		.response = &iommubroker__v1__open_device_response__descriptor,
		.has_fd = borrow_fd >= 0,
		.fd = borrow_fd,
		.ret_fds = &fds,
	};
	struct iommubroker_device *device = malloc(sizeof(*device));
	const Iommubroker__V1__OpenDeviceResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	if (device == NULL)
		return error_transport(-ENOMEM, ret_error);
	request->request_id = session_request_id(guest->session);
	request->guest = guest->handle;
	r = exchange_run(guest->session, &exchange, &message, ret_error);
	if (r == 0) {
		response = (const void *)message;
		device->session = guest->session;
		device->handle = response->device;
		r = fetch_descriptor(&fds, response->descriptor, ret_fd);
		/* Of a request that was repeated the answer says only what was opened. */
		if (r < 0 && response->descriptor == NULL && response->device != 0)
			r = ret_fd != NULL
				    ? iommubroker_device_descriptor(device, ret_fd, ret_error)
				    : 0;
		else if (r < 0)
			error_transport(r, ret_error);
		protobuf_c_message_free_unpacked(message, NULL);
	}
	if (r == 0)
		*ret_device = device;
	else
		free(device);
	return r;
}

int iommubroker_device_open_function(struct iommubroker_guest *guest, uint32_t function_id,
				     struct iommubroker_device **ret_device, int *ret_fd,
				     struct iommubroker_error **ret_error)
{
	OpenRequest request = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;

	request.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_FUNCTION_ID;
	request.function_id = function_id;
	return open_device(guest, &request, -1, ret_device, ret_fd, ret_error);
}

int iommubroker_device_open_pci(struct iommubroker_guest *guest, const char *address,
				struct iommubroker_device **ret_device, int *ret_fd,
				struct iommubroker_error **ret_error)
{
	OpenRequest request = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;

	request.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_PCI_ADDRESS;
	request.pci_address = (char *)address;
	return open_device(guest, &request, -1, ret_device, ret_fd, ret_error);
}

int iommubroker_device_open_fd(struct iommubroker_guest *guest, int borrow_fd,
			       struct iommubroker_device **ret_device, int *ret_fd,
			       struct iommubroker_error **ret_error)
{
	OpenRequest request = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;
	Iommubroker__V1__DescriptorRef descriptor = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;

	if (borrow_fd < 0)
		return error_field(ret_error, "descriptor", "%d is no descriptor", borrow_fd);
	descriptor.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	descriptor.attached = 0;
	request.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_DESCRIPTOR;
	request.descriptor = &descriptor;
	return open_device(guest, &request, borrow_fd, ret_device, ret_fd, ret_error);
}

static void fill_bind(Iommubroker__V1__BindDeviceRequest *request,
		      struct iommubroker_device *device, const uint8_t *vf_token)
{
	*request = (Iommubroker__V1__BindDeviceRequest)IOMMUBROKER__V1__BIND_DEVICE_REQUEST__INIT;
	request->request_id = session_request_id(device->session);
	request->device = device->handle;
	if (vf_token != NULL) {
		request->vf_token.data = (uint8_t *)vf_token;
		request->vf_token.len = VF_TOKEN_BYTES;
	}
}

int iommubroker_device_bind(struct iommubroker_device *device, const uint8_t *vf_token,
			    iommubroker_progress_fn progress, void *user_data,
			    struct iommubroker_error **ret_error)
{
	Iommubroker__V1__BindDeviceRequest request;
	struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_BIND_DEVICE,
		.request = &request.base,
		.response = &iommubroker__v1__bind_device_response__descriptor,
		.progress = progress,
		.user_data = user_data,
	};

	fill_bind(&request, device, vf_token);
	exchange.request_id = request.request_id;
	return exchange_run_only(device->session, &exchange, ret_error);
}

static bool deliver_bind(struct async *async, const struct answer *answer, int result)
{
	struct iommubroker_error *error = NULL;
	ProtobufCMessage *message = NULL;
	bool last = answer == NULL || !answer->more || answer->code != 0;
	uint64_t done, total;

	if (answer != NULL && answer->code == 0)
		message = protobuf_c_message_unpack(
			&iommubroker__v1__bind_device_response__descriptor, NULL, answer->n_message,
			answer->message);
	if (!last) {
		if (message != NULL)
			async_report_progress(async, message);
	} else {
		if (answer != NULL && answer->code != 0)
			result = error_from_answer(answer, &error);
		else if (message == NULL || exchange_progress(message, &done, &total))
			result = error_transport(result < 0 ? result : -EBADMSG, &error);
		async->done.bind(async->user_data, result, error);
	}
	iommubroker_error_free(error);
	protobuf_c_message_free_unpacked(message, NULL);
	return last;
}

int iommubroker_device_bind_submit(struct iommubroker_device *device, const uint8_t *vf_token,
				   iommubroker_progress_fn progress, iommubroker_bind_fn done,
				   void *user_data, uint64_t *ret_call)
{
	Iommubroker__V1__BindDeviceRequest request;
	uint8_t *packet = NULL;
	struct async *async;
	size_t n_bytes = 0;
	int r;

	fill_bind(&request, device, vf_token);
	r = exchange_pack(&request.base, &packet, &n_bytes);
	if (r < 0)
		return r;
	async = async_new(device->session, deliver_bind, user_data);
	if (async == NULL) {
		free(packet);
		return -ENOMEM;
	}
	async->done.bind = done;
	async->progress = progress;
	async->request_id = request.request_id;
	return async_submit(async, IOMMUBROKER__V1__METHOD__METHOD_BIND_DEVICE, packet, n_bytes,
			    true, ret_call);
}

static struct iommubroker_device_info *info_new(ProtobufCMessage *consume_message,
						const Iommubroker__V1__DeviceInfo *from)
{
	struct iommubroker_address_range *ranges;
	struct iommubroker_device_info *info;

	info = holder_new(sizeof(*info) + from->n_iova_ranges * sizeof(*ranges), consume_message);
	if (info == NULL)
		return NULL;
	ranges = (struct iommubroker_address_range *)(info + 1);
	for (size_t i = 0; i < from->n_iova_ranges; i++)
		ranges[i] = (struct iommubroker_address_range){from->iova_ranges[i]->first,
							       from->iova_ranges[i]->last};
	*info = (struct iommubroker_device_info){
		.kernel_device_id = from->kernel_device_id,
		.has_function_id = from->has_function_id,
		.function_id = from->function_id,
		.pci_address = from->pci_address,
		.vendor = from->vendor,
		.device = from->device,
		.n_iova_ranges = from->n_iova_ranges,
		.iova_ranges = ranges,
		.page_sizes = from->page_sizes,
		.dma_first = from->dma_first,
		.dma_last = from->dma_last,
		.designations = from->designations,
		.relaxed_granted = from->relaxed_granted,
		.refresh_required = from->refresh_required,
		.mappings_budget = from->mappings_budget,
		.hw_info_type = from->hw_info_type,
		.hw_info_bytes = from->hw_info.len,
		.hw_info = from->hw_info.data,
		.n_features = from->n_features,
		.features = (const char *const *)from->features,
		.n_group_members = from->n_group_members,
		.group_members = (const char *const *)from->group_members,
	};
	return info;
}

int iommubroker_device_info(struct iommubroker_device *device,
			    struct iommubroker_device_info **ret_info,
			    struct iommubroker_error **ret_error)
{
	Iommubroker__V1__GetDeviceInfoRequest request =
		IOMMUBROKER__V1__GET_DEVICE_INFO_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_GET_DEVICE_INFO,
		.request = &request.base,
		.response = &iommubroker__v1__get_device_info_response__descriptor,
	};
	const Iommubroker__V1__GetDeviceInfoResponse *response;
	struct iommubroker_device_info *info;
	ProtobufCMessage *message = NULL;
	int r;

	request.device = device->handle;
	r = exchange_run(device->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	if (response->info == NULL) {
		protobuf_c_message_free_unpacked(message, NULL);
		return error_transport(-EBADMSG, ret_error);
	}
	info = info_new(message, response->info);
	if (info == NULL)
		return error_transport(-ENOMEM, ret_error);
	*ret_info = info;
	return 0;
}

struct iommubroker_device_info *iommubroker_device_info_free(struct iommubroker_device_info *info)
{
	return holder_free(info);
}

int iommubroker_device_descriptor(struct iommubroker_device *device, int *ret_fd,
				  struct iommubroker_error **ret_error)
{
	Iommubroker__V1__GetDescriptorRequest request =
		IOMMUBROKER__V1__GET_DESCRIPTOR_REQUEST__INIT;
	struct descriptors fds = {.n = 0};
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_GET_DESCRIPTOR,
		.request = &request.base,
		.response = &iommubroker__v1__get_descriptor_response__descriptor,
		.ret_fds = &fds,
	};
	const Iommubroker__V1__GetDescriptorResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	request.device = device->handle;
	r = exchange_run(device->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	r = fetch_descriptor(&fds, response->descriptor, ret_fd);
	protobuf_c_message_free_unpacked(message, NULL);
	return r < 0 ? error_transport(r, ret_error) : 0;
}

int iommubroker_device_attach(struct iommubroker_device *device, uint32_t attachment,
			      const struct iommubroker_nested *nested,
			      struct iommubroker_result *ret_walk,
			      struct iommubroker_error **ret_error)
{
	Iommubroker__V1__AttachRequest request = IOMMUBROKER__V1__ATTACH_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_ATTACH,
		.request = &request.base,
		.response = &iommubroker__v1__attach_response__descriptor,
	};
	ProtobufCMessage *message = NULL;
	int r;

	request.request_id = session_request_id(device->session);
	request.device = device->handle;
	request.to = attachment;
	request.nested = nested != NULL ? nested->handle : 0;
	r = exchange_run(device->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	if (ret_walk != NULL && attachment == IOMMUBROKER_ATTACHMENT_NESTED)
		result_from_message(
			((const Iommubroker__V1__AttachResponse *)(const void *)message)->walk,
			ret_walk);
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

int iommubroker_device_close(struct iommubroker_device *device, bool *ret_still_held,
			     struct iommubroker_error **ret_error)
{
	Iommubroker__V1__CloseDeviceRequest request = IOMMUBROKER__V1__CLOSE_DEVICE_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_CLOSE_DEVICE,
		.request = &request.base,
		.response = &iommubroker__v1__close_device_response__descriptor,
		.takes_away = true,
	};
	const Iommubroker__V1__CloseDeviceResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	request.request_id = session_request_id(device->session);
	request.device = device->handle;
	r = exchange_run(device->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	if (ret_still_held != NULL)
		*ret_still_held = response->still_held;
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

uint64_t iommubroker_device_handle(const struct iommubroker_device *device)
{
	return device->handle;
}

struct iommubroker_device *iommubroker_device_free(struct iommubroker_device *device)
{
	free(device);
	return NULL;
}
