/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "native_fixture.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/clock.h"

size_t open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

void wait_for_descriptors(size_t n)
{
	while (open_descriptors() != n)
		clock_sleep_ns(1000000);
}

static void nothing(void *context)
{
	(void)context;
}

void settle(void)
{
	fixture_on_loop(&fixture, nothing, NULL);
	fixture_on_loop(&fixture, nothing, NULL);
}

void assert_ended(int socket)
{
	struct reply reply;

	client_receive(socket, &reply, NULL);
	assert_true(reply.ended);
}

void assert_serves(void)
{
	Iommubroker__V1__GetInfoRequest request = IOMMUBROKER__V1__GET_INFO_REQUEST__INIT;
	int socket = fixture_connect(&fixture);
	struct reply reply;

	client_call(socket, M(GET_INFO), &request, &reply,
		    &iommubroker__v1__get_info_response__descriptor);
	assert_false(reply.ended);
	assert_int_equal(reply.code, 0);
	assert_string_equal(((Iommubroker__V1__GetInfoResponse *)reply.message)->backend, "fake");
	reply_clear(&reply);
	close(socket);
	settle();
}
