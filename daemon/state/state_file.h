/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_STATE_STATE_FILE_H
#define IB_STATE_STATE_FILE_H

/*
 * The file, a memfd, in which a guest's state outlives this process.
 *
 * It holds two copies of its content, of which one is valid at any instant; extents, which are
 * memory that somebody works in directly; and some words. Death of the process keeps every store
 * to it, so that order of stores is enough: nothing is ever flushed.
 *
 *   page 0	header: magic, version, two descriptions {sequence, offset, bytes, checksum},
 *		each with a checksum of its own; the words
 *   ...	the two copies and the extents, whole pages, anywhere behind it
 *
 * A copy is committed by writing the one that does not hold, then its description. The reader takes
 * the valid description with the highest sequence whose bytes have the checksum, so a kill at any
 * store leaves the old content or the new one. Which extents there are is for the content to say.
 *
 * Nothing here locks: one thread at a time, but for the words.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* This version, and the oldest that it reads. */
#define STATE_FILE_VERSION     1u
#define STATE_FILE_VERSION_MIN 1u
#define STATE_FILE_WORDS       32
#define STATE_FILE_BYTES_MAX   (UINT64_C(1) << 46) /* sparse; what extents and copies lie below */
#define STATE_CONTENT_MAX      (UINT64_C(1) << 28)

struct state_file;

#define STATE_FILE_NAME_BYTES 64

/* Empty: no content. name: whose it is, as /proc shows it. 0 or a negative errno. */
int state_file_new(struct state_file **ret, const char *name);
/* That name, of a file of whichever version; "": it has none. */
void state_file_name(int borrow_fd, char ret_name[STATE_FILE_NAME_BYTES]);
/* One that another process made; consume_fd: taken also on failure. Extents are to be adopted by
 * whoever knows them, before any is made and before the next commit. 0; -EBADMSG: damaged or of
 * another version, *ret_why (static text) says what; another negative errno. */
int state_file_adopt(struct state_file **ret, int consume_fd, const char **ret_why);
/* Unmaps and closes, also the extents that are still mapped. NULL is fine; returns NULL. */
struct state_file *state_file_free(struct state_file *file);
int state_file_fd(const struct state_file *file); /* borrowed */

/* Replace the content. 0, -EFBIG or -ENOMEM/-ENOSPC: then the old content stays. */
int state_file_commit(struct state_file *file, const void *bytes, size_t n);
/* The content: borrowed until the next commit but one. NULL and 0: there is none. */
const void *state_file_content(const struct state_file *file, size_t *ret_n);
/* How often it was committed. */
uint64_t state_file_sequence(const struct state_file *file);

/* Memory within the file, zeroed, mapped; whole pages. It belongs to the file. 0 or a negative
 * errno. */
struct state_extent {
	uint64_t offset, bytes; /* in the file; bytes 0: none */
	void *memory;
};
int state_extent_new(struct state_file *file, uint64_t bytes, struct state_extent *ret);
/* One of which the content tells. 0, -EBADMSG (it overlaps another, or lies nowhere), -ENOMEM. */
int state_extent_adopt(struct state_file *file, uint64_t offset, uint64_t bytes,
		       struct state_extent *ret);
/* Its pages are given back. *extent is none afterwards; harmless on none. */
void state_extent_free(struct state_file *file, struct state_extent *extent);

/* Words that are kept on their own, without a commit; zero in a new file. */
_Atomic uint64_t *state_word(struct state_file *file, unsigned int index);

#endif
