/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A run of pages is one area in the kernel. Pages in its middle come and go while the device writes
 * to their neighbours without pause: not one write may miss.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "dma.h"
#include "scenario.h"
#include "vmm.h"

#define PAGE       ZPCI_PAGE_BYTES
#define RUN_PAGES  16u
#define HOLE_FIRST 5u
#define HOLE_PAGES 6u /* within these, holes are cut */
#define ROUNDS     120u
#define WRITES     60u

struct writer {
	struct vmm *vmm;
	uint64_t iova;
	_Atomic bool stop;
	_Atomic unsigned int writes, misses;
};

static void *write_neighbours(void *user_data)
{
	struct writer *writer = user_data;

	check_step("DMA beside the hole");
	for (unsigned int i = 0; !atomic_load(&writer->stop); i = (i + 7) % RUN_PAGES) {
		if (i >= HOLE_FIRST && i < HOLE_FIRST + HOLE_PAGES)
			continue;
		if (!CHECK(dma_lands(writer->vmm, writer->iova + i * PAGE,
				     VMM_DATA_GPA + i * PAGE)))
			atomic_fetch_add(&writer->misses, 1);
		atomic_fetch_add(&writer->writes, 1);
		if (atomic_load(&writer->misses) != 0)
			break;
	}
	return NULL;
}

/* A hole of one to three pages, filled with other frames or with the same. */
static void cut_once(struct vmm *vmm, uint64_t iova, unsigned int round)
{
	uint64_t first = HOLE_FIRST + round % (HOLE_PAGES - 2), n = 1 + round % 3;

	vmm_unmap(vmm, iova + first * PAGE, n);
	if (round % 2 == 0) {
		vmm_map(vmm, iova + first * PAGE, VMM_DATA_GPA + first * PAGE, n,
			ZPCI_LEAF_READ_WRITE);
		return;
	}
	/* Other frames, and in one refresh back to those of the run. */
	vmm_map(vmm, iova + first * PAGE, VMM_SIDE_GPA, n, ZPCI_LEAF_READ_WRITE);
	tables_map(&vmm->tables, iova + first * PAGE, VMM_DATA_GPA + first * PAGE, n,
		   ZPCI_LEAF_READ_WRITE);
	vmm_refresh(vmm, iova, RUN_PAGES, n, 0);
}

static void cut_while_writing(struct vmm *vmm, uint64_t iova)
{
	struct writer writer = {.vmm = vmm, .iova = iova};
	unsigned int rounds = 0;
	pthread_t thread;

	REQUIRE_EQUAL(pthread_create(&thread, NULL, write_neighbours, &writer), 0);
	while (check_failures() == 0 && (rounds < ROUNDS || atomic_load(&writer.writes) < WRITES)) {
		check_step("round %u", rounds);
		cut_once(vmm, iova, rounds++);
	}
	atomic_store(&writer.stop, true);
	pthread_join(thread, NULL);
	CHECK_EQUAL(atomic_load(&writer.misses), 0);
	CHECK(atomic_load(&writer.writes) >= WRITES);
	CHECK(rounds >= ROUNDS);
}

static void do_cut(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};
	uint64_t iova, hole;

	(void)user_data;
	vmm_up(&vmm, machine);
	iova = vmm.first + VMM_DATA_AT;
	hole = iova + HOLE_FIRST * PAGE;
	vmm_map(&vmm, iova, VMM_DATA_GPA, RUN_PAGES, ZPCI_LEAF_READ_WRITE);
	CHECK(dma_lands_around(&vmm, iova, VMM_DATA_GPA, RUN_PAGES, 0, 0));
	cut_while_writing(&vmm, iova);
	check_step("after the last round");
	CHECK(dma_lands_around(&vmm, iova, VMM_DATA_GPA, RUN_PAGES, 0, 0));
	check_step("a hole that stays");
	vmm_unmap(&vmm, hole, 2);
	CHECK(dma_lands_around(&vmm, iova, VMM_DATA_GPA, RUN_PAGES, HOLE_FIRST, 2));
	CHECK(dma_is_kept_out(&vmm, hole, VMM_DATA_GPA + HOLE_FIRST * PAGE));
	CHECK(dma_is_kept_out(&vmm, hole + PAGE, VMM_DATA_GPA + (HOLE_FIRST + 1) * PAGE));
	vmm_down(&vmm);
}

void case_cut_in_a_run(void)
{
	struct machine machine;

	machine_start(&machine, NULL);
	machine_run_vmm(&machine, do_cut, NULL);
	machine_stop(&machine);
}
