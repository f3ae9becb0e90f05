/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_PROGRESS_H
#define IB_RPC_PROGRESS_H

#include <stdint.h>

struct operation;

/* struct operation's progress, for UpdateMemory and for BindDevice. A client that does not read
 * misses it: only the last answer matters. */
void progress_update_memory(struct operation *operation, uint64_t done_bytes, uint64_t total_bytes);
void progress_bind_device(struct operation *operation, uint64_t done_bytes, uint64_t total_bytes);

#endif
