/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_TABLES_H
#define IB_VM_TABLES_H

/*
 * The guest's side: zPCI translation tables in guest memory, as a Linux guest keeps them, under a
 * region-third table. What the replay program writes recorded guests with, and the few things that
 * a recorded guest never does.
 */

#include <stdbool.h>
#include <stdint.h>

#include "replay/zpci.h"

struct tables {
	struct zpci_tables zpci;
};

enum tables_level {
	TABLES_PAGE,
	TABLES_SEGMENT,
	TABLES_REGION,
};

/* Empty, in guest memory at gpa that nobody else uses. host is where gpa is. */
void tables_init(struct tables *tables, uint8_t *host, uint64_t gpa, uint64_t n_bytes);
uint64_t tables_iota(const struct tables *tables);
/* n_pages at consecutive addresses; leaf: ZPCI_LEAF_..., NONE makes them invalid. */
void tables_map(struct tables *tables, uint64_t iova, uint64_t gpa, uint64_t n_pages,
		unsigned int leaf);
void tables_unmap(struct tables *tables, uint64_t iova, uint64_t n_pages);
/* The protection bit of the entry of that level which iova goes through, which is there. */
void tables_protect(struct tables *tables, enum tables_level level, uint64_t iova, bool on);

#endif
