/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Unmap and cut, see ioas.h. Unlike what is mapped, their ranges are of bytes: a part of a page is
 * a part of an area.
 */

#include "iommu/emulated/ioas.h"

#include <errno.h>

#include "iommu/emulated/device.h"

#define PAGE_MASK (EMULATED_PAGE_BYTES - 1)

uint64_t emulated_ioas_clear(struct emulated_ioas *ioas, uint64_t first, uint64_t last)
{
	struct emulated_memory_table *table = &ioas->context->memory;
	struct radix_cursor cursor = radix_cursor(&ioas->radix);
	uint64_t page, n = 0;

	for (struct iommu_device *d = ioas->devices; d; d = d->next_attached)
		emulated_device_clear(d, first, last);
	for (; radix_next(&ioas->radix, first, last, &page); first = page) {
		for (; page <= last && radix_is_set(&cursor, page); page++, n++) {
			uint64_t word = radix_get(&cursor, page);
			struct emulated_memory *memory = emulated_memory_of(table, word);

			radix_set(&cursor, page, 0);
			if (ioas->n_page_tables)
				emulated_memory_unpin(table, memory, emulated_word_page(word));
			emulated_memory_unref(table, memory);
		}
	}
	return n;
}

/* Whether page and the one before it lie in one area. */
static bool same_area_as_before(struct radix_cursor *cursor, uint64_t page)
{
	uint64_t word = page <= EMULATED_LAST_PAGE ? radix_get(cursor, page) : 0;

	return word && !(word & EMULATED_WORD_START);
}

/* The area that begins at page, if it ends before end. */
static bool whole_area(struct radix_cursor *cursor, uint64_t page, uint64_t end, uint64_t *ret_last)
{
	while (page < end && same_area_as_before(cursor, page + 1))
		page++;
	*ret_last = page;
	return page < end;
}

/* A range of bytes: the pages that it touches, and those of them that it takes whole. */
struct span {
	uint64_t first, last;
	uint64_t whole_first, whole_end;
};

static struct span span_of(uint64_t iova, uint64_t last_byte)
{
	return (struct span){
		.first = iova >> EMULATED_PAGE_BITS,
		.last = last_byte >> EMULATED_PAGE_BITS,
		.whole_first = (iova >> EMULATED_PAGE_BITS) + ((iova & PAGE_MASK) != 0),
		.whole_end =
			(last_byte >> EMULATED_PAGE_BITS) + ((last_byte & PAGE_MASK) == PAGE_MASK),
	};
}

static int unmap_areas(struct emulated_ioas *ioas, const struct span *span, uint64_t *ret_n)
{
	struct radix_cursor cursor = radix_cursor(&ioas->radix);
	uint64_t at = span->first, page, area_last, n = 0;

	while (at <= span->last && radix_next(&ioas->radix, at, span->last, &page)) {
		if (page < span->whole_first)
			return ENOENT;
		if (page == span->first && same_area_as_before(&cursor, page))
			return ENOENT;
		if (!whole_area(&cursor, page, span->whole_end, &area_last))
			return ENOENT;
		n += emulated_ioas_clear(ioas, page, area_last);
		at = area_last + 1;
	}
	*ret_n = n;
	return n ? 0 : ENOENT;
}

static int unmap_locked(struct emulated_ioas *ioas, const struct span *span, uint64_t *ret_unmapped)
{
	uint64_t n;
	int error = unmap_areas(ioas, span, &n);

	emulated_ioas_prune(ioas, span->first, span->last);
	if (!error)
		*ret_unmapped = n << EMULATED_PAGE_BITS;
	return error;
}

int emulated_ioas_unmap(struct emulated_ioas *ioas, uint64_t iova, uint64_t length,
			uint64_t *ret_unmapped)
{
	bool all = iova == 0 && length == UINT64_MAX;
	struct span span;
	int error;

	*ret_unmapped = 0;
	if (!all && (iova == UINT64_MAX || length == UINT64_MAX))
		return EOVERFLOW;
	error = all ? 0 : emulated_check_bytes(iova, length);
	if (error)
		return error;
	span = span_of(iova, all ? UINT64_MAX : iova + (length - 1));
	pthread_rwlock_wrlock(&ioas->lock);
	error = unmap_locked(ioas, &span, ret_unmapped);
	pthread_rwlock_unlock(&ioas->lock);
	return all ? 0 : error;
}

/* An end of the range that lies inside of a page that is mapped. */
static bool has_part(const struct emulated_ioas *ioas, const struct span *span)
{
	struct radix_cursor cursor = radix_cursor(&ioas->radix);

	return (span->first < span->whole_first && radix_is_set(&cursor, span->first)) ||
	       (span->last >= span->whole_end && radix_is_set(&cursor, span->last));
}

static int cut_locked(struct emulated_ioas *ioas, const struct span *span, uint64_t *ret_unmapped)
{
	struct radix_cursor cursor = radix_cursor(&ioas->radix);
	uint64_t end = span->whole_end, page;

	if (!ioas->cuttable) {
		if (!radix_next(&ioas->radix, span->first, span->last, &page))
			return 0;
		return unmap_locked(ioas, span, ret_unmapped);
	}
	if (has_part(ioas, span))
		return EINVAL;
	if (span->whole_first >= end)
		return 0;
	if (same_area_as_before(&cursor, end))
		radix_set(&cursor, end, radix_get(&cursor, end) | EMULATED_WORD_START);
	*ret_unmapped = emulated_ioas_clear(ioas, span->whole_first, end - 1) << EMULATED_PAGE_BITS;
	emulated_ioas_prune(ioas, span->whole_first, end - 1);
	return 0;
}

int emulated_ioas_cut(struct emulated_ioas *ioas, uint64_t iova, uint64_t length,
		      uint64_t *ret_unmapped)
{
	struct span span;
	int error;

	*ret_unmapped = 0;
	error = emulated_check_bytes(iova, length);
	if (error)
		return error;
	span = span_of(iova, iova + (length - 1));
	pthread_rwlock_wrlock(&ioas->lock);
	error = cut_locked(ioas, &span, ret_unmapped);
	pthread_rwlock_unlock(&ioas->lock);
	return error;
}
