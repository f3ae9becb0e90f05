/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "grpc_fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/clock.h"

#define PATIENCE_MS 60000

static void *loop_main(void *context)
{
	loop_run(context);
	return NULL;
}

void grpc_fixture_open(struct grpc_fixture *f, unsigned int first_request_ms, enum rpc_door door)
{
	memset(f, 0, sizeof(*f));
	strcpy(f->folder, "/tmp/grpc-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/socket", f->folder);
	f->settings = (struct rpc_settings){
		.calls_per_connection_max = FIXTURE_CALLS_MAX,
		.first_request_ms = first_request_ms,
	};
	f->dispatcher = fake_dispatcher_new(&f->settings);
	assert_int_equal(loop_new(&f->loop), 0);
	assert_int_equal(grpc_transport_new(&f->transport, f->dispatcher, f->loop, door), 0);
	assert_int_equal(listener_new(&f->listener, f->loop, f->path, SOCK_STREAM,
				      grpc_transport_accept, f->transport),
			 0);
	assert_int_equal(pthread_create(&f->thread, NULL, loop_main, f->loop), 0);
	f->running = true;
}

void grpc_fixture_stop(struct grpc_fixture *f)
{
	if (!f->running)
		return;
	f->running = false;
	loop_exit(f->loop, 0);
	pthread_join(f->thread, NULL);
	f->listener = listener_free(f->listener);
	assert_int_equal(grpc_transport_free(f->transport), 0);
	f->transport = NULL;
}

void grpc_fixture_close(struct grpc_fixture *f)
{
	grpc_fixture_stop(f);
	assert_int_equal(fake_connections(f->dispatcher), 0);
	assert_int_equal(fake_held(f->dispatcher), 0);
	assert_int_equal(fake_bytes(f->dispatcher), 0);
	loop_free(f->loop);
	fake_dispatcher_free(f->dispatcher);
	assert_int_equal(rmdir(f->folder), 0);
}

struct grpc_client *grpc_fixture_client(struct grpc_fixture *f)
{
	return grpc_client_new(f->path);
}

void grpc_fixture_await(struct grpc_fixture *f, size_t (*get)(struct dispatcher *), size_t value)
{
	for (int i = 0; get(f->dispatcher) < value; i++) {
		assert_true(i < PATIENCE_MS);
		clock_sleep_ns(1000000);
	}
}

void grpc_fixture_await_exactly(struct grpc_fixture *f, size_t (*get)(struct dispatcher *),
				size_t value)
{
	for (int i = 0; get(f->dispatcher) != value; i++) {
		assert_true(i < PATIENCE_MS);
		clock_sleep_ns(1000000);
	}
}

size_t open_fds(void)
{
	DIR *folder = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(folder);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

void await_open_fds(size_t at_most)
{
	for (int i = 0; open_fds() > at_most; i++) {
		assert_true(i < PATIENCE_MS);
		clock_sleep_ns(1000000);
	}
}
