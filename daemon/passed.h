/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_PASSED_H
#define IB_PASSED_H

/*
 * What the service manager passes at the start: sockets, and descriptors that a process before this
 * one stored with it (state/fd_store.h). They are told apart by their names.
 */

#include <stddef.h>

#include "broker/broker.h"
#include "state/fd_store.h"

struct passed {
	int broker_fd, fd_fd, admin_fd, metrics_fd; /* sockets, or -1 */
	struct stored_fd *stored;                   /* on the heap */
	size_t n_stored;
};

/* Take all. What is stored counts in store from now on; what is of no use is closed, and removed
 * from the manager's keeping. Once, before there are threads. 0 or a negative errno. */
int passed_take(struct passed *ret, struct fd_store *store);
/* The stored ones were consumed. */
void passed_forget_stored(struct passed *passed);

#endif
