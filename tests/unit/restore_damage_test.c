/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * State that was damaged, or that is somebody else's: whatever it says, the successor lives, and
 * all that left_restore.h promises holds.
 */
#include "left_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct trial trial;
static struct parts parts;

static void test_undamaged(void **state)
{
	(void)state;
	parts_begin(&parts, &trial);
	assert_int_equal(parts_run(&parts, &trial), 'T');
	assert_int_equal(trial.pages, LEFT_SHOWN_PAGES);
	assert_int_equal(trial.rings, 1);
	assert_string_equal(trial.log, "");
}

/* ── every field ───────────────────────────────────────────────────────────────────────────── */

/* A row is what one field is set to: 0, the highest, one more, one less, a page more, a page less.
 */
/* clang-format off */
static const struct field fields[] = {
#define G(field, o) FIELD(GUEST, guest, field, o)
	G(handle, "RTTTTT"),
	G(creator, "TRRTTR"),
	G(home, "RRTRRR"),
	G(pinned_bytes_max, "TTTTTT"),
	G(mappings_max, "TTTTTT"),
	G(pid, "TTTTTT"),
	G(uid, "TTTTTT"),
	G(event_slots, "RRTTTR"),
	G(parent_ioas, "RRRRRR"),
	G(n_page_tables, "TRTTRR"),
	G(page_tables[0], "TRRRRR"),
	G(highest_id, "RRTRTR"),
	G(tenant_uid, "TTTTTT"),
	G(has_uuid, "TTTT--"),
	G(on_behalf, "-TTT--"),
	G(parent_made, "RTTR--"),
	G(pinned, "RTTR--"),
	G(stage, "-RRR--"),
	G(handover_blocks, "-TTT--"),
	G(handover_ns, "-TTTTT"),
	G(owner_pid, "TTTTTT"),
	G(owner_uid, "TTTTTT"),
	G(has_owner, "TTTT--"),
	G(number, "TRRTRR"),
	G(name[63], "-TTT--"),
	G(tenant_name[63], "-TTT--"),
	G(rule_name[23], "-TTT--"),
#define S(field, o) FIELD(SESSION, session, field, o)
	S(id, "R..R.."),
	S(secret[0], "TTTT--"),
	S(start_ticks, "TTTTTT"),
	S(pid, "TRTTT."), /* a page less can be below 0 */
	S(uid, "TTTTTT"),
	S(rights, "TRTT.."),
	S(has_delegation, "T...--"),
	S(closed, "-TTT--"),
	S(tenant_uid, "TTTTTT"),
	S(delegation, "TTTTTT"),
	S(delegator, "TTTTTT"),
	S(pinned_bytes_max, "-TTTTT"),
	S(mappings_max, "-TTTTT"),
	S(n_devices, "TRT.RR"),
	S(devices[0], "TTTTTT"),
	S(listener, "......"),
	S(name[63], "-TTT--"),
	S(tenant_name[63], "-TTT--"),
#define L(field, o) FIELD(LABEL, label, field, o)
	L(key[63], "-TTT--"),
	L(value[63], "-TTT--"),
#define M(field, o) FIELD(FILE, file, field, o)
	M(handle, "RRRRRR"),
	M(length_bytes, "RRRRT."),
	M(page_bytes, "RRRRTR"),
	M(index, "RRRRRR"),
	M(writable, "RTT.--"),
	M(huge, "-TTT--"),
	M(stage, "-TTT--"),
	M(inode, "TRRRRR"),
#define R(field, o) FIELD(REGION, region, field, o)
	R(file, "RRRRRR"),
	R(offset, "TRRR.R"),
	R(gpa, "RRRR.."),
	R(length, "RRRRR."),
	R(granule, "TRRR.R"),
	R(area_bytes, "RRRRRR"),
	R(writable, "R...--"),
	R(stage, "-RTR--"),
#define D(field, o) FIELD(DEVICE, device, field, o)
	D(handle, "R....."),
	D(attached, "R....."),
	D(index, "RRRRRR"),
	D(kernel_id, "RRRRRR"),
	D(fid, "TTTTTT"),
	D(page_table, "TTTTTT"),
	D(has_fid, "TTTT--"),
	D(passed, "-TTT--"),
	D(relaxed_granted, "TTTT--"),
	D(bound, "R...--"),
	D(attachment, "TR..--"),
	D(has_page_table, "TTTT--"),
	D(stage, "-RRR--"),
	D(relaxed.ioas, "T....."),
	D(relaxed.page_table, "T....."),
	D(relaxed.base, "TTTTTT"),
	D(relaxed.first, "TTTTTT"),
	D(relaxed.last, "TTTTTT"),
	D(relaxed.made, "TTTT--"),
	D(relaxed.filled, "TTTT--"),
	D(pci_address[15], "-TTT--"),
#define N(field, o) FIELD(NESTED, nested, field, o)
	N(handle, "RRRRRR"),
	N(device, "RRRRRR"),
	N(iota, "TTTTTT"),
	N(first, "TRRRTT"),
	N(last, "RTRRTT"),
	N(mappings_reserved, "TRTTTT"),
	N(table_bytes_reserved, "TRTTTT"),
	N(leaves_max, "RRTTT."),
	N(extent_offset, "TTTTTT"),
	N(extent_bytes, "TTTTTT"),
	N(tables_max, "RRTTTR"),
	N(index, "TTTTTT"),
	N(ioas, "TRRRRR"),
	N(page_table, "TRRRRR"),
	N(format, "TR..--"),
	N(broken, "-TTT--"),
	N(stage, "-RTR--"),
	N(relaxed.made, "-TTT--"),
	N(relaxed.ioas, "-TTTTT"),
	N(relaxed.page_table, "-TTTTT"),
#define O(field, o) FIELD(LEFTOVER, leftover, field, o)
	O(ioas, "TRRRRR"),
	O(page_table, "TRRRRR"),
	O(has_page_table, "TTTT--"),
#define A(field, o) FIELD(ANSWER, answer, field, o)
	A(session, "TTTTTT"),
	A(request_id, "TTTTTT"),
	A(method, "TTTTTT"),
	A(code, "-TTTTT"),
	A(digest[0], "TTTT--"),
};

