/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/relaxed.h"

#include <errno.h>

#include "broker/backend_call.h"
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/root.h"

/* A piece of a region, as much of it as lies in the window. */
struct piece {
	uint64_t iova, gpa, length;
};

/* Start of DMA plus guest address can pass 2^64: such a piece is outside every window. */
static bool piece_clip(const struct relaxed *relaxed, struct piece *piece)
{
	uint64_t last;

	if (__builtin_add_overflow(piece->gpa, relaxed->base, &piece->iova))
		return false;
	if (__builtin_add_overflow(piece->iova, piece->length - 1, &last))
		last = UINT64_MAX;
	if (last < relaxed->first || piece->iova > relaxed->last)
		return false;
	if (piece->iova < relaxed->first) {
		piece->gpa += relaxed->first - piece->iova;
		piece->iova = relaxed->first;
	}
	if (last > relaxed->last)
		last = relaxed->last;
	piece->length = last - piece->iova + 1;
	return true;
}

/* Areas are those of the parent, so that what the parent can cut can be cut here too. */
static bool piece_next(const struct relaxed *relaxed, const struct region *region, uint64_t *at,
		       struct piece *ret)
{
	uint64_t length;

	while ((length = region_slice(region, *at, region->area_bytes))) {
		*ret = (struct piece){.gpa = region->gpa + *at, .length = length};
		*at += length;
		if (piece_clip(relaxed, ret))
			return true;
	}
	return false;
}

bool relaxed_remove(struct guest *guest, const struct relaxed *relaxed, const struct region *region)
{
	struct piece all = {.gpa = region->gpa, .length = region->length};

	if (!relaxed->filled || !piece_clip(relaxed, &all))
		return true;
	return backend_unmap(guest, relaxed->domain.ioas, all.iova, all.length);
}

static int relaxed_copy(struct guest *guest, const struct relaxed *relaxed,
			const struct region *region)
{
	const struct iommu_backend_ops *ops = broker_ops(guest->broker);
	unsigned int prot = IOMMU_PROT_READ | (region->writable ? IOMMU_PROT_WRITE : 0);
	struct piece piece;
	uint64_t at = 0;

	while (piece_next(relaxed, region, &at, &piece)) {
		int error = ops->copy(guest->context, relaxed->domain.ioas, piece.iova,
				      guest->parent.ioas, piece.gpa, piece.length, prot);

		if (error)
			return error;
	}
	return 0;
}

int relaxed_add(struct guest *guest, const struct relaxed *relaxed, const struct region *region)
{
	return relaxed->filled ? relaxed_copy(guest, relaxed, region) : 0;
}

/* Areas that are there already are those of the region, as this one is mapped in them. */
int relaxed_complete(struct guest *guest, const struct relaxed *relaxed,
		     const struct region *region)
{
	const struct iommu_backend_ops *ops = broker_ops(guest->broker);
	unsigned int prot = IOMMU_PROT_READ | (region->writable ? IOMMU_PROT_WRITE : 0);
	struct piece piece;
	uint64_t at = 0;

	while (relaxed->filled && piece_next(relaxed, region, &at, &piece)) {
		int error = ops->copy(guest->context, relaxed->domain.ioas, piece.iova,
				      guest->parent.ioas, piece.gpa, piece.length, prot);

		if (error && error != EEXIST)
			return error;
	}
	return 0;
}

int relaxed_fill(struct guest *guest, struct relaxed *relaxed)
{
	int error = 0;

	if (relaxed->filled)
		return 0;
	for (size_t i = 0; !error && i < guest->regions.n; i++)
		error = relaxed_copy(guest, relaxed, &guest->regions.items[i]);
	relaxed->filled = true;
	if (error)
		relaxed_empty(guest, relaxed);
	return error;
}

void relaxed_empty(struct guest *guest, struct relaxed *relaxed)
{
	if (relaxed->filled)
		relaxed->filled = !backend_unmap(guest, relaxed->domain.ioas, 0, UINT64_MAX);
}

int relaxed_new(struct guest *guest, struct device *device, uint64_t first, uint64_t last,
		struct relaxed *ret, struct refusal *refusal)
{
	struct relaxed relaxed = {
		.base = device->info.dma_first,
		.first = first,
		.last = last,
	};

	if (domain_new(guest, device, false, "address space for relaxed translation",
		       &relaxed.domain, refusal))
		return REFUSED;
	*ret = relaxed;
	return 0;
}

int relaxed_take_over(struct relaxed *ret, const struct record_relaxed *record,
		      struct refusal *refusal)
{
	*ret = (struct relaxed){
		.base = record->base,
		.first = record->first,
		.last = record->last,
		.filled = record->filled,
	};
	return record->made
		       ? domain_restore(&ret->domain, record->ioas, record->page_table, refusal)
		       : 0;
}

void relaxed_free(struct guest *guest, struct relaxed *relaxed)
{
	domain_end(guest, &relaxed->domain);
	relaxed->filled = false;
}

void relaxed_leave(struct guest *guest, struct relaxed *relaxed)
{
	domain_end_settled(guest, &relaxed->domain);
	relaxed->filled = false;
}

bool relaxed_lookup(const struct relaxed *relaxed, uint64_t iova, uint64_t *ret_gpa)
{
	if (!relaxed->filled || iova < relaxed->first || iova > relaxed->last ||
	    iova < relaxed->base)
		return false;
	*ret_gpa = iova - relaxed->base;
	return true;
}
