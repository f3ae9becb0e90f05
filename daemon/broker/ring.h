/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_RING_H
#define IB_BROKER_RING_H

/* The end of update rings with what they belong to. */

struct broker;
struct guest;
struct session;

/* Those of a session, or (session NULL) of a guest; both NULL: all. Without the broker's lock. */
void rings_end(struct broker *broker, const struct session *session, const struct guest *guest);

#endif
