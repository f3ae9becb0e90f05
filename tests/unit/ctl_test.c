/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How iommubrokerctl shows things: no client's string reaches a terminal raw, and no number lies.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/json.h"
#include "ctl/option.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

static void expect_safe(const char *string, size_t width, const char *shown)
{
	assert_string_equal(text_safe(string, width).bytes, shown);
}

static void test_safe(void **state)
{
	expect_safe("", 0, "");
	expect_safe("plain - text", 0, "plain - text");
	expect_safe("\x1b[31mred\n\t\x7f", 0, "\\x1b[31mred\\x0a\\x09\\x7f");
	expect_safe("back\\slash", 0, "back\\x5cslash");
	expect_safe("gr\xc3\xbc\xc3\x9f\x65", 0, "gr\xc3\xbc\xc3\x9f\x65");
	expect_safe("\xc2\x9b"
		    "31m",
		    0, "\\xc2\\x9b31m"); /* C1 control */
	expect_safe("\xe2\x80\xae"
		    "x",
		    0, "\\xe2\\x80\\xaex"); /* right to left */
	expect_safe("\xe2\x81\xa6"
		    "x",
		    0, "\\xe2\\x81\\xa6x");                /* isolate */
	expect_safe("\xff\xfe", 0, "\\xff\\xfe");          /* not UTF-8 */
	expect_safe("\xc0\x80", 0, "\\xc0\\x80");          /* overlong */
	expect_safe("\xed\xa0\x80", 0, "\\xed\\xa0\\x80"); /* surrogate */
	expect_safe("\xe2\x82", 0, "\\xe2\\x82");          /* cut short */
}

static void test_width(void **state)
{
	char many[4000];

	expect_safe("abcdef", 6, "abcdef");
	expect_safe("abcdefg", 6, "abcde\xe2\x80\xa6");
	expect_safe("\xc3\xbc\xc3\xbc\xc3\xbc", 2, "\xc3\xbc\xe2\x80\xa6");
	expect_safe("ab\n", 5, "ab\xe2\x80\xa6");
	/* An ideograph takes two columns: of three there is place for one. */
	expect_safe("\xe6\xbc\xa2\xe6\xbc\xa2", 4, "\xe6\xbc\xa2\xe6\xbc\xa2");
	expect_safe("\xe6\xbc\xa2\xe6\xbc\xa2", 3, "\xe6\xbc\xa2\xe2\x80\xa6");
	assert_string_equal(text_column("\xe6\xbc\xa2", 4).bytes, "\xe6\xbc\xa2  ");
	assert_string_equal(text_column("\xc3\xbc", 3).bytes, "\xc3\xbc  ");
	assert_string_equal(text_column("abcd", 3).bytes, "ab\xe2\x80\xa6");
	memset(many, '\n', sizeof(many) - 1);
	many[sizeof(many) - 1] = '\0';
	assert_true(strlen(text_safe(many, 0).bytes) < TEXT_BYTES_MAX);
}

static void test_numbers(void **state)
{
	assert_string_equal(text_size(0).bytes, "0 B");
	assert_string_equal(text_size(1023).bytes, "1023 B");
	assert_string_equal(text_size(4096).bytes, "4 KiB");
	assert_string_equal(text_size(UINT64_C(384) << 20).bytes, "384 MiB");
	assert_string_equal(text_size(UINT64_C(1536) << 20).bytes, "1.5 GiB");
	assert_string_equal(text_size(UINT64_MAX).bytes, "15.9 EiB");
	assert_string_equal(text_amount("pinned_bytes", 4096).bytes, "4 KiB");
	assert_string_equal(text_amount("mappings", 4096).bytes, "4096");
	assert_string_equal(text_amount("pinned_bytes", UINT64_MAX).bytes, "none");
	assert_string_equal(text_duration(59).bytes, "59 s");
	assert_string_equal(text_duration(3661).bytes, "1 h 1 min");
	assert_string_equal(text_duration(90000).bytes, "1 d 1 h");
	assert_string_equal(text_level(99), "?");
	assert_string_equal(text_access(-1), "?");
	assert_string_equal(text_attachment(4), "nested");
}

static void test_uuid(void **state)
{
	const uint8_t uuid[16] = {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0,
				  0,    1,    2,    3,    4,    5,    6,    7};

	assert_string_equal(text_uuid(uuid, 16).bytes, "12345678-9abc-def0-0001-020304050607");
	assert_string_equal(text_uuid(uuid, 3).bytes, "123456");
	assert_string_equal(text_uuid(uuid, 0).bytes, "");
}

static void expect_json(const ProtobufCMessage *message, const char *text)
{
	json_t *expected = json_loads(text, 0, NULL);
	json_t *json = json_from_message(message);

	assert_non_null(expected);
	if (!json_equal(json, expected))
		fail_msg("%s", json_dumps(json, JSON_INDENT(1)));
	json_decref(json);
	json_decref(expected);
}

