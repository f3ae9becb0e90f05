/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Runs the conformance suite on this machine's kernel:
 *
 *     conformance_iommufd PCI-ADDRESS [without-map-file]
 *
 * The function must be at the VFIO driver and belong to nobody. The DMA of a device that
 * tests/vm/guest/engine.h knows is used as a judge; of any other device only what the kernel itself
 * tells is judged. Exit status 77: no iommufd here. In a machine of tests/vm/run.sh, which is made
 * to have both, neither is an excuse.
 */

#include "conformance.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dma_engine.h"
#include "engine.h"
#include "iommu/iommufd/options.h"

#define EXIT_SKIPPED 77

/* Of the whole process, and so of its one context. */
static uint64_t pinned_pages(struct iommu_context *context)
{
	FILE *status = fopen("/proc/self/status", "r");
	unsigned long long kib = 0;
	char line[256];

	(void)context;
	dma_engine_hide();
	assert_non_null(status);
	while (fgets(line, sizeof(line), status)) {
		if (sscanf(line, "VmPin: %llu kB", &kib) == 1)
			break;
	}
	fclose(status);
	return kib * 1024 / PAGE;
}

/* As the daemon runs. Who may lock any memory is counted nowhere, and IOMMU_IOAS_CHANGE_PROCESS
 * then takes from what was never given: VmPin comes out below zero. */
static void drop_lock_privilege(void)
{
	const struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (setrlimit(RLIMIT_MEMLOCK, &limit) || syscall(SYS_capget, &header, data))
		return;
	data[0].effective &= ~(1u << CAP_IPC_LOCK);
	syscall(SYS_capset, &header, data);
}

static bool has_engine(const struct conformance_host *host)
{
	const struct iommu_backend_ops *ops = host->backend->ops;
	struct iommu_device_info info;
	struct iommu_device *device;
	int error = ops->device_open(host->backend, &host->device, &device);

	if (error) {
		fprintf(stderr, "%s: %s\n", host->device.pci_address, strerror(error));
		exit(EXIT_FAILURE);
	}
	error = ops->device_info(device, &info);
	ops->device_close(device);
	return !error && engine_knows(info.vendor, info.device);
}

static bool is_test_machine(void)
{
	return getenv("IB_VM_DEVICE") != NULL;
}

int main(int argc, char **argv)
{
	struct iommu_iommufd_options options = {
		.iommu_path = "/dev/iommu",
		.vfio_dir = "/dev/vfio",
		.sysfs = "/sys",
		.without_map_file = argc > 2 && !strcmp(argv[2], "without-map-file"),
		.open_wait_ns = IOMMU_IOMMUFD_OPEN_WAIT_NS,
	};
	struct conformance_host host = {.pinned_pages = pinned_pages};
	int failed, r;

	if (argc < 2 || strlen(argv[1]) >= sizeof(host.device.pci_address)) {
		fprintf(stderr, "usage: %s PCI-ADDRESS [without-map-file]\n", argv[0]);
		return 2;
	}
	strcpy(host.device.pci_address, argv[1]);
	drop_lock_privilege();
	r = iommu_iommufd_new_with(&host.backend, &options);
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", options.iommu_path, strerror(-r));
		return r == -ENOENT && !is_test_machine() ? EXIT_SKIPPED : EXIT_FAILURE;
	}
	if (has_engine(&host)) {
		host.dma = &dma_engine_ops;
		dma_engine_watch(host.backend);
	} else if (is_test_machine()) {
		fprintf(stderr, "%s: no DMA of this device is known\n", argv[1]);
		return EXIT_FAILURE;
	}
	failed = conformance_run(&host);
	host.backend->ops->free(host.backend);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
