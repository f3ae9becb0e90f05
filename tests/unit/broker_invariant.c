/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker_invariant.h"

#include <stdlib.h>

#include "broker_fixture.h"

#include <utlist.h>

#include "broker/guest.h"
#include "broker/nested.h"

#define GUESTS_MAX 16

static void add_guest(struct broker *broker, uint64_t handle, uint64_t held[LEDGER_RESOURCES])
{
	struct guest_description *guest;
	struct refusal refusal;

	assert_int_equal(guest_describe(broker, NULL, handle, &guest, &refusal), 0);
	held[LEDGER_GUESTS]++;
	held[LEDGER_EVENT_SLOTS] += BROKER_EVENTS_DEFAULT;
	held[LEDGER_DEVICES] += guest->n_devices;
	held[LEDGER_NESTED] += guest->n_nested;
	held[LEDGER_MEMORY_FILES] += guest->n_memory_files;
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

/* An unmap that took less than it should leaves pages pinned. */
static void check_pins(struct guest *guest)
{
	struct iommu_emulated_counters counters;

	iommu_emulated_counters(guest->context, &counters);
	assert_int_equal(counters.pinned_pages,
			 guest->pinned ? region_list_bytes(&guest->regions) / PAGE : 0);
	/* Nor may a page table stay that would pin whatever is mapped next. */
	assert_true(guest->pinned || !guest->parent.n_page_tables);
}

static unsigned int places_in(const struct shadow *shadow, uint64_t gpa)
{
	struct shadow_run runs[64];
	unsigned int places = 0;
	uint64_t iova = 0;
	size_t n;

	do {
		n = shadow_runs(shadow, iova, runs, 64);
		for (size_t i = 0; i < n; i++)
			places += gpa >= runs[i].gpa && gpa - runs[i].gpa < runs[i].length;
		if (n)
			iova = runs[n - 1].iova + runs[n - 1].length;
	} while (n == 64);
	return places;
}

/* Of small regions, for it takes time. */
static void check_counters(struct guest *guest)
{
	struct nested *nested;

	for (size_t i = 0; i < guest->regions.n; i++) {
		const struct region *region = &guest->regions.items[i];

		for (uint64_t at = 0; region->length <= 64 * PAGE && at < region->length;
		     at += PAGE) {
			uint64_t count =
				region->counters->counts[region->first_counter + at / PAGE];
			unsigned int places = 0;

			DL_FOREACH (guest->nested, nested)
				if (nested->backing.shadow)
					places +=
						places_in(nested->backing.shadow, region->gpa + at);
			assert_int_equal(count, places);
		}
	}
}

static void check_inside(struct broker *broker, uint64_t handle)
{
	struct refusal refusal;
	struct guest *guest = guest_find(broker, NULL, handle, &refusal);

	assert_non_null(guest);
	check_pins(guest);
	check_counters(guest);
	guest_unref(guest);
}

/* What is charged to the accounts below is what is charged above. */
static void check_sum(const struct quota_report *above, const struct quota_report *below, size_t n,
		      bool of_guests)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		uint64_t sum = 0;

		/* Those are not charged to the guest, but to whoever has it. */
		if (of_guests &&
		    (i == LEDGER_GUESTS || i == LEDGER_SESSIONS || i >= LEDGER_WATCHES))
			continue;
		for (size_t j = 0; j < n; j++)
			sum += below[j].usage[i].current;
		if (above->usage[i].current != sum)
			fail_msg("%s: %llu at %s %s, %llu below", ledger_resource_name(i),
				 (unsigned long long)above->usage[i].current,
				 limit_level_name(above->level), above->tenant,
				 (unsigned long long)sum);
	}
}

static void check_levels(struct broker *broker)
{
	struct quota_report *all, *one;
	struct refusal refusal;
	size_t n, n_one;

	assert_int_equal(quota_list(broker, NULL, &all, &n, &refusal), 0);
	check_sum(&all[0], all + 1, n - 1, false);
	for (size_t i = 1; i < n; i++) {
		assert_int_equal(quota_list(broker, all[i].tenant, &one, &n_one, &refusal), 0);
		check_sum(&one[0], one + 1, n_one - 1, true);
		free(one);
	}
	free(all);
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
	for (size_t i = 0; i < n; i++) {
		add_guest(broker, guests[i].guest, held);
		check_inside(broker, guests[i].guest);
	}
	broker_status(broker, &status);
	held[LEDGER_SESSIONS] = status.sessions;
	assert_int_equal(usage_report(broker, NULL, &report, &refusal), 0);
	/* Only domains with a reservation keep tables. */
	if (held[LEDGER_MAPPINGS])
		assert_true(report.usage[LEDGER_TABLE_BYTES].current > 0);
	else
		assert_int_equal(report.usage[LEDGER_TABLE_BYTES].current, 0);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		if (i != LEDGER_TABLE_BYTES && report.usage[i].current != held[i])
			fail_msg("%s: %llu charged, %llu held", ledger_resource_name(i),
				 (unsigned long long)report.usage[i].current,
				 (unsigned long long)held[i]);
	check_levels(broker);
}
