/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Guests. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iommubroker/v1/guests.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/session.h"

#define LABELS_MAX     8
#define REGIONS_A_PAGE 512        /* of an answer: they fit its message with room to spare */
#define REGIONS_MAX    (1u << 20) /* no daemon lets a guest have as many */

typedef Iommubroker__V1__CreateGuestRequest__LabelsEntry LabelEntry;

static int check_options(const struct iommubroker_guest_options *options,
			 struct iommubroker_error **ret_error)
{
	if (options->struct_bytes != sizeof(*options))
		return error_field(ret_error, "struct_bytes", "struct_bytes is %zu, not %zu",
				   options->struct_bytes, sizeof(*options));
	if (options->n_labels > LABELS_MAX)
		return error_field(ret_error, "labels", "%zu labels, more than %d",
				   options->n_labels, LABELS_MAX);
	return 0;
}

/* pidfd: -1, or of the process that it is for. */
static int create(struct iommubroker_session *session, Iommubroker__V1__CreateGuestRequest *request,
		  int pidfd, struct iommubroker_guest **ret_guest,
		  struct iommubroker_error **ret_error)
{
	Iommubroker__V1__DescriptorRef process = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_CREATE_GUEST,
		.request = &request->base,
		.response = &iommubroker__v1__create_guest_response__descriptor,
		.has_fd = pidfd >= 0,
		.fd = pidfd,
	};
	const Iommubroker__V1__CreateGuestResponse *response;
	struct iommubroker_guest *guest = malloc(sizeof(*guest));
	ProtobufCMessage *message = NULL;
	int r;

	if (guest == NULL)
		return error_transport(-ENOMEM, ret_error);
	process.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	if (pidfd >= 0)
		request->on_behalf_of = &process;
	request->request_id = session_request_id(session);
	r = exchange_run(session, &exchange, &message, ret_error);
	if (r < 0) {
		free(guest);
		return r;
	}
	response = (const void *)message;
	*guest = (struct iommubroker_guest){.session = session, .handle = response->guest};
	guest->has_secret = response->secret.len == sizeof(guest->secret);
	if (guest->has_secret)
		memcpy(guest->secret, response->secret.data, sizeof(guest->secret));
	protobuf_c_message_free_unpacked(message, NULL);
	*ret_guest = guest;
	return 0;
}

static int create_with(struct iommubroker_session *session, int pidfd,
		       const struct iommubroker_guest_options *options,
		       struct iommubroker_guest **ret_guest, struct iommubroker_error **ret_error)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__CreateGuestRequest__Limits limits =
		IOMMUBROKER__V1__CREATE_GUEST_REQUEST__LIMITS__INIT;
	LabelEntry entries[LABELS_MAX];
	LabelEntry *labels[LABELS_MAX];
	int r;

	if (options == NULL)
		return create(session, &request, pidfd, ret_guest, ret_error);
	r = check_options(options, ret_error);
	if (r < 0)
		return r;
	if (options->uuid != NULL) {
		request.uuid.data = (uint8_t *)options->uuid;
		request.uuid.len = IOMMUBROKER_UUID_BYTES;
	}
	if (options->name != NULL)
		request.name = (char *)options->name;
	for (size_t i = 0; i < options->n_labels; i++) {
		entries[i] = (LabelEntry)IOMMUBROKER__V1__CREATE_GUEST_REQUEST__LABELS_ENTRY__INIT;
		entries[i].key = (char *)options->labels[i].key;
		entries[i].value = (char *)options->labels[i].value;
		labels[i] = &entries[i];
	}
	request.n_labels = options->n_labels;
	request.labels = labels;
	limits.pinned_bytes_max = options->pinned_bytes_max;
	limits.mappings_max = options->mappings_max;
	request.limits = &limits;
	return create(session, &request, pidfd, ret_guest, ret_error);
}

int iommubroker_guest_create(struct iommubroker_session *session,
			     const struct iommubroker_guest_options *options,
			     struct iommubroker_guest **ret_guest,
			     struct iommubroker_error **ret_error)
{
	return create_with(session, -1, options, ret_guest, ret_error);
}

int iommubroker_guest_create_for(struct iommubroker_session *session, int borrow_pidfd,
				 const struct iommubroker_guest_options *options,
				 struct iommubroker_guest **ret_guest,
				 struct iommubroker_error **ret_error)
{
	if (borrow_pidfd < 0)
		return error_field(ret_error, "on_behalf_of", "%d is no descriptor", borrow_pidfd);
	return create_with(session, borrow_pidfd, options, ret_guest, ret_error);
}

static void fill_devices(struct iommubroker_guest_device *devices,
			 const Iommubroker__V1__GuestDescription *from)
{
	for (size_t i = 0; i < from->n_devices; i++) {
		const Iommubroker__V1__GuestDescription__Device *device = from->devices[i];

		devices[i] = (struct iommubroker_guest_device){
			.device = device->device,
			.nested = device->nested,
			.attachment = device->attachment,
			.bound = device->bound,
			.has_function_id = device->info != NULL && device->info->has_function_id,
			.function_id = device->info != NULL ? device->info->function_id : 0,
			.pci_address = device->info != NULL ? device->info->pci_address : "",
		};
	}
}

