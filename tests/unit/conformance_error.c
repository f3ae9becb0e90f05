/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Conformance: what is said where more than one thing is wrong, and of ranges that are not made of
 * whole pages. Seen on Linux 7.2, on x86-64 and s390x.
 */

#include "conformance.h"

#include <errno.h>

/* Two spaces: pages 0 … 3 are mapped in the first, 4 and 5 of them for reading; in the second page
 * 0 is taken. Both have page tables, so whole pages are wanted. */
struct pair {
	struct rig *rig;
	uint32_t src, dst;
};

static struct pair pair_new(void)
{
	struct pair p = {.rig = rig_new()};

	p.src = rig_space(p.rig, false, NULL);
	p.dst = rig_space(p.rig, true, NULL);
	rig_map(p.rig, p.src, 0, 0, 4, RW, 0);
	rig_map(p.rig, p.src, 4, 4, 2, IOMMU_PROT_READ, 0);
	rig_map(p.rig, p.dst, 0, 100, 1, RW, 0);
	return p;
}

static int map(const struct pair *p, uint32_t ioas, uint64_t iova, uint64_t length,
	       unsigned int prot)
{
	struct rig *rig = p->rig;

	return rig->ops->map_file(rig->context, ioas, &rig->file, 0, length, iova, prot);
}

static int copy(const struct pair *p, uint32_t dst, uint64_t dst_iova, uint32_t src,
		uint64_t src_iova, uint64_t length, unsigned int prot)
{
	return p->rig->ops->copy(p->rig->context, dst, dst_iova, src, src_iova, length, prot);
}

/* In bytes from the base; nothing may be counted on failure. */
static int unmap(const struct pair *p, uint32_t ioas, uint64_t at, uint64_t length, uint64_t want)
{
	uint64_t unmapped = 1;
	int error = p->rig->ops->unmap(p->rig->context, ioas, p->rig->base + at, length, &unmapped);

	assert_int_equal(unmapped, want);
	return error;
}

static int cut(const struct pair *p, uint32_t ioas, uint64_t at, uint64_t length, uint64_t want)
{
	uint64_t unmapped = 1;
	int error = p->rig->ops->cut(p->rig->context, ioas, p->rig->base + at, length, &unmapped);

	assert_int_equal(unmapped, want);
	return error;
}

/* Length, alignment, wrap, place. */
void conformance_map_order_of_checks(void **state)
{
	struct pair p = pair_new();
	uint64_t base = p.rig->base;

	assert_int_equal(map(&p, p.dst, -PAGE + 8, 0, RW), EINVAL);
	assert_int_equal(map(&p, p.dst, -PAGE + 8, 2 * PAGE, RW), EINVAL);
	assert_int_equal(map(&p, p.dst, -PAGE, 2 * PAGE, RW), EOVERFLOW);
	assert_int_equal(map(&p, p.dst, base + 8, PAGE, RW), EINVAL);
	assert_int_equal(map(&p, p.dst, base, PAGE + 8, RW), EINVAL);
	assert_int_equal(map(&p, p.dst, base, PAGE, 0), EINVAL);
	assert_int_equal(map(&p, p.dst, base, PAGE, RW), EEXIST);
	assert_int_equal(map(&p, 4000, base, 0, RW), ENOENT);
	rig_shows(p.rig, p.dst, 0, 100);
	rig_free(p.rig);
}

/* Protection, the source, the destination, whether the source may be written. */
void conformance_copy_order_of_checks(void **state)
{
	struct pair p = pair_new();
	uint64_t base = p.rig->base, hole = base + 6 * PAGE, read_only = base + 4 * PAGE;

	assert_int_equal(copy(&p, 4000, base, 4001, hole, PAGE, 0), EINVAL);
	assert_int_equal(copy(&p, 4000, base, 4001, hole, 0, RW), ENOENT);
	assert_int_equal(copy(&p, 4000, base, p.src, base, 0, RW), EINVAL);
	assert_int_equal(copy(&p, 4000, base, p.src, -PAGE, 2 * PAGE, RW), EOVERFLOW);
	assert_int_equal(copy(&p, 4000, base, p.src, hole, PAGE, RW), ENOENT);
	assert_int_equal(copy(&p, p.dst, base + 8, p.src, hole, PAGE, RW), ENOENT);
	assert_int_equal(copy(&p, p.dst, base, p.src, hole, PAGE, RW), ENOENT);
	assert_int_equal(copy(&p, 4000, base, p.src, read_only, PAGE, RW), ENOENT);
	assert_int_equal(copy(&p, p.dst, -PAGE + 8, p.src, read_only, 2 * PAGE, RW), EINVAL);
	assert_int_equal(copy(&p, p.dst, -PAGE, p.src, read_only, 2 * PAGE, RW), EOVERFLOW);
	assert_int_equal(copy(&p, p.dst, base + 8, p.src, read_only, PAGE, RW), EINVAL);
	assert_int_equal(copy(&p, p.dst, base, p.src, read_only, PAGE, RW), EEXIST);
	assert_int_equal(copy(&p, p.dst, base + PAGE, p.src, read_only, PAGE, RW), EPERM);
	rig_shows(p.rig, p.dst, 0, 100);
	rig_shows_nothing(p.rig, p.dst, 1);
	rig_free(p.rig);
}

