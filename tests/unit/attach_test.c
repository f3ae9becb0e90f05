/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Devices: what they are attached to, and how they are closed. */
#include "device_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker_invariant.h"

/* ── attached to what ──────────────────────────────────────────────────────────────────────── */

/* On s390 guest memory lies below the start of DMA. */
static void test_parent_is_refused(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_refused(f, device_attach_to(f, function.device, ATTACHMENT_PARENT, 0),
		       REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "RESERVED_ADDRESSES");
	assert_int_equal(device_described(f, function.device).attachment, ATTACHMENT_BLOCKED);
	function_free(&function);
}

static void test_parent(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_done(f, memory_unmap_one(f, 0, UINT64_MAX));
	assert_done(f, memory_map_one(f, f->memory_file, 0, DMA_BASE, MIB, true));
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_PARENT, 0));
	assert_int_equal(device_described(f, function.device).attachment, ATTACHMENT_PARENT);
	assert_int_equal(function_write_byte(&function, DMA_BASE + 9), EMULATED_DMA_OK);
	assert_int_equal(f->memory[9], 'x');
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_BLOCKED, 0));
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_BLOCKED);
	function_free(&function);
}

/* A device that the first page table does not suit gets another one. */
static void test_parent_with_another_page_table(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_done(f, memory_unmap_one(f, 0, UINT64_MAX));
	assert_done(f, memory_map_one(f, f->memory_file, 0, DMA_BASE, MIB, true));
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_ATTACH, 1, EINVAL);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_PARENT, 0));
	assert_int_equal(function_write_byte(&function, DMA_BASE + 9), EMULATED_DMA_OK);
	function_free(&function);
}

static void test_relaxed(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	uint8_t *host;
	int fd = memfd_filled(MIB, &host);
	uint64_t file = file_add(f, fd, true);

	assert_int_equal(emulated_dma_add_memory(function.dma, fd), 0);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(function_write_byte(&function, DMA_BASE + 4097), EMULATED_DMA_OK);
	assert_int_equal(f->memory[4097], 'x');
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES),
			 EMULATED_DMA_NOT_MAPPED);
	/* It follows the guest's memory, there and back, in parts too. */
	assert_done(f, memory_map_granule(f, file, 0, MEMORY_BYTES, MIB, 64 * KIB));
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES + 70000),
			 EMULATED_DMA_OK);
	assert_int_equal(host[70000], 'x');
	assert_done(f, memory_unmap_one(f, MEMORY_BYTES + 64 * KIB, MEMORY_BYTES + 128 * KIB - 1));
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES + 70000),
			 EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES), EMULATED_DMA_OK);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_BLOCKED, 0));
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_BLOCKED);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_OK);
	function_free(&function);
	close(fd);
}

/* Memory that a relaxed mapping cannot follow does not come at all. */
static void test_relaxed_cannot_follow(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_COPY, 2, ENOSPC);
	assert_refused(f, memory_map_one(f, f->memory_file, 0, MEMORY_BYTES, 4 * MIB, true),
		       REFUSAL_HOST);
	assert_int_equal(host_usage(f, LEDGER_PINNED_BYTES).current, MEMORY_BYTES);
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES),
			 EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_OK);
	assert_done(f, memory_map_one(f, f->memory_file, 0, MEMORY_BYTES, 4 * MIB, true));
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES), EMULATED_DMA_OK);
	function_free(&function);
}

/* Two regions, of which the second cannot be followed, in place of one: all is as it was. */
static void test_relaxed_cannot_follow_a_replacement(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	struct memory_update_request *request = calloc(1, sizeof(*request));
	struct memory_updated updated;

	assert_done(f, memory_map_one(f, f->memory_file, 0, MEMORY_BYTES, MIB, true));
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	request->n_unmap = 1;
	request->unmap[0] = (struct iommu_range){MEMORY_BYTES, MEMORY_BYTES + MIB - 1};
	request->n_map = 2;
	request->map[0] =
		(struct memory_map_entry){f->memory_file, 4 * MIB, MEMORY_BYTES, MIB, 0, true};
	request->map[1] = (struct memory_map_entry){
		f->memory_file, 6 * MIB, MEMORY_BYTES + 2 * MIB, MIB, 0, true};
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_COPY, 2, ENOSPC);
	assert_refused(f,
		       memory_update(f->broker, f->session, f->guest, request, NULL, &updated,
				     &f->refusal),
		       REFUSAL_HOST);
	f->memory[8] = 0;
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES + 8),
			 EMULATED_DMA_OK);
	assert_int_equal(f->memory[8], 'x');
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES + 2 * MIB),
			 EMULATED_DMA_NOT_MAPPED);
	assert_ledger_is_held(f->broker);
	assert_done(f, memory_update(f->broker, f->session, f->guest, request, NULL, &updated,
				     &f->refusal));
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES + 8),
			 EMULATED_DMA_OK);
	assert_int_equal(f->memory[4 * MIB + 8], 'x');
	assert_ledger_is_held(f->broker);
	free(request);
	function_free(&function);
}

/* A VMM that holds the function's descriptor can attach it again the moment it was detached. */
static struct {
	const struct iommu_backend_ops *ops;
	uint32_t page_table;
} defiant;

static int defiant_attach(struct iommu_device *device, uint32_t page_table)
{
	defiant.page_table = page_table;
	return defiant.ops->attach(device, page_table);
}

static int defiant_detach(struct iommu_device *device)
{
	int error = defiant.ops->detach(device);

	return error ? error : defiant.ops->attach(device, defiant.page_table);
}

