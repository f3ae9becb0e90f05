/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_SERVICE_H
#define IB_SERVICE_H

/* The one place where everything is wired together. */

#include "config.h"
#include "options.h"

/* Start, serve until SIGTERM or SIGINT, stop. 0, or the negative errno of what broke; it has been
 * logged. Guests are taken down before it returns; where they outlive the process, and the signal
 * is not SIGINT, it does not return but ends the process. */
int service_run(const struct options *options, struct config *config);

#endif
