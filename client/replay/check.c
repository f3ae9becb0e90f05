/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See check.h. A check moves a few bytes that were never there before, at an offset that changes,
 * so that neither a stale translation nor a neighbour's can pass for the right one.
 */

#include "replay/check.h"

#include <string.h>

/* A larger window is checked at its leaves alone. */
#define WINDOW_PAGES_MAX (UINT64_C(1) << 22)

#define WORD_BYTES sizeof(uint64_t)

static uint64_t next_pattern(const struct machine *machine)
{
	return (machine->totals.dma_checks + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void judge(struct machine *machine, const struct function *function, uint64_t iova,
		  bool good, const char *what, enum emulated_dma_reason reason)
{
	machine->totals.dma_checks++;
	if (good)
		return;
	machine->totals.dma_failures++;
	machine_fail(machine, "function %u: DMA at 0x%llx: %s (%s)", function->id,
		     (unsigned long long)iova, what, emulated_dma_reason_name(reason));
	machine->totals.failures--; /* counted as a DMA failure */
}

static void check_read(struct machine *machine, struct function *function, uint64_t iova,
		       uint8_t *host)
{
	uint64_t pattern = next_pattern(machine);
	enum emulated_dma_reason reason;
	uint64_t seen = ~pattern;

	memcpy(host, &pattern, WORD_BYTES);
	reason = emulated_dma_read(function->dma, iova, &seen, WORD_BYTES, NULL);
	judge(machine, function, iova, reason == EMULATED_DMA_OK && seen == pattern,
	      "a read did not bring what guest memory holds", reason);
}

static void check_write(struct machine *machine, struct function *function, uint64_t iova,
			uint8_t *host, unsigned int access)
{
	uint64_t pattern = next_pattern(machine);
	enum emulated_dma_reason reason;
	uint64_t before, after;

	memcpy(&before, host, WORD_BYTES);
	reason = emulated_dma_write(function->dma, iova, &pattern, WORD_BYTES, NULL);
	memcpy(&after, host, WORD_BYTES);
	if (access == ZPCI_LEAF_READ)
		judge(machine, function, iova, reason == EMULATED_DMA_READ_ONLY && after == before,
		      "a write to a read-only leaf did not fault", reason);
	else
		judge(machine, function, iova, reason == EMULATED_DMA_OK && after == pattern,
		      "a write did not arrive in guest memory", reason);
}

static void check_unmapped(struct machine *machine, struct function *function, uint64_t iova)
{
	enum emulated_dma_reason reason;
	uint64_t word = 0;

	reason = emulated_dma_read(function->dma, iova, &word, WORD_BYTES, NULL);
	judge(machine, function, iova, reason == EMULATED_DMA_NOT_MAPPED,
	      "a read of an unmapped leaf did not fault", reason);
	if (reason == EMULATED_DMA_OK) /* a write would harm who owns the page now */
		return;
	reason = emulated_dma_write(function->dma, iova, &word, WORD_BYTES, NULL);
	judge(machine, function, iova, reason == EMULATED_DMA_NOT_MAPPED,
	      "a write to an unmapped leaf did not fault", reason);
}

void check_leaf(struct machine *machine, struct function *function, uint64_t iova)
{
	uint64_t offset = machine->totals.dma_checks * WORD_BYTES % ZPCI_PAGE_BYTES;
	struct leaf *leaf = NULL;
	uint64_t before;
	uint8_t *host;

	HASH_FIND(hh, function->leaves, &iova, sizeof(iova), leaf);
	if (leaf == NULL) {
		check_unmapped(machine, function, iova + offset);
		return;
	}
	host = machine->memory + leaf->gpa + offset;
	memcpy(&before, host, WORD_BYTES);
	check_read(machine, function, iova + offset, host);
	check_write(machine, function, iova + offset, host, leaf->access);
	memcpy(host, &before, WORD_BYTES);
}

static bool leaf_agrees(const struct machine *machine, const struct leaf *leaf,
			enum emulated_dma_reason reason, const struct emulated_dma_target *target)
{
	if (leaf == NULL)
		return reason == EMULATED_DMA_NOT_MAPPED;
	return reason == EMULATED_DMA_OK && target->dev == machine->memory_dev &&
	       target->ino == machine->memory_ino && target->offset == leaf->gpa &&
	       target->readable && target->writable == (leaf->access == ZPCI_LEAF_READ_WRITE);
}

static void check_page(struct machine *machine, struct function *function, uint64_t iova)
{
	struct emulated_dma_target target = {0};
	struct leaf *leaf = NULL;
	enum emulated_dma_reason reason;

	HASH_FIND(hh, function->leaves, &iova, sizeof(iova), leaf);
	reason = emulated_dma_translate(function->dma, iova, &target);
	if (!leaf_agrees(machine, leaf, reason, &target))
		machine_fail(machine, "function %u: 0x%llx is %s, and installed is %s 0x%llx",
			     function->id, (unsigned long long)iova,
			     leaf == NULL ? "unmapped" : "mapped", emulated_dma_reason_name(reason),
			     (unsigned long long)target.offset);
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
			check_page(machine, function, leaf->iova);
		return;
	}
	for (uint64_t i = 0; i < n_pages; i++)
		check_page(machine, function, first + i * ZPCI_PAGE_BYTES);
}
