/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What is refused for its form before the broker is asked, field by field, and what of a request
 * reaches the broker.
 */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dispatch_fixture.h"

/* ── form ─────────────────────────────────────────────────────────────────────────────────── */

static void test_strings_are_text(void **state)
{
	(void)state;
	/* field 3 (name): "a", NUL, "b" */
	assert_int_equal(run_bytes(PATH("Guests/CreateGuest"),
				   "\x1a\x03"
				   "a\0b",
				   5),
			 3);
	assert_field("name");
	assert_int_equal(run_bytes(PATH("Guests/CreateGuest"), "\x1a\x02\xc3\x28", 4), 3);
	assert_field("name");
	/* the second label's value */
	assert_int_equal(run_bytes(PATH("Guests/CreateGuest"),
				   "\x22\x06\x0a\x01k\x12\x01v"
				   "\x22\x06\x0a\x01l\x12\x01\xff",
				   16),
			 3);
	assert_field("labels[1].value");
	assert_int_equal(fake.creates, 0);
	assert_int_equal(run_bytes(PATH("Guests/CreateGuest"), "\x1a\x02\xc3\xa4", 4), 0);
}

static void test_enums_are_known(void **state)
{
	(void)state;
	/* UpdateMemory: guest 1, map[1].access = 9 */
	assert_int_equal(run_bytes(PATH("Memory/UpdateMemory"),
				   "\x11\x01\0\0\0\0\0\0\0"
				   "\x22\x00"
				   "\x22\x02\x30\x09",
				   15),
			 3);
	assert_field("map[1].access");
	/* Delegate.rights, packed: 1, 77 */
	assert_int_equal(run_bytes(PATH("Guests/Delegate"), "\x1a\x02\x01\x4d", 4), 3);
	assert_field("rights[1]");
	/* a value beyond 32 bits whose low part is known */
	assert_int_equal(run_bytes(PATH("Domains/Attach"), "\x18\x81\x80\x80\x80\x10", 6), 3);
	assert_field("to");
}

static void test_malformed_bytes(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *field;
	} bad[] = {
		{"\x08", 1, "request_id"},
		{"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, "request_id"},
		{"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, "request_id"}, /* 65 bits */
		{"\x0d\x01\x02\x03\x04", 5, "request_id"}, /* wrong wire type */
		{"\x1a\x7f", 2, "name"},
		{"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "name"},
		{"\x2a\x01\x08", 3, "limits.pinned_bytes_max"},
		{"\x00", 1, ""},
		{"\xa3\x06", 2, ""}, /* an unknown field of a group's wire type */
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 10, ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(run_bytes(PATH("Guests/CreateGuest"), bad[i].bytes, bad[i].n), 3);
		assert_field(bad[i].field);
	}
	/* an unknown field is none of our business */
	assert_int_equal(run_bytes(PATH("Guests/CreateGuest"), "\xa0\x06\x01", 3), 0);
}

static void test_message_too_complex(void **state)
{
	/* Unknown fields, 2 bytes each, take far more than that when unpacked. */
	size_t n_bytes = RPC_MESSAGE_BYTES_MAX;
	uint8_t *bytes = malloc(n_bytes + 1);

	(void)state;
	for (size_t i = 0; i < n_bytes; i += 2) {
		bytes[i] = 0x78;
		bytes[i + 1] = 0x01;
	}
	assert_int_equal(run_bytes(PATH("Guests/CreateGuest"), bytes, n_bytes), 8);
	assert_reason("MESSAGE_TOO_COMPLEX");
	assert_int_equal(run_bytes(PATH("Guests/CreateGuest"), bytes, n_bytes + 1), 3);
	free(bytes);
}

static void test_create_guest_fields(void **state)
{
	Iommubroker__V1__CreateGuestRequest request = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__CreateGuestRequest__LabelsEntry labels[9], *pointers[9];
	Iommubroker__V1__CreateGuestRequest__Limits limits =
		IOMMUBROKER__V1__CREATE_GUEST_REQUEST__LIMITS__INIT;
	char text[65];

	(void)state;
	memset(text, 'x', 64);
	text[64] = '\0';
	request.name = text;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 3);
	assert_field("name");
	request.name = text + 1;
	request.uuid = (ProtobufCBinaryData){15, (uint8_t *)text};
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 3);
	assert_field("uuid");
	request.uuid.len = 16;
	for (size_t i = 0; i < 9; i++) {
		iommubroker__v1__create_guest_request__labels_entry__init(&labels[i]);
		labels[i].key = text + 64 - i;
		labels[i].value = (char *)"v";
		pointers[i] = &labels[i];
	}
	request.labels = pointers;
	request.n_labels = 9;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 3);
	assert_field("labels");
	request.n_labels = 8;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 3);
	assert_field("labels[0].key");
	labels[0].key = labels[3].key;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 3);
	assert_field("labels[3].key");
	labels[0].key = (char *)"first";
	labels[2].value = text;
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 3);
	assert_field("labels[2].value");
	labels[2].value = text + 1;
	limits.mappings_max = 7;
	request.limits = &limits;
	assert_int_equal(fake.creates, 0);
	assert_int_equal(run(PATH("Guests/CreateGuest"), &request), 0);
	assert_int_equal(fake.create.n_labels, 8);
	assert_true(fake.create.has_uuid);
	assert_memory_equal(fake.create.uuid, text, 16);
	assert_string_equal(fake.create.name, text + 1);
	assert_string_equal(fake.create.labels[0].key, "first");
	assert_string_equal(fake.create.labels[2].value, text + 1);
	assert_int_equal(fake.create.mappings_max, 7);
}

