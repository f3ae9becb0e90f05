/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_STATE_FD_STORE_H
#define IB_STATE_FD_STORE_H

/*
 * Descriptors that lie with the service manager, so that they outlive this process
 * (sd_pid_notify_with_fds(3), FDSTORE=1, FDPOLL=0).
 *
 * The manager tells nobody that its store is full, keeps one of two descriptors of the same open
 * file, and passes all names in one string of at most 128 KiB. So descriptors are counted here and
 * refused before the limit, each open file is stored once under a name of its own, and names have
 * at most 7 characters, counted, too.
 *
 * Where there is no manager (no $NOTIFY_SOCKET) or it is said to store nothing, everything
 * succeeds and nothing is kept.
 *
 * Any thread. Push and remove send one datagram; the barrier waits for the manager and is for
 * workers only.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FD_NAME_BYTES 8 /* with the terminating zero */
/* Guests are numbered from 0; what a guest has of one kind, too. */
#define FD_NAME_GUESTS_MAX  46656 /* three digits to the base of 36 */
#define FD_NAME_INDICES_MAX 46656

enum fd_kind {
	FD_STATE = 's',   /* one of each guest */
	FD_CONTEXT = 'i', /* likewise */
	FD_MEMORY = 'm',
	FD_DEVICE = 'd',
	FD_RING = 'r',     /* shared memory of an update ring */
	FD_DOORBELL = 'b', /* our end of one */
	FD_LISTENER = 'l', /* socket of a delegation's */
};

struct fd_name {
	uint32_t guest;
	enum fd_kind kind;
	uint32_t index;
};

void fd_name_format(const struct fd_name *name, char ret[FD_NAME_BYTES]);
/* false: it is none of ours. */
bool fd_name_parse(const char *text, struct fd_name *ret);

struct fd_store;

/* max: how many the manager keeps; 0: none. 0 or a negative errno. */
int fd_store_new(struct fd_store **ret, size_t max);
struct fd_store *fd_store_free(struct fd_store *store); /* sends nothing; returns NULL */
/* Whether anything is kept at all. NULL: no. */
bool fd_store_keeps(const struct fd_store *store);
/* One that was there at the start: counted, also above the maximum, under which nothing is pushed
 * then. 0, -EEXIST, -ENOMEM. */
int fd_store_adopted(struct fd_store *store, const struct fd_name *name, int borrow_fd);

/* 0; -ENOSPC: there is no room, nothing was sent; -EEXIST: the name is stored; -ENOTUNIQ: another
 * descriptor of the same open file is; another negative errno: it could not be sent. That it is
 * stored is certain behind the next barrier. The descriptor stays open until it is removed: those
 * of memory files, which others made, are compared with one another. */
int fd_store_push(struct fd_store *store, const struct fd_name *name, int borrow_fd);
/* The manager closes its descriptor some time before the end of the next barrier. Nothing stored
 * under the name is fine. */
void fd_store_remove(struct fd_store *store, const struct fd_name *name);
/* What lies there under a name that is none of ours, or that is not counted. Whether anything is
 * kept or not. */
void fd_store_remove_foreign(const char *name);
/* All that was pushed and removed before is done when this returns 0. -ETIMEDOUT (some 10 s) or
 * another negative errno: nothing is certain. Several threads wait for the manager together. */
int fd_store_barrier(struct fd_store *store);

size_t fd_store_count(struct fd_store *store);
size_t fd_store_max(const struct fd_store *store);

#endif
