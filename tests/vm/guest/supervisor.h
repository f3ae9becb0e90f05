/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_SUPERVISOR_H
#define IB_VM_SUPERVISOR_H

/*
 * A service manager as the daemon meets it in systemd, as far as its deaths go: a descriptor store
 * that outlives it, and a successor after each death, which finds there what was stored. A thread
 * of its own does that. It REQUIREs (check.h) what it needs.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct supervisor;

/* In a child that was forked, whose parent is the one given: becomes the daemon, with n more
 * variables in its environment, the last of which is NULL. */
typedef void (*supervisor_run_fn)(void *context, pid_t parent, char *const *variables);

/* Starts the first. borrow_notify: the socket that messages come to; until supervisor_stop(). */
struct supervisor *supervisor_start(int borrow_notify, supervisor_run_fn run, void *context);
/* SIGTERM, and no successor. Returns the exit's status, and what is stored is forgotten. */
int supervisor_stop(struct supervisor *supervisor);

/* Kills the process that there is, whatever it is at, and waits until there is another: which has
 * just been started. */
void supervisor_kill(struct supervisor *supervisor);
/* Until the process that runs now has said that it is ready. Returns its number. */
pid_t supervisor_wait_ready(struct supervisor *supervisor);
unsigned int supervisor_starts(struct supervisor *supervisor);
size_t supervisor_stored(struct supervisor *supervisor);

#endif
