/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_SHADOW_MODEL_H
#define IB_TESTS_SHADOW_MODEL_H

/*
 * What the rules of translation say about a guest's tables, by a plain recursive walk that shares
 * no code with the shadow, and comparisons of what is installed with it. A check that fails ends
 * the process and names seed and round.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "s390_guest.h"

#define HOT_MAX 128 /* segments that a round may ever use */

struct table {
	enum s390_level level; /* or PAGE */
	uint64_t gpa;
};

/* What the rules say about one leaf. */
struct want {
	bool valid;      /* there is a leaf */
	bool admissible; /* and it may be installed */
	uint64_t gpa;
	bool writable;
};

struct hot {
	uint64_t segment;
	struct want want[S390_PT_ENTRIES];
	struct record_leaf before[S390_PT_ENTRIES];
};

struct property {
	uint64_t state; /* of the generator */
	struct guest guest;
	struct record record;
	struct shadow *shadow;
	struct shadow_limits limits;
	void *storage;
	uint64_t storage_bytes;
	struct s390_anchor anchor;
	struct table tables[24];
	unsigned int n_tables, n_upper;
	struct hot hot[HOT_MAX];
	unsigned int n_hot;
	struct s390_fault fault; /* the first that the model met in the range */
	bool injected;
	bool alias_pressure;
	unsigned int operations;
	int64_t balance; /* mapped less unmapped; a lower bound of what is installed */
};

/* To name in a failure. */
extern struct property_run {
	uint64_t seed, rounds, first, round;
} run;

#define fail(...)                                                                             \
	do {                                                                                  \
		fprintf(stderr, "seed %" PRIu64 " round %" PRIu64 ": ", run.seed, run.round); \
		fprintf(stderr, __VA_ARGS__);                                                 \
		fputc('\n', stderr);                                                          \
		exit(1);                                                                      \
	} while (0)

enum expect {
	EXPECT_EXACT,    /* in the range as the model says, outside as before */
	EXPECT_UNMAPPED, /* in the range what was right before, nothing else */
	EXPECT_BETWEEN,  /* all that was right before, and perhaps more that is right */
};

/* The region that is present at gpa, or NULL. */
const struct guest_region *model_region(struct property *p, uint64_t gpa);
/* Fills p->hot[].want for [first, last] and p->fault. */
void model_walk(struct property *p, uint64_t first, uint64_t last);
/* What is installed now becomes p->hot[].before. */
void model_snapshot(struct property *p);
/* Books and limits: after every operation. after: named in a failure, as what below. */
void check_always(struct property *p, const char *after);
/* Every recorded leaf is the one that the shadow answers, and the runs are all of them. */
void check_lookup(struct property *p);
/* Inside [first, last] as expected, outside as before. */
void check_range(struct property *p, uint64_t first, uint64_t last, enum expect expect,
		 const char *what);
/* The fault is the model's. */
void check_fault(struct property *p, const struct shadow_result *result, const char *what);
/* A verdict of want must have a reason. */
void check_want(struct property *p, const char *what);

/* shadow_changes.c: the round's generator, and what the guest does to its tables. */
uint64_t rnd(struct property *p);
/* 0 .. n - 1 */
unsigned int pick(struct property *p, unsigned int n);
bool chance(struct property *p, unsigned int one_in);
/* An index that upper tables of a round use. */
unsigned int pick_index(struct property *p, enum s390_level level);
/* An entry of a table at level that names some table of the round, or an invalid one. */
uint64_t random_child(struct property *p, enum s390_level level);
/* What a guest does between two operations: a few writes at any level, good and bad. */
void change_tables(struct property *p);
void change_heal(struct property *p);

#endif
