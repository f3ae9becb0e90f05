/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Listening sockets, and who is at the other end of a connection.
 *
 * The peer's pidfd comes from SO_PEERPIDFD (Linux 6.5), which names the very process that
 * connected. On older kernels pidfd_open() takes the number that SO_PEERCRED gives; the process it
 * found must have the user that connected, and still be alive when that was read from /proc.
 * What remains there is a process of the same user that got the number anew between connect and
 * accept.
 */

#include "rpc/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/process.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* asm-generic/socket.h; the same on x86-64 and s390x */
#endif

#define LISTEN_BACKLOG SOMAXCONN /* one client's storm must not fill it for the others */
/* Then other events have their turn: many of those that are turned away, which is quick, so that a
 * storm of them is through before the queue is full for others; fewer of those that are served. */
#define ACCEPT_AT_LEAST    16
#define ACCEPT_AT_MOST     256
#define ACCEPT_TURN_NS     2000000ull
#define ACCEPT_PAUSE_MS    100 /* when descriptors or memory ran out */
#define CLIENT_SOCKET_MODE 0666

struct listener {
	struct loop *loop;
	struct event *readable, *resume;
	listener_accept_fn accept;
	void *context;
	int fd;
	char *path; /* the socket file that we made, or NULL */
	dev_t device;
	ino_t inode;
};

/* ── who connected ────────────────────────────────────────────────────────────────────────── */

/* For kernels without SO_PEERPIDFD. */
static int pidfd_by_number(const struct ucred *cred)
{
	int pidfd = (int)syscall(SYS_pidfd_open, cred->pid, 0);
	uid_t uid;
	gid_t gid;

	if (pidfd < 0)
		return -errno;
	if (!process_ids(cred->pid, &uid, &gid) || uid != cred->uid) {
		close(pidfd);
		return -ESRCH;
	}
	return pidfd;
}

static int pidfd_of_peer(int fd, const struct ucred *cred)
{
	socklen_t length = sizeof(int);
	int pidfd;

	if (!getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length))
		return pidfd; /* close-on-exec by itself */
	if (errno != ENOPROTOOPT && errno != EINVAL)
		return -errno;
	return pidfd_by_number(cred);
}

int peer_of_socket(int fd, struct peer *ret)
{
	struct ucred cred;
	socklen_t length = sizeof(cred);
	int pidfd;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length))
		return -errno;
	if (cred.pid <= 0)
		return -EXDEV; /* another pid namespace */
	pidfd = pidfd_of_peer(fd, &cred);
	if (pidfd < 0)
		return pidfd;
	/* Newer kernels give a pidfd of the dead, too. */
	if (!process_lives(pidfd)) {
		close(pidfd);
		return -ESRCH;
	}
	*ret = (struct peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid, .pidfd = pidfd};
	return 0;
}

/* ── accepting ────────────────────────────────────────────────────────────────────────────── */

static void listener_hand_on(struct listener *listener, int consume_fd)
{
	struct peer peer;

	if (peer_of_socket(consume_fd, &peer)) {
		close(consume_fd);
		return;
	}
	listener->accept(listener->context, consume_fd, &peer);
	close(peer.pidfd);
}

static void listener_pause(struct listener *listener)
{
	struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};

	event_del(listener->readable);
	event_add(listener->resume, &pause);
}

static void listener_on_resume(evutil_socket_t fd, short what, void *context)
{
	struct listener *listener = context;

	(void)fd;
	(void)what;
	event_add(listener->readable, NULL);
}

static bool accept_goes_on(int n_accepted, uint64_t begun_ns)
{
	return n_accepted < ACCEPT_AT_LEAST || clock_monotonic_ns() - begun_ns < ACCEPT_TURN_NS;
}

