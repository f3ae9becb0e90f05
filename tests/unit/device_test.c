/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Devices: who may open which, bind and what it undoes, what they are attached to, close. */
#include "broker_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker_invariant.h"

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int setup(void **state)
{
	static struct fixture f;
	struct broker_settings settings = settings_default();

	fixture_init_guest(&f, &settings);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_deinit(*state);
	return 0;
}

static int open_fid(struct fixture *f, uint32_t fid, uint64_t *ret, int *ret_fd)
{
	const struct device_open_request request = {
		.consume_fd = -1,
		.address = {.by_fid = true, .fid = fid},
	};

	return device_open(f->broker, f->session, f->guest, &request, ret, ret_fd, &f->refusal);
}

static int open_pci(struct fixture *f, const char *address, uint64_t *ret, int *ret_fd)
{
	struct device_open_request request = {.consume_fd = -1};

	snprintf(request.address.pci_address, sizeof(request.address.pci_address), "%s", address);
	return device_open(f->broker, f->session, f->guest, &request, ret, ret_fd, &f->refusal);
}

static int open_passed(struct fixture *f, int consume_fd, uint64_t *ret, int *ret_fd)
{
	const struct device_open_request request = {
		.by_descriptor = true,
		.consume_fd = consume_fd,
	};

	return device_open(f->broker, f->session, f->guest, &request, ret, ret_fd, &f->refusal);
}

static void close_device(struct fixture *f, uint64_t device, bool expect_held)
{
	bool held = !expect_held;

	assert_done(f, device_close(f->broker, f->session, device, &held, &f->refusal));
	assert_int_equal(held, expect_held);
}

static int bind_device(struct fixture *f, uint64_t device)
{
	struct device_description description;

	return device_bind(f->broker, f->session, device, NULL, NULL, &description, &f->refusal);
}

static struct device_description describe(struct fixture *f, uint64_t device)
{
	struct device_description description;

	assert_done(f, device_describe(f->broker, f->session, device, &description, &f->refusal));
	return description;
}

static int attach(struct fixture *f, uint64_t device, enum attachment to, uint64_t nested)
{
	struct range_result walk;

	return device_attach(f->broker, f->session, device, to, nested, &walk, &f->refusal);
}

static enum emulated_dma_reason dma_write_byte(struct function *function, uint64_t iova)
{
	return emulated_dma_write(function->dma, iova, "x", 1, NULL);
}

/* ── rules ─────────────────────────────────────────────────────────────────────────────────── */

static void rules_setup(struct fixture *f, const struct broker_device_rule *rules, size_t n)
{
	struct broker_settings settings = settings_default();

	settings.open_devices = false;
	settings.device_rules = rules;
	settings.n_device_rules = n;
	fixture_init_guest(f, &settings);
}

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

	rules_setup(&f, NULL, 0);
	assert_no_rule(&f, open_fid(&f, 1, &device, &fd));
	assert_no_rule(&f, open_fid(&f, 99, &device, &fd)); /* nor that it does not exist */
	assert_no_rule(&f, open_pci(&f, "0000:00:01.0", &device, &fd));
	fixture_deinit(&f);
}

static void test_rule_by_fid(void **state)
{
	const struct broker_device_rule rules[] = {
		{.uid = getuid() + 1, .any_function = true, .relaxed = true},
		{.uid = getuid(), .by_fid = true, .fid = 2, .where = "here:1"},
		{.any_user = true, .by_fid = true, .fid = 3, .relaxed = true},
	};
	struct fixture f;
	uint64_t device;
	int fd;

	rules_setup(&f, rules, 3);
	assert_no_rule(&f, open_fid(&f, 1, &device, &fd));
	assert_done(&f, open_fid(&f, 2, &device, &fd));
	assert_false(describe(&f, device).relaxed_granted);
	close(fd);
	close_device(&f, device, false);
	assert_done(&f, open_fid(&f, 3, &device, &fd));
	assert_true(describe(&f, device).relaxed_granted);
	close(fd);
	close_device(&f, device, false);
	/* By its other name: the opened device tells. */
	assert_done(&f, open_pci(&f, "0000:00:02.0", &device, &fd));
	close(fd);
	close_device(&f, device, false);
	assert_no_rule(&f, open_pci(&f, "0000:00:01.0", &device, &fd));
	assert_no_rule(&f, open_pci(&f, "0000:00:1f.0", &device, &fd)); /* there is none */
	/* What was opened to look is closed: its rightful user gets it. */
	fixture_deinit(&f);
}

