/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Draining: no new session, guest or device, until an operator says otherwise or the daemon starts
 * anew. What there is goes on: memory and nested domains of guests change as before.
 */
#include "broker/root.h"

/* An operator drains before a restart: by then a client may well ask again. */
#define DRAIN_RETRY_MS 10000

bool broker_set_draining(struct broker *broker, bool draining)
{
	return atomic_exchange(&broker->draining, draining) != draining;
}

bool broker_draining(struct broker *broker)
{
	return atomic_load(&broker->draining);
}

int broker_refuse_draining(struct broker *broker, struct refusal *refusal)
{
	if (!broker_draining(broker))
		return 0;
	refuse(refusal, REFUSAL_BUSY, "DRAINING",
	       "the operator lets the daemon run empty: no session, guest or device is added");
	refusal->retry_after_ms = DRAIN_RETRY_MS;
	return REFUSED;
}
