/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the kernel counts as pinned, compared with the ledger when guests have been taken over. This
 * process has nothing pinned. */

#include "broker_fixture.h"

#include <errno.h>

#include "broker/restore.h"
#include "broker/root.h"

static struct region region = {.length = 4 * MIB};
static struct guest pinned = {.regions = {.n = 1, .items = &region}, .pinned = true};
static struct guest unpinned = {.regions = {.n = 1, .items = &region}};

static void charge(struct broker *broker, uint64_t bytes)
{
	struct refusal refusal;

	assert_int_equal(ledger_charge_one(&broker->ledger, &broker->host, LEDGER_PINNED_BYTES,
					   bytes, &refusal),
			 0);
}

static void expect(const struct restoring *guests, size_t n, uint64_t charged, uint64_t ledger)
{
	const struct broker_settings settings = settings_default();
	struct restore_report report = {0};
	struct fixture f;

	fixture_init_broker(&f, &settings);
	charge(f.broker, charged);
	restore_pins_compare(f.broker, guests, n, &report);
	assert_true(report.pins_compared);
	assert_int_equal(report.kernel_pinned_bytes, 0);
	assert_int_equal(report.ledger_pinned_bytes, ledger);
	ledger_refund_one(&f.broker->ledger, &f.broker->host, LEDGER_PINNED_BYTES, charged);
	fixture_deinit(&f);
}

static void test_equal(void **state)
{
	const struct restoring guests[] = {{.guest = NULL}, {.guest = &unpinned}};

	(void)state;
	expect(guests, 2, 4 * MIB, 0);
}

static void test_different(void **state)
{
	const struct restoring guests[] = {{.guest = &pinned}, {.guest = &unpinned}};

	(void)state;
	expect(guests, 2, 8 * MIB, 4 * MIB);
}

/* A kernel that counts with nobody, or with the process before, tells nothing. */
static void test_not_told(void **state)
{
	const struct restoring guests[] = {{.guest = &pinned, .uncounted_error = EOPNOTSUPP},
					   {.guest = &pinned, .uncounted_error = ENOMEM},
					   {.guest = &pinned, .uncounted_error = EOPNOTSUPP}};
	struct restore_report report = {0};
	struct broker_settings settings;
	struct fixture f;

	(void)state;
	settings = settings_default();
	fixture_init_broker(&f, &settings);
	restore_pins_compare(f.broker, guests, 1, &report);
	assert_false(report.pins_compared);
	assert_int_equal(report.uncounted_error, EOPNOTSUPP);
	restore_pins_compare(f.broker, guests, 3, &report);
	assert_false(report.pins_compared);
	assert_int_equal(report.uncounted_error, ENOMEM);
	assert_int_equal(report.kernel_pinned_bytes + report.ledger_pinned_bytes, 0);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_different),
		cmocka_unit_test(test_not_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