static void test_update_memory_fields(void **state)
{
	Iommubroker__V1__UpdateMemoryRequest request = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	Iommubroker__V1__UpdateMemoryRequest__Map maps[2], *pointers[513];
	Iommubroker__V1__UpdateMemoryRequest__DeviceRegion region =
		IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__DEVICE_REGION__INIT;
	Iommubroker__V1__UpdateMemoryResponse *response;

	(void)state;
	iommubroker__v1__update_memory_request__map__init(&maps[0]);
	maps[0].source_case = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__SOURCE_MEMORY_FILE;
	maps[0].memory_file = 11;
	maps[0].access = IOMMUBROKER__V1__ACCESS__ACCESS_READ_WRITE;
	maps[0].length = 0x1000;
	maps[1] = maps[0];
	for (size_t i = 0; i < 513; i++)
		pointers[i] = &maps[0];
	request.map = pointers;
	request.n_map = 513;
	assert_int_equal(run(PATH("Memory/UpdateMemory"), &request), 3);
	assert_field("guest");
	request.guest = 1;
	assert_int_equal(run(PATH("Memory/UpdateMemory"), &request), 3);
	assert_field("map");
	request.n_map = 2;
	pointers[1] = &maps[1];
	maps[1].access = IOMMUBROKER__V1__ACCESS__ACCESS_UNSPECIFIED;
	assert_int_equal(run(PATH("Memory/UpdateMemory"), &request), 3);
	assert_field("map[1].access");
	maps[1].source_case = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__SOURCE__NOT_SET;
	assert_int_equal(run(PATH("Memory/UpdateMemory"), &request), 3);
	assert_field("map[1].source");
	maps[1].source_case = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__SOURCE_DEVICE_REGION;
	maps[1].device_region = &region;
	assert_int_equal(run(PATH("Memory/UpdateMemory"), &request), 3);
	assert_field("map[1].device_region");
	region.device = 21;
	assert_int_equal(run(PATH("Memory/UpdateMemory"), &request), 12);
	assert_reason("DEVICE_REGION");
	assert_int_equal(fake.updates, 0);
	request.n_map = 512;
	pointers[1] = &maps[0];
	assert_int_equal(run(PATH("Memory/UpdateMemory"), &request), 0);
	assert_int_equal(fake.update.n_map, 512);
	assert_true(fake.update.map[511].writable);
	assert_int_equal(fake.update.map[511].length, 0x1000);
	assert_int_equal(call.sends, 1); /* its progress */
	response = answer(&iommubroker__v1__update_memory_response__descriptor);
	assert_int_equal(response->update_case,
			 IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_DONE);
	assert_int_equal(response->done->region_bytes, 0x3000);
	protobuf_c_message_free_unpacked(&response->base, NULL);
}

