/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/random.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>

int random_bytes(void *ret, size_t bytes)
{
	uint8_t *next = ret;

	while (bytes) {
		ssize_t got = getrandom(next, bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		next += got;
		bytes -= (size_t)got;
	}
	return 0;
}

int random_handle(uint64_t *ret)
{
	uint64_t handle = 0;

	while (!handle) {
		int error = random_bytes(&handle, sizeof(handle));

		if (error)
			return error;
	}
	*ret = handle;
	return 0;
}
