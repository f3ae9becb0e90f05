/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_BROKER_INVARIANT_H
#define IB_TESTS_BROKER_INVARIANT_H

#include "broker/broker.h"

/*
 * The host's ledger says what all guests hold, no more and no less; what is pinned is what is
 * mapped; the frames' counters say where frames are installed. Fails the test otherwise. For the
 * emulated backend, while nothing runs.
 */
void assert_ledger_is_held(struct broker *broker);

#endif
