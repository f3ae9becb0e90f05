/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See supervisor.h, and sd_notify(3) for the messages. */

#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define LISTEN_FDS_START 3
#define STORED_MAX       128u
#define MESSAGE_FDS_MAX  8u
#define NAME_BYTES       32u
#define READY_SECONDS    300 /* of an emulated machine; nothing is judged by it */
#define RESTART_NS       10000000

struct stored {
	char name[NAME_BYTES];
	int fd;
};

struct supervisor {
	int notify;
	supervisor_run_fn run;
	void *context;
	pthread_t thread;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	pid_t daemon;
	int pidfd;
	unsigned int starts;
	bool ready, ends;
	int status; /* of the last that ended */
	size_t n_stored;
	struct stored stored[STORED_MAX];
};

/* ── messages ──────────────────────────────────────────────────────────────────────────────── */

/* The value of the line that begins with key, which has the '=': up to n - 1 bytes. */
static bool field(const char *text, const char *key, char *ret, size_t n)
{
	const char *at = text;

	while (strncmp(at, key, strlen(key)) != 0) {
		at = strchr(at, '\n');
		if (at == NULL)
			return false;
		at++;
	}
	at += strlen(key);
	snprintf(ret, n, "%.*s", (int)strcspn(at, "\n"), at);
	return true;
}

static void store(struct supervisor *s, const char *name, int consume_fd)
{
	REQUIRE(s->n_stored < STORED_MAX);
	s->stored[s->n_stored].fd = consume_fd;
	snprintf(s->stored[s->n_stored++].name, NAME_BYTES, "%s", name);
}

static void forget(struct supervisor *s, const char *name)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->n_stored; i++) {
		if (strcmp(s->stored[i].name, name) == 0)
			close(s->stored[i].fd);
		else
			s->stored[kept++] = s->stored[i];
	}
	s->n_stored = kept;
}

/* The end of a barrier's descriptor is its answer. */
static void message(struct supervisor *s, const char *text, const int *fds, size_t n_fds)
{
	char name[NAME_BYTES] = "", value[NAME_BYTES];
	bool stores = field(text, "FDSTORE=", value, sizeof(value));

	field(text, "FDNAME=", name, sizeof(name));
	for (size_t i = 0; i < n_fds; i++) {
		if (stores)
			store(s, name, fds[i]);
		else
			close(fds[i]);
	}
	if (field(text, "FDSTOREREMOVE=", value, sizeof(value)))
		forget(s, name);
	if (field(text, "READY=", value, sizeof(value)))
		s->ready = true;
	pthread_cond_broadcast(&s->changed);
}

static bool message_read(struct supervisor *s)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
	} control;
	char text[4096];
	struct iovec data = {.iov_base = text, .iov_len = sizeof(text) - 1};
	struct msghdr header = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t n = recvmsg(s->notify, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fds[MESSAGE_FDS_MAX];
	size_t n_fds = 0;

	if (n < 0)
		return false;
	text[n] = '\0';
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&header); part; part = CMSG_NXTHDR(&header, part))
		if (part->cmsg_type == SCM_RIGHTS) {
			n_fds = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(part), n_fds * sizeof(int));
		}
	pthread_mutex_lock(&s->lock);
	message(s, text, fds, n_fds);
	pthread_mutex_unlock(&s->lock);
	return true;
}

/* ── processes ─────────────────────────────────────────────────────────────────────────────── */

/* In the child. Above all numbers at which it is to find them first, then there. */
static void fds_pass(const struct supervisor *s, char *ret_names, size_t n)
{
	int moved[STORED_MAX];
	size_t at = 0;

	ret_names[0] = '\0';
	for (size_t i = 0; i < s->n_stored; i++) {
		moved[i] =
			fcntl(s->stored[i].fd, F_DUPFD_CLOEXEC, LISTEN_FDS_START + (int)STORED_MAX);
		at += (size_t)snprintf(ret_names + at, n - at, "%s%s", i ? ":" : "",
				       s->stored[i].name);
	}
	for (size_t i = 0; i < s->n_stored; i++)
		dup2(moved[i], LISTEN_FDS_START + (int)i);
}