static void fill_nested(struct iommubroker_guest_nested *nested,
			const Iommubroker__V1__GuestDescription *from)
{
	for (size_t i = 0; i < from->n_nested; i++) {
		const Iommubroker__V1__GuestDescription__Nested *one = from->nested[i];

		nested[i] = (struct iommubroker_guest_nested){
			.nested = one->nested,
			.device = one->device,
			.index = one->index,
			.attached = one->attached,
			.format = one->format,
			.iota = one->iota,
			.first = one->first,
			.last = one->last,
			.live_leaves = one->live_leaves,
			.kept_tables = one->kept_tables,
			.kept_bytes = one->kept_bytes,
			.mappings_reserved = one->mappings_reserved,
			.refreshes = one->refreshes,
			.backend_maps = one->backend_maps,
			.backend_unmaps = one->backend_unmaps,
		};
	}
}

/* Regions of the answers so far. */
struct region_pages {
	struct iommubroker_region *regions;
	size_t n;
};

static int region_pages_add(struct region_pages *pages,
			    const Iommubroker__V1__GuestDescription *from)
{
	struct iommubroker_region *regions;

	if (from->n_regions > REGIONS_MAX - pages->n)
		return -EBADMSG;
	regions = reallocarray(pages->regions, pages->n + from->n_regions + 1, sizeof(*regions));
	if (regions == NULL)
		return -ENOMEM;
	pages->regions = regions;
	for (size_t i = 0; i < from->n_regions; i++)
		regions[pages->n++] = (struct iommubroker_region){
			.memory_file = from->regions[i]->memory_file,
			.offset = from->regions[i]->offset,
			.gpa = from->regions[i]->gpa,
			.length = from->regions[i]->length,
			.granule = from->regions[i]->granule,
			.access = from->regions[i]->access,
		};
	return 0;
}

static struct iommubroker_guest_info *info_new(ProtobufCMessage *consume_message,
					       const Iommubroker__V1__GuestDescription *from,
					       const struct region_pages *pages)
{
	struct iommubroker_guest_info *info;
	struct iommubroker_region *regions;
	struct iommubroker_guest_device *devices;
	struct iommubroker_guest_nested *nested;

	info = holder_new(sizeof(*info) + pages->n * sizeof(*regions) +
				  from->n_devices * sizeof(*devices) +
				  from->n_nested * sizeof(*nested),
			  consume_message);
	if (info == NULL)
		return NULL;
	regions = (struct iommubroker_region *)(info + 1);
	devices = (struct iommubroker_guest_device *)(regions + pages->n);
	nested = (struct iommubroker_guest_nested *)(devices + from->n_devices);
	memcpy(regions, pages->regions, pages->n * sizeof(*regions));
	fill_devices(devices, from);
	fill_nested(nested, from);
	*info = (struct iommubroker_guest_info){
		.guest = from->guest,
		.name = from->name,
		.tenant = from->tenant,
		.pinned = from->pinned,
		.region_bytes = from->region_bytes,
		.mappings_reserved = from->mappings_reserved,
		.n_regions = pages->n,
		.n_devices = from->n_devices,
		.n_nested = from->n_nested,
		.regions = regions,
		.devices = devices,
		.nested = nested,
	};
	return info;
}

/* *ret_next: where the next one begins, 0 after the last. */
static int describe_page(struct iommubroker_guest *guest, uint64_t from, ProtobufCMessage **ret,
			 uint64_t *ret_next, struct iommubroker_error **ret_error)
{
	Iommubroker__V1__DescribeGuestRequest request =
		IOMMUBROKER__V1__DESCRIBE_GUEST_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_DESCRIBE_GUEST,
		.request = &request.base,
		.response = &iommubroker__v1__describe_guest_response__descriptor,
	};
	const Iommubroker__V1__DescribeGuestResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	request.guest = guest->handle;
	request.regions_from = from;
	request.regions_max = REGIONS_A_PAGE;
	r = exchange_run(guest->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	/* A daemon that did not get ahead would be asked forever. */
	if (response->description == NULL ||
	    (response->regions_next != 0 && response->regions_next <= from)) {
		protobuf_c_message_free_unpacked(message, NULL);
		return error_transport(-EBADMSG, ret_error);
	}
	*ret_next = response->regions_next;
	*ret = message;
	return 0;
}

/* All pages; the last one's message is where the rest of the description is. */
static int describe_pages(struct iommubroker_guest *guest, struct region_pages *pages,
			  ProtobufCMessage **ret, struct iommubroker_error **ret_error)
{
	const Iommubroker__V1__DescribeGuestResponse *response;
	ProtobufCMessage *message = NULL;
	uint64_t next = 0;
	int r;

	do {
		protobuf_c_message_free_unpacked(message, NULL);
		r = describe_page(guest, next, &message, &next, ret_error);
		if (r < 0)
			return r;
		response = (const void *)message;
		r = region_pages_add(pages, response->description);
		if (r < 0) {
			protobuf_c_message_free_unpacked(message, NULL);
			return error_transport(r, ret_error);
		}
	} while (next != 0);
	*ret = message;
	return 0;
}

