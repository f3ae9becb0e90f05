/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A guest's records, as a former version wrote them (tests/data/state) and as a later one might. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/restore_plan.h"
#include "state/record.h"

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OURS   DATA "/former-little.records"
#define OTHERS DATA "/former-big.records"
#else
#define OURS   DATA "/former-big.records"
#define OTHERS DATA "/former-little.records"
#endif

#define BYTES_MAX    65536
#define UNKNOWN      61234
#define GUEST_HANDLE UINT64_C(17686598550476691052)
#define FILE_HANDLE  UINT64_C(5263534074592148043)

static _Alignas(8) uint8_t bytes[BYTES_MAX];
static struct restore_plan plan;
static char why[RESTORE_WHY_BYTES];

static size_t load(const char *path)
{
	FILE *file = fopen(path, "rb");
	size_t n;

	assert_non_null(file);
	n = fread(bytes, 1, sizeof(bytes), file);
	assert_in_range(n, 1000, BYTES_MAX - 1);
	fclose(file);
	return n;
}

static int teardown(void **state)
{
	(void)state;
	restore_plan_clear(&plan);
	return 0;
}

static void assert_guest(void)
{
	const struct record_guest *guest = &plan.guest;

	assert_int_equal(guest->handle, GUEST_HANDLE);
	assert_string_equal(guest->name, "of the former");
	assert_string_equal(guest->tenant_name, "uid:0");
	assert_int_equal(guest->pid, 30056);
	assert_int_equal(guest->event_slots, 1024);
	assert_int_equal(guest->highest_id, 11);
	assert_int_equal(guest->n_page_tables, 1);
	assert_int_equal(guest->page_tables[0], 3);
	assert_true(guest->has_uuid && guest->parent_made && guest->pinned);
	assert_int_equal(guest->stage, RECORD_LIVE);
	/* Who holds it is its owner, as it was before there was a field for one. */
	assert_false(guest->has_owner || guest->owner_pid || guest->owner_uid);
}

static void assert_sessions(void)
{
	assert_int_equal(plan.n_labels, 1);
	assert_string_equal(plan.labels[0].key, "vm");
	assert_string_equal(plan.labels[0].value, "seven");
	assert_int_equal(plan.n_sessions, 1);
	assert_int_equal(plan.sessions[0].id, plan.guest.home);
	assert_int_equal(plan.sessions[0].start_ticks, 7766772);
	assert_int_equal(plan.sessions[0].rights, UINT32_MAX);
	assert_int_equal(plan.n_answers, 12);
	assert_int_equal(plan.answers[11].record.request_id, 12);
	assert_int_equal(plan.answers[11].record.method, 501);
	assert_int_equal(plan.answers[11].n_bytes, 17);
	assert_int_equal(plan.n_leftovers, 0);
	assert_int_equal(plan.n_rings, 0);
}

static void assert_memory(void)
{
	assert_int_equal(plan.n_files, 1);
	assert_int_equal(plan.files[0].handle, FILE_HANDLE);
	assert_int_equal(plan.files[0].length_bytes, 16 << 20);
	assert_true(plan.files[0].writable);
	assert_int_equal(plan.n_regions, 1);
	assert_int_equal(plan.regions[0].file, FILE_HANDLE);
	assert_int_equal(plan.regions[0].length, 16 << 20);
	assert_int_equal(plan.regions[0].area_bytes, 256 << 20);
}

static void assert_devices(void)
{
	static const char *const addresses[] = {"0000:00:01.0", "0000:00:02.0", "0000:00:03.0"};
	static const uint32_t kernel_ids[] = {2, 6, 9}, page_tables[] = {5, 8, 11};
	static const uint8_t formats[] = {0, 2, 1};

	assert_int_equal(plan.n_devices, 3);
	assert_int_equal(plan.n_nested, 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_string_equal(plan.devices[i].pci_address, addresses[i]);
		assert_int_equal(plan.devices[i].fid, i + 1);
		assert_int_equal(plan.devices[i].kernel_id, kernel_ids[i]);
		assert_int_equal(plan.devices[i].page_table, page_tables[i]);
		assert_int_equal(plan.devices[i].attached, plan.nested[i].handle);
		assert_int_equal(plan.nested[i].device, plan.devices[i].handle);
		assert_int_equal(plan.nested[i].format, formats[i]);
	}
	assert_true(plan.devices[2].relaxed_granted);
	assert_int_equal(plan.nested[0].iota, 16762884);
	assert_int_equal(plan.nested[0].extent_offset, 12288);
	assert_int_equal(plan.nested[1].page_table, 8);
	assert_true(plan.nested[2].relaxed.made && plan.nested[2].relaxed.filled);
	assert_int_equal(plan.nested[2].relaxed.page_table, 11);
}