static void test_open_device_fields(void **state)
{
	static const char *const bad[] = {"",
					  "0000:00:04",
					  "0000:00:04.8",
					  "0000:00:20.0",
					  "000:00:04.0",
					  "0000:00:04.00",
					  "0000-00:04.0"};
	Iommubroker__V1__OpenDeviceRequest request = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;
	Iommubroker__V1__DescriptorRef ref = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;

	(void)state;
	request.guest = 1;
	assert_int_equal(run(PATH("Devices/OpenDevice"), &request), 3);
	assert_field("address");
	request.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_PCI_ADDRESS;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		request.pci_address = (char *)bad[i];
		assert_int_equal(run(PATH("Devices/OpenDevice"), &request), 3);
		assert_field("pci_address");
	}
	request.pci_address = (char *)"00AB:0c:04.7";
	assert_int_equal(run(PATH("Devices/OpenDevice"), &request), 0);
	assert_string_equal(fake.open.address.pci_address, "00ab:0c:04.7");
	assert_false(fake.open.address.by_fid);
	request.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_DESCRIPTOR;
	request.descriptor = &ref;
	assert_int_equal(run(PATH("Devices/OpenDevice"), &request), 3);
	assert_field("descriptor");
	ref.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	assert_int_equal(run(PATH("Devices/OpenDevice"), &request), 3);
	assert_field("descriptor");
	ref.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_TOKEN;
	ref.token = 1;
	assert_int_equal(run(PATH("Devices/OpenDevice"), &request), 3);
	assert_field("descriptor");
	assert_int_equal(fake.opens, 1);
}

static void test_domain_fields(void **state)
{
	Iommubroker__V1__CreateNestedRequest create = IOMMUBROKER__V1__CREATE_NESTED_REQUEST__INIT;
	Iommubroker__V1__CreateNestedRequest__VtdS1 vtd =
		IOMMUBROKER__V1__CREATE_NESTED_REQUEST__VTD_S1__INIT;
	Iommubroker__V1__S390Anchor anchor = IOMMUBROKER__V1__S390_ANCHOR__INIT;
	Iommubroker__V1__ReplaceNestedRequest replace =
		IOMMUBROKER__V1__REPLACE_NESTED_REQUEST__INIT;
	Iommubroker__V1__CreateNestedResponse *created;
	Iommubroker__V1__ReplaceNestedResponse *replaced;

	(void)state;
	create.device = 1;
	assert_int_equal(run(PATH("Domains/CreateNested"), &create), 3);
	assert_field("format");
	create.pasid = 1;
	assert_int_equal(run(PATH("Domains/CreateNested"), &create), 3);
	assert_field("pasid");
	create.pasid = 0;
	create.format_case = IOMMUBROKER__V1__CREATE_NESTED_REQUEST__FORMAT_VTD_S1;
	create.vtd_s1 = &vtd;
	assert_int_equal(run(PATH("Domains/CreateNested"), &create), 12);
	assert_reason("KERNEL_NESTED_FORMAT");
	create.format_case = IOMMUBROKER__V1__CREATE_NESTED_REQUEST__FORMAT_S390;
	create.s390 = &anchor;
	anchor.iota = 0xbad;
	anchor.pba = 5;
	assert_int_equal(run(PATH("Domains/CreateNested"), &create), 0);
	created = answer(&iommubroker__v1__create_nested_response__descriptor);
	assert_int_equal(created->verdict, IOMMUBROKER__V1__VERDICT__VERDICT_OPERAND);
	assert_true(created->reason[0]);
	assert_null(created->walk);
	protobuf_c_message_free_unpacked(&created->base, NULL);
	anchor.iota = 0x804;
	assert_int_equal(run(PATH("Domains/CreateNested"), &create), 0);
	assert_int_equal(fake.nested.first, 5);
	created = answer(&iommubroker__v1__create_nested_response__descriptor);
	assert_int_equal(created->nested, 31);
	assert_int_equal(created->index, 5);
	assert_int_equal(created->walk->mapped, 17);
	assert_string_equal(created->reason, "");
	protobuf_c_message_free_unpacked(&created->base, NULL);
	replace.nested = 1;
	assert_int_equal(run(PATH("Domains/ReplaceNested"), &replace), 3);
	assert_field("s390");
	replace.s390 = &anchor;
	assert_int_equal(run(PATH("Domains/ReplaceNested"), &replace), 0);
	replaced = answer(&iommubroker__v1__replace_nested_response__descriptor);
	assert_int_equal(replaced->condition_code, 1);
	assert_int_equal(replaced->status, 16);
	protobuf_c_message_free_unpacked(&replaced->base, NULL);
}