static void test_json(void **state)
{
	Iommubroker__V1__ListAllResponse__Guest guest =
		IOMMUBROKER__V1__LIST_ALL_RESPONSE__GUEST__INIT;
	Iommubroker__V1__ListAllResponse__Guest *guests[] = {&guest};
	Iommubroker__V1__ListAllResponse list = IOMMUBROKER__V1__LIST_ALL_RESPONSE__INIT;
	uint8_t uuid[2] = {0x0a, 0xff};

	guest.guest = UINT64_C(0xfedcba9876543210);
	guest.uuid.data = uuid;
	guest.uuid.len = 2;
	guest.name = (char *)"a\x1b\xff";
	guest.pid = INT64_MAX;
	guest.uid = UINT64_MAX;
	guest.pinned = true;
	guest.devices = UINT32_MAX;
	list.n_guests = 1;
	list.guests = guests;
	expect_json(&list.base,
		    "{\"guests\": [{\"guest\": \"0xfedcba9876543210\", \"uuid\": \"0aff\","
		    "\"name\": \"a\\\\x1b\\\\xff\", \"pid\": 9223372036854775807,"
		    "\"uid\": \"18446744073709551615\", \"tenant\": \"\","
		    "\"region_bytes\": 0, \"pinned\": true, \"devices\": 4294967295,"
		    "\"nested_domains\": 0, \"live_leaves\": 0}]}");
}

static void test_json_kinds(void **state)
{
	Iommubroker__V1__CreateGuestRequest__LabelsEntry label =
		IOMMUBROKER__V1__CREATE_GUEST_REQUEST__LABELS_ENTRY__INIT;
	Iommubroker__V1__CreateGuestRequest__LabelsEntry *labels[] = {&label};
	Iommubroker__V1__CreateGuestRequest create = IOMMUBROKER__V1__CREATE_GUEST_REQUEST__INIT;
	Iommubroker__V1__OpenDeviceRequest open = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__INIT;
	Iommubroker__V1__Explanation__Step step = IOMMUBROKER__V1__EXPLANATION__STEP__INIT;

	/* A map is an object; a message that is not there is not shown. */
	label.key = (char *)"k";
	label.value = (char *)"v";
	create.n_labels = 1;
	create.labels = labels;
	expect_json(&create.base, "{\"request_id\": 0, \"uuid\": \"\", \"name\": \"\","
				  "\"labels\": {\"k\": \"v\"}}");
	/* Of a oneof only what is set. */
	open.address_case = IOMMUBROKER__V1__OPEN_DEVICE_REQUEST__ADDRESS_FUNCTION_ID;
	open.function_id = 7;
	expect_json(&open.base, "{\"request_id\": 0, \"guest\": \"0x0000000000000000\","
				"\"function_id\": 7}");
	/* Enums by name, unknown ones by number. */
	step.level = IOMMUBROKER__V1__TABLE_LEVEL__TABLE_LEVEL_SEGMENT;
	expect_json(&step.base, "{\"level\": \"TABLE_LEVEL_SEGMENT\", \"table_gpa\": 0,"
				"\"entry_gpa\": 0, \"entry\": 0, \"note\": \"\"}");
	step.level = 77;
	expect_json(&step.base, "{\"level\": 77, \"table_gpa\": 0, \"entry_gpa\": 0, \"entry\": 0,"
				"\"note\": \"\"}");
}

static void test_options(void **state)
{
	uint64_t value = 99;

	assert_true(option_size("4096", &value) && value == 4096);
	assert_true(option_size("16G", &value) && value == UINT64_C(16) << 30);
	assert_true(option_size("512MiB", &value) && value == UINT64_C(512) << 20);
	assert_true(option_size("15E", &value) && value == UINT64_C(15) << 60);
	value = 99;
	assert_false(option_size("16E", &value) || option_size("", &value) ||
		     option_size("-1", &value) || option_size("1.5G", &value) ||
		     option_size("1GB", &value) || option_size("G", &value) ||
		     option_size("18446744073709551616", &value));
	assert_true(option_seconds("2", &value) && value == 2000);
	assert_true(option_seconds("0.25", &value) && value == 250);
	assert_false(option_seconds("1s", &value) || option_seconds("-1", &value) ||
		     option_seconds("99999999999", &value));
	assert_true(option_number("0x10", 0, UINT32_MAX, &value) && value == 16);
	assert_true(option_number("fe", 16, UINT64_MAX, &value) && value == 0xfe);
	assert_false(option_number("fe", 0, UINT64_MAX, &value) ||
		     option_number("-1", 0, UINT64_MAX, &value) ||
		     option_number(" 1", 0, UINT64_MAX, &value) ||
		     option_number("4294967296", 0, UINT32_MAX, &value));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_safe),    cmocka_unit_test(test_width),
		cmocka_unit_test(test_numbers), cmocka_unit_test(test_uuid),
		cmocka_unit_test(test_json),    cmocka_unit_test(test_json_kinds),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}
