/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_LEFT_RESTORE_H
#define IB_TESTS_LEFT_RESTORE_H

/*
 * Taking copies of left guests over, of which the victim's may be damaged, and what holds whatever
 * the damage is: the neighbour lives with all that it had; no function shows a page that no call
 * gave its guest; the ledger says what the guests have, before and after the victim's end; a victim
 * that is not taken over is named in the log, and nothing of it is stored any more; no descriptor
 * is left behind.
 */

#include "left_guests.h"

struct trial {
	const struct left *left;
	struct manager *manager;
	struct stored_fd mine[LEFT_FDS_MAX]; /* to look at the copies */
	size_t n;
	struct stored_fd given[LEFT_FDS_MAX]; /* what the successor finds; a test may change it */
	size_t n_given;
	bool unpromised; /* nobody was told that the victim is there */
	bool strangers;  /* a function's descriptor may be missing: it shows what it showed */
	char what[96];   /* is tried: for who reads a failure */
	/* after trial_run() */
	bool taken_over;
	char log[512];        /* of the victim's release */
	uint64_t pages;       /* that the victim's functions showed when it was taken over */
	size_t rings;         /* that go on */
	uint64_t table_bytes; /* charged to all */
};

/* Calls for the whole of a test program: left_make() and a service manager. */
int trials_setup(void **state);
int trials_teardown(void **state);

void trial_begin(struct trial *trial);
void trial_run(struct trial *trial);
/* In place of trial_run(). */
void trial_drop(struct trial *trial);

/* What is given of the victim's. */
struct stored_fd *trial_fd(struct trial *trial, enum fd_kind kind, uint32_t index);
void left_replace(struct stored_fd *given, int consume_fd);
/* It is not there when the successor looks. */
void trial_lose(struct trial *trial, enum fd_kind kind, uint32_t index);

/* The content of a state file, for free(), and another in its place with a right checksum. */
uint8_t *content_of(int borrow_fd, size_t *ret_n);
void content_put(int borrow_fd, const uint8_t *bytes, size_t n);

/* The state file's header: where what is, as state_file.c has it. */
#define STATE_VERSION_AT      8
#define STATE_PAGE_BYTES_AT   12
#define STATE_DESCRIPTIONS_AT 16
struct state_description {
	uint64_t sequence, offset, bytes, content_checksum, checksum;
};
/* Which of the two holds. */
unsigned int description_newer(int borrow_fd);
struct state_description description_get(int borrow_fd, unsigned int copy);
/* With the checksum that makes it valid. */
void description_put(int borrow_fd, unsigned int copy, struct state_description description);

#endif
