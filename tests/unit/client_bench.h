/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_CLIENT_BENCH_H
#define IB_TESTS_CLIENT_BENCH_H

/* A session of libiommubroker with a fake daemon at its other end. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_daemon.h"
#include "iommubroker.h"
#include "iommubroker/v1/native.pb-c.h"

#define METHOD(name) IOMMUBROKER__V1__METHOD__METHOD_##name

struct bench {
	struct fake_daemon daemon;
	struct iommubroker_session *session;
	size_t n_fds;
};

void bench_begin(struct bench *bench, fake_serve_fn serve, void *user_data);
/* Nothing may be left open. */
void bench_end(struct bench *bench);
/* One page; the caller closes it. */
int bench_memory_fd(void);

#endif