/* A part of a page is a part of an area. */
void conformance_unmap_of_parts_of_pages(void **state)
{
	struct pair p = pair_new();

	assert_int_equal(unmap(&p, p.src, 8, PAGE, 0), ENOENT);
	assert_int_equal(unmap(&p, p.src, 8, 4 * PAGE - 8, 0), ENOENT);
	assert_int_equal(unmap(&p, p.src, 0, 4 * PAGE - 8, 0), ENOENT);
	assert_int_equal(unmap(&p, p.src, 100 * PAGE + 8, PAGE, 0), ENOENT);
	for (unsigned int i = 0; i < 6; i++)
		rig_is_there(p.rig, p.src, i);
	/* The first area is whole, the second is not. */
	assert_int_equal(unmap(&p, p.src, 0, 5 * PAGE + 8, 0), ENOENT);
	for (unsigned int i = 0; i < 4; i++)
		rig_is_gone(p.rig, p.src, i);
	/* What is beyond an area does not matter. */
	assert_int_equal(unmap(&p, p.src, 4 * PAGE - 8, 2 * PAGE + 16, 2 * PAGE), 0);
	rig_is_gone(p.rig, p.src, 4);
	rig_free(p.rig);
}

void conformance_unmap_of_the_last_addresses(void **state)
{
	struct pair p = pair_new();
	uint64_t base = p.rig->base, unmapped = 1;
	const struct iommu_backend_ops *ops = p.rig->ops;

	assert_int_equal(ops->unmap(p.rig->context, p.dst, base, UINT64_MAX, &unmapped), EOVERFLOW);
	assert_int_equal(ops->unmap(p.rig->context, p.dst, UINT64_MAX, 1, &unmapped), EOVERFLOW);
	assert_int_equal(ops->unmap(p.rig->context, p.dst, 0, 0, &unmapped), EINVAL);
	assert_int_equal(ops->unmap(p.rig->context, 4000, 0, UINT64_MAX, &unmapped), ENOENT);
	rig_shows(p.rig, p.dst, 0, 100);
	rig_free(p.rig);
}

void conformance_cut_of_parts_of_pages(void **state)
{
	struct pair p = pair_new();

	rig_map(p.rig, p.dst, 1, 1, 3, RW, 0);
	assert_int_equal(cut(&p, p.dst, PAGE + 8, 8, 0), EINVAL);
	assert_int_equal(cut(&p, p.dst, PAGE, 8, 0), EINVAL);
	assert_int_equal(cut(&p, p.dst, PAGE, PAGE + 8, 0), EINVAL);
	assert_int_equal(cut(&p, p.dst, 100 * PAGE + 8, PAGE, 0), 0);
	for (unsigned int i = 1; i < 4; i++)
		rig_shows(p.rig, p.dst, i, i);
	/* What is beyond an area does not matter. */
	assert_int_equal(cut(&p, p.dst, 2 * PAGE, 2 * PAGE + 8, 2 * PAGE), 0);
	rig_shows(p.rig, p.dst, 1, 1);
	rig_is_gone(p.rig, p.dst, 2);
	rig_free(p.rig);
}

/* Then a cut takes whole areas. */
void conformance_cut_of_what_was_not_made_for_it(void **state)
{
	struct pair p = pair_new();

	assert_int_equal(cut(&p, p.src, 0, PAGE, 0), ENOENT);
	assert_int_equal(cut(&p, p.src, 100 * PAGE, PAGE, 0), 0);
	for (unsigned int i = 0; i < 4; i++)
		rig_is_there(p.rig, p.src, i);
	assert_int_equal(cut(&p, p.src, 0, 4 * PAGE, 4 * PAGE), 0);
	rig_is_gone(p.rig, p.src, 0);
	rig_is_there(p.rig, p.src, 4);
	rig_free(p.rig);
}

void conformance_invalidate_of_a_plain_table(void **state)
{
	struct rig *rig = rig_new();
	uint32_t table, ioas = rig_space(rig, false, &table), consumed = 1;
	uint64_t entry[4] = {0};
	int error =
		rig->ops->invalidate(rig->context, table, 1, entry, sizeof(entry), 1, &consumed);

	/* Older kernels look for a nested table alone, and find none. */
	assert_true(error == EINVAL || error == ENOENT);
	assert_int_equal(consumed, 0);
	consumed = 1;
	assert_int_equal(
		rig->ops->invalidate(rig->context, 4000, 1, entry, sizeof(entry), 1, &consumed),
		ENOENT);
	assert_int_equal(consumed, 0);
	rig_map(rig, ioas, 0, 0, 1, RW, 0);
	rig_shows(rig, ioas, 0, 0);
	rig_free(rig);
}

void conformance_ranges_without_a_page_table(void **state)
{
	struct rig *rig = rig_new();
	struct iommu_range range = {1, 1};
	uint32_t ioas;
	size_t n = 0;

	assert_int_equal(rig->ops->ioas_new(rig->context, false, &ioas), 0);
	assert_int_equal(rig->ops->iova_ranges(rig->context, ioas, &range, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(range.first, 0);
	assert_int_equal(range.last, UINT64_MAX);
	assert_int_equal(rig->ops->iova_ranges(rig->context, 4000, &range, 1, &n), ENOENT);
	rig_free(rig);
}
