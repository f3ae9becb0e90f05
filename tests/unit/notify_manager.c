/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "notify_manager.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/fd.h"

#define STORED_MAX 128
#define HELD_MAX   64
#define NAME_BYTES 16

struct manager {
	int socket, wake;
	size_t max;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool paused, stopping, hold;
	const char *complaint;
	struct {
		char name[NAME_BYTES];
		int fd;
	} stored[STORED_MAX];
	int held[HELD_MAX];
	size_t n_stored, n_held, n_barriers, n_dropped;
};

static size_t find(const struct manager *manager, const char *name)
{
	size_t i = 0;

	while (i < manager->n_stored && strcmp(manager->stored[i].name, name))
		i++;
	return i;
}

static void on_push(struct manager *manager, const char *name, int fd)
{
	if (fd < 0 || strlen(name) >= NAME_BYTES) {
		manager->complaint = "no descriptor, or a long name";
		fd_close(fd);
	} else if (manager->n_stored >= manager->max) {
		manager->n_dropped++;
		fd_close(fd);
	} else {
		strcpy(manager->stored[manager->n_stored].name, name);
		manager->stored[manager->n_stored++].fd = fd;
	}
}

static void on_remove(struct manager *manager, const char *name)
{
	size_t i = find(manager, name);

	if (i == manager->n_stored) {
		manager->complaint = "nothing is stored under that name";
		return;
	}
	fd_close(manager->stored[i].fd);
	manager->stored[i] = manager->stored[--manager->n_stored];
}

static void on_barrier(struct manager *manager, int fd)
{
	manager->n_barriers++;
	if (manager->hold && manager->n_held < HELD_MAX)
		manager->held[manager->n_held++] = fd;
	else
		fd_close(fd);
}

static const char *after(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) ? NULL : text + strlen(start);
}

static void on_message(struct manager *manager, const char *text, int fd)
{
	const char *name = after(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=");

	pthread_mutex_lock(&manager->lock);
	if (name)
		on_push(manager, name, fd);
	else if ((name = after(text, "FDSTOREREMOVE=1\nFDNAME=")))
		on_remove(manager, name);
	else if (!strcmp(text, "BARRIER=1"))
		on_barrier(manager, fd);
	else
		manager->complaint = "an unknown message";
	pthread_cond_broadcast(&manager->changed);
	pthread_mutex_unlock(&manager->lock);
}

static void receive(struct manager *manager)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))];
	char text[256];
	struct iovec part = {.iov_base = text, .iov_len = sizeof(text) - 1};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(manager->socket, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *header = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
	int fd = -1;

	if (n < 0)
		return;
	text[n] = 0;
	if (header && header->cmsg_type == SCM_RIGHTS) {
		if (header->cmsg_len != CMSG_LEN(sizeof(int)))
			manager->complaint = "several descriptors in one message";
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	}
	on_message(manager, text, fd);
}

static bool may_go_on(struct manager *manager)
{
	bool stopping;

	pthread_mutex_lock(&manager->lock);
	while (manager->paused && !manager->stopping)
		pthread_cond_wait(&manager->changed, &manager->lock);
	stopping = manager->stopping;
	pthread_mutex_unlock(&manager->lock);
	return !stopping;
}

static void *manager_run(void *context)
{
	struct manager *manager = context;
	struct pollfd polls[] = {
		{.fd = manager->socket, .events = POLLIN},
		{.fd = manager->wake, .events = POLLIN},
	};

	while (may_go_on(manager)) {
		uint64_t count;

		poll(polls, 2, -1);
		if (polls[1].revents) {
			if (read(manager->wake, &count, sizeof(count)) < 0)
				break;
		} else if (polls[0].revents) {
			receive(manager);
		}
	}
	return NULL;
}

/* An abstract address that the kernel picks: nothing lies anywhere, nobody else has it. */
static void socket_make(struct manager *manager)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t length = sizeof(address);
	char name[sizeof(address)];

	manager->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(manager->socket >= 0);
	assert_int_equal(bind(manager->socket, (struct sockaddr *)&address, sizeof(sa_family_t)),
			 0);
	assert_int_equal(getsockname(manager->socket, (struct sockaddr *)&address, &length), 0);
	snprintf(name, sizeof(name), "@%.*s",
		 (int)(length - offsetof(struct sockaddr_un, sun_path) - 1), address.sun_path + 1);
	assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
}

struct manager *manager_start(size_t max)
{
	struct manager *manager = calloc(1, sizeof(*manager));

