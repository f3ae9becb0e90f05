/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See dma.h. */

#include "dma.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

#define STAMP_AT    0x40u /* in a page */
#define STAMP_WORDS 8u

struct stamp {
	uint64_t words[STAMP_WORDS];
};

static struct stamp stamp_new(void)
{
	static _Atomic uint64_t count;
	uint64_t serial = (uint64_t)getpid() << 32 | (atomic_fetch_add(&count, 1) + 1);
	struct stamp stamp;

	for (unsigned int i = 0; i < STAMP_WORDS; i++)
		stamp.words[i] = (serial * STAMP_WORDS + i) * UINT64_C(0x9e3779b97f4a7c15);
	return stamp;
}

static bool succeeded(int r)
{
	errno = -r;
	return r == 0;
}

bool dma_lands(struct vmm *vmm, uint64_t iova, uint64_t gpa)
{
	const uint8_t *arrived = vmm->memory + gpa + STAMP_AT;
	struct stamp stamp = stamp_new();

	return succeeded(engine_write(vmm->engine, iova + STAMP_AT, &stamp, sizeof(stamp))) &&
	       memcmp(arrived, &stamp, sizeof(stamp)) == 0;
}

bool dma_reads(struct vmm *vmm, uint64_t iova, uint64_t gpa)
{
	struct stamp stamp = stamp_new(), seen = {0};

	memcpy(vmm->memory + gpa + STAMP_AT, &stamp, sizeof(stamp));
	return succeeded(engine_read(vmm->engine, iova + STAMP_AT, &seen, sizeof(seen))) &&
	       memcmp(&seen, &stamp, sizeof(stamp)) == 0;
}

bool dma_is_kept_out(struct vmm *vmm, uint64_t iova, uint64_t gpa)
{
	uint8_t before[ZPCI_PAGE_BYTES];
	struct stamp stamp = stamp_new();
	bool kept;
	int r;

	memcpy(before, vmm->memory + gpa, sizeof(before));
	r = engine_write(vmm->engine, iova + STAMP_AT, &stamp, sizeof(stamp));
	errno = -r;
	kept = memcmp(vmm->memory + gpa, before, sizeof(before)) == 0;
	if (!machine_is_s390x())
		return kept;
	CHECK(r != 0);
	vmm_recover(vmm);
	return kept;
}

bool dma_lands_around(struct vmm *vmm, uint64_t iova, uint64_t gpa, uint64_t n_pages, uint64_t hole,
		      uint64_t n_hole)
{
	bool good = true;

	for (uint64_t i = 0; i < n_pages; i++)
		if (i < hole || i >= hole + n_hole)
			good &= dma_lands(vmm, iova + i * ZPCI_PAGE_BYTES,
					  gpa + i * ZPCI_PAGE_BYTES);
	return good;
}
