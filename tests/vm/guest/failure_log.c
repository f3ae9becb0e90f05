/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See failure_log.h. */

#include "failure_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

#define SHOWN_MAX 20

static const char *const trouble[] = {
	"WARNING:",    "BUG:",   "BUG ", "Oops",    "general protection", "Call Trace",
	"refcount_t:", "INFO: ", "leak", "Object ", "Huh VM_FAULT_OOM",
};

void failure_log_open(struct failure_log *log)
{
	*log = (struct failure_log){.fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
	REQUIRE(log->fd >= 0);
	REQUIRE(lseek(log->fd, 0, SEEK_END) >= 0);
}

void failure_log_close(struct failure_log *log)
{
	close(log->fd);
}

static bool is_trouble(const char *record)
{
	for (size_t i = 0; i < sizeof(trouble) / sizeof(trouble[0]); i++)
		if (strstr(record, trouble[i]) != NULL)
			return true;
	return false;
}

/* "FAULT_INJECTION: forcing a failure.\nname failslab, interval 1, ..." */
static void record_take(struct failure_log *log, const char *record)
{
	const char *name = strstr(record, "FAULT_INJECTION: forcing a failure");

	name = name != NULL ? strstr(name, "name ") : NULL;
	if (name != NULL) {
		snprintf(log->injector, sizeof(log->injector), "%.*s",
			 (int)strcspn(name + 5, ",\n"), name + 5);
		return;
	}
	if (!is_trouble(record) || log->trouble++ >= SHOWN_MAX)
		return;
	printf("  kernel: %.*s\n", (int)strcspn(record, "\n"), record);
}

void failure_log_read(struct failure_log *log)
{
	char record[8192];
	ssize_t n;

	log->injector[0] = '\0';
	while ((n = read(log->fd, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		if (n < 0)
			continue;
		record[n] = '\0';
		record_take(log, record);
	}
}
