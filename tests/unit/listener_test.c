/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Listening sockets: who connected, stale files, and running out of descriptors. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/listener.h"

struct fixture {
	char folder[64], path[96];
	struct loop *loop;
	struct listener *listener;
	int accepted_fd, n_accepted, wanted;
	struct peer peer;
	bool pidfd_alive, slow;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	strcpy(f->folder, "/tmp/listener-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/socket", f->folder);
	assert_int_equal(loop_new(&f->loop), 0);
	f->accepted_fd = -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	listener_free(f->listener);
	if (f->accepted_fd >= 0)
		close(f->accepted_fd);
	loop_free(f->loop);
	unlink(f->path);
	assert_int_equal(rmdir(f->folder), 0);
	free(f);
	return 0;
}

static void on_accept(void *context, int consume_fd, const struct peer *peer)
{
	struct fixture *f = context;
	struct pollfd alive = {.fd = peer->pidfd, .events = POLLIN};

	if (f->accepted_fd >= 0)
		close(f->accepted_fd);
	f->accepted_fd = consume_fd;
	f->peer = *peer;
	f->pidfd_alive = poll(&alive, 1, 0) == 0;
	if (f->slow)
		usleep(1000);
	if (++f->n_accepted == f->wanted)
		loop_exit(f->loop, 0);
}

static void address_of(const char *path, struct sockaddr_un *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	strcpy(ret->sun_path, path);
}

static int dial(const char *path, int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;

	address_of(path, &address);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -errno;
	}
	return fd;
}

static void run_until(struct fixture *f, int wanted)
{
	f->wanted = wanted;
	if (f->n_accepted < wanted)
		assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->n_accepted, wanted);
}

static int listen_here(struct fixture *f, int type)
{
	return listener_new(&f->listener, f->loop, f->path, type, on_accept, f);
}

