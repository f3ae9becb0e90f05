/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/convert.h"

typedef Iommubroker__V1__GuestDescription GuestDescription;
typedef Iommubroker__V1__GuestDescription__LabelsEntry LabelsEntry;
typedef Iommubroker__V1__GuestDescription__MemoryFile MemoryFile;
typedef Iommubroker__V1__GuestDescription__Region Region;
typedef Iommubroker__V1__GuestDescription__Device Device;
typedef Iommubroker__V1__GuestDescription__Nested Nested;

void **convert_array(struct call *call, size_t n, size_t message_bytes, void (*init)(void *))
{
	void **pointers = call_array(call, n, sizeof(*pointers));
	uint8_t *messages = call_array(call, n, message_bytes);

	if (!pointers || !messages)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		pointers[i] = messages + i * message_bytes;
		init(pointers[i]);
	}
	return pointers;
}

Iommubroker__V1__Access convert_access(bool writable)
{
	return writable ? IOMMUBROKER__V1__ACCESS__ACCESS_READ_WRITE
			: IOMMUBROKER__V1__ACCESS__ACCESS_READ;
}

Iommubroker__V1__Attachment convert_attachment(enum attachment attachment)
{
	switch (attachment) {
	case ATTACHMENT_BLOCKED:
		break;
	case ATTACHMENT_PARENT:
		return IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_PARENT;
	case ATTACHMENT_RELAXED:
		return IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_RELAXED;
	case ATTACHMENT_NESTED:
		return IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_NESTED;
	}
	return IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_BLOCKED;
}

static bool convert_labels(struct call *call, const struct guest_description *guest,
			   GuestDescription *ret)
{
	ret->n_labels = guest->n_labels;
	ret->labels = CONVERT_ARRAY(call, guest->n_labels, LabelsEntry,
				    iommubroker__v1__guest_description__labels_entry__init);
	for (size_t i = 0; ret->labels && i < guest->n_labels; i++) {
		ret->labels[i]->key = (char *)guest->labels[i].key;
		ret->labels[i]->value = (char *)guest->labels[i].value;
	}
	return ret->labels;
}

static bool convert_memory_files(struct call *call, const struct guest_description *guest,
				 GuestDescription *ret)
{
	ret->n_memory_files = guest->n_memory_files;
	ret->memory_files = CONVERT_ARRAY(call, guest->n_memory_files, MemoryFile,
					  iommubroker__v1__guest_description__memory_file__init);
	for (size_t i = 0; ret->memory_files && i < guest->n_memory_files; i++) {
		const struct memory_file_description *file = &guest->memory_files[i];

		ret->memory_files[i]->memory_file = file->memory_file;
		ret->memory_files[i]->length = file->length_bytes;
		ret->memory_files[i]->writable = file->writable;
		ret->memory_files[i]->huge_pages = file->huge_pages;
		ret->memory_files[i]->page_bytes = file->page_bytes;
	}
	return ret->memory_files;
}

static bool convert_regions(struct call *call, const struct guest_description *guest,
			    GuestDescription *ret)
{
	ret->n_regions = guest->n_regions;
	ret->regions = CONVERT_ARRAY(call, guest->n_regions, Region,
				     iommubroker__v1__guest_description__region__init);
	for (size_t i = 0; ret->regions && i < guest->n_regions; i++) {
		const struct region_description *region = &guest->regions[i];

		ret->regions[i]->memory_file = region->memory_file;
		ret->regions[i]->offset = region->offset;
		ret->regions[i]->gpa = region->gpa;
		ret->regions[i]->length = region->length_bytes;
		ret->regions[i]->access = convert_access(region->writable);
		ret->regions[i]->granule = region->granule_bytes;
	}
	return ret->regions;
}

static bool convert_devices(struct call *call, const struct guest_description *guest,
			    GuestDescription *ret)
{
	Iommubroker__V1__DeviceInfo *infos = call_array(call, guest->n_devices, sizeof(*infos));

	ret->n_devices = guest->n_devices;
	ret->devices = CONVERT_ARRAY(call, guest->n_devices, Device,
				     iommubroker__v1__guest_description__device__init);
	if (!infos || !ret->devices)
		return false;
	for (size_t i = 0; i < guest->n_devices; i++) {
		const struct device_description *device = &guest->devices[i];

		if (convert_device(call, device, &infos[i]))
			return false;
		ret->devices[i]->device = device->device;
		ret->devices[i]->info = &infos[i];
		ret->devices[i]->bound = device->bound;
		ret->devices[i]->attachment = convert_attachment(device->attachment);
		if (device->attachment == ATTACHMENT_NESTED)
			ret->devices[i]->nested = device->nested;
		ret->devices[i]->rule = (char *)device->rule;
	}
	return true;
}

static const char *format_name(enum nested_format format)
{
	switch (format) {
	case NESTED_S390:
		break;
	case NESTED_RELAXED:
		return "relaxed";
	case NESTED_MANAGED:
		return "managed";
	}
	return "s390";
}

static void convert_nested(const struct nested_description *nested, Nested *ret)
{
	ret->nested = nested->nested;
	ret->index = nested->index;
	ret->device = nested->device;
	ret->format = (char *)format_name(nested->format);
	ret->iota = nested->iota;
	ret->first = nested->first;
	ret->last = nested->last;
	ret->attached = nested->attached;
	ret->live_leaves = nested->live_leaves;
	ret->kept_tables = nested->kept_tables;
	ret->kept_bytes = nested->kept_bytes;
	ret->mappings_reserved = nested->mappings_reserved;
	ret->refreshes = nested->refreshes;
	ret->backend_maps = nested->backend_maps;
	ret->backend_unmaps = nested->backend_unmaps;
}

static bool convert_nesteds(struct call *call, const struct guest_description *guest,
			    GuestDescription *ret)
{
	ret->n_nested = guest->n_nested;
	ret->nested = CONVERT_ARRAY(call, guest->n_nested, Nested,
				    iommubroker__v1__guest_description__nested__init);
	for (size_t i = 0; ret->nested && i < guest->n_nested; i++)
		convert_nested(&guest->nested[i], ret->nested[i]);
	return ret->nested;
}

int convert_guest(struct call *call, const struct guest_description *guest, GuestDescription *ret)
{
	const struct guest_summary *summary = &guest->summary;

	iommubroker__v1__guest_description__init(ret);
	ret->guest = summary->guest;
	if (summary->has_uuid)
		ret->uuid = (ProtobufCBinaryData){sizeof(summary->uuid), (uint8_t *)summary->uuid};
	ret->name = (char *)summary->name;
	ret->pinned = summary->pinned;
	ret->region_bytes = summary->region_bytes;
	ret->mappings_reserved = guest->mappings_reserved;
	ret->pid = (uint64_t)summary->pid;
	ret->uid = summary->uid;
	ret->tenant = (char *)summary->tenant;
	if (!convert_labels(call, guest, ret) || !convert_memory_files(call, guest, ret) ||
	    !convert_regions(call, guest, ret) || !convert_devices(call, guest, ret) ||
	    !convert_nesteds(call, guest, ret))
		return call_refuse_memory(call);
	return 0;
}