static void test_attach_fields(void **state)
{
	Iommubroker__V1__AttachRequest request = IOMMUBROKER__V1__ATTACH_REQUEST__INIT;
	Iommubroker__V1__AttachResponse *response;

	(void)state;
	request.device = 1;
	assert_int_equal(run(PATH("Domains/Attach"), &request), 3);
	assert_field("to");
	request.to = IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_PARENT;
	request.nested = 3;
	assert_int_equal(run(PATH("Domains/Attach"), &request), 3);
	assert_field("nested");
	request.nested = 0;
	assert_int_equal(run(PATH("Domains/Attach"), &request), 0);
	response = answer(&iommubroker__v1__attach_response__descriptor);
	assert_null(response->walk);
	protobuf_c_message_free_unpacked(&response->base, NULL);
	request.to = IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_NESTED;
	assert_int_equal(run(PATH("Domains/Attach"), &request), 3);
	assert_field("nested");
	request.nested = 3;
	assert_int_equal(run(PATH("Domains/Attach"), &request), 0);
	response = answer(&iommubroker__v1__attach_response__descriptor);
	assert_non_null(response->walk);
	protobuf_c_message_free_unpacked(&response->base, NULL);
}

static void test_update_nested(void **state)
{
	Iommubroker__V1__UpdateNestedRequest request = IOMMUBROKER__V1__UPDATE_NESTED_REQUEST__INIT;
	Iommubroker__V1__UpdateNestedRequest__Entry entry =
		IOMMUBROKER__V1__UPDATE_NESTED_REQUEST__ENTRY__INIT;
	Iommubroker__V1__UpdateNestedRequest__Entry *pointers[257];
	Iommubroker__V1__UpdateNestedResponse *response;

	(void)state;
	for (size_t i = 0; i < 257; i++)
		pointers[i] = &entry;
	request.nested = 1;
	request.entries = pointers;
	assert_int_equal(run(PATH("Domains/UpdateNested"), &request), 3);
	assert_field("entries");
	request.n_entries = 257;
	assert_int_equal(run(PATH("Domains/UpdateNested"), &request), 3);
	assert_field("entries");
	request.n_entries = 256;
	entry.iova = 0x1000;
	entry.access = IOMMUBROKER__V1__ACCESS__ACCESS_READ;
	assert_int_equal(run(PATH("Domains/UpdateNested"), &request), 0);
	assert_int_equal(fake.n_entries, 256);
	assert_true(fake.entries[255].map);
	assert_false(fake.entries[255].writable);
	assert_int_equal(fake.entries[255].iova, 0x1000);
	response = answer(&iommubroker__v1__update_nested_response__descriptor);
	assert_int_equal(response->n_results, 256);
	assert_int_equal(response->results[255]->mapped, 255);
	protobuf_c_message_free_unpacked(&response->base, NULL);
}

static void test_handover(void **state)
{
	Iommubroker__V1__PrepareHandoverRequest prepare =
		IOMMUBROKER__V1__PREPARE_HANDOVER_REQUEST__INIT;
	Iommubroker__V1__ResumeGuestRequest resume = IOMMUBROKER__V1__RESUME_GUEST_REQUEST__INIT;
	Iommubroker__V1__ResumeGuestResponse *response;
	uint8_t bytes[16] = {0x5a};

	(void)state;
	prepare.guest = 1;
	assert_int_equal(run(PATH("Guests/PrepareHandover"), &prepare), 3);
	assert_field("seconds");
	prepare.seconds = BROKER_HANDOVER_SECONDS_MAX + 1;
	assert_int_equal(run(PATH("Guests/PrepareHandover"), &prepare), 3);
	assert_field("seconds");
	prepare.seconds--;
	prepare.block_dma = true;
	assert_int_equal(run(PATH("Guests/PrepareHandover"), &prepare), 0);
	assert_int_equal(fake.handover_seconds, BROKER_HANDOVER_SECONDS_MAX);
	assert_true(fake.handover_blocks);
	assert_true(fake.settled_on_lane);
	assert_int_equal(run(PATH("Guests/ResumeGuest"), &resume), 3);
	assert_field("secret");
	resume.secret = (ProtobufCBinaryData){sizeof(bytes), bytes};
	fake.settled = 0;
	assert_int_equal(run(PATH("Guests/ResumeGuest"), &resume), 0);
	response = answer(&iommubroker__v1__resume_guest_response__descriptor);
	assert_int_equal(response->guest, 5);
	protobuf_c_message_free_unpacked(&response->base, NULL);
	assert_int_equal(fake.settled, 1);
	bytes[0] = 0;
	assert_int_equal(run(PATH("Guests/ResumeGuest"), &resume), 5);
}

#define T(name) cmocka_unit_test_setup_teardown(name, dispatch_setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_strings_are_text),
		T(test_enums_are_known),
		T(test_malformed_bytes),
		T(test_message_too_complex),
		T(test_create_guest_fields),
		T(test_update_memory_fields),
		T(test_open_device_fields),
		T(test_domain_fields),
		T(test_attach_fields),
		T(test_update_nested),
		T(test_handover),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