static void assert_former(void)
{
	assert_guest();
	assert_sessions();
	assert_memory();
	assert_devices();
}

static void test_of_a_former_version(void **state)
{
	(void)state;
	assert_int_equal(restore_plan_read(&plan, bytes, load(OURS), why), 0);
	assert_former();
}

/* Whatever a number is taken for, nothing is built of it. */
static void test_of_the_other_byte_order(void **state)
{
	(void)state;
	assert_int_equal(restore_plan_read(&plan, bytes, load(OTHERS), why), -EBADMSG);
	assert_true(*why);
	assert_int_equal(plan.n_sessions + plan.n_devices + plan.n_regions, 0);
}

/* All of it written again with longer structs, and with records that nobody knows. */
static void write_later(struct record_writer *writer, uint16_t flags)
{
	struct record_reader reader = {.bytes = bytes, .n = load(OURS)};
	struct record record;
	uint8_t longer[1024];

	record_put(writer, UNKNOWN, 0, "before all", 10, NULL, 0);
	while (record_next(&reader, &record) == 1) {
		assert_in_range(record.fixed_bytes, 1, sizeof(longer) - 200);
		memcpy(longer, record.fixed, record.fixed_bytes);
		/* What this version knows beyond what the former one wrote, it would read. */
		memset(longer + record.fixed_bytes, 0, 100);
		memset(longer + record.fixed_bytes + 100, 0xff, 100);
		record_put(writer, record.type, record.flags, longer, record.fixed_bytes + 200,
			   record.tail, record.tail_bytes);
		record_put(writer, UNKNOWN, 0, longer, record.fixed_bytes, "tail", 4);
	}
	record_put(writer, UNKNOWN + 1, flags, NULL, 0, NULL, 0);
	assert_false(writer->failed);
}

static void test_of_a_later_version(void **state)
{
	struct record_writer writer = {0};

	(void)state;
	write_later(&writer, 0);
	assert_int_equal(restore_plan_read(&plan, writer.bytes, writer.n, why), 0);
	assert_former();
	restore_plan_clear(&plan);
	record_writer_free(&writer);
}

static void test_of_a_later_version_that_must_be_known(void **state)
{
	struct record_writer writer = {0};

	(void)state;
	write_later(&writer, RECORD_MUST_KNOW);
	assert_int_equal(restore_plan_read(&plan, writer.bytes, writer.n, why), -EBADMSG);
	assert_non_null(strstr(why, "type 61235, which this version does not know and must"));
	assert_int_equal(plan.n_sessions + plan.n_devices + plan.n_regions, 0);
	record_writer_free(&writer);
}

/* Every record cut to less than the former version wrote: zeros are read behind, and what cannot be
 * with zeros there is refused, not built. */
static void test_cut_anywhere(void **state)
{
	const size_t n = load(OURS);
	unsigned int read = 0;

	(void)state;
	for (uint32_t keep = 0; keep < 800; keep += 8) {
		struct record_reader reader = {.bytes = bytes, .n = n};
		struct record_writer writer = {0};
		struct record record;
		int status;

		while (record_next(&reader, &record) == 1)
			record_put(&writer, record.type, record.flags, record.fixed,
				   record.fixed_bytes < keep ? record.fixed_bytes : keep,
				   record.tail, record.tail_bytes);
		status = restore_plan_read(&plan, writer.bytes, writer.n, why);
		assert_true(!status || status == -EBADMSG);
		read += !status;
		restore_plan_clear(&plan);
		record_writer_free(&writer);
	}
	assert_in_range(read, 1, 99);
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_of_a_former_version), TEST(test_of_the_other_byte_order),
		TEST(test_of_a_later_version),  TEST(test_of_a_later_version_that_must_be_known),
		TEST(test_cut_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