static void test_rule_by_address(void **state)
{
	const struct broker_device_rule rules[] = {
		{.uid = getuid(), .pci_address = "0000:00:04.0"},
		{.uid = getuid(), .any_function = true, .relaxed = true},
	};
	struct fixture f;
	uint64_t device;
	int fd;

	rules_setup(&f, rules, 2);
	assert_done(&f, open_fid(&f, 4, &device, &fd));
	assert_false(describe(&f, device).relaxed_granted); /* the first that matches wins */
	close(fd);
	close_device(&f, device, false);
	assert_done(&f, open_fid(&f, 5, &device, &fd));
	assert_true(describe(&f, device).relaxed_granted);
	close(fd);
	fixture_deinit(&f);
}

static void test_passed_descriptors(void **state)
{
	const struct broker_device_rule allowed[] = {
		{.uid = getuid(), .by_fid = true, .fid = 1, .passed_descriptor = true},
		{.uid = getuid(), .any_function = true},
	};
	struct fixture f;
	struct function function;
	uint64_t device;
	int fd;

	rules_setup(&f, &allowed[1], 1);
	function = function_open(&f, 1);
	close_device(&f, function.device, false);
	assert_no_rule(&f, open_passed(&f, function.fd, &device, &fd));
	assert_int_equal(fcntl(function.fd, F_GETFD), -1); /* consumed */
	fixture_deinit(&f);

	rules_setup(&f, allowed, 2);
	function = function_open(&f, 1);
	close_device(&f, function.device, false);
	assert_done(&f, open_passed(&f, function.fd, &device, &fd));
	close(fd);
	close_device(&f, device, false);
	function = function_open(&f, 2);
	close_device(&f, function.device, false);
	assert_no_rule(&f, open_passed(&f, function.fd, &device, &fd));
	assert_refused(&f, open_passed(&f, memfd_filled(PAGE, NULL), &device, &fd),
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

	assert_refused(f, open_fid(f, 99, &device, &fd), REFUSAL_NOT_FOUND);
	function = function_open(f, 1);
	assert_refused(f, open_fid(f, 1, &device, &fd), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "DEVICE_IN_USE");
	assert_int_equal(host_usage(f, LEDGER_DEVICES).current, 1);
	description = describe(f, function.device);
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
	close_device(f, function.device, false);
	assert_refused(f,
		       device_descriptor(f->broker, f->session, function.device, &fd, &f->refusal),
		       REFUSAL_NOT_FOUND);
}

static void test_bind(void **state)
{
	struct fixture *f = *state;
	struct function function = function_open(f, 1);
	struct device_description description;

	assert_refused(f, attach(f, function.device, ATTACHMENT_RELAXED, 0), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "DEVICE_UNBOUND");
	assert_done(f, bind_device(f, function.device));
	assert_refused(f, bind_device(f, function.device), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "DEVICE_BOUND");
	description = describe(f, function.device);
	assert_true(description.bound);
	assert_int_not_equal(description.info.kernel_device_id, 0);
	assert_true(description.n_iova_ranges >= 1);
	function_free(&function);
	close_device(f, function.device, false);
}

static void test_bind_that_fails_can_be_tried_again(void **state)
{
	struct fixture *f = *state;
	struct function function = function_open(f, 1);

	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_BIND, 1, EINVAL);
	assert_refused(f, bind_device(f, function.device), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "BIND_REFUSED");
	assert_done(f, bind_device(f, function.device));
	function_free(&function);
}

