/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The service manager's descriptor store, seen from here.
 *
 * It is told by datagrams that are handled in the order in which they are sent, and answers none.
 * So the names that lie there are kept here as well. A name counts from before its descriptor is
 * sent until after its removal is: at no instant the manager can have more than are counted.
 */
#include "state/fd_store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

/* Lack of memory is an answer here, not the end. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define BARRIER_TIMEOUT_US UINT64_C(10000000)
/* execve(2) takes no longer strings: "LISTEN_FDNAMES=", our names, and those of sockets. */
#define NAMES_BYTES_MAX (128 * 1024 - 1024)

struct open_file {
	int fd; /* borrowed */
	bool foreign;
	dev_t device;
	ino_t inode;
};

struct stored_name {
	char name[FD_NAME_BYTES];
	struct open_file file;
	UT_hash_handle hh;
};

struct fd_store {
	size_t max;
	bool keeps;
	pthread_mutex_t lock; /* what follows; never held while the manager is waited for */
	struct stored_name *names;
	size_t names_bytes; /* each with a separator */
	/* Barriers are numbered from 1. One is under way at a time. */
	pthread_cond_t barrier_done;
	bool barrier_runs;
	uint64_t barriers_begun, barriers_done;
	uint64_t barrier_passed; /* the last that the manager answered: so it did all before */
	int barrier_error;       /* of the last that it did not */
};

/* ── open files ────────────────────────────────────────────────────────────────────────────── */

/* Memory files and listening sockets are opened by others, who can give one twice, and to several
 * guests. */
static struct open_file open_file_of(const struct fd_name *name, int borrow_fd)
{
	struct open_file file = {.fd = borrow_fd};
	struct stat stat;

	if ((name->kind != FD_MEMORY && name->kind != FD_LISTENER) || fstat(borrow_fd, &stat))
		return file;
	file.foreign = true;
	file.device = stat.st_dev;
	file.inode = stat.st_ino;
	return file;
}

/* What the manager asks, too: kcmp(2) or, in a kernel without it, flags. */
static bool open_file_same(const struct open_file *a, const struct open_file *b)
{
	const pid_t pid = getpid();
	long order;

	if (!b->foreign || a->device != b->device || a->inode != b->inode)
		return false;
	order = syscall(SYS_kcmp, pid, pid, KCMP_FILE, a->fd, b->fd);
	if (order >= 0)
		return order == 0;
	return fcntl(a->fd, F_GETFL) == fcntl(b->fd, F_GETFL);
}

/* ── life ──────────────────────────────────────────────────────────────────────────────────── */

int fd_store_new(struct fd_store **ret, size_t max)
{
	struct fd_store *store = calloc(1, sizeof(*store));

	if (!store)
		return -ENOMEM;
	store->keeps = max && getenv("NOTIFY_SOCKET");
	store->max = max;
	pthread_mutex_init(&store->lock, NULL);
	pthread_cond_init(&store->barrier_done, NULL);
	*ret = store;
	return 0;
}

struct fd_store *fd_store_free(struct fd_store *store)
{
	struct stored_name *stored, *next;

	if (!store)
		return NULL;
	HASH_ITER (hh, store->names, stored, next) {
		HASH_DEL(store->names, stored);
		free(stored);
	}
	pthread_cond_destroy(&store->barrier_done);
	pthread_mutex_destroy(&store->lock);
	free(store);
	return NULL;
}

bool fd_store_keeps(const struct fd_store *store)
{
	return store && store->keeps;
}

size_t fd_store_max(const struct fd_store *store)
{
	return store->max;
}

size_t fd_store_count(struct fd_store *store)
{
	size_t n;

	pthread_mutex_lock(&store->lock);
	n = HASH_COUNT(store->names);
	pthread_mutex_unlock(&store->lock);
	return n;
}

/* ── names ─────────────────────────────────────────────────────────────────────────────────── */

/* With the lock held. */
static struct stored_name *name_find(struct fd_store *store, const char *name)
{
	struct stored_name *stored;

	HASH_FIND_STR(store->names, name, stored);
	return stored;
}

/* With the lock held. */
static int name_add(struct fd_store *store, const char *name, const struct open_file *file)
{
	struct stored_name *stored;

	if (name_find(store, name))
		return -EEXIST;
	stored = calloc(1, sizeof(*stored));
	if (!stored)
		return -ENOMEM;
	strcpy(stored->name, name);
	stored->file = *file;
	HASH_ADD_STR(store->names, name, stored);
	if (!stored->hh.tbl) {
		free(stored);
		return -ENOMEM;
	}
	store->names_bytes += strlen(name) + 1;
	return 0;
}

/* With the lock held. */
static bool has_room(const struct fd_store *store, const char *name)
{
	return HASH_COUNT(store->names) < store->max &&
	       store->names_bytes + strlen(name) + 1 <= NAMES_BYTES_MAX;
}

