/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A path, or "@" and an abstract name. 0: it is neither. */
static socklen_t address_of(const char *name, struct sockaddr_un *ret)
{
	size_t n = name ? strlen(name) : 0;

	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (n < 2 || n >= sizeof(ret->sun_path) || (*name != '/' && *name != '@'))
		return 0;
	memcpy(ret->sun_path, name, n);
	if (*name == '@')
		ret->sun_path[0] = '\0';
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*name == '/'));
}

bool notify_now(const char *text)
{
	struct sockaddr_un address;
	socklen_t address_bytes = address_of(getenv("NOTIFY_SOCKET"), &address);
	ssize_t n;
	int fd;

	if (!address_bytes)
		return false;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	n = sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
		   (const struct sockaddr *)&address, address_bytes);
	close(fd);
	return n >= 0;
}
