/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Whether the judge can be believed: the engine of this machine's device (engine.h), bound and
 * mapped by the iommufd backend alone.
 *
 * The device is IB_VM_PCI. Mappings are made while it is attached: the function that QEMU emulates
 * on s390x learns only of those.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"
#include "iommu/backend.h"

#define PAGE           ENGINE_PAGE_BYTES
#define PAGES          16u
#define DATA           ENGINE_WORKSPACE_PAGES /* first page of the file that is not the workspace */
#define DATA_PAGES     (PAGES - DATA)
#define RW             (IOMMU_PROT_READ | IOMMU_PROT_WRITE)
#define WORKSPACE_IOVA (bench.first + (UINT64_C(1) << 20))
#define DATA_IOVA      (bench.first + (UINT64_C(32) << 20))

static struct {
	struct iommu_backend *backend;
	const struct iommu_backend_ops *ops;
	struct iommu_context *context;
	struct iommu_device *device;
	uint32_t ioas, page_table;
	uint64_t first; /* IOVA that the device reaches */
	int vmm_fd;
	struct iommu_file file;
	uint8_t *memory; /* its bytes */
	struct engine *engine;
} bench;

static void map(unsigned int page, unsigned int n, uint64_t iova, unsigned int prot)
{
	assert_int_equal(bench.ops->map_file(bench.context, bench.ioas, &bench.file, page * PAGE,
					     n * PAGE, iova, prot),
			 0);
}

static void unmap_all(void)
{
	uint64_t unmapped;

	assert_int_equal(bench.ops->unmap(bench.context, bench.ioas, 0, UINT64_MAX, &unmapped), 0);
}

static void map_workspace_alone(void)
{
	unmap_all();
	map(0, ENGINE_WORKSPACE_PAGES, WORKSPACE_IOVA, RW);
}

static void attach(void)
{
	assert_int_equal(bench.ops->attach(bench.device, bench.page_table), 0);
	map_workspace_alone();
}

/* What is mapped stays so. */
static void restart(void)
{
	assert_int_equal(engine_reset(bench.engine), 0);
	assert_int_equal(engine_start(bench.engine), 0);
}

static uint8_t *data(unsigned int page)
{
	return bench.memory + (DATA + page) * PAGE;
}