/* clang-format on */

static void field_try(const struct field *field, size_t i, unsigned int change)
{
	parts_begin(&parts, &trial);
	if (field_change(&parts, &trial, field, i, change))
		expect(field->outcomes[change], parts_run(&parts, &trial), &trial);
	else
		parts_drop(&parts, &trial);
}

/* How many there are. */
static size_t records_of(uint16_t type)
{
	size_t n = 0;

	parts_begin(&parts, &trial);
	while (part_of(&parts, type, n))
		n++;
	parts_drop(&parts, &trial);
	return n;
}

/* Answers are all alike, and a sanitizer takes its time. */
static size_t records_to_try(uint16_t type)
{
	const char *most = getenv("RESTORE_DAMAGE_RECORDS");
	size_t n = records_of(type), max = most ? strtoul(most, NULL, 10) : RECORDS_MAX;

	assert_true(n > 0);
	if (type == RECORD_ANSWER || n < max)
		max = type == RECORD_ANSWER ? 1 : n;
	return max;
}

static void test_fields(void **state)
{
	const size_t before = descriptors_open();

	(void)state;
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		for (size_t j = records_to_try(fields[i].type); j--;)
			for (unsigned int change = 0; change < CHANGES; change++)
				field_try(&fields[i], j, change);
		assert_int_equal(descriptors_open(), before);
	}
	expectations_met();
}

/* ── every record ──────────────────────────────────────────────────────────────────────────── */

/* One that is not known is one that is not there. */
static const struct {
	uint16_t type;
	const char *outcomes;
} records[] = {
	{RECORD_GUEST, "RRRRTRR"},  {RECORD_LABEL, "TTTTTTR"},    {RECORD_SESSION, ".RTRT.R"},
	{RECORD_FILE, "RRRRTRR"},   {RECORD_REGION, "RRRRTRR"},   {RECORD_DEVICE, ".RTRT.R"},
	{RECORD_NESTED, "RRRRTRR"}, {RECORD_LEFTOVER, "TRTTTTR"}, {RECORD_ANSWER, "TTTTTTR"},
	{RECORD_RING, "TTTTTTR"},
};

