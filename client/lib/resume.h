/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_RESUME_H
#define IB_CLIENT_RESUME_H

/*
 * How a session gets a socket again when the daemon has gone: connect, join by the secret, again
 * and again until it succeeds, the daemon says that there is no such session, or the limit is over.
 *
 * Nothing here waits. Whoever drives it looks at next_ns and at fd, and calls resume_step() when
 * one of them is due. Time counts only while somebody drives: a program that does not look for an
 * hour finds its session as if it had looked at once.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "lib/packet.h"

#define RESUME_SECRET_BYTES     16
#define RESUME_LIMIT_DEFAULT_NS UINT64_C(60000000000)

struct resume {
	struct sockaddr_un address; /* sun_path empty: it is not known where the daemon listens */
	uint8_t packet[PACKET_HEADER_BYTES + 2 + RESUME_SECRET_BYTES]; /* JoinSession */
	bool has_session;                                              /* packet is there */
	uint64_t limit_ns;                                             /* 0: never try */
	/* while it is driven: */
	int fd; /* -1, or connected, with the request sent: readable when the answer is there */
	uint64_t attempts; /* sockets so far */
	uint64_t next_ns, last_ns, driven_ns, pause_ns;
};

enum resume_result {
	RESUME_WAIT,     /* again at next_ns, or when fd is readable */
	RESUME_JOINED,   /* fd is the session's, and the caller's to take */
	RESUME_UNKNOWN,  /* the daemon has no such session any more */
	RESUME_GIVEN_UP, /* the limit is over */
};

void resume_init(struct resume *resume);
void resume_deinit(struct resume *resume);
/* Where the daemon listens. 0 or -ENAMETOOLONG. */
int resume_set_path(struct resume *resume, const char *path);
void resume_set_secret(struct resume *resume, const uint8_t secret[RESUME_SECRET_BYTES]);
/* Whether it is worth trying at all. */
bool resume_possible(const struct resume *resume);

/* The socket is gone. */
void resume_begin(struct resume *resume);
/* rx: room for a packet. */
enum resume_result resume_step(struct resume *resume, uint8_t *rx);

#endif
