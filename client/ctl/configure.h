/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_CONFIGURE_H
#define IB_CTL_CONFIGURE_H

/* Have the daemon read its configuration, and what that changed. */

#include <jansson.h>

#include "ctl/command.h"

/* Everything that holds: section, key and value of each, and where it comes from. NULL: the daemon
 * does not tell. A new reference. */
json_t *settings_ask(struct command_context *context);
/* What differs between two of them, a line each. */
void settings_print_changes(const json_t *before, const json_t *now);

#endif
