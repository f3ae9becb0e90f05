/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_BACKEND_CALL_H
#define IB_BROKER_BACKEND_CALL_H

/*
 * Calls of the backend that take something away. Nothing can be done for a caller that learns that
 * they failed, so they are tried again a few times and then let be: what they leave behind goes
 * with the guest's context.
 */

#include <stdbool.h>
#include <stdint.h>

struct guest;

/* Nothing mapped there is success. */
bool backend_unmap(struct guest *guest, uint32_t ioas, uint64_t iova, uint64_t length);
/* An address space or a page table; one that is gone is success: a process before this one may have
 * come that far. */
bool backend_destroy(struct guest *guest, uint32_t id);

#endif
