/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_FD_H
#define IB_UTIL_FD_H

/* Descriptors: who owns one is said in parameter names, consume_fd or borrow_fd. */

/* Close it unless it is negative. Keeps errno. Returns -1. */
int fd_close(int consume_fd);
/* A close-on-exec duplicate, or a negative errno. */
int fd_duplicate(int borrow_fd);
/* The same file, opened once more for the same access, close-on-exec; or a negative errno: not
 * every file can be opened by everybody who has a descriptor of it. */
int fd_reopen(int borrow_fd);

#endif
