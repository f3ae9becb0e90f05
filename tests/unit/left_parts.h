/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_LEFT_PARTS_H
#define IB_TESTS_LEFT_PARTS_H

/*
 * The records of a left guest one by one: damaged, and written again with a right checksum.
 */

#include "broker/guest_record.h"
#include "left_restore.h"
#include "state/record.h"

#define RECORDS_MAX 256

struct part {
	struct record record;
	uint8_t fixed[sizeof(struct record_session) + 64]; /* of which fixed_bytes count */
	unsigned int times;
};

struct parts {
	struct part parts[RECORDS_MAX];
	size_t n;
	uint8_t *bytes;
};

/* A trial, and the victim's records. */
void parts_begin(struct parts *ret, struct trial *trial);
/* In place of parts_run(). */
void parts_drop(struct parts *parts, struct trial *trial);
/* 'T': with these records it is taken over; 'R': it is released. */
char parts_run(struct parts *consume, struct trial *trial);
/* The i-th of a type, or NULL. */
struct part *part_of(struct parts *parts, uint16_t type, size_t i);

struct field {
	const char *name;
	uint16_t type;
	size_t at, bytes;
	const char *outcomes; /* of each change, the same for every record of the type */
};

#define FIELD(kind, structure, field, outcomes)                                                   \
	{                                                                                         \
#structure "." #field, RECORD_##kind, offsetof(struct record_##structure, field), \
			sizeof(((struct record_##structure *)NULL)->field), outcomes              \
	}

/* To 0, the highest, one more, one less, a page more, a page less. */
#define CHANGES 6
/* Of the i-th record of its type. false: that is what it is. */
bool field_change(struct parts *parts, struct trial *trial, const struct field *field, size_t i,
		  unsigned int change);

enum way {
	REMOVED,
	DOUBLED,
	CUT,    /* in the middle: the rest is zeros */
	EMPTY,  /* all is */
	LONGER, /* by what a later version may add */
	UNKNOWN,
	UNKNOWN_MUST,
	WAYS,
};

void part_damage(struct part *part, enum way way);

/* '.': either is fine; '-': nothing is changed. What is not as expected is told, and counted. */
void expect(char expected, char got, const struct trial *trial);
/* At the end of a test: fails if anything was. */
void expectations_met(void);

#endif
