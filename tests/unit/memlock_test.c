/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's ceiling behind the ledger: it follows the host's limit down and up again, and never
 * above what the daemon was started with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "reload.h"

#define KIB 1024ull

static uint64_t soft_limit(void)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
	return limit.rlim_cur;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void test_follows(void **state)
{
	static const uint64_t maxima[] = {
		64 * KIB, 16 * KIB, 0, 32 * KIB, UINT64_MAX, 48 * KIB, 1ull << 62, 8 * KIB,
	};
	const uint64_t start = soft_limit();

	(void)state;
	for (size_t i = 0; i < sizeof(maxima) / sizeof(maxima[0]); i++) {
		reload_memlock(maxima[i]);
		assert_int_equal(soft_limit(), min_u64(maxima[i], start));
	}
	reload_memlock(UINT64_MAX);
	assert_int_equal(soft_limit(), start);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_follows)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
