/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "client_bench.h"

#include <sys/mman.h>
#include <unistd.h>

void bench_begin(struct bench *bench, fake_serve_fn serve, void *user_data)
{
	bench->n_fds = fake_count_fds();
	fake_start(&bench->daemon, serve, user_data);
	assert_int_equal(
		iommubroker_session_open_fd(bench->daemon.client_fd, "test", &bench->session, NULL),
		0);
}

void bench_end(struct bench *bench)
{
	assert_null(iommubroker_session_free(bench->session));
	fake_stop(&bench->daemon);
	assert_int_equal(fake_count_fds(), bench->n_fds);
}

int bench_memory_fd(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	return fd;
}
