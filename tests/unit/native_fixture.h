/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_NATIVE_FIXTURE_H
#define IB_TESTS_NATIVE_FIXTURE_H

/* What tests of the native transport look at besides answers. */

#include "rpc_fixture.h"

/* Of this process. */
size_t open_descriptors(void);
/* Until so many are open: what a client sent is closed by the pool. */
void wait_for_descriptors(size_t n);
/* Whatever the loop had to do with what was sent before is done. */
void settle(void);

/* The daemon ended that connection. */
void assert_ended(int socket);
/* The daemon lives and serves others. */
void assert_serves(void);

#endif