int iommubroker_guest_describe(struct iommubroker_guest *guest,
			       struct iommubroker_guest_info **ret_info,
			       struct iommubroker_error **ret_error)
{
	const Iommubroker__V1__DescribeGuestResponse *response;
	struct region_pages pages = {0};
	struct iommubroker_guest_info *info;
	ProtobufCMessage *message = NULL;
	int r;

	r = describe_pages(guest, &pages, &message, ret_error);
	if (r < 0) {
		free(pages.regions);
		return r;
	}
	response = (const void *)message;
	info = info_new(message, response->description, &pages);
	free(pages.regions);
	if (info == NULL)
		return error_transport(-ENOMEM, ret_error);
	*ret_info = info;
	return 0;
}

struct iommubroker_guest_info *iommubroker_guest_info_free(struct iommubroker_guest_info *info)
{
	return holder_free(info);
}

int iommubroker_guest_reset(struct iommubroker_guest *guest, uint32_t *ret_destroyed,
			    struct iommubroker_error **ret_error)
{
	Iommubroker__V1__ResetGuestRequest request = IOMMUBROKER__V1__RESET_GUEST_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_RESET_GUEST,
		.request = &request.base,
		.response = &iommubroker__v1__reset_guest_response__descriptor,
	};
	const Iommubroker__V1__ResetGuestResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	request.request_id = session_request_id(guest->session);
	request.guest = guest->handle;
	r = exchange_run(guest->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	if (ret_destroyed != NULL)
		*ret_destroyed = response->nested_destroyed;
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

int iommubroker_guest_destroy(struct iommubroker_guest *guest, struct iommubroker_error **ret_error)
{
	Iommubroker__V1__DestroyGuestRequest request = IOMMUBROKER__V1__DESTROY_GUEST_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_DESTROY_GUEST,
		.request = &request.base,
		.response = &iommubroker__v1__destroy_guest_response__descriptor,
		.takes_away = true,
	};

	struct iommubroker_error *error = NULL;
	uint64_t losses = session_losses(guest->session);
	int r;

	request.request_id = session_request_id(guest->session);
	request.guest = guest->handle;
	r = exchange_run_only(guest->session, &exchange, &error);
	/* What a guest's requests were answered goes with it: asked again, there is none. */
	if (r == -ENOENT && session_losses(guest->session) != losses)
		r = 0;
	if (r < 0 && ret_error != NULL)
		*ret_error = error;
	else
		iommubroker_error_free(error);
	return r;
}

int iommubroker_guest_prepare_handover(struct iommubroker_guest *guest, uint32_t seconds,
				       bool block_dma, struct iommubroker_error **ret_error)
{
	Iommubroker__V1__PrepareHandoverRequest request =
		IOMMUBROKER__V1__PREPARE_HANDOVER_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_PREPARE_HANDOVER,
		.request = &request.base,
		.response = &iommubroker__v1__prepare_handover_response__descriptor,
	};

	request.request_id = session_request_id(guest->session);
	request.guest = guest->handle;
	request.seconds = seconds;
	request.block_dma = block_dma;
	return exchange_run_only(guest->session, &exchange, ret_error);
}

int iommubroker_guest_resume(struct iommubroker_session *session, const uint8_t *secret,
			     struct iommubroker_guest **ret_guest,
			     struct iommubroker_error **ret_error)
{
	Iommubroker__V1__ResumeGuestRequest request = IOMMUBROKER__V1__RESUME_GUEST_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_RESUME_GUEST,
		.request = &request.base,
		.response = &iommubroker__v1__resume_guest_response__descriptor,
	};
	struct iommubroker_guest *guest = malloc(sizeof(*guest));
	ProtobufCMessage *message = NULL;
	int r;

	if (guest == NULL)
		return error_transport(-ENOMEM, ret_error);
	*guest = (struct iommubroker_guest){.session = session, .has_secret = true};
	memcpy(guest->secret, secret, sizeof(guest->secret));
	request.request_id = session_request_id(session);
	request.secret = (ProtobufCBinaryData){sizeof(guest->secret), guest->secret};
	r = exchange_run(session, &exchange, &message, ret_error);
	if (r < 0) {
		free(guest);
		return r;
	}
	guest->handle =
		((const Iommubroker__V1__ResumeGuestResponse *)(const void *)message)->guest;
	protobuf_c_message_free_unpacked(message, NULL);
	*ret_guest = guest;
	return 0;
}

const uint8_t *iommubroker_guest_secret(const struct iommubroker_guest *guest)
{
	return guest->has_secret ? guest->secret : NULL;
}

uint64_t iommubroker_guest_handle(const struct iommubroker_guest *guest)
{
	return guest->handle;
}

struct iommubroker_guest *iommubroker_guest_free(struct iommubroker_guest *guest)
{
	free(guest);
	return NULL;
}
