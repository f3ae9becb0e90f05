/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "passed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "util/fd.h"
#include "util/log.h"

/* Sockets have names in lower case that systemd's FileDescriptorName= gives them; what is stored
 * can have none of these. */
static int *socket_of(struct passed *passed, const char *name)
{
	const struct {
		const char *name;
		int *fd;
	} sockets[] = {
		{"broker", &passed->broker_fd},
		{"fd", &passed->fd_fd},
		{"admin", &passed->admin_fd},
		{"metrics", &passed->metrics_fd},
	};

	for (size_t i = 0; i < sizeof(sockets) / sizeof(*sockets); i++)
		if (!strcmp(name, sockets[i].name) && *sockets[i].fd < 0)
			return sockets[i].fd;
	return NULL;
}

static void take_stored(struct passed *passed, struct fd_store *store, const struct fd_name *name,
			int consume_fd)
{
	int error = fd_store_adopted(store, name, consume_fd);

	if (error) {
		log_error("a stored descriptor of guest number %u cannot be taken over: %s",
			  name->guest, strerror(-error));
		fd_close(consume_fd);
		return;
	}
	passed->stored[passed->n_stored++] = (struct stored_fd){.name = *name, .fd = consume_fd};
}

static void take(struct passed *passed, struct fd_store *store, const char *text, int consume_fd)
{
	int *to = socket_of(passed, text);
	struct fd_name name;

	if (to) {
		*to = consume_fd;
	} else if (fd_name_parse(text, &name)) {
		take_stored(passed, store, &name, consume_fd);
	} else {
		log_warning("systemd passed a descriptor named '%s' that is not known", text);
		fd_store_remove_foreign(text);
		fd_close(consume_fd);
	}
}

int passed_take(struct passed *ret, struct fd_store *store)
{
	struct passed passed = {.broker_fd = -1, .fd_fd = -1, .admin_fd = -1, .metrics_fd = -1};
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);

	if (n < 0)
		return n;
	passed.stored = calloc((size_t)n + 1, sizeof(*passed.stored));
	if (!passed.stored)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		take(&passed, store, names[i], SD_LISTEN_FDS_START + i);
		free(names[i]);
	}
	free(names);
	*ret = passed;
	return 0;
}

void passed_forget_stored(struct passed *passed)
{
	free(passed->stored);
	passed->stored = NULL;
	passed->n_stored = 0;
}