/* With the lock held. */
static bool file_is_stored(const struct fd_store *store, const struct open_file *file)
{
	const struct stored_name *stored;

	if (file->foreign)
		for (stored = store->names; stored; stored = stored->hh.next)
			if (open_file_same(file, &stored->file))
				return true;
	return false;
}

static int name_add_new(struct fd_store *store, const char *name, const struct open_file *file)
{
	int error;

	pthread_mutex_lock(&store->lock);
	if (name_find(store, name))
		error = -EEXIST;
	else if (!has_room(store, name))
		error = -ENOSPC;
	else
		error = file_is_stored(store, file) ? -ENOTUNIQ : name_add(store, name, file);
	pthread_mutex_unlock(&store->lock);
	return error;
}

static bool name_is_stored(struct fd_store *store, const char *name)
{
	bool found;

	pthread_mutex_lock(&store->lock);
	found = name_find(store, name);
	pthread_mutex_unlock(&store->lock);
	return found;
}

static void name_drop(struct fd_store *store, const char *name)
{
	struct stored_name *stored;

	pthread_mutex_lock(&store->lock);
	stored = name_find(store, name);
	if (stored) {
		HASH_DEL(store->names, stored);
		store->names_bytes -= strlen(name) + 1;
	}
	pthread_mutex_unlock(&store->lock);
	free(stored);
}

int fd_store_adopted(struct fd_store *store, const struct fd_name *name, int borrow_fd)
{
	struct open_file file = open_file_of(name, borrow_fd);
	char text[FD_NAME_BYTES];
	int error;

	if (!store->keeps)
		return 0;
	fd_name_format(name, text);
	pthread_mutex_lock(&store->lock);
	error = name_add(store, text, &file);
	pthread_mutex_unlock(&store->lock);
	return error;
}

/* ── the manager ───────────────────────────────────────────────────────────────────────────── */

/* It shall not poll: iommufds cannot be, and it would drop what reports a hang-up. */
static int send_push(const char *name, int borrow_fd)
{
	char message[sizeof("FDSTORE=1\nFDPOLL=0\nFDNAME=") + FD_NAME_BYTES];
	int sent;

	snprintf(message, sizeof(message), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	sent = sd_pid_notify_with_fds(0, 0, message, &borrow_fd, 1);
	return sent > 0 ? 0 : sent ? sent : -ENOTCONN;
}

int fd_store_push(struct fd_store *store, const struct fd_name *name, int borrow_fd)
{
	const struct open_file file = open_file_of(name, borrow_fd);
	char text[FD_NAME_BYTES];
	int error;

	if (!fd_store_keeps(store))
		return 0;
	fd_name_format(name, text);
	error = name_add_new(store, text, &file);
	if (error)
		return error;
	error = send_push(text, borrow_fd);
	if (error)
		name_drop(store, text);
	return error;
}

/* A removal that cannot be sent leaves the name counted: the descriptor still lies there. */
void fd_store_remove(struct fd_store *store, const struct fd_name *name)
{
	char text[FD_NAME_BYTES];

	if (!fd_store_keeps(store))
		return;
	fd_name_format(name, text);
	if (name_is_stored(store, text) && sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", text) > 0)
		name_drop(store, text);
}

void fd_store_remove_foreign(const char *name)
{
	sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

/* ── barrier ───────────────────────────────────────────────────────────────────────────────── */

/* With the lock held, and again at the end. */
static void barrier_run(struct fd_store *store)
{
	uint64_t number = ++store->barriers_begun;
	int passed;

	store->barrier_runs = true;
	pthread_mutex_unlock(&store->lock);
	passed = sd_notify_barrier(0, BARRIER_TIMEOUT_US);
	pthread_mutex_lock(&store->lock);
	store->barrier_runs = false;
	store->barriers_done = number;
	if (passed > 0)
		store->barrier_passed = number;
	else
		store->barrier_error = passed ? passed : -ENOTCONN;
	pthread_cond_broadcast(&store->barrier_done);
}

/* A barrier that is under way may have been sent before the caller's datagrams: only the next one
 * is behind them. Whoever comes first sends it, for all who wait by then. */
int fd_store_barrier(struct fd_store *store)
{
	uint64_t number;
	int error;

	if (!fd_store_keeps(store))
		return 0;
	pthread_mutex_lock(&store->lock);
	number = store->barriers_begun + 1;
	while (store->barriers_done < number)
		if (store->barrier_runs)
			pthread_cond_wait(&store->barrier_done, &store->lock);
		else
			barrier_run(store);
	error = store->barrier_passed >= number ? 0 : store->barrier_error;
	pthread_mutex_unlock(&store->lock);
	return error;
}