/* It is attached empty and filled then; if it cannot be, the device is blocked. */
static void test_relaxed_that_cannot_be_filled(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_done(f, memory_map_one(f, f->memory_file, 0, MEMORY_BYTES, MIB, true));
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_COPY, 2, ENOSPC);
	assert_refused(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0),
		       REFUSAL_HOST);
	assert_int_equal(device_described(f, function.device).attachment, ATTACHMENT_BLOCKED);
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_DISABLED);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_OK);
	assert_int_equal(function_write_byte(&function, DMA_BASE + MEMORY_BYTES), EMULATED_DMA_OK);
	function_free(&function);
}

/* What it kept in use so that it cannot be destroyed shows nothing: not what is still the guest's,
 * nor what no longer is and was given back in the ledger. */
static void test_relaxed_of_a_defiant_vmm(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	static struct iommu_backend_ops ops;

	ops = *f->backend->ops;
	defiant.ops = f->backend->ops;
	ops.attach = defiant_attach;
	ops.detach = defiant_detach;
	f->backend->ops = &ops;
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_OK);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_BLOCKED, 0));
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_NOT_MAPPED);
	assert_done(f, memory_unmap_one(f, 0, MEMORY_BYTES - 1));
	assert_int_equal(host_usage(f, LEDGER_PINNED_BYTES).current, 0);
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_NOT_MAPPED);
	/* Or each turn of this would leave one more in the kernel. */
	assert_refused(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0),
		       REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "DOMAIN_STILL_ATTACHED");
	f->backend->ops = defiant.ops;
	assert_refused(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0),
		       REFUSAL_PRECONDITION);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_BLOCKED, 0));
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	function_free(&function);
}

static void test_relaxed_not_granted(void **state)
{
	const struct broker_device_rule rule = {.by_name = true};
	struct fixture f;
	struct function function;

	device_rules_init(&f, &rule, 1);
	function = function_bind(&f, 1);
	assert_refused(&f, device_attach_to(&f, function.device, ATTACHMENT_RELAXED, 0),
		       REFUSAL_DENIED);
	assert_string_equal(f.refusal.reason, "RELAXED_NOT_GRANTED");
	function_free(&function);
	fixture_deinit(&f);
}

static void test_attach_in_reset(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	/* For a moment only: it waits. */
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_ATTACH, 1, EBUSY);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_BLOCKED, 0));
	iommu_emulated_fail_every(f->backend, IOMMU_EMULATED_ATTACH, EBUSY);
	assert_refused(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0),
		       REFUSAL_BUSY);
	assert_true(f->refusal.retry_after_ms > 0);
	iommu_emulated_fail_every(f->backend, 0, 0);
	assert_int_equal(device_described(f, function.device).attachment, ATTACHMENT_BLOCKED);
	function_free(&function);
}

static void test_block_that_fails(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0));
	/* Once is tried again. */
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_DETACH, 1, EIO);
	assert_done(f, device_attach_to(f, function.device, ATTACHMENT_BLOCKED, 0));
	iommu_emulated_fail_every(f->backend, IOMMU_EMULATED_DETACH, EIO);
	assert_refused(f, device_attach_to(f, function.device, ATTACHMENT_BLOCKED, 0),
		       REFUSAL_HOST);
	iommu_emulated_fail_every(f->backend, 0, 0);
	function_free(&function);
}

static void test_close(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	struct nested_created created =
		nested_make_managed(f, function.device, DMA_BASE, DMA_LAST, true);

	assert_int_equal(created.verdict, VERDICT_DONE);
	device_close_as(f, function.device, true); /* by the VMM's descriptor */
	assert_int_equal(function_write_byte(&function, DMA_BASE), EMULATED_DMA_DISABLED);
	assert_int_equal(host_usage(f, LEDGER_NESTED).current, 0);
	assert_int_equal(host_usage(f, LEDGER_MAPPINGS).current, 0);
	assert_int_equal(host_usage(f, LEDGER_DEVICES).current, 0);
	function_free(&function);
	function = function_bind(f, 1);
	function_free(&function);
	device_close_as(f, function.device, false);
}

/* Another session of the same user sees nothing of it. */
static void test_other_sessions(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);
	struct session *other = session_make(f);
	struct device_description description;
	struct range_result walk;
	bool held;
	int fd;

	assert_refused(
		f, device_describe(f->broker, other, function.device, &description, &f->refusal),
		REFUSAL_NOT_FOUND);
	assert_refused(f,
		       device_attach(f->broker, other, function.device, ATTACHMENT_RELAXED, 0,
				     &walk, &f->refusal),
		       REFUSAL_NOT_FOUND);
	assert_refused(f, device_descriptor(f->broker, other, function.device, &fd, &f->refusal),
		       REFUSAL_NOT_FOUND);
	assert_refused(f, device_close(f->broker, other, function.device, &held, &f->refusal),
		       REFUSAL_NOT_FOUND);
	assert_refused(f, guest_destroy(f->broker, other, f->guest, &f->refusal),
		       REFUSAL_NOT_FOUND);
	/* A handle of another type is none. */
	assert_refused(f, guest_destroy(f->broker, f->session, function.device, &f->refusal),
		       REFUSAL_NOT_FOUND);
	assert_null(broker_lane(f->broker, other, function.device));
	session_unref(other);
	function_free(&function);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, device_setup, device_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_parent_is_refused),
		TEST(test_parent),
		TEST(test_parent_with_another_page_table),
		TEST(test_relaxed),
		TEST(test_relaxed_cannot_follow),
		TEST(test_relaxed_cannot_follow_a_replacement),
		TEST(test_relaxed_that_cannot_be_filled),
		TEST(test_relaxed_of_a_defiant_vmm),
		cmocka_unit_test(test_relaxed_not_granted),
		TEST(test_attach_in_reset),
		TEST(test_block_that_fails),
		TEST(test_close),
		TEST(test_other_sessions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
