/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TEST_FAKE_ADMIN_H
#define IB_TEST_FAKE_ADMIN_H

/*
 * A daemon in place of the control tool's connection: it answers what a test has laid down, and
 * keeps what it was asked. And the tool itself, run in a child, with what it printed.
 */

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

/* Forget all answers. */
void fake_admin_reset(void);
/* A message of the answer to method; after the others, as often as it is called. */
void fake_admin_answer(const char *method, const ProtobufCMessage *message);
/* An answer that takes the place of all others from the call'th call of method on (from 1). */
void fake_admin_answer_from(const char *method, uint32_t call, const ProtobufCMessage *message);
/* A status; details may be NULL. */
void fake_admin_refuse(const char *method, int code, const char *text,
		       const ProtobufCMessage *details);

struct run {
	int status; /* of its exit; 128 and the signal if it was killed */
	char *out, *err;
	/* A line for each call: the method, and the request as JSON with its keys sorted. */
	char *requests;
};

/* "quota --tenant a": words are parted at blanks. Memory is the test's, until the next run. */
struct run fake_admin_run(const char *command_line);

#endif
