/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker_invariant.h"

#include "broker_fixture.h"

#define GUESTS_MAX 16

static void add_guest(struct broker *broker, uint64_t handle, uint64_t held[LEDGER_RESOURCES])
{
	struct guest_description *guest;
	struct refusal refusal;

	assert_int_equal(guest_describe(broker, NULL, handle, &guest, &refusal), 0);
	held[LEDGER_GUESTS]++;
	held[LEDGER_DEVICES] += guest->n_devices;
	held[LEDGER_NESTED] += guest->n_nested;
	for (size_t i = 0; i < guest->n_regions; i++) {
		const struct region_description *region = &guest->regions[i];

		held[LEDGER_PINNED_BYTES] += region->length_bytes;
		held[LEDGER_REGIONS] +=
			region->granule_bytes ? region->length_bytes / region->granule_bytes : 1;
	}
	for (size_t i = 0; i < guest->n_nested; i++)
		held[LEDGER_MAPPINGS] += guest->nested[i].mappings_reserved;
	assert_int_equal(guest->summary.region_bytes <= held[LEDGER_PINNED_BYTES], true);
	guest_description_free(guest);
}

void assert_ledger_is_held(struct broker *broker)
{
	uint64_t held[LEDGER_RESOURCES] = {0};
	struct guest_summary guests[GUESTS_MAX];
	struct broker_status status;
	struct usage_report report;
	struct refusal refusal;
	size_t n;

	assert_int_equal(guest_list(broker, NULL, guests, GUESTS_MAX, &n, &refusal), 0);
	assert_true(n <= GUESTS_MAX);
	for (size_t i = 0; i < n; i++)
		add_guest(broker, guests[i].guest, held);
	broker_status(broker, &status);
	held[LEDGER_SESSIONS] = status.sessions;
	assert_int_equal(usage_report(broker, NULL, &report, &refusal), 0);
	/* Only domains with a reservation keep tables. */
	if (held[LEDGER_MAPPINGS])
		assert_true(report.usage[LEDGER_TABLE_BYTES].current > 0);
	else
		assert_int_equal(report.usage[LEDGER_TABLE_BYTES].current, 0);
	for (int i = 0; i < LEDGER_TABLE_BYTES; i++)
		if (report.usage[i].current != held[i])
			fail_msg("%s: %llu charged, %llu held", ledger_resource_name(i),
				 (unsigned long long)report.usage[i].current,
				 (unsigned long long)held[i]);
}