/* The pins are undone, the memory map stays, the device has to be opened again. */
static void test_bind_that_cannot_pin(void **state)
{
	struct fixture *f = *state;
	struct function function = function_open(f, 1);
	struct guest_description *guest;

	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_MAP, 5, EFAULT);
	assert_refused(f, bind_device(f, function.device), REFUSAL_HOST);
	assert_non_null(strstr(f->refusal.message, "the device was closed"));
	assert_refused(f, bind_device(f, function.device), REFUSAL_NOT_FOUND);
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
	close_device(f, one.device, true);
	function_free(&one);
	assert_done(f, attach(f, two.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(dma_write_byte(&two, DMA_BASE), EMULATED_DMA_OK);
	function_free(&two);
}

/* ── attached to what ──────────────────────────────────────────────────────────────────────── */

/* On s390 guest memory lies below the start of DMA. */
static void test_parent_is_refused(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_refused(f, attach(f, function.device, ATTACHMENT_PARENT, 0), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "RESERVED_ADDRESSES");
	assert_int_equal(describe(f, function.device).attachment, ATTACHMENT_BLOCKED);
	function_free(&function);
}

static void test_parent(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_done(f, memory_unmap_one(f, 0, UINT64_MAX));
	assert_done(f, memory_map_one(f, f->memory_file, 0, DMA_BASE, MIB, true));
	assert_done(f, attach(f, function.device, ATTACHMENT_PARENT, 0));
	assert_int_equal(describe(f, function.device).attachment, ATTACHMENT_PARENT);
	assert_int_equal(dma_write_byte(&function, DMA_BASE + 9), EMULATED_DMA_OK);
	assert_int_equal(f->memory[9], 'x');
	assert_done(f, attach(f, function.device, ATTACHMENT_BLOCKED, 0));
	assert_int_equal(dma_write_byte(&function, DMA_BASE), EMULATED_DMA_BLOCKED);
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
	assert_done(f, attach(f, function.device, ATTACHMENT_PARENT, 0));
	assert_int_equal(dma_write_byte(&function, DMA_BASE + 9), EMULATED_DMA_OK);
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
	assert_done(f, attach(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(dma_write_byte(&function, DMA_BASE + 4097), EMULATED_DMA_OK);
	assert_int_equal(f->memory[4097], 'x');
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES),
			 EMULATED_DMA_NOT_MAPPED);
	/* It follows the guest's memory, there and back, in parts too. */
	assert_done(f, memory_map_granule(f, file, 0, MEMORY_BYTES, MIB, 64 * KIB));
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES + 70000),
			 EMULATED_DMA_OK);
	assert_int_equal(host[70000], 'x');
	assert_done(f, memory_unmap_one(f, MEMORY_BYTES + 64 * KIB, MEMORY_BYTES + 128 * KIB - 1));
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES + 70000),
			 EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES), EMULATED_DMA_OK);
	assert_done(f, attach(f, function.device, ATTACHMENT_BLOCKED, 0));
	assert_int_equal(dma_write_byte(&function, DMA_BASE), EMULATED_DMA_BLOCKED);
	assert_done(f, attach(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(dma_write_byte(&function, DMA_BASE), EMULATED_DMA_OK);
	function_free(&function);
	close(fd);
}

/* Memory that a relaxed mapping cannot follow does not come at all. */
static void test_relaxed_cannot_follow(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_done(f, attach(f, function.device, ATTACHMENT_RELAXED, 0));
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_COPY, 2, ENOSPC);
	assert_refused(f, memory_map_one(f, f->memory_file, 0, MEMORY_BYTES, 4 * MIB, true),
		       REFUSAL_HOST);
	assert_int_equal(host_usage(f, LEDGER_PINNED_BYTES).current, MEMORY_BYTES);
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES),
			 EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(dma_write_byte(&function, DMA_BASE), EMULATED_DMA_OK);
	assert_done(f, memory_map_one(f, f->memory_file, 0, MEMORY_BYTES, 4 * MIB, true));
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES), EMULATED_DMA_OK);
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
	assert_done(f, attach(f, function.device, ATTACHMENT_RELAXED, 0));
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
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES + 8), EMULATED_DMA_OK);
	assert_int_equal(f->memory[8], 'x');
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES + 2 * MIB),
			 EMULATED_DMA_NOT_MAPPED);
	assert_ledger_is_held(f->broker);
	assert_done(f, memory_update(f->broker, f->session, f->guest, request, NULL, &updated,
				     &f->refusal));
	assert_int_equal(dma_write_byte(&function, DMA_BASE + MEMORY_BYTES + 8), EMULATED_DMA_OK);
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
	assert_done(f, attach(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_int_equal(dma_write_byte(&function, DMA_BASE), EMULATED_DMA_OK);
	assert_done(f, attach(f, function.device, ATTACHMENT_BLOCKED, 0));
	assert_int_equal(dma_write_byte(&function, DMA_BASE), EMULATED_DMA_NOT_MAPPED);
	assert_done(f, memory_unmap_one(f, 0, MEMORY_BYTES - 1));
	assert_int_equal(host_usage(f, LEDGER_PINNED_BYTES).current, 0);
	assert_int_equal(dma_write_byte(&function, DMA_BASE), EMULATED_DMA_NOT_MAPPED);
	f->backend->ops = defiant.ops;
	function_free(&function);
}

static void test_relaxed_not_granted(void **state)
{
	const struct broker_device_rule rule = {.any_user = true, .any_function = true};
	struct fixture f;
	struct function function;

	rules_setup(&f, &rule, 1);
	function = function_bind(&f, 1);
	assert_refused(&f, attach(&f, function.device, ATTACHMENT_RELAXED, 0), REFUSAL_DENIED);
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
	assert_done(f, attach(f, function.device, ATTACHMENT_RELAXED, 0));
	assert_done(f, attach(f, function.device, ATTACHMENT_BLOCKED, 0));
	iommu_emulated_fail_every(f->backend, IOMMU_EMULATED_ATTACH, EBUSY);
	assert_refused(f, attach(f, function.device, ATTACHMENT_RELAXED, 0), REFUSAL_BUSY);
	assert_true(f->refusal.retry_after_ms > 0);
	iommu_emulated_fail_every(f->backend, 0, 0);
	assert_int_equal(describe(f, function.device).attachment, ATTACHMENT_BLOCKED);
	function_free(&function);
}

static void test_block_that_fails(void **state)
{
	struct fixture *f = *state;
	struct function function = function_bind(f, 1);

	assert_done(f, attach(f, function.device, ATTACHMENT_RELAXED, 0));
	/* Once is tried again. */
	iommu_emulated_fail_nth(f->backend, IOMMU_EMULATED_DETACH, 1, EIO);
	assert_done(f, attach(f, function.device, ATTACHMENT_BLOCKED, 0));
	iommu_emulated_fail_every(f->backend, IOMMU_EMULATED_DETACH, EIO);
	assert_refused(f, attach(f, function.device, ATTACHMENT_BLOCKED, 0), REFUSAL_HOST);
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
	close_device(f, function.device, true); /* by the VMM's descriptor */
	assert_int_equal(dma_write_byte(&function, DMA_BASE), EMULATED_DMA_DISABLED);
	assert_int_equal(host_usage(f, LEDGER_NESTED).current, 0);
	assert_int_equal(host_usage(f, LEDGER_MAPPINGS).current, 0);
	assert_int_equal(host_usage(f, LEDGER_DEVICES).current, 0);
	function_free(&function);
	function = function_bind(f, 1);
	function_free(&function);
	close_device(f, function.device, false);
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
		TEST(test_parent_is_refused),
		TEST(test_parent),
		TEST(test_parent_with_another_page_table),
		TEST(test_relaxed),
		TEST(test_relaxed_cannot_follow),
		TEST(test_relaxed_cannot_follow_a_replacement),
		TEST(test_relaxed_of_a_defiant_vmm),
		cmocka_unit_test(test_relaxed_not_granted),
		TEST(test_attach_in_reset),
		TEST(test_block_that_fails),
		TEST(test_close),
		TEST(test_other_sessions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
