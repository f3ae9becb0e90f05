/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See shadow_fixture.h. */

#include <stdlib.h>
#include <sys/mman.h>

#include "shadow_fixture.h"
#include "util/guest_read.h"

void fixture_init(struct fixture *f, uint64_t leaves_max, uint32_t tables_max)
{
	/* cmocka has its own SIGBUS handler while a test runs. */
	assert_int_equal(guest_read_init(), 0);
	guest_init(&f->guest);
	guest_add_region(&f->guest, 0, 0x80000, true);
	guest_add_region(&f->guest, FIXTURE_ROM, 64 * S390_PAGE_BYTES, false);
	guest_add_region(&f->guest, FIXTURE_FRAMES, 4 * S390_SEGMENT_BYTES, true);
	guest_publish(&f->guest);
	record_init(&f->record, &f->guest);
	f->guest.table_next = 0x4000;
	f->rt = guest_upper_table(&f->guest);
	f->st = guest_upper_table(&f->guest);
	f->st2 = guest_upper_table(&f->guest);
	for (unsigned int i = 0; i < 4; i++)
		f->pt[i] = guest_page_table(&f->guest);
	guest_put(&f->guest, f->rt, 2, region_entry(S390_LEVEL_REGION_THIRD, f->st));
	guest_put(&f->guest, f->rt, 3, region_entry(S390_LEVEL_REGION_THIRD, f->st2));
	f->limits.leaves_max = leaves_max ? leaves_max : 1 << 20;
	f->limits.tables_max = tables_max ? tables_max : 1024;
	f->storage = mmap(NULL, shadow_storage_bytes(&f->limits), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->storage, MAP_FAILED);
	assert_int_equal(shadow_new(&f->shadow, &record_ops, &f->record, &f->limits, f->storage),
			 0);
	f->anchor = (struct s390_anchor){
		.iota = f->rt | 0x804, .pba = FIXTURE_BASE, .pal = FIXTURE_LAST};
	shadow_set_anchor(f->shadow, &f->anchor);
}

void fixture_deinit(struct fixture *f)
{
	f->shadow = shadow_free(f->shadow, f->guest.view);
	for (size_t i = 0; i < f->guest.n_regions; i++)
		for (uint64_t n = 0; n < f->guest.regions[i].bytes >> 12; n++)
			assert_int_equal(f->guest.regions[i].aliases[n], 0);
	munmap(f->storage, shadow_storage_bytes(&f->limits));
	record_deinit(&f->record);
	guest_deinit(&f->guest);
}

void fixture_link(struct fixture *f, unsigned int segment, unsigned int pt)
{
	guest_put(&f->guest, segment < 2048 ? f->st : f->st2, segment % 2048, f->pt[pt]);
}

void fixture_leaf(struct fixture *f, unsigned int pt, unsigned int i, unsigned int n)
{
	guest_put(&f->guest, f->pt[pt], i, fixture_frame(n));
}

void fixture_fill(struct fixture *f, unsigned int pt, unsigned int first, unsigned int count,
		  unsigned int n)
{
	for (unsigned int i = 0; i < count; i++)
		fixture_leaf(f, pt, first + i, n + i);
}

struct shadow_result fixture_refresh(struct fixture *f, uint64_t first, uint64_t length)
{
	struct shadow_op op;

	shadow_op_refresh(&op, first, length);
	return shadow_run(f->shadow, f->guest.view, op, 0);
}

struct shadow_result fixture_refresh_all(struct fixture *f)
{
	return fixture_refresh(f, f->anchor.pba, f->anchor.pal - f->anchor.pba + 1);
}

struct shadow_result fixture_op(struct fixture *f, enum shadow_op_kind kind, uint64_t first,
				uint64_t last)
{
	struct shadow_op op;

	shadow_op_range(&op, kind, first, last);
	return shadow_run(f->shadow, f->guest.view, op, 0);
}

void fixture_expect(struct fixture *f, struct shadow_result result, enum shadow_verdict verdict,
		    uint64_t mapped, uint64_t unmapped)
{
	struct shadow_stats stats;

	if (f->record.violations)
		fail_msg("%s", f->record.violation);
	assert_int_equal(result.verdict, verdict);
	assert_int_equal(result.mapped, mapped);
	assert_int_equal(result.unmapped, unmapped);
	shadow_stats(f->shadow, &stats);
	assert_int_equal(stats.leaves_installed, f->record.installed);
	assert_int_equal(stats.maps, f->record.maps);
	assert_int_equal(stats.cuts, f->record.cuts);
	assert_true(record_aliases_match(&f->record));
}

void fixture_expect_calls(struct fixture *f, unsigned int maps, unsigned int cuts)
{
	assert_int_equal(f->record.maps, maps);
	assert_int_equal(f->record.cuts, cuts);
}

bool fixture_shows(struct fixture *f, unsigned int segment, unsigned int i, unsigned int n,
		   bool writable)
{
	return record_shows(&f->record, fixture_iova(segment, i), fixture_frame(n), writable);
}

void fixture_expect_fault(struct shadow_result result, enum s390_event_code code,
			  enum s390_level level, uint64_t iova, uint64_t entry)
{
	assert_int_equal(result.verdict, SHADOW_ERROR);
	assert_int_equal(result.fault.code, code);
	assert_int_equal(result.fault.level, level);
	assert_int_equal(result.fault.iova, iova);
	assert_int_equal(result.fault.entry, entry);
}

void fixture_fail_maps(struct fixture *f, unsigned int nth, unsigned int n, int error)
{
	f->record.fail_map_first = f->record.maps + nth;
	f->record.fail_map_n = n;
	f->record.map_errno = error;
}

void fixture_expect_kept(struct fixture *f, uint64_t tables)
{
	struct shadow_stats stats;

	shadow_stats(f->shadow, &stats);
	assert_int_equal(stats.tables_kept, tables);
}
