/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Checks with the DMA engine of an emulated function, which says why an access failed and where one
 * would go. A check moves a few bytes that were never there before, at an offset that changes, so
 * that neither a stale translation nor a neighbour's can pass for the right one.
 */

#include <string.h>

#include "iommu/emulated/dma.h"
#include "replay/check.h"

#define WORD_BYTES sizeof(uint64_t)

static int emulated_open(struct machine *machine, struct function *function)
{
	struct emulated_dma *dma = NULL;
	int r;

	r = emulated_dma_open(&dma, function->device_fd);
	function->device_engine = dma;
	return r < 0 ? r : emulated_dma_add_memory(dma, machine->memory_fd);
}

static void emulated_close(struct function *function)
{
	function->device_engine = emulated_dma_close(function->device_engine);
}

static void judge(struct machine *machine, const struct function *function, uint64_t iova,
		  bool good, const char *what, enum emulated_dma_reason reason)
{
	check_judge(machine, function, iova, good, what, emulated_dma_reason_name(reason));
}

static void check_read(struct machine *machine, struct function *function, uint64_t iova,
		       uint8_t *host)
{
	uint64_t pattern = check_pattern(machine);
	enum emulated_dma_reason reason;
	uint64_t seen = ~pattern;

	memcpy(host, &pattern, WORD_BYTES);
	reason = emulated_dma_read(function->device_engine, iova, &seen, WORD_BYTES, NULL);
	judge(machine, function, iova, reason == EMULATED_DMA_OK && seen == pattern,
	      "a read did not bring what guest memory holds", reason);
}

static void check_write(struct machine *machine, struct function *function, uint64_t iova,
			uint8_t *host, unsigned int access)
{
	uint64_t pattern = check_pattern(machine);
	enum emulated_dma_reason reason;
	uint64_t before, after;

	memcpy(&before, host, WORD_BYTES);
	reason = emulated_dma_write(function->device_engine, iova, &pattern, WORD_BYTES, NULL);
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

	reason = emulated_dma_read(function->device_engine, iova, &word, WORD_BYTES, NULL);
	judge(machine, function, iova, reason == EMULATED_DMA_NOT_MAPPED,
	      "a read of an unmapped leaf did not fault", reason);
	if (reason == EMULATED_DMA_OK) /* a write would harm who owns the page now */
		return;
	reason = emulated_dma_write(function->device_engine, iova, &word, WORD_BYTES, NULL);
	judge(machine, function, iova, reason == EMULATED_DMA_NOT_MAPPED,
	      "a write to an unmapped leaf did not fault", reason);
}

static void emulated_leaf(struct machine *machine, struct function *function, uint64_t iova,
			  const struct leaf *leaf)
{
	uint64_t offset = machine->totals.dma_checks * WORD_BYTES % ZPCI_PAGE_BYTES;
	uint64_t before;
	uint8_t *host;

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

static void emulated_page(struct machine *machine, struct function *function, uint64_t iova,
			  const struct leaf *leaf)
{
	struct emulated_dma_target target = {0};
	enum emulated_dma_reason reason;

	reason = emulated_dma_translate(function->device_engine, iova, &target);
	if (!leaf_agrees(machine, leaf, reason, &target))
		machine_fail(machine, "function %u: 0x%llx is %s, and installed is %s 0x%llx",
			     function->id, (unsigned long long)iova,
			     leaf == NULL ? "unmapped" : "mapped", emulated_dma_reason_name(reason),
			     (unsigned long long)target.offset);
}

const struct check_ops check_emulated = {
	.open = emulated_open,
	.close = emulated_close,
	.leaf = emulated_leaf,
	.page = emulated_page,
};
