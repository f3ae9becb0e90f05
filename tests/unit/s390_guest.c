/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A guest and a kernel for tests of the shadow, see s390_guest.h.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "s390_guest.h"

static void *must(void *memory)
{
	if (!memory || memory == MAP_FAILED)
		abort();
	return memory;
}

void guest_init(struct guest *guest)
{
	*guest = (struct guest){.generation = 0};
}

void guest_deinit(struct guest *guest)
{
	for (size_t i = 0; i < guest->n_regions; i++) {
		munmap(guest->regions[i].host, guest->regions[i].bytes);
		free(guest->regions[i].aliases);
	}
	free(guest->view);
	*guest = (struct guest){.generation = 0};
}

void guest_add_region(struct guest *guest, uint64_t gpa, uint64_t bytes, bool writable)
{
	struct guest_region *region = &guest->regions[guest->n_regions++];

	region->gpa = gpa;
	region->bytes = bytes;
	region->writable = writable;
	region->present = true;
	region->host =
		must(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	region->aliases = must(calloc(bytes / S390_PAGE_BYTES, sizeof(*region->aliases)));
	if (guest->n_regions == 1)
		guest->table_next = gpa;
}

void guest_publish(struct guest *guest)
{
	struct memory_view *view =
		must(malloc(sizeof(*view) + guest->n_regions * sizeof(view->regions[0])));

	view->generation = ++guest->generation;
	view->n_regions = 0;
	for (size_t i = 0; i < guest->n_regions; i++) {
		const struct guest_region *region = &guest->regions[i];

		if (!region->present)
			continue;
		view->regions[view->n_regions++] = (struct memory_view_region){
			.gpa_first = region->gpa,
			.gpa_last = region->gpa + region->bytes - 1,
			.host = region->host,
			.writable = region->writable,
			.aliases = region->aliases,
		};
	}
	free(guest->view);
	guest->view = view;
}

uint64_t *guest_word(struct guest *guest, uint64_t gpa)
{
	for (size_t i = 0; i < guest->n_regions; i++) {
		const struct guest_region *region = &guest->regions[i];

		if (gpa >= region->gpa && gpa - region->gpa < region->bytes)
			return (uint64_t *)(region->host + (gpa - region->gpa));
	}
	return NULL;
}

uint64_t guest_get(struct guest *guest, uint64_t table, unsigned int index)
{
	return be64toh(
		__atomic_load_n(guest_word(guest, table + 8 * (uint64_t)index), __ATOMIC_RELAXED));
}

void guest_put(struct guest *guest, uint64_t table, unsigned int index, uint64_t entry)
{
	__atomic_store_n(guest_word(guest, table + 8 * (uint64_t)index), htobe64(entry),
			 __ATOMIC_RELAXED);
}

static uint64_t table_take(struct guest *guest, uint64_t bytes)
{
	uint64_t table = (guest->table_next + bytes - 1) & ~(bytes - 1);

	guest->table_next = table + bytes;
	if (!guest_word(guest, table) || !guest_word(guest, table + bytes - 8))
		abort();
	return table;
}

uint64_t guest_upper_table(struct guest *guest)
{
	uint64_t table = table_take(guest, S390_UPPER_BYTES);

	for (unsigned int i = 0; i < S390_UPPER_ENTRIES; i++)
		guest_put(guest, table, i, S390_UPPER_INVALID);
	return table;
}

uint64_t guest_page_table(struct guest *guest)
{
	uint64_t table = table_take(guest, S390_PT_BYTES);

	for (unsigned int i = 0; i < S390_PT_ENTRIES; i++)
		guest_put(guest, table, i, S390_PAGE_INVALID);
	return table;
}

uint64_t region_entry(enum s390_level level, uint64_t table)
{
	if (level == S390_LEVEL_SEGMENT)
		return table;
	return table | (uint64_t)level << 2 | S390_LENGTH_MASK;
}

static void violate(struct record *record, const char *what, uint64_t iova, uint64_t gpa,
		    uint64_t length)
{
	if (!record->violations++)
		snprintf(record->violation, sizeof(record->violation),
			 "%s: iova %llx gpa %llx length %llx", what, (unsigned long long)iova,
			 (unsigned long long)gpa, (unsigned long long)length);
}

struct record_leaf *record_leaf(struct record *record, uint64_t iova, bool create)
{
	uint64_t number = iova >> S390_SEGMENT_SHIFT;
	struct record_segment *segment;

	for (size_t i = 0; i < record->n_segments; i++) {
		segment = record->segments[i];
		if (segment->segment == number)
			return &segment->leaves[iova >> 12 & (S390_PT_ENTRIES - 1)];
	}
	if (!create)
		return NULL;
	if (record->n_segments == RECORD_SEGMENTS)
		abort();
	segment = must(calloc(1, sizeof(*segment)));
	segment->segment = number;
	record->segments[record->n_segments++] = segment;
	return &segment->leaves[iova >> 12 & (S390_PT_ENTRIES - 1)];
}

static bool call_fails(unsigned int call, unsigned int first, unsigned int n)
{
	return first && call >= first && call - first < n;
}

static int record_map(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable)
{
	struct record *record = context;

	record->maps++;
	if (record->on_map)
		record->on_map(record);
	if (!length || (iova | gpa | length) & (S390_PAGE_BYTES - 1))
		violate(record, "map of no whole pages", iova, gpa, length);
	if (call_fails(record->maps, record->fail_map_first, record->fail_map_n))
		return record->map_errno;
	if (!record->trust_gpa && !memory_view_covers(record->guest->view, gpa, length, writable)) {
		violate(record, "map of what is no memory", iova, gpa, length);
		return ENOENT;
	}
	for (uint64_t at = 0; at < length; at += S390_PAGE_BYTES) {
		if (record_leaf(record, iova + at, true)->installed) {
			if (!record->allow_overlap)
				violate(record, "map over what is installed", iova, gpa, length);
			return EEXIST;
		}
	}
	for (uint64_t at = 0; at < length; at += S390_PAGE_BYTES)
		*record_leaf(record, iova + at, true) = (struct record_leaf){
			.gpa = gpa + at, .installed = true, .writable = writable};
	record->installed += length / S390_PAGE_BYTES;
	return 0;
}

static int record_cut(void *context, uint64_t iova, uint64_t length)
{
	struct record *record = context;

	record->cuts++;
	if (!length || (iova | length) & (S390_PAGE_BYTES - 1) || iova + length - 1 < iova)
		violate(record, "cut of no whole pages", iova, 0, length);
	if (call_fails(record->cuts, record->fail_cut_first, record->fail_cut_n))
		return ENOMEM;
	for (size_t i = 0; i < record->n_segments; i++) {
		struct record_segment *segment = record->segments[i];

		for (uint64_t n = 0; n < S390_PT_ENTRIES; n++) {
			uint64_t at = (segment->segment << S390_SEGMENT_SHIFT) + (n << 12);

			if (at < iova || at - iova >= length)
				continue;
			record->installed -= segment->leaves[n].installed;
			segment->leaves[n].installed = false;
		}
	}
	return 0;
}

static void record_refused(void *context, uint64_t iova, uint64_t gpa,
			   enum shadow_leaf_refusal refusal)
{
	struct record *record = context;

	record->refusals++;
	record->refused_iova = iova;
	record->refused_gpa = gpa;
	record->refusal = refusal;
}

const struct shadow_ops record_ops = {
	.map = record_map, .cut = record_cut, .leaf_refused = record_refused};

void record_init(struct record *record, struct guest *guest)
{
	memset(record, 0, sizeof(*record));
	record->guest = guest;
}

void record_deinit(struct record *record)
{
	for (size_t i = 0; i < record->n_segments; i++)
		free(record->segments[i]);
	record->n_segments = 0;
}

bool record_shows(struct record *record, uint64_t iova, uint64_t gpa, bool writable)
{
	const struct record_leaf *leaf = record_leaf(record, iova, false);

	return leaf && leaf->installed && leaf->gpa == gpa && leaf->writable == writable;
}

static bool region_aliases_match(struct record *record, const struct guest_region *region)
{
	uint64_t frames = region->bytes / S390_PAGE_BYTES;
	uint16_t *count = must(calloc(frames, sizeof(*count)));
	bool match = true;

	for (size_t i = 0; i < record->n_segments; i++) {
		for (unsigned int n = 0; n < S390_PT_ENTRIES; n++) {
			const struct record_leaf *leaf = &record->segments[i]->leaves[n];

			if (leaf->installed && leaf->gpa - region->gpa < region->bytes)
				count[(leaf->gpa - region->gpa) / S390_PAGE_BYTES]++;
		}
	}
	for (uint64_t i = 0; i < frames; i++)
		match &= count[i] == region->aliases[i];
	free(count);
	return match;
}

bool record_aliases_match(struct record *record)
{
	bool match = true;

	for (size_t i = 0; i < record->guest->n_regions; i++) {
		if (record->guest->regions[i].present)
			match &= region_aliases_match(record, &record->guest->regions[i]);
	}
	return match;
}

struct shadow_result shadow_run(struct shadow *shadow, const struct memory_view *view,
				struct shadow_op op, unsigned int budget)
{
	while (shadow_step(shadow, view, &op, budget))
		;
	return op.result;
}
