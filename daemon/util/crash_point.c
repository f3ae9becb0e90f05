/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/crash_point.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/fd.h"

#ifdef IB_CRASH_POINTS

static const struct {
	const char *name, *what;
} points[] = {
#define CRASH_POINT_ROW(id, name, what) [CRASH_##id] = {name, what},
	CRASH_POINTS(CRASH_POINT_ROW)
#undef CRASH_POINT_ROW
};

#define HELD_US    1000
#define PATH_BYTES 256

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int chosen = -1, hanging = -1;
static atomic_long passes_left;
static char hold_path[PATH_BYTES], held_path[PATH_BYTES];

/* What is behind the name and a colon; "": nothing. *ret: -1: there is no such point. */
static const char *find(const char *variable, int *ret)
{
	const char *asked = getenv(variable);
	size_t n = asked ? strcspn(asked, ":") : 0;

	for (int i = 0; asked && i < CRASH_POINTS_N; i++)
		if (strlen(points[i].name) == n && !strncmp(points[i].name, asked, n))
			*ret = i;
	return asked && asked[n] == ':' ? asked + n + 1 : "";
}

static void choose(void)
{
	const char *passes = find("IOMMUBROKER_CRASH_AT", &chosen);

	atomic_store(&passes_left, *passes ? atol(passes) : 1);
	snprintf(hold_path, sizeof(hold_path), "%s", find("IOMMUBROKER_HANG_AT", &hanging));
	snprintf(held_path, sizeof(held_path), "%.*s.held", PATH_BYTES - 6, hold_path);
}

static void hang(void)
{
	bool told = false;

	while (!access(hold_path, F_OK)) {
		if (!told)
			fd_close(open(held_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		told = true;
		usleep(HELD_US);
	}
}

void crash_point(enum crash_point point)
{
	pthread_once(&once, choose);
	if ((int)point == hanging)
		hang();
	if ((int)point != chosen || atomic_fetch_sub(&passes_left, 1) != 1)
		return;
	kill(getpid(), SIGKILL);
	for (;;)
		pause(); /* nothing more happens on this thread */
}

void crash_points_print(void)
{
	for (int i = 0; i < CRASH_POINTS_N; i++)
		printf("%-20s %s\n", points[i].name, points[i].what);
}

#else

void crash_points_print(void)
{
}

#endif
