/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_DEVICE_FIXTURE_H
#define IB_TESTS_DEVICE_FIXTURE_H

/* A guest with memory, and the calls about devices in short. */

#include "broker_fixture.h"

int device_setup(void **state);
int device_teardown(void **state);
int device_open_fid(struct fixture *f, uint32_t fid, uint64_t *ret, int *ret_fd);
int device_open_pci(struct fixture *f, const char *address, uint64_t *ret, int *ret_fd);
int device_open_passed(struct fixture *f, int consume_fd, uint64_t *ret, int *ret_fd);
void device_close_as(struct fixture *f, uint64_t device, bool expect_held);
int device_bind_plain(struct fixture *f, uint64_t device);
struct device_description device_described(struct fixture *f, uint64_t device);
int device_attach_to(struct fixture *f, uint64_t device, enum attachment to, uint64_t nested);
enum emulated_dma_reason function_write_byte(struct function *function, uint64_t iova);
void device_rules_init(struct fixture *f, const struct broker_device_rule *rules, size_t n);

#endif
