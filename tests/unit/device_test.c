/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Devices: who may open which, bind and what it undoes. */
#include "device_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker_invariant.h"

/* ── rules ─────────────────────────────────────────────────────────────────────────────────── */

static void assert_no_rule(struct fixture *f, int status)
{
	assert_refused(f, status, REFUSAL_DENIED);
	assert_string_equal(f->refusal.reason, "NO_DEVICE_RULE");
	assert_int_equal(host_usage(f, LEDGER_DEVICES).current, 0);
}

static void test_no_rules(void **state)
{
	struct fixture f;
	uint64_t device;
	int fd;

	device_rules_init(&f, NULL, 0);
	assert_no_rule(&f, device_open_fid(&f, 1, &device, &fd));
	assert_no_rule(&f, device_open_fid(&f, 99, &device, &fd)); /* nor that it does not exist */
	assert_no_rule(&f, device_open_pci(&f, "0000:00:01.0", &device, &fd));
	fixture_deinit(&f);
}

static void test_rule_by_fid(void **state)
{
	const struct broker_device_rule rules[] = {
		{.users = {getuid() + 1}, .n_users = 1, .by_name = true, .relaxed = true},
		{.users = {getuid()},
		 .n_users = 1,
		 .by_name = true,
		 .fids = {{2, 2}},
		 .n_fids = 1,
		 .where = "here:1"},
		{.by_name = true, .fids = {{3, 3}}, .n_fids = 1, .relaxed = true},
	};
	struct fixture f;
	uint64_t device;
	int fd;

	device_rules_init(&f, rules, 3);
	assert_no_rule(&f, device_open_fid(&f, 1, &device, &fd));
	assert_done(&f, device_open_fid(&f, 2, &device, &fd));
	assert_false(device_described(&f, device).relaxed_granted);
	close(fd);
	device_close_as(&f, device, false);
	assert_done(&f, device_open_fid(&f, 3, &device, &fd));
	assert_true(device_described(&f, device).relaxed_granted);
	close(fd);
	device_close_as(&f, device, false);
	/* By its other name: the opened device tells. */
	assert_done(&f, device_open_pci(&f, "0000:00:02.0", &device, &fd));
	close(fd);
	device_close_as(&f, device, false);
	assert_no_rule(&f, device_open_pci(&f, "0000:00:01.0", &device, &fd));
	assert_no_rule(&f, device_open_pci(&f, "0000:00:1f.0", &device, &fd)); /* there is none */
	/* What was opened to look is closed: its rightful user gets it. */
	fixture_deinit(&f);
}

static void test_rule_by_address(void **state)
{
	const struct broker_device_rule rules[] = {
		{.by_name = true, .addresses = {"0000:00:04.0"}, .n_addresses = 1},
		{.users = {getuid()}, .n_users = 1, .by_name = true, .relaxed = true},
	};
	struct fixture f;
	uint64_t device;
	int fd;

	device_rules_init(&f, rules, 2);
	assert_done(&f, device_open_fid(&f, 4, &device, &fd));
	assert_false(
		device_described(&f, device).relaxed_granted); /* the first that matches wins */
	close(fd);
	device_close_as(&f, device, false);
	assert_done(&f, device_open_fid(&f, 5, &device, &fd));
	assert_true(device_described(&f, device).relaxed_granted);
	close(fd);
	fixture_deinit(&f);
}

static void test_passed_descriptors(void **state)
{
	const struct broker_device_rule allowed[] = {
		{.by_name = true, .fids = {{1, 1}}, .n_fids = 1, .passed_descriptor = true},
		{.by_name = true},
	};
	struct fixture f;
	struct function function;
	uint64_t device;
	int fd;

	device_rules_init(&f, &allowed[1], 1);
	function = function_open(&f, 1);
	device_close_as(&f, function.device, false);
	assert_no_rule(&f, device_open_passed(&f, function.fd, &device, &fd));
	assert_int_equal(fcntl(function.fd, F_GETFD), -1); /* consumed */
	fixture_deinit(&f);

	device_rules_init(&f, allowed, 2);
	function = function_open(&f, 1);
	device_close_as(&f, function.device, false);
	assert_done(&f, device_open_passed(&f, function.fd, &device, &fd));
	close(fd);
	device_close_as(&f, device, false);
	function = function_open(&f, 2);
	device_close_as(&f, function.device, false);
	assert_refused(&f, device_open_passed(&f, function.fd, &device, &fd), REFUSAL_DENIED);
	assert_string_equal(f.refusal.reason, "DESCRIPTOR_DENIED");
	assert_refused(&f, device_open_passed(&f, memfd_filled(PAGE, NULL), &device, &fd),
		       REFUSAL_INVALID);
	assert_string_equal(f.refusal.field, "descriptor");
	fixture_deinit(&f);
}

/* ── open and bind ─────────────────────────────────────────────────────────────────────────── */

