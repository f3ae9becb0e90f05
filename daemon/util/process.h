/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_PROCESS_H
#define IB_UTIL_PROCESS_H

/* What /proc and a pidfd say of a process, mostly another one. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Whether the process of a pidfd has not ended: then what was read by its number before was its
 * own, since a number is not given away while its process lives. pidfd_open(2). */
bool process_lives(int pidfd);
/* The effective ids, which a socket would tell. false: /proc does not show it. proc(5). */
bool process_ids(pid_t pid, uid_t *ret_uid, gid_t *ret_gid);
/* When it was started, in clock ticks since the machine was: with its number, whose life it is.
 * false: /proc does not show it. proc_pid_stat(5), field 22. */
bool process_start_ticks(pid_t pid, uint64_t *ret_ticks);
/* What the kernel counts as pinned by this process: VmPin. false: /proc does not show it. */
bool process_pinned_bytes(uint64_t *ret);

#endif
