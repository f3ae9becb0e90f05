/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_DISPATCH_FIXTURE_H
#define IB_TESTS_DISPATCH_FIXTURE_H

/* A session over the fake broker, and one call at a time in it, made as a gRPC transport would. */

#include "rpc_fixture.h"

#define PATH(name) "/iommubroker.v1." name

extern uint8_t secret[BROKER_SECRET_BYTES];
extern struct test_call call; /* large; each test uses it for one call at a time */

/* For cmocka, with fixture_teardown(). */
int dispatch_setup(void **state);

/* One call in the session. Its code; the rest is in call. */
int run(const char *path, const void *request);
int run_bytes(const char *path, const void *bytes, size_t n_bytes);
/* The last call's message. To be freed with protobuf_c_message_free_unpacked(). */
void *answer(const ProtobufCMessageDescriptor *descriptor);
/* The field that the last refusal names is exactly this one. */
void assert_field(const char *field);
/* The last refusal's reason is exactly this one. */
void assert_reason(const char *reason);

#endif