static void test_open(void **state)
{
	struct fixture *f = *state;
	struct device_description description;
	struct function function;
	uint64_t device;
	int fd = -1;

	assert_refused(f, device_open_fid(f, 99, &device, &fd), REFUSAL_NOT_FOUND);
	function = function_open(f, 1);
	assert_refused(f, device_open_fid(f, 1, &device, &fd), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "DEVICE_IN_USE");
	assert_int_equal(host_usage(f, LEDGER_DEVICES).current, 1);
	description = device_described(f, function.device);
	assert_false(description.bound);
	assert_int_equal(description.attachment, ATTACHMENT_BLOCKED);
	assert_int_equal(description.info.fid, 1);
	assert_int_equal(description.info.dma_first, DMA_BASE);
	assert_int_equal(description.mappings_budget, 1 << 20);
	assert_true(description.relaxed_granted);
	assert_done(f, device_descriptor(f->broker, f->session, function.device, &fd, &f->refusal));
	assert_true(fd >= 0);
	close(fd);
	function_free(&function);
	device_close_as(f, function.device, false);
	assert_refused(f,
		       device_descriptor(f->broker, f->session, function.device, &fd, &f->refusal),
		       REFUSAL_NOT_FOUND);
}

static void test_bind(void **state)
{
	struct fixture *f = *state;
	struct function function = function_open(f, 1);
	struct device_description description;

	assert_refused(f, device_attach_to(f, function.device, ATTACHMENT_RELAXED, 0),
		       REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "DEVICE_UNBOUND");
	assert_done(f, device_bind_plain(f, function.device));
	assert_refused(f, device_bind_plain(f, function.device), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "DEVICE_BOUND");
	description = device_described(f, function.device);
	assert_true(description.bound);
	assert_int_not_equal(description.info.kernel_device_id, 0);
	assert_true(description.n_iova_ranges >= 1);
	function_free(&function);
	device_close_as(f, function.device, false);
}

static void test_bind_that_fails_can_be_tried_again(void **state)
{
	struct fixture *f = *state;
	struct function function = function_open(f, 1);

	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_BIND, 1, EINVAL);
	assert_refused(f, device_bind_plain(f, function.device), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "BIND_REFUSED");
	assert_done(f, device_bind_plain(f, function.device));
	function_free(&function);
}

/* The pins are undone, the memory map stays, the device has to be opened again. */
static void test_bind_that_cannot_pin(void **state)
{
	struct fixture *f = *state;
	struct function function = function_open(f, 1);
	struct guest_description *guest;

	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_MAP, 5, EFAULT);
	assert_refused(f, device_bind_plain(f, function.device), REFUSAL_HOST);
	assert_non_null(strstr(f->refusal.message, "the device was closed"));
	assert_refused(f, device_bind_plain(f, function.device), REFUSAL_NOT_FOUND);
	assert_done(f, guest_describe(f->broker, f->session, f->guest, &guest, &f->refusal));
	assert_false(guest->summary.pinned);
	assert_int_equal(guest->n_devices, 0);
	assert_int_equal(guest->n_regions, 1);
	guest_description_free(guest);
	assert_int_equal(host_usage(f, LEDGER_PINNED_BYTES).current, MEMORY_BYTES);
	assert_ledger_is_held(f->broker);
	function_free(&function);
	function = function_bind(f, 1);
	function_free(&function);
}

struct stopping {
	struct operation operation;
	unsigned int calls;
};

static void stop_at_the_third(struct operation *operation, uint64_t done, uint64_t total)
{
	struct stopping *stopping = (struct stopping *)operation;

	assert_int_equal(total, MEMORY_BYTES);
	assert_int_equal(done, ++stopping->calls * MIB);
	operation->cancelled = stopping->calls == 3;
}

static void test_bind_is_cancelled(void **state)
{
	struct fixture *f = *state;
	struct function function = function_open(f, 1);
	struct stopping stopping = {.operation = {.progress = stop_at_the_third}};
	struct device_description description;

	assert_refused(f,
		       device_bind(f->broker, f->session, function.device, NULL,
				   &stopping.operation, &description, &f->refusal),
		       REFUSAL_CANCELLED);
	assert_int_equal(stopping.calls, 3);
	function_free(&function);
	function = function_bind(f, 1);
	function_free(&function);
}

/* The second device pins nothing more. */
static void test_second_device(void **state)
{
	struct fixture *f = *state;
	struct function one = function_bind(f, 1), two;

	iommu_emulated_fail_every(f->backend, IOMMU_EMULATED_MAP, EIO);
	two = function_bind(f, 2);
	iommu_emulated_fail_every(f->backend, 0, 0);
	assert_int_equal(host_usage(f, LEDGER_PINNED_BYTES).current, MEMORY_BYTES);
	device_close_as(f, one.device, true);
	function_free(&one);
	assert_done(f, device_attach_to(f, two.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(function_write_byte(&two, DMA_BASE), EMULATED_DMA_OK);
	function_free(&two);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, device_setup, device_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_rules),
		cmocka_unit_test(test_rule_by_fid),
		cmocka_unit_test(test_rule_by_address),
		cmocka_unit_test(test_passed_descriptors),
		TEST(test_open),
		TEST(test_bind),
		TEST(test_bind_that_fails_can_be_tried_again),
		TEST(test_bind_that_cannot_pin),
		TEST(test_bind_is_cancelled),
		TEST(test_second_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
