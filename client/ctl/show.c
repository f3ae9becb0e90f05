/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl show: all that there is of a guest. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__GuestDescription Guest;

struct show {
	json_t *guests; /* --json */
	size_t n;
};

static void print_head(const Guest *guest)
{
	printf("guest %016" PRIx64 "  %s\n", guest->guest, text_safe(guest->name, 50).bytes);
	if (guest->uuid.len > 0)
		printf("  uuid       %s\n", text_uuid(guest->uuid.data, guest->uuid.len).bytes);
	printf("  owner      pid %" PRIu64 ", uid %" PRIu64 ", tenant %s\n", guest->pid, guest->uid,
	       text_safe(guest->tenant, 40).bytes);
	for (size_t i = 0; i < guest->n_labels; i++)
		printf("  label      %s = %s\n", text_safe(guest->labels[i]->key, 30).bytes,
		       text_safe(guest->labels[i]->value, 34).bytes);
	printf("  memory     %s, %s\n", text_size(guest->region_bytes).bytes,
	       guest->pinned ? "pinned" : "not pinned yet");
	printf("  mappings   %" PRIu64 " reserved\n", guest->mappings_reserved);
}

static void print_memory(const Guest *guest)
{
	if (guest->n_regions == 0)
		return;
	printf("\n  %-18s %-18s %10s %-10s %10s\n", "GPA", "OFFSET IN FILE", "LENGTH", "ACCESS",
	       "GRANULE");
	for (size_t i = 0; i < guest->n_regions; i++) {
		const Iommubroker__V1__GuestDescription__Region *region = guest->regions[i];

		printf("  0x%-16" PRIx64 " 0x%-16" PRIx64 " %10s %-10s %10s\n", region->gpa,
		       region->offset, text_size(region->length).bytes, text_access(region->access),
		       region->granule > 0 ? text_size(region->granule).bytes : "-");
	}
}

static void print_devices(const Guest *guest)
{
	if (guest->n_devices == 0)
		return;
	printf("\n  %-16s %-10s %-13s %-5s %-8s %s\n", "DEVICE", "FUNCTION", "PCI ADDRESS", "BOUND",
	       "ATTACHED", "TO");
	for (size_t i = 0; i < guest->n_devices; i++) {
		const Iommubroker__V1__GuestDescription__Device *device = guest->devices[i];
		char function[16] = "-", nested[24] = "";

		if (device->info != NULL && device->info->has_function_id)
			snprintf(function, sizeof(function), "0x%x", device->info->function_id);
		if (device->nested != 0)
			snprintf(nested, sizeof(nested), "%016" PRIx64, device->nested);
		printf("  %016" PRIx64 " %-10s %-13s %-5s %-8s %s\n", device->device, function,
		       device->info != NULL ? text_safe(device->info->pci_address, 13).bytes : "-",
		       device->bound ? "yes" : "no", text_attachment(device->attachment), nested);
		if (device->rule[0] == '\0')
			printf("    no rule of device.d gives it any more\n");
	}
}

/* Too much for a line: a paragraph each. */
static void print_nested(const Guest *guest)
{
	for (size_t i = 0; i < guest->n_nested; i++) {
		const Iommubroker__V1__GuestDescription__Nested *nested = guest->nested[i];

		printf("\n  nested %016" PRIx64 "  %s, of device %016" PRIx64 ", %s\n",
		       nested->nested, text_safe(nested->format, 12).bytes, nested->device,
		       nested->attached ? "attached" : "not attached");
		printf("    window     0x%" PRIx64 " to 0x%" PRIx64 ", IOTA 0x%" PRIx64 "\n",
		       nested->first, nested->last, nested->iota);
		printf("    leaves     %" PRIu64 " live, %" PRIu64 " reserved\n",
		       nested->live_leaves, nested->mappings_reserved);
		printf("    kept       %" PRIu64 " page tables, %s\n", nested->kept_tables,
		       text_size(nested->kept_bytes).bytes);
		printf("    refreshes  %" PRIu64 ", backend maps %" PRIu64 ", unmaps %" PRIu64 "\n",
		       nested->refreshes, nested->backend_maps, nested->backend_unmaps);
	}
}

static bool show_one(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__ShowGuestResponse *response = (const void *)message;
	const Guest *guest = response->description;
	struct show *show = user_data;

	if (guest == NULL)
		return true;
	if (show->guests != NULL) {
		json_array_append_new(show->guests, json_from_message(&guest->base));
		return true;
	}
	if (show->n++ > 0)
		putchar('\n');
	print_head(guest);
	print_memory(guest);
	print_devices(guest);
	print_nested(guest);
	return true;
}

int command_show(struct command_context *context, int argc, char **argv)
{
	Iommubroker__V1__ShowGuestRequest request = IOMMUBROKER__V1__SHOW_GUEST_REQUEST__INIT;
	struct show show = {.guests = context->options->json ? json_array() : NULL};
	struct rpc_status status;

	if (argc > 0)
		request.guest = argv[0];
	rpc_call(context->rpc, "ShowGuest", &request.base,
		 &iommubroker__v1__show_guest_response__descriptor, show_one, &show, &status);
	/* One guest that was asked for is an object, else an array. */
	if (status.code == 0 && context->options->json)
		json_print(argc > 0 && json_array_size(show.guests) == 1
				   ? json_array_get(show.guests, 0)
				   : show.guests);
	json_decref(show.guests);
	return command_outcome(context, &status);
}