static _Noreturn void be_daemon(const struct supervisor *s, pid_t parent)
{
	static char listen_pid[32], listen_fds[32], names[STORED_MAX * NAME_BYTES] = "";
	static char listen_names[sizeof(names) + 32];
	char *const none[] = {NULL};
	char *const variables[] = {listen_pid, listen_fds, listen_names, NULL};

	if (s->n_stored == 0)
		s->run(s->context, parent, none);
	fds_pass(s, names, sizeof(names));
	snprintf(listen_pid, sizeof(listen_pid), "LISTEN_PID=%d", (int)getpid());
	snprintf(listen_fds, sizeof(listen_fds), "LISTEN_FDS=%zu", s->n_stored);
	snprintf(listen_names, sizeof(listen_names), "LISTEN_FDNAMES=%s", names);
	s->run(s->context, parent, variables);
	_exit(EXIT_FAILURE);
}

/* With the lock held. */
static void spawn(struct supervisor *s)
{
	pid_t parent = getpid(), child;

	fflush(NULL);
	child = fork();
	if (child == 0)
		be_daemon(s, parent);
	REQUIRE(child > 0);
	s->daemon = child;
	s->pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	REQUIRE(s->pidfd >= 0);
	s->ready = false;
	s->starts++;
	pthread_cond_broadcast(&s->changed);
}

/* What it said last is heard before another is started. */
static bool ended(struct supervisor *s)
{
	const struct timespec pause = {.tv_nsec = RESTART_NS};
	bool ends;

	while (message_read(s))
		;
	nanosleep(&pause, NULL);
	pthread_mutex_lock(&s->lock);
	REQUIRE(waitpid(s->daemon, &s->status, 0) == s->daemon);
	close(s->pidfd);
	ends = s->ends;
	if (!ends)
		spawn(s);
	pthread_mutex_unlock(&s->lock);
	return ends;
}

/* It dies with the thread that forked it, which is this one. */
static void *supervise(void *context)
{
	struct supervisor *s = context;

	pthread_mutex_lock(&s->lock);
	spawn(s);
	pthread_mutex_unlock(&s->lock);
	for (;;) {
		struct pollfd wait[] = {{.fd = s->notify, .events = POLLIN},
					{.fd = s->pidfd, .events = POLLIN}};

		if (poll(wait, 2, -1) < 0)
			continue;
		while (message_read(s))
			;
		if (wait[1].revents != 0 && ended(s))
			return NULL;
	}
}

/* ── from the test's thread ────────────────────────────────────────────────────────────────── */

struct supervisor *supervisor_start(int borrow_notify, supervisor_run_fn run, void *context)
{
	struct supervisor *s = calloc(1, sizeof(*s));

	REQUIRE(s != NULL);
	*s = (struct supervisor){.notify = borrow_notify, .run = run, .context = context};
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	REQUIRE_EQUAL((uint64_t)pthread_create(&s->thread, NULL, supervise, s), 0);
	return s;
}

int supervisor_stop(struct supervisor *s)
{
	int status;

	pthread_mutex_lock(&s->lock);
	s->ends = true;
	kill(s->daemon, SIGTERM);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	for (size_t i = 0; i < s->n_stored; i++)
		close(s->stored[i].fd);
	status = s->status;
	free(s);
	return status;
}

void supervisor_kill(struct supervisor *s)
{
	unsigned int starts;

	pthread_mutex_lock(&s->lock);
	starts = s->starts;
	kill(s->daemon, SIGKILL);
	while (s->starts == starts)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

pid_t supervisor_wait_ready(struct supervisor *s)
{
	struct timespec end;
	pid_t daemon;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += READY_SECONDS;
	pthread_mutex_lock(&s->lock);
	while (!s->ready && r == 0)
		r = pthread_cond_timedwait(&s->changed, &s->lock, &end);
	daemon = s->daemon;
	pthread_mutex_unlock(&s->lock);
	REQUIRE_EQUAL((uint64_t)r, 0);
	return daemon;
}

unsigned int supervisor_starts(struct supervisor *s)
{
	unsigned int n;

	pthread_mutex_lock(&s->lock);
	n = s->starts;
	pthread_mutex_unlock(&s->lock);
	return n;
}

size_t supervisor_stored(struct supervisor *s)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = s->n_stored;
	pthread_mutex_unlock(&s->lock);
	return n;
}