static void listener_on_readable(evutil_socket_t fd, short what, void *context)
{
	struct listener *listener = context;
	uint64_t begun_ns = clock_monotonic_ns();

	(void)what;
	for (int i = 0; i < ACCEPT_AT_MOST && accept_goes_on(i, begun_ns); i++) {
		int connection = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (connection >= 0) {
			listener_hand_on(listener, connection);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			listener_pause(listener);
		return;
	}
}

/* ── making ───────────────────────────────────────────────────────────────────────────────── */

static int listener_watch(struct listener *listener)
{
	struct event_base *base = loop_base(listener->loop);

	listener->readable =
		event_new(base, listener->fd, EV_READ | EV_PERSIST, listener_on_readable, listener);
	listener->resume = event_new(base, -1, 0, listener_on_resume, listener);
	if (!listener->readable || !listener->resume || event_add(listener->readable, NULL))
		return -ENOMEM;
	return 0;
}

/* consume_fd: a socket that listens, close-on-exec and non-blocking. */
static int listener_make(struct listener **ret, struct loop *loop, int consume_fd,
			 listener_accept_fn accept, void *context)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	int status;

	if (!listener) {
		close(consume_fd);
		return -ENOMEM;
	}
	listener->loop = loop;
	listener->fd = consume_fd;
	listener->accept = accept;
	listener->context = context;
	status = listener_watch(listener);
	if (status) {
		listener_free(listener);
		return status;
	}
	*ret = listener;
	return 0;
}

static int path_address(const char *path, struct sockaddr_un *ret)
{
	size_t length = strlen(path);

	if (!length || length >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	memcpy(ret->sun_path, path, length + 1);
	return 0;
}

/* Nothing may be in the way of bind(): nothing is fine, a socket that nobody listens on is removed,
 * all else is somebody's. */
static int path_clear(const struct sockaddr_un *address, int type)
{
	struct stat stat;
	int probe, refused;

	if (lstat(address->sun_path, &stat))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(stat.st_mode))
		return -EADDRINUSE;
	probe = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return -errno;
	refused = connect(probe, (const struct sockaddr *)address, sizeof(*address)) &&
		  errno == ECONNREFUSED;
	close(probe);
	if (!refused)
		return -EADDRINUSE;
	return unlink(address->sun_path) && errno != ENOENT ? -errno : 0;
}

static int socket_listening(const struct sockaddr_un *address, int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int status;

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)address, sizeof(*address))) {
		status = -errno;
		close(fd);
		return status;
	}
	if (chmod(address->sun_path, CLIENT_SOCKET_MODE) || listen(fd, LISTEN_BACKLOG)) {
		status = -errno;
		unlink(address->sun_path);
		close(fd);
		return status;
	}
	return fd;
}

/* Remember which file is ours: another daemon may have put its own in its place when we go. */
static int listener_keep_path(struct listener *listener, const char *path)
{
	struct stat stat;

	if (lstat(path, &stat))
		return -errno;
	listener->path = strdup(path);
	if (!listener->path)
		return -ENOMEM;
	listener->device = stat.st_dev;
	listener->inode = stat.st_ino;
	return 0;
}

int listener_new(struct listener **ret, struct loop *loop, const char *path, int type,
		 listener_accept_fn accept, void *context)
{
	struct listener *listener;
	struct sockaddr_un address;
	int status = path_address(path, &address);

	if (!status)
		status = path_clear(&address, type);
	if (status)
		return status;
	status = socket_listening(&address, type);
	if (status < 0)
		return status;
	status = listener_make(&listener, loop, status, accept, context);
	if (status) {
		unlink(path);
		return status;
	}
	status = listener_keep_path(listener, path);
	if (status) {
		unlink(path);
		listener_free(listener);
		return status;
	}
	*ret = listener;
	return 0;
}

static int socket_option(int fd, int option)
{
	int value;
	socklen_t length = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &length) ? -errno : value;
}

int listener_adopt(struct listener **ret, struct loop *loop, int consume_fd, int type,
		   listener_accept_fn accept, void *context)
{
	int status = -EINVAL;

	if (socket_option(consume_fd, SO_DOMAIN) != AF_UNIX ||
	    socket_option(consume_fd, SO_TYPE) != type ||
	    socket_option(consume_fd, SO_ACCEPTCONN) != 1)
		goto refused;
	if (evutil_make_socket_nonblocking(consume_fd) ||
	    evutil_make_socket_closeonexec(consume_fd)) {
		status = -errno;
		goto refused;
	}
	return listener_make(ret, loop, consume_fd, accept, context);
refused:
	close(consume_fd);
	return status;
}

static void listener_remove_path(struct listener *listener)
{
	struct stat stat;

	if (!lstat(listener->path, &stat) && stat.st_dev == listener->device &&
	    stat.st_ino == listener->inode)
		unlink(listener->path);
	free(listener->path);
}

struct listener *listener_free(struct listener *listener)
{
	if (!listener)
		return NULL;
	if (listener->readable)
		event_free(listener->readable);
	if (listener->resume)
		event_free(listener->resume);
	if (listener->path)
		listener_remove_path(listener);
	close(listener->fd);
	free(listener);
	return NULL;
}
