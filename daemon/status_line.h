/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_STATUS_LINE_H
#define IB_STATUS_LINE_H

/* The line that "systemctl status" shows: what the daemon has in its hands now. */

#include "broker/broker.h"

#define STATUS_LINE_BYTES 128

struct status_line {
	char text[STATUS_LINE_BYTES]; /* as last told */
};

/* Tell systemd, if it is not as it was told last, and listens. Short; called now and then. */
void status_line_update(struct status_line *line, struct broker *broker);

#endif
