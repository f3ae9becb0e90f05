/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_REPLAY_WORKSPACE_H
#define IB_REPLAY_WORKSPACE_H

/*
 * Pages that a real device needs mapped to do the checks' DMA: frames at the top of the guest's
 * RAM, at the bottom of the window. A recording that uses either cannot be checked so, and is
 * refused. Their leaves go into the tables, and into the model, like the guest's own. Without a
 * checker that wants them there are none, and nothing here does anything.
 */

#include "replay/machine.h"

/* Say where each function's frames are. 0, -ENOSPC: guest memory is too small. */
int workspaces_place(struct machine *machine);

/* For tables of the guest's own: how to add to them. */
struct zpci_tables workspace_adopt(struct machine *machine, const struct function *function,
				   uint64_t iota);
/* Write the leaves into tables for a window that begins at pba. 0 or a negative errno. */
int workspace_lay_out(struct function *function, struct zpci_tables *tables, uint64_t pba);
/* Tell the model. 0 or -ENOMEM. */
int workspace_expect(struct machine *machine, struct function *function);

bool workspace_has_iova(const struct function *function, uint64_t iova);
bool workspace_has_frame(const struct machine *machine, uint64_t gpa);

#endif
