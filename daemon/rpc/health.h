/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_HEALTH_H
#define IB_RPC_HEALTH_H

/* Tell everybody who watches the daemon's health, if it is another than they were told. Any thread.
 */
void health_changed(void);

#endif
