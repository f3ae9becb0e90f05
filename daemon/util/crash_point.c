/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/crash_point.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef IB_CRASH_POINTS

static const struct {
	const char *name, *what;
} points[] = {
#define CRASH_POINT_ROW(id, name, what) [CRASH_##id] = {name, what},
	CRASH_POINTS(CRASH_POINT_ROW)
#undef CRASH_POINT_ROW
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int chosen = -1;
static atomic_long passes_left;

static void choose(void)
{
	const char *asked = getenv("IOMMUBROKER_CRASH_AT");
	size_t n = asked ? strcspn(asked, ":") : 0;

	for (int i = 0; asked && i < CRASH_POINTS_N; i++)
		if (strlen(points[i].name) == n && !strncmp(points[i].name, asked, n))
			chosen = i;
	atomic_store(&passes_left, asked && asked[n] == ':' ? atol(asked + n + 1) : 1);
}

void crash_point(enum crash_point point)
{
	pthread_once(&once, choose);
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