	assert_non_null(manager);
	assert_true(max <= STORED_MAX);
	manager->max = max;
	manager->wake = eventfd(0, EFD_CLOEXEC);
	pthread_mutex_init(&manager->lock, NULL);
	pthread_cond_init(&manager->changed, NULL);
	socket_make(manager);
	assert_int_equal(pthread_create(&manager->thread, NULL, manager_run, manager), 0);
	return manager;
}

static void wake(struct manager *manager)
{
	const uint64_t one = 1;

	pthread_cond_broadcast(&manager->changed);
	assert_int_equal(write(manager->wake, &one, sizeof(one)), sizeof(one));
}

void manager_stop(struct manager *manager)
{
	manager_hold_barriers(manager, false);
	pthread_mutex_lock(&manager->lock);
	manager->stopping = true;
	wake(manager);
	pthread_mutex_unlock(&manager->lock);
	pthread_join(manager->thread, NULL);
	unsetenv("NOTIFY_SOCKET");
	for (size_t i = 0; i < manager->n_stored; i++)
		fd_close(manager->stored[i].fd);
	fd_close(manager->socket);
	fd_close(manager->wake);
	if (manager->complaint)
		fail_msg("%s", manager->complaint);
	pthread_cond_destroy(&manager->changed);
	pthread_mutex_destroy(&manager->lock);
	free(manager);
}

static void set_paused(struct manager *manager, bool paused)
{
	pthread_mutex_lock(&manager->lock);
	manager->paused = paused;
	wake(manager);
	pthread_mutex_unlock(&manager->lock);
}

void manager_pause(struct manager *manager)
{
	set_paused(manager, true);
}

void manager_go_on(struct manager *manager)
{
	set_paused(manager, false);
}

void manager_hold_barriers(struct manager *manager, bool hold)
{
	pthread_mutex_lock(&manager->lock);
	manager->hold = hold;
	while (!hold && manager->n_held)
		fd_close(manager->held[--manager->n_held]);
	pthread_mutex_unlock(&manager->lock);
}

void manager_wait_for_barriers(struct manager *manager, size_t n)
{
	pthread_mutex_lock(&manager->lock);
	while (manager->n_barriers < n)
		pthread_cond_wait(&manager->changed, &manager->lock);
	pthread_mutex_unlock(&manager->lock);
}

static size_t number(struct manager *manager, const size_t *of)
{
	size_t n;

	pthread_mutex_lock(&manager->lock);
	n = *of;
	pthread_mutex_unlock(&manager->lock);
	return n;
}

size_t manager_stored(struct manager *manager)
{
	return number(manager, &manager->n_stored);
}

size_t manager_barriers(struct manager *manager)
{
	return number(manager, &manager->n_barriers);
}

size_t manager_dropped(struct manager *manager)
{
	return number(manager, &manager->n_dropped);
}

bool manager_knows(struct manager *manager, const char *name)
{
	bool found;

	pthread_mutex_lock(&manager->lock);
	found = find(manager, name) < manager->n_stored;
	pthread_mutex_unlock(&manager->lock);
	return found;
}

bool manager_has(struct manager *manager, const char *name, int fd)
{
	struct stat ours, theirs = {0};
	size_t i;

	assert_int_equal(fstat(fd, &ours), 0);
	pthread_mutex_lock(&manager->lock);
	i = find(manager, name);
	if (i < manager->n_stored && fstat(manager->stored[i].fd, &theirs))
		theirs.st_ino = 0;
	pthread_mutex_unlock(&manager->lock);
	return ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

void manager_put(struct manager *manager, const char *name, int borrow_fd)
{
	pthread_mutex_lock(&manager->lock);
	assert_true(manager->n_stored < STORED_MAX);
	snprintf(manager->stored[manager->n_stored].name, NAME_BYTES, "%s", name);
	manager->stored[manager->n_stored++].fd = fd_duplicate(borrow_fd);
	pthread_mutex_unlock(&manager->lock);
}

int manager_get(struct manager *manager, size_t i, char *ret_name)
{
	int fd;

	pthread_mutex_lock(&manager->lock);
	assert_true(i < manager->n_stored);
	snprintf(ret_name, NAME_BYTES, "%s", manager->stored[i].name);
	fd = manager->stored[i].fd;
	pthread_mutex_unlock(&manager->lock);
	return fd;
}

void manager_clear(struct manager *manager)
{
	pthread_mutex_lock(&manager->lock);
	while (manager->n_stored)
		fd_close(manager->stored[--manager->n_stored].fd);
	pthread_mutex_unlock(&manager->lock);
}