static void record_try(uint16_t type, size_t i, enum way way, char outcome)
{
	parts_begin(&parts, &trial);
	part_damage(part_of(&parts, type, i), way);
	snprintf(trial.what, sizeof(trial.what), "record of type %u, %zu, way %u", type, i, way);
	expect(outcome, parts_run(&parts, &trial), &trial);
}

static void test_records(void **state)
{
	const size_t before = descriptors_open();

	(void)state;
	for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++) {
		for (size_t j = records_to_try(records[i].type); j--;) {
			for (enum way way = REMOVED; way < WAYS; way++) {
				record_try(records[i].type, j, way, records[i].outcomes[way]);
			}
		}
		assert_int_equal(descriptors_open(), before);
	}
	expectations_met();
}

/* What no record names any more is stopped, though its guest lives. */
static void test_forgotten_device(void **state)
{
	(void)state;
	for (size_t i = 2; i < 4; i++) {
		parts_begin(&parts, &trial);
		part_of(&parts, RECORD_DEVICE, i)->times = 0;
		expect('T', parts_run(&parts, &trial), &trial);
		assert_int_equal(trial.pages, LEFT_SHOWN_PAGES - LEFT_GUEST_PAGES);
	}
	expectations_met();
}

/* Pinned, charged to nobody, and nobody knows what it was for. */
static void test_forgotten_region(void **state)
{
	size_t n = records_of(RECORD_REGION);

	(void)state;
	assert_true(n >= 3);
	while (n--) {
		parts_begin(&parts, &trial);
		snprintf(trial.what, sizeof(trial.what), "without region %zu", n);
		part_of(&parts, RECORD_REGION, n)->times = 0;
		expect('R', parts_run(&parts, &trial), &trial);
		assert_non_null(strstr(trial.log, "memory is mapped that no record names"));
	}
	expectations_met();
}

/* The order is not what counts. */
static void test_order(void **state)
{
	(void)state;
	parts_begin(&parts, &trial);
	for (size_t i = 0; i < parts.n / 2; i++) {
		struct part part = parts.parts[i];

		parts.parts[i] = parts.parts[parts.n - 1 - i];
		parts.parts[parts.n - 1 - i] = part;
	}
	expect('T', parts_run(&parts, &trial), &trial);
	expectations_met();
}

/* ── anything ──────────────────────────────────────────────────────────────────────────────── */

static void flip(void)
{
	struct part *part = &parts.parts[(size_t)random() % parts.n];

	/* Answers are many, and nobody looks at most of theirs. */
	while (part->record.type == RECORD_ANSWER)
		part = &parts.parts[(size_t)random() % parts.n];
	part->fixed[(size_t)random() % part->record.fixed_bytes] ^= (uint8_t)(1 << random() % 8);
}

static void test_flips(void **state)
{
	const char *rounds = getenv("RESTORE_DAMAGE_FLIPS"), *seed = getenv("RESTORE_DAMAGE_SEED");
	const unsigned long n = rounds ? strtoul(rounds, NULL, 10) : 400;
	const size_t before = descriptors_open();
	size_t taken = 0;

	(void)state;
	srandom(seed ? (unsigned int)strtoul(seed, NULL, 10) : 1);
	for (unsigned long i = 0; i < n; i++) {
		parts_begin(&parts, &trial);
		for (long flips = random() % 4; flips >= 0; flips--)
			flip();
		taken += parts_run(&parts, &trial) == 'T';
		assert_int_equal(descriptors_open(), before);
	}
	assert_in_range(taken, n / 20, n - n / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_undamaged),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_records),
		cmocka_unit_test(test_forgotten_device),
		cmocka_unit_test(test_forgotten_region),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_flips),
	};

	return cmocka_run_group_tests(tests, trials_setup, trials_teardown);
}
