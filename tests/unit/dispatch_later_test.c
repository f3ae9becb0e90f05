/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Methods that this version does not have: checked like any other, then refused by name.
 */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dispatch_fixture.h"

/* ── what this version lacks ──────────────────────────────────────────────────────────────── */

static void assert_lacks(const char *path, const void *request, const char *reason)
{
	assert_int_equal(run(path, request), 12);
	assert_reason(reason);
}

static void test_update_ring_is_checked_then_refused(void **state)
{
	Iommubroker__V1__CreateUpdateRingRequest request =
		IOMMUBROKER__V1__CREATE_UPDATE_RING_REQUEST__INIT;
	Iommubroker__V1__DestroyUpdateRingRequest destroy =
		IOMMUBROKER__V1__DESTROY_UPDATE_RING_REQUEST__INIT;

	(void)state;
	assert_int_equal(run(PATH("FastPath/CreateUpdateRing"), &request), 3);
	assert_field("guest");
	request.guest = 4711;
	assert_int_equal(run(PATH("FastPath/CreateUpdateRing"), &request), 5);
	request.guest = 1;
	request.lanes = 65;
	assert_int_equal(run(PATH("FastPath/CreateUpdateRing"), &request), 3);
	assert_field("lanes");
	request.lanes = 64;
	request.entries = 24;
	assert_int_equal(run(PATH("FastPath/CreateUpdateRing"), &request), 3);
	assert_field("entries");
	request.entries = 32;
	assert_lacks(PATH("FastPath/CreateUpdateRing"), &request, "UPDATE_RING");
	assert_int_equal(run(PATH("FastPath/DestroyUpdateRing"), &destroy), 3);
	assert_field("ring");
	destroy.ring = 1;
	assert_lacks(PATH("FastPath/DestroyUpdateRing"), &destroy, "UPDATE_RING");
}

static void test_dirty_tracking_is_checked_then_refused(void **state)
{
	Iommubroker__V1__SetDirtyTrackingRequest set =
		IOMMUBROKER__V1__SET_DIRTY_TRACKING_REQUEST__INIT;
	Iommubroker__V1__ReadDirtyRequest request = IOMMUBROKER__V1__READ_DIRTY_REQUEST__INIT;
	Iommubroker__V1__AddressRange range = IOMMUBROKER__V1__ADDRESS_RANGE__INIT;

	(void)state;
	assert_int_equal(run(PATH("Domains/SetDirtyTracking"), &set), 3);
	assert_field("device");
	set.device = 1;
	assert_lacks(PATH("Domains/SetDirtyTracking"), &set, "DIRTY_TRACKING");
	request.device = 1;
	request.bitmap_file = 2;
	assert_int_equal(run(PATH("Domains/ReadDirty"), &request), 3);
	assert_field("range");
	request.range = &range;
	range.first = 1;
	assert_int_equal(run(PATH("Domains/ReadDirty"), &request), 3);
	assert_field("range");
	range.last = 1;
	request.page_bytes = 4097;
	assert_int_equal(run(PATH("Domains/ReadDirty"), &request), 3);
	assert_field("page_bytes");
	request.page_bytes = 4096;
	assert_lacks(PATH("Domains/ReadDirty"), &request, "DIRTY_TRACKING");
}

static void test_invalidate_is_checked_then_refused(void **state)
{
	Iommubroker__V1__InvalidateNestedRequest request =
		IOMMUBROKER__V1__INVALIDATE_NESTED_REQUEST__INIT;
	uint8_t bytes[9] = {0};

	(void)state;
	request.nested = 1;
	assert_int_equal(run(PATH("Domains/InvalidateNested"), &request), 3);
	assert_field("entry_bytes");
	request.entry_bytes = 4;
	request.entries = (ProtobufCBinaryData){sizeof(bytes), bytes};
	assert_int_equal(run(PATH("Domains/InvalidateNested"), &request), 3);
	assert_field("entries");
	request.entries.len = 8;
	assert_lacks(PATH("Domains/InvalidateNested"), &request, "KERNEL_NESTED_FORMAT");
}

#define T(name) cmocka_unit_test_setup_teardown(name, dispatch_setup, fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_update_ring_is_checked_then_refused),
		T(test_dirty_tracking_is_checked_then_refused),
		T(test_invalidate_is_checked_then_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
