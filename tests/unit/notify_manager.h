/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_NOTIFY_MANAGER_H
#define IB_TESTS_NOTIFY_MANAGER_H

/*
 * A service manager as far as its descriptor store goes: a thread at a socket of its own, which
 * $NOTIFY_SOCKET names. Like the real one it answers nothing and drops silently what it has no room
 * for. A message that is not exactly as one of ours must be fails the test at manager_stop().
 */

#include <stdbool.h>
#include <stddef.h>

struct manager;

struct manager *manager_start(size_t max);
void manager_stop(struct manager *manager);

/* It reads nothing until it is to go on. */
void manager_pause(struct manager *manager);
void manager_go_on(struct manager *manager);
/* Barriers are not answered until they are released. */
void manager_hold_barriers(struct manager *manager, bool hold);
void manager_wait_for_barriers(struct manager *manager, size_t n); /* that it ever got */

size_t manager_stored(struct manager *manager);
size_t manager_barriers(struct manager *manager);
size_t manager_dropped(struct manager *manager);
/* The descriptor under that name is of the file that fd is of. */
bool manager_has(struct manager *manager, const char *name, int fd);
bool manager_knows(struct manager *manager, const char *name);
/* One more that lies there, whatever the maximum: a copy of the descriptor. */
void manager_put(struct manager *manager, const char *name, int borrow_fd);
/* The i-th that lies there: its name, at least 16 bytes, and the descriptor, borrowed. */
int manager_get(struct manager *manager, size_t i, char *ret_name);
/* Nothing lies there any more. */
void manager_clear(struct manager *manager);

#endif
