/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_RELAXED_H
#define IB_BROKER_RELAXED_H

/*
 * Relaxed translation: all of guest memory, at guest address plus start of DMA, clipped to a
 * window. An address space of its own, filled by copies from the parent when its device is attached
 * to it, and not before: as a shadow is, since an emulated zPCI function learns of mappings only as
 * they are made. Filled, it follows every change of the guest's memory. On the guest's lane.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/domain.h"
#include "broker/region.h"

struct guest;
struct device;
struct refusal;

struct relaxed {
	struct domain domain;
	bool filled;
	uint64_t base;        /* start of DMA: IOVA of guest address 0 */
	uint64_t first, last; /* window, inclusive IOVAs */
};

/* Made, and empty. On failure nothing is left. */
int relaxed_new(struct guest *guest, struct device *device, uint64_t first, uint64_t last,
		struct relaxed *ret, struct refusal *refusal);
/* One of a process before this one. 0 or REFUSED. */
struct record_relaxed;
int relaxed_take_over(struct relaxed *ret, const struct record_relaxed *record,
		      struct refusal *refusal);
void relaxed_free(struct guest *guest, struct relaxed *relaxed);
/* The same once the call is settled, see domain_end_settled(). */
void relaxed_leave(struct guest *guest, struct relaxed *relaxed);

/* What is filled stays as it is. 0 or the kernel's errno, and then it is empty. */
int relaxed_fill(struct guest *guest, struct relaxed *relaxed);
void relaxed_empty(struct guest *guest, struct relaxed *relaxed);

/* Of what is not filled, nothing. 0 or the kernel's errno, and then a part of the region can be
 * there: remove it. */
int relaxed_add(struct guest *guest, const struct relaxed *relaxed, const struct region *region);
bool relaxed_remove(struct guest *guest, const struct relaxed *relaxed,
		    const struct region *region);

/* The same of a region of which a part can be there, left by a process before this one. */
int relaxed_complete(struct guest *guest, const struct relaxed *relaxed,
		     const struct region *region);

/* What an IOVA shows. */
bool relaxed_lookup(const struct relaxed *relaxed, uint64_t iova, uint64_t *ret_gpa);

#endif
