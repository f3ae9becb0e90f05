/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_FAILURE_LIFE_H
#define IB_VM_FAILURE_LIFE_H

/*
 * A guest's whole life as its VMM leads it, step by step, for the sweep of kernel failures: every
 * step can fail, be looked at, be tried again, or be the last one.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommubroker.h"

struct life;
struct machine;

/* What became of a step. */
struct outcome {
	bool good;
	int result;    /* negative: refused, and what follows says how */
	uint32_t code; /* of gRPC */
	char reason[48];
	char message[200];
	uint32_t verdict; /* of a registration or refresh otherwise */
};

/* One for the process's life; guest memory is made once. */
struct life *life_new(const struct machine *machine);
void life_free(struct life *life);

size_t life_steps(void);
const char *life_step_name(size_t step);
size_t life_step_find(const char *name);

/* From the first step on. dma: the device shows what it reaches. */
void life_begin(struct life *life, bool dma);
/* What is asked for again must be asked for in the same way: steps may be repeated. */
struct outcome life_step(struct life *life, size_t step);
/* After a step: what daemon and device say must be what the guest's tables say; after one that was
 * refused, what they said before; after one that failed otherwise, no more than that. Not strict:
 * no more than that in any case. */
void life_check(struct life *life, size_t step, const struct outcome *outcome, bool strict);
/* The connection ends, and with it whatever is left. Also after the last step. */
void life_end(struct life *life);

/* Whether the device reaches a leaf of the first tables, or what it showed last. With dma. */
bool life_device_reaches(struct life *life, unsigned int leaf);
/* The attached domain is destroyed, and registered again. */
struct outcome life_register_again(struct life *life);
/* How many events of that kind the guest has had. */
unsigned int life_events(struct life *life, uint32_t kind);
/* Leaves that are installed of what the device is attached to. */
uint64_t life_leaves(struct life *life);

#endif
