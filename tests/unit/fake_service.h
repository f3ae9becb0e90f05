/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_FAKE_SERVICE_H
#define IB_TESTS_FAKE_SERVICE_H

/*
 * A fake daemon (fake_daemon.h) that listens, dies whenever a test tells it to and comes back: a
 * connection is one life of it. Sessions and what was done under which request id outlive it, as
 * they do with the real one.
 *
 * One client. OpenSession and JoinSession are its own; all else goes to serve, on its thread.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/un.h>

#include "fake_daemon.h"

#define FAKE_IDS_MAX 65536

struct fake_service {
	struct fake_daemon daemon; /* its fd: the life that is lived now */
	fake_serve_fn serve;
	void *user_data;
	char dir[64];
	struct sockaddr_un address;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int listening; /* -1: nothing is there to connect to */
	bool hidden, stopping;
	/* set by the test */
	_Atomic bool forgets;      /* the session: JoinSession is refused */
	_Atomic int joins_refused; /* so many JoinSession with UNAVAILABLE before one is taken */
	_Atomic bool hangs_up;     /* on whoever connects */
	_Atomic bool silent;       /* JoinSession has no answer */
	_Atomic bool dies_unread;  /* once, with the next request in its socket */
	/* told to the test */
	_Atomic unsigned int lives, joins;
	_Atomic bool broken; /* a request before OpenSession or JoinSession, or a wrong secret */
	/* request ids that were done, serve's thread only */
	uint64_t done[FAKE_IDS_MAX];
	size_t n_done;
	bool joined;
};

void fake_service_start(struct fake_service *service, fake_serve_fn serve, void *user_data);
void fake_service_stop(struct fake_service *service);
/* From serve or from the test: this life ends, with what was not read and what was not sent. */
void fake_service_die(struct fake_service *service);
/* Nobody can connect, and then somebody can again. */
void fake_service_hide(struct fake_service *service);
void fake_service_show(struct fake_service *service);

/* The request id of a mutation (field 1 of all). */
uint64_t fake_request_id(const struct fake_request *request);
/* Whether it was done before; it is now. From serve. */
bool fake_service_did(struct fake_service *service, uint64_t request_id);

#endif
