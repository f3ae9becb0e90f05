/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_PROC_H
#define IB_VM_PROC_H

/* What the kernel says of a process, and what it logs. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A number of /proc/PID/status; base 10 or 16. UINT64_MAX: not there. */
uint64_t proc_status(pid_t pid, const char *key, int base);
/* Pages that it has pinned, in bytes: VmPin. */
uint64_t proc_pinned_bytes(pid_t pid);
/* Open descriptors; those whose target begins with prefix, or all for NULL. As root. */
size_t proc_descriptors(pid_t pid, const char *prefix);

/* Where the kernel's log ends now. */
uint64_t kernel_log_mark(void);
/* How many lines since the mark contain one of the words, which NULL ends; the first few of them
 * are printed if show. */
unsigned int kernel_log_count(uint64_t mark, const char *const *words, bool show);

#endif
