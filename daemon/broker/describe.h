/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_DESCRIBE_H
#define IB_BROKER_DESCRIBE_H

#include "broker/broker.h"

struct device;

/* Takes the guest's lock. */
void device_fill_description(struct device *device, struct device_description *ret);

#endif
