/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_REPLAY_CHECK_H
#define IB_REPLAY_CHECK_H

/* Does the device reach what the guest's tables say, and nothing else? */

#include "replay/machine.h"

/* One leaf by DMA, as the model has it now: mapped ones are read, and written or must refuse to be;
 * others must fault. Guest memory is left as it was. */
void check_leaf(struct machine *machine, struct function *function, uint64_t iova);

/* The set of leaves, at the end: every page of the window, and the daemon's own count. */
void check_all_leaves(struct machine *machine, struct function *function);

#endif