static void fill(uint8_t *at, size_t n, unsigned int seed)
{
	for (size_t i = 0; i < n; i++)
		at[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static void open_memory(void)
{
	int fd = memfd_create("engine", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, PAGES * PAGE), 0);
	bench.memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(bench.memory != MAP_FAILED);
	bench.file = (struct iommu_file){.fd = fd, .host = bench.memory, .bytes = PAGES * PAGE};
}

static void open_device(void)
{
	struct iommu_device_address address = {.by_fid = false};
	const char *name = getenv("IB_VM_PCI");
	struct iommu_device_info info;
	uint32_t id;

	assert_non_null(name);
	assert_true(strlen(name) < sizeof(address.pci_address));
	strcpy(address.pci_address, name);
	assert_int_equal(iommu_iommufd_new(&bench.backend, "/dev/iommu", "/dev/vfio", "/sys"), 0);
	bench.ops = bench.backend->ops;
	assert_int_equal(bench.ops->context_new(bench.backend, &bench.context), 0);
	assert_int_equal(bench.ops->device_open(bench.backend, &address, &bench.device), 0);
	assert_int_equal(bench.ops->device_bind(bench.device, bench.context, NULL, &id), 0);
	assert_int_equal(bench.ops->device_info(bench.device, &info), 0);
	bench.first = info.dma_first;
	assert_int_equal(bench.ops->device_descriptor(bench.device, &bench.vmm_fd), 0);
}

static int setup(void **state)
{
	struct engine_workspace workspace;

	open_memory();
	open_device();
	assert_int_equal(bench.ops->ioas_new(bench.context, false, &bench.ioas), 0);
	assert_int_equal(bench.ops->page_table_new(bench.context, bench.device, bench.ioas,
						   &bench.page_table),
			 0);
	attach();
	workspace = (struct engine_workspace){.iova = WORKSPACE_IOVA, .host = bench.memory};
	assert_int_equal(engine_open(&bench.engine, bench.vmm_fd, &workspace), 0);
	assert_int_equal(engine_start(bench.engine), 0);
	return 0;
}

static int teardown(void **state)
{
	bench.engine = engine_close(bench.engine);
	close(bench.vmm_fd);
	bench.ops->device_stop(bench.device);
	bench.ops->detach(bench.device);
	bench.ops->device_close(bench.device);
	bench.ops->context_free(bench.context);
	bench.ops->free(bench.backend);
	munmap(bench.memory, PAGES * PAGE);
	close(bench.file.fd);
	return 0;
}

static const struct {
	size_t at, n;
} parts[] = {{0, 8}, {8, 8}, {PAGE - 8, 8}, {0, PAGE}, {24, 512}, {1000, 2600}, {2048, 2048}};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

/* A write lands where it should, whole, and nowhere else. */
static void test_write(void **state)
{
	uint8_t bytes[PAGE], want[DATA_PAGES * PAGE];

	map(DATA, DATA_PAGES, DATA_IOVA, RW);
	for (unsigned int i = 0; i < PARTS; i++) {
		fill(data(0), sizeof(want), i);
		memcpy(want, data(0), sizeof(want));
		fill(bytes, sizeof(bytes), 100 + i);
		memcpy(want + PAGE + parts[i].at, bytes, parts[i].n);
		assert_int_equal(engine_write(bench.engine, DATA_IOVA + PAGE + parts[i].at, bytes,
					      parts[i].n),
				 0);
		assert_memory_equal(data(0), want, sizeof(want));
	}
}

static void test_read(void **state)
{
	uint8_t bytes[PAGE], before[DATA_PAGES * PAGE];

	map(DATA, DATA_PAGES, DATA_IOVA, IOMMU_PROT_READ);
	fill(data(0), sizeof(before), 3);
	memcpy(before, data(0), sizeof(before));
	for (unsigned int i = 0; i < PARTS; i++) {
		memset(bytes, 0xee, sizeof(bytes));
		assert_int_equal(engine_read(bench.engine, DATA_IOVA + PAGE + parts[i].at, bytes,
					     parts[i].n),
				 0);
		assert_memory_equal(bytes, before + PAGE + parts[i].at, parts[i].n);
		if (parts[i].n < PAGE)
			assert_int_equal(bytes[parts[i].n], 0xee);
	}
	assert_memory_equal(data(0), before, sizeof(before));
}

/* A write that must not reach memory; the device says so where it can. */
static void misses(uint64_t iova)
{
	uint8_t before[DATA_PAGES * PAGE];
	uint64_t word = UINT64_C(0x0123456789abcdef);
	int r;

	fill(data(0), sizeof(before), 9);
	memcpy(before, data(0), sizeof(before));
	r = engine_write(bench.engine, iova, &word, sizeof(word));
	assert_memory_equal(data(0), before, sizeof(before));
	if (strcmp(engine_name(bench.engine), "edu") != 0)
		assert_true(r == -EIO || r == -ETIMEDOUT);
}

static void lands(uint64_t iova, unsigned int page)
{
	static uint64_t word = UINT64_C(0x1111222233334444);
	uint64_t seen;

	word++;
	assert_int_equal(engine_write(bench.engine, iova, &word, sizeof(word)), 0);
	memcpy(&seen, data(page), sizeof(seen));
	assert_int_equal(seen, word);
}

static void test_not_mapped(void **state)
{
	map(DATA + 1, 1, DATA_IOVA + PAGE, RW);
	lands(DATA_IOVA + PAGE, 1);
	misses(DATA_IOVA);
	restart();
	lands(DATA_IOVA + PAGE, 1);
	misses(DATA_IOVA + 2 * (uint64_t)PAGE);
	restart();
	lands(DATA_IOVA + PAGE, 1);
}

static void test_unmapped(void **state)
{
	uint64_t unmapped;

	map(DATA, 1, DATA_IOVA, RW);
	lands(DATA_IOVA, 0);
	assert_int_equal(bench.ops->unmap(bench.context, bench.ioas, DATA_IOVA, PAGE, &unmapped),
			 0);
	misses(DATA_IOVA);
	restart();
}

static void test_read_only(void **state)
{
	uint64_t word = 77, seen = 0;

	map(DATA, 1, DATA_IOVA, IOMMU_PROT_READ);
	memcpy(data(0), &word, sizeof(word));
	assert_int_equal(engine_read(bench.engine, DATA_IOVA, &seen, sizeof(seen)), 0);
	assert_int_equal(seen, word);
	misses(DATA_IOVA);
	restart();
}

static void test_detached(void **state)
{
	assert_int_equal(bench.ops->detach(bench.device), 0);
	misses(DATA_IOVA);
	assert_int_equal(engine_reset(bench.engine), 0);
	attach();
	restart();
	map(DATA, 1, DATA_IOVA, RW);
	lands(DATA_IOVA, 0);
}

static void test_reset(void **state)
{
	uint64_t word = 1;

	map(DATA, 1, DATA_IOVA, RW);
	for (unsigned int i = 0; i < 5; i++) {
		assert_int_equal(engine_reset(bench.engine), 0);
		assert_int_equal(engine_write(bench.engine, DATA_IOVA, &word, 8), -EIO);
		restart();
		lands(DATA_IOVA, 0);
	}
}

/* Stopped right after an access that was blocked, when the kernel may still have the function in
 * its hands: the daemon does so when a VMM dies in the midst of it. */
static void test_stop_after_an_error(void **state)
{
	map(DATA, 1, DATA_IOVA, RW);
	for (unsigned int i = 0; i < 5; i++) {
		lands(DATA_IOVA, 0);
		misses(DATA_IOVA + PAGE);
		assert_int_equal(bench.ops->device_stop(bench.device), 0);
		assert_int_equal(engine_start(bench.engine), 0);
	}
	lands(DATA_IOVA, 0);
}

static void test_arguments(void **state)
{
	uint8_t bytes[2 * PAGE] = {0};

	assert_int_equal(engine_write(bench.engine, DATA_IOVA, bytes, 7), -EINVAL);
	assert_int_equal(engine_write(bench.engine, DATA_IOVA, bytes, PAGE + 1), -EINVAL);
	assert_int_equal(engine_write(bench.engine, DATA_IOVA + PAGE - 8, bytes, 9), -EINVAL);
	assert_int_equal(engine_read(bench.engine, DATA_IOVA, bytes, 0), -EINVAL);
	assert_int_equal(engine_read(bench.engine, DATA_IOVA + 1, bytes, PAGE), -EINVAL);
}

static void test_no_device(void **state)
{
	struct engine_workspace workspace = {.iova = WORKSPACE_IOVA, .host = bench.memory};
	struct engine *engine = NULL;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	assert_true(engine_open(&engine, fd, &workspace) < 0);
	assert_null(engine);
	close(fd);
}

/* Each case begins with a device that is ready, and the workspace mapped alone. */
static int case_setup(void **state)
{
	map_workspace_alone();
	restart();
	return 0;
}

int main(void)
{
#define ENGINE_TEST(name) cmocka_unit_test_setup(test_##name, case_setup)
	const struct CMUnitTest tests[] = {
		ENGINE_TEST(write),      ENGINE_TEST(read),
		ENGINE_TEST(not_mapped), ENGINE_TEST(unmapped),
		ENGINE_TEST(read_only),  ENGINE_TEST(detached),
		ENGINE_TEST(reset),      ENGINE_TEST(stop_after_an_error),
		ENGINE_TEST(arguments),  ENGINE_TEST(no_device),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
