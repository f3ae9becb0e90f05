/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Records of update rings that were damaged: whatever they say, the guest lives with all else that
 * it had, the ring goes on and is charged what it takes, or it has ended and costs nothing.
 */
#include "left_parts.h"

#include <stdio.h>
#include <string.h>

#include "ring/ring.h"

static struct trial trial;
static struct parts parts;
static uint64_t bytes_without; /* charged for tables when there is no ring */

/* What one field is set to, see CHANGES. 'S': it is served, 'E': it has ended. */
/* clang-format off */
static const struct field fields[] = {
#define U(field, o) FIELD(RING, ring, field, o)
	U(handle, "ESSSSS"),
	U(session, "EEEEEE"), /* one more: a delegation of this guest has that */
	U(index, "-EEEEE"),
	U(lanes, "EEEEEE"),
	U(entries, "EEEEEE"),
	U(bytes, "SSSSSS"),
};

/* clang-format on */

/* It is taken over in any case. */
static char ring_outcome(void)
{
	const char got = parts_run(&parts, &trial);

	expect('T', got, &trial);
	if (got != 'T')
		return 'R';
	assert_int_equal(trial.pages, LEFT_SHOWN_PAGES);
	assert_int_equal(trial.table_bytes, bytes_without + trial.rings * LEFT_RING_BYTES);
	return trial.rings ? 'S' : 'E';
}

static int setup(void **state)
{
	if (trials_setup(state))
		return -1;
	parts_begin(&parts, &trial);
	assert_int_equal(parts_run(&parts, &trial), 'T');
	assert_int_equal(trial.rings, 1);
	bytes_without = trial.table_bytes - LEFT_RING_BYTES;
	return 0;
}

static void test_fields(void **state)
{
	const size_t before = descriptors_open();

	(void)state;
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		for (unsigned int change = 0; change < CHANGES; change++) {
			parts_begin(&parts, &trial);
			if (field_change(&parts, &trial, &fields[i], 0, change))
				expect(fields[i].outcomes[change], ring_outcome(), &trial);
			else
				parts_drop(&parts, &trial);
		}
	}
	expectations_met();
	assert_int_equal(descriptors_open(), before);
}

static void test_record(void **state)
{
	/* Removed, doubled, cut, empty, longer, unknown. */
	const char *outcomes = "ESEESE";

	(void)state;
	for (enum way way = REMOVED; way <= UNKNOWN; way++) {
		parts_begin(&parts, &trial);
		snprintf(trial.what, sizeof(trial.what), "a ring's record, way %u", way);
		part_damage(part_of(&parts, RECORD_RING, 0), way);
		expect(outcomes[way], ring_outcome(), &trial);
	}
	expectations_met();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_record),
	};

	return cmocka_run_group_tests(tests, setup, trials_teardown);
}
