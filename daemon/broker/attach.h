/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_ATTACH_H
#define IB_BROKER_ATTACH_H

#include "broker/broker.h"

struct device;
struct nested;

/* Attach the device elsewhere, in place of what it is attached to, and clear up what it left: a
 * nested domain is emptied, a relaxed mapping destroyed. A nested domain is attached as it is:
 * reconcile it then. On failure the attachment is as it was, as far as the kernel kept it. On the
 * guest's lane. */
int device_switch(struct device *device, enum attachment to, struct nested *nested,
		  struct refusal *refusal);

#endif
