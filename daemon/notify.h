/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_NOTIFY_H
#define IB_NOTIFY_H

/*
 * Telling the service manager something from the main loop: sd_notify(3) waits while the manager's
 * queue is full, which it is when workers store a lot and the manager reads nothing because it
 * reloads. No client may wait for that.
 */

#include <stdbool.h>

/* false: there is no manager, or no room for it now. */
bool notify_now(const char *text);

#endif
