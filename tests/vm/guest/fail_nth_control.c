/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See fail_nth_control.h. */

#include "fail_nth_control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "iommu/iommufd/uapi.h"

#define DEBUGFS "/sys/kernel/debug"
#define PRELOAD "/usr/lib/iommubroker-tests/fail_nth_preload.so"

static char path[64];

/* ── the kernel's settings ─────────────────────────────────────────────────────────────────── */

static bool setting_write(const char *attribute, const char *name, const char *value)
{
	char file[300];
	ssize_t n;
	int fd;

	snprintf(file, sizeof(file), DEBUGFS "/%s/%s", attribute, name);
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = write(fd, value, strlen(value));
	close(fd);
	return n == (ssize_t)strlen(value);
}

/* Every failure is logged with what failed, a line each; with its stack it would be thousands. */
static void be_brief(void)
{
	DIR *folder = opendir(DEBUGFS);
	struct dirent *entry;

	REQUIRE(folder != NULL);
	while ((entry = readdir(folder)) != NULL) {
		if (strncmp(entry->d_name, "fail", 4) != 0)
			continue;
		setting_write(entry->d_name, "verbose", "1");
		setting_write(entry->d_name, "verbose_ratelimit_interval_ms", "0");
	}
	closedir(folder);
}

void fail_nth_prepare(void)
{
	be_brief();
	/* By default only allocations that may not wait fail: hardly any of iommufd's. */
	REQUIRE(setting_write("failslab", "ignore-gfp-wait", "N"));
	REQUIRE(setting_write("fail_page_alloc", "ignore-gfp-wait", "N"));
	REQUIRE(setting_write("fail_page_alloc", "ignore-gfp-highmem", "N"));
	REQUIRE(setting_write("fail_page_alloc", "min-order", "0"));
}

/* ── the block ─────────────────────────────────────────────────────────────────────────────── */

struct fail_nth *fail_nth_new(const char *ret_environment[2])
{
	static char variable[96];
	struct fail_nth *control;
	int fd;

	snprintf(path, sizeof(path), "/tmp/iommubroker-fail-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	REQUIRE(fd >= 0);
	REQUIRE(fchmod(fd, 0666) == 0);
	REQUIRE(ftruncate(fd, sizeof(*control)) == 0);
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(control != MAP_FAILED);
	close(fd);
	snprintf(variable, sizeof(variable), "%s=%s", FAIL_NTH_FILE, path);
	ret_environment[0] = variable;
	ret_environment[1] = "LD_PRELOAD=" PRELOAD;
	return control;
}

struct fail_nth *fail_nth_free(struct fail_nth *control)
{
	munmap(control, sizeof(*control));
	unlink(path);
	return NULL;
}

void fail_nth_arm(struct fail_nth *control, uint32_t call, uint32_t request, uint32_t nth)
{
	atomic_store(&control->counting, 0);
	control->call = call;
	control->request = request;
	control->nth = nth;
	control->last_request = 0;
	control->last_error = 0;
	atomic_store(&control->calls, 0);
	atomic_store(&control->aimed, 0);
	atomic_store(&control->injected, 0);
	atomic_store(&control->counting, 1);
}

void fail_nth_disarm(struct fail_nth *control)
{
	atomic_store(&control->counting, 0);
}

/* ── names ─────────────────────────────────────────────────────────────────────────────────── */

#define NAMED(name)                \
	{                          \
		UAPI_##name, #name \
	}

static const struct {
	uint64_t request;
	const char *name;
} names[] = {
	{FAIL_NTH_OPEN, "open"},
	{FAIL_NTH_CLOSE, "close"},
	{FAIL_NTH_MMAP, "mmap"},
	NAMED(IOMMU_DESTROY),
	NAMED(IOMMU_IOAS_ALLOC),
	NAMED(IOMMU_IOAS_IOVA_RANGES),
	NAMED(IOMMU_IOAS_MAP),
	NAMED(IOMMU_IOAS_COPY),
	NAMED(IOMMU_IOAS_UNMAP),
	NAMED(IOMMU_OPTION),
	NAMED(IOMMU_VFIO_IOAS),
	NAMED(IOMMU_HWPT_ALLOC),
	NAMED(IOMMU_GET_HW_INFO),
	NAMED(IOMMU_IOAS_MAP_FILE),
	NAMED(IOMMU_IOAS_CHANGE_PROCESS),
	NAMED(VFIO_IOMMU_GET_INFO),
	NAMED(VFIO_IOMMU_UNMAP_DMA),
	NAMED(VFIO_DEVICE_GET_INFO),
	NAMED(VFIO_DEVICE_GET_REGION_INFO),
	NAMED(VFIO_DEVICE_RESET),
	NAMED(VFIO_DEVICE_BIND),
	NAMED(VFIO_DEVICE_ATTACH),
	NAMED(VFIO_DEVICE_DETACH),
};

const char *request_name(uint32_t request)
{
	static char number[16];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if ((uint32_t)names[i].request == request)
			return names[i].name;
	snprintf(number, sizeof(number), "%#x", request);
	return number;
}
