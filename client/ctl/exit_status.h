/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_EXIT_STATUS_H
#define IB_CTL_EXIT_STATUS_H

/* The one table of exit statuses: usage, manual page and tests are made from it. */
#define EXIT_STATUSES(X)                                                           \
	X(DONE, 0, "done")                                                         \
	X(REFUSED, 1, "refused, not found, does not fit, or not finished in time") \
	X(BAD_USAGE, 2, "wrong usage")                                             \
	X(NO_DAEMON, 3, "no daemon answers")                                       \
	X(SERIOUS, 4, "doctor found something serious")

enum exit_status {
#define X(name, value, text) EXIT_##name = value,
	EXIT_STATUSES(X)
#undef X
};

#endif
