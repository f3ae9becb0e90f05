/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See check.h. What every checker shares: what a page has to be, and the keeping of the score. */

#include "replay/check.h"

/* A larger window is checked at its leaves alone. */
#define WINDOW_PAGES_MAX (UINT64_C(1) << 22)

uint64_t check_pattern(const struct machine *machine)
{
	return (machine->totals.dma_checks + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

void check_judge(struct machine *machine, const struct function *function, uint64_t iova, bool good,
		 const char *what, const char *detail)
{
	machine->totals.dma_checks++;
	if (good)
		return;
	machine->totals.dma_failures++;
	machine_fail(machine, "function %u: DMA at 0x%llx: %s (%s)", function->id,
		     (unsigned long long)iova, what, detail);
	machine->totals.failures--; /* counted as a DMA failure */
}

static const struct leaf *leaf_at(const struct function *function, uint64_t iova)
{
	struct leaf *leaf = NULL;

	HASH_FIND(hh, function->leaves, &iova, sizeof(iova), leaf);
	return leaf;
}

void check_leaf(struct machine *machine, struct function *function, uint64_t iova)
{
	machine->checks->leaf(machine, function, iova, leaf_at(function, iova));
}

void check_all_leaves(struct machine *machine, struct function *function)
{
	uint64_t n_pages = (function->pal - function->pba) / ZPCI_PAGE_BYTES + 1;
	uint64_t first = function->pba & ~(uint64_t)(ZPCI_PAGE_BYTES - 1);
	struct leaf *leaf, *next;

	if (function->live_leaves != HASH_COUNT(function->leaves))
		machine_fail(machine, "function %u: the daemon counts %llu live leaves, not %u",
			     function->id, (unsigned long long)function->live_leaves,
			     HASH_COUNT(function->leaves));
	if (function->nested == NULL)
		return;
	if (n_pages > WINDOW_PAGES_MAX) {
		HASH_ITER (hh, function->leaves, leaf, next)
			machine->checks->page(machine, function, leaf->iova, leaf);
		return;
	}
	for (uint64_t i = 0; i < n_pages; i++) {
		uint64_t iova = first + i * ZPCI_PAGE_BYTES;

		machine->checks->page(machine, function, iova, leaf_at(function, iova));
	}
}