static void test_accepts_and_says_who(void **state)
{
	struct fixture *f = *state;
	struct stat stat_buffer;
	int fd;

	assert_int_equal(listen_here(f, SOCK_SEQPACKET), 0);
	assert_int_equal(stat(f->path, &stat_buffer), 0);
	assert_int_equal(stat_buffer.st_mode & 07777, 0666);
	fd = dial(f->path, SOCK_SEQPACKET);
	assert_true(fd >= 0);
	run_until(f, 1);
	assert_int_equal(f->peer.pid, getpid());
	assert_int_equal(f->peer.uid, getuid());
	assert_int_equal(f->peer.gid, getgid());
	assert_true(f->pidfd_alive);
	assert_true(fcntl(f->accepted_fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(f->accepted_fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

/* The child connects and is named, not we. */
static void test_another_process_is_named(void **state)
{
	struct fixture *f = *state;
	int gate[2], status;
	char byte;
	pid_t child;

	assert_int_equal(listen_here(f, SOCK_STREAM), 0);
	assert_int_equal(pipe(gate), 0);
	child = fork();
	if (!child) {
		int fd = dial(f->path, SOCK_STREAM);

		close(gate[1]);
		_exit(fd < 0 || read(gate[0], &byte, 1) != 0);
	}
	close(gate[0]);
	run_until(f, 1);
	assert_int_equal(f->peer.pid, child);
	assert_true(f->pidfd_alive);
	close(gate[1]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* A process that is gone when we look is nobody. */
static void test_dead_peer_is_refused(void **state)
{
	struct fixture *f = *state;
	int fd, live, status;
	struct peer peer;
	pid_t child;

	assert_int_equal(listen_here(f, SOCK_STREAM), 0);
	child = fork();
	if (!child)
		_exit(dial(f->path, SOCK_STREAM) < 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	live = dial(f->path, SOCK_STREAM);
	run_until(f, 1); /* the dead one was first in the queue */
	assert_int_equal(f->peer.pid, getpid());
	close(live);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	memset(&peer, 0x5a, sizeof(peer));
	assert_true(peer_of_socket(fd, &peer) < 0);
	assert_int_equal(peer.pid, 0x5a5a5a5a);
	close(fd);
}

static void test_stale_file_is_replaced(void **state)
{
	struct fixture *f = *state;
	int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;

	address_of(f->path, &address);
	assert_int_equal(bind(stale, (struct sockaddr *)&address, sizeof(address)), 0);
	close(stale);
	assert_int_equal(listen_here(f, SOCK_STREAM), 0);
	stale = dial(f->path, SOCK_STREAM);
	assert_true(stale >= 0);
	run_until(f, 1);
	close(stale);
}

static void test_live_socket_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct listener *second = NULL;
	int fd;

	assert_int_equal(listen_here(f, SOCK_STREAM), 0);
	assert_int_equal(listener_new(&second, f->loop, f->path, SOCK_STREAM, on_accept, f),
			 -EADDRINUSE);
	assert_int_equal(listener_new(&second, f->loop, f->path, SOCK_SEQPACKET, on_accept, f),
			 -EADDRINUSE);
	assert_null(second);
	fd = dial(f->path, SOCK_STREAM);
	assert_true(fd >= 0);
	close(fd);
}

static void test_other_files_are_left_alone(void **state)
{
	struct fixture *f = *state;
	int fd = open(f->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	char longer[200];

	close(fd);
	assert_int_equal(listen_here(f, SOCK_STREAM), -EADDRINUSE);
	assert_int_equal(access(f->path, F_OK), 0);
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(listener_new(&f->listener, f->loop, longer, SOCK_STREAM, on_accept, f),
			 -ENAMETOOLONG);
	assert_null(f->listener);
}

static void test_file_goes_with_the_listener(void **state)
{
	struct fixture *f = *state;
	int fd;

	assert_int_equal(listen_here(f, SOCK_STREAM), 0);
	f->listener = listener_free(f->listener);
	assert_int_equal(access(f->path, F_OK), -1);
	/* ... but not one that took its place. */
	assert_int_equal(listen_here(f, SOCK_STREAM), 0);
	unlink(f->path);
	fd = open(f->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	f->listener = listener_free(f->listener);
	assert_int_equal(access(f->path, F_OK), 0);
	assert_null(listener_free(NULL));
}

static void test_adopts_what_listens(void **state)
{
	struct fixture *f = *state;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), copy, client;
	struct sockaddr_un address;

	address_of(f->path, &address);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	copy = dup(fd);
	assert_int_equal(listener_adopt(&f->listener, f->loop, copy, SOCK_STREAM, on_accept, f),
			 -EINVAL);
	assert_int_equal(fcntl(copy, F_GETFD), -1); /* consumed, also then */
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(
		listener_adopt(&f->listener, f->loop, dup(fd), SOCK_SEQPACKET, on_accept, f),
		-EINVAL);
	assert_int_equal(listener_adopt(&f->listener, f->loop, dup(fd), SOCK_STREAM, on_accept, f),
			 0);
	close(fd);
	client = dial(f->path, SOCK_STREAM);
	run_until(f, 1);
	f->listener = listener_free(f->listener);
	assert_int_equal(access(f->path, F_OK), 0); /* systemd's, not ours */
	close(client);
}

static void on_relief(evutil_socket_t fd, short what, void *context)
{
	struct rlimit *limit = context;

	(void)fd;
	(void)what;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, limit), 0);
}

/* Without a free descriptor it pauses and goes on later. */
static void test_survives_want_of_descriptors(void **state)
{
	struct fixture *f = *state;
	struct timeval soon = {.tv_usec = 50000};
	struct rlimit before, none;
	struct event *relief;
	int fd;

	assert_int_equal(listen_here(f, SOCK_STREAM), 0);
	fd = dial(f->path, SOCK_STREAM);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	relief = event_new(loop_base(f->loop), -1, 0, on_relief, &before);
	event_add(relief, &soon);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	run_until(f, 1);
	assert_int_equal(f->peer.pid, getpid());
	event_free(relief);
	close(fd);
}

#define STORM 300

/* What connects all at once has its turns like others, and shorter ones where serving it is slow.
 */
static void test_storm_has_turns(void **state)
{
	struct fixture *f = *state;
	int fds[STORM];

	assert_int_equal(listen_here(f, SOCK_STREAM), 0);
	for (int i = 0; i < STORM; i++) {
		fds[i] = dial(f->path, SOCK_STREAM);
		assert_true(fds[i] >= 0);
	}
	f->slow = true;
	event_base_loop(loop_base(f->loop), EVLOOP_ONCE);
	assert_int_equal(f->n_accepted, 16);
	f->slow = false;
	event_base_loop(loop_base(f->loop), EVLOOP_ONCE);
	assert_in_range(f->n_accepted, 32, 16 + 256);
	run_until(f, STORM);
	for (int i = 0; i < STORM; i++)
		close(fds[i]);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_accepts_and_says_who),         CASE(test_another_process_is_named),
		CASE(test_dead_peer_is_refused),         CASE(test_stale_file_is_replaced),
		CASE(test_live_socket_is_left_alone),    CASE(test_other_files_are_left_alone),
		CASE(test_file_goes_with_the_listener),  CASE(test_adopts_what_listens),
		CASE(test_survives_want_of_descriptors), CASE(test_storm_has_turns),
	};

	return cmocka_run_group_tests_name("listener", tests, NULL, NULL);
}
