/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device_fixture.h"

#include <stdio.h>
#include <string.h>

int device_setup(void **state)
{
	static struct fixture f;
	struct broker_settings settings = settings_default();

	fixture_init_guest(&f, &settings);
	*state = &f;
	return 0;
}

int device_teardown(void **state)
{
	fixture_deinit(*state);
	return 0;
}

int device_open_fid(struct fixture *f, uint32_t fid, uint64_t *ret, int *ret_fd)
{
	const struct device_open_request request = {
		.consume_fd = -1,
		.address = {.by_fid = true, .fid = fid},
	};

	return device_open(f->broker, f->session, f->guest, &request, ret, ret_fd, &f->refusal);
}

int device_open_pci(struct fixture *f, const char *address, uint64_t *ret, int *ret_fd)
{
	struct device_open_request request = {.consume_fd = -1};

	snprintf(request.address.pci_address, sizeof(request.address.pci_address), "%s", address);
	return device_open(f->broker, f->session, f->guest, &request, ret, ret_fd, &f->refusal);
}

int device_open_passed(struct fixture *f, int consume_fd, uint64_t *ret, int *ret_fd)
{
	const struct device_open_request request = {
		.by_descriptor = true,
		.consume_fd = consume_fd,
	};

	return device_open(f->broker, f->session, f->guest, &request, ret, ret_fd, &f->refusal);
}

void device_close_as(struct fixture *f, uint64_t device, bool expect_held)
{
	bool held = !expect_held;

	assert_done(f, device_close(f->broker, f->session, device, &held, &f->refusal));
	assert_int_equal(held, expect_held);
}

int device_bind_plain(struct fixture *f, uint64_t device)
{
	struct device_description description;

	return device_bind(f->broker, f->session, device, NULL, NULL, &description, &f->refusal);
}

struct device_description device_described(struct fixture *f, uint64_t device)
{
	struct device_description description;

	assert_done(f, device_describe(f->broker, f->session, device, &description, &f->refusal));
	return description;
}

int device_attach_to(struct fixture *f, uint64_t device, enum attachment to, uint64_t nested)
{
	struct range_result walk;

	return device_attach(f->broker, f->session, device, to, nested, &walk, &f->refusal);
}

enum emulated_dma_reason function_write_byte(struct function *function, uint64_t iova)
{
	return emulated_dma_write(function->dma, iova, "x", 1, NULL);
}

void device_rules_init(struct fixture *f, const struct broker_device_rule *rules, size_t n)
{
	struct broker_settings settings = settings_default();

	settings.open_devices = false;
	settings.device_rules = rules;
	settings.n_device_rules = n;
	fixture_init_guest(f, &settings);
}
