/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The emulated backend's functions: several in one space, windows, device files of our own and of
 * clients. What all backends share is in conformance.c. */

#include "emulated_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iommu/emulated/layout.h"

static void two_devices_see_one_space(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1), b = function_new(f, 2);
	uint32_t table, ioas = space_new(f, &a, true, &table), other;
	uint64_t n;

	assert_int_equal(map(f, ioas, BASE, 0, 8), 0);
	assert_int_equal(dma_write(&b, BASE, 5), EMULATED_DMA_BLOCKED);
	assert_int_equal(f->ops->attach(b.device, table), 0);
	assert_int_equal(dma_write(&b, BASE, 5), EMULATED_DMA_OK);
	assert_int_equal(word_of(f, 0), 5);
	assert_int_equal(map(f, ioas, BASE + 64 * PAGE, 8, 8), 0);
	assert_int_equal(dma_write(&a, BASE + 64 * PAGE, 6), EMULATED_DMA_OK);
	assert_int_equal(dma_write(&b, BASE + 65 * PAGE, 7), EMULATED_DMA_OK);
	assert_int_equal(word_of(f, 8), 6);
	assert_int_equal(word_of(f, 9), 7);
	assert_int_equal(f->ops->cut(f->context, ioas, BASE + PAGE, PAGE, &n), 0);
	assert_int_equal(dma_write(&a, BASE + PAGE, 8), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(dma_write(&b, BASE + PAGE, 8), EMULATED_DMA_NOT_MAPPED);
	/* Either may leave without the other noticing. */
	other = space_new(f, &a, false, NULL);
	assert_int_equal(map(f, other, BASE + PAGE, 99, 1), 0);
	assert_int_equal(dma_write(&a, BASE + PAGE, 9), EMULATED_DMA_OK);
	assert_int_equal(word_of(f, 99), 9);
	assert_int_equal(dma_write(&a, BASE, 9), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(dma_write(&b, BASE + PAGE, 8), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(dma_write(&b, BASE, 10), EMULATED_DMA_OK);
	function_free(f, &a);
	assert_int_equal(map(f, ioas, BASE + 200 * PAGE, 3, 1), 0);
	assert_int_equal(dma_write(&b, BASE + 200 * PAGE, 11), EMULATED_DMA_OK);
	function_free(f, &b);
}

static void window_of_configured_functions(void **state)
{
	const struct iommu_emulated_function functions[] = {
		{.fid = 0x20,
		 .pci_address = "0001:00:00.0",
		 .vendor = 1,
		 .device = 2,
		 .dma_first = 0x200000,
		 .dma_last = 0x3fffff,
		 .designations = 4,
		 .refresh_required = true},
		{.fid = 0x21,
		 .pci_address = "0002:00:00.0",
		 .dma_first = 0x100000,
		 .dma_last = 0x4fffff},
	};
	struct iommu_device_address address = {.pci_address = "0001:00:00.0"};
	struct fixture *f = *state;
	struct fixture g = *f;
	struct iommu_device_info info;
	struct iommu_range range;
	struct function a, b;
	uint32_t table, ioas;
	size_t n;

	assert_int_equal(iommu_emulated_new(&g.backend, functions, 2), 0);
	assert_int_equal(g.ops->context_new(g.backend, &g.context), 0);
	assert_int_equal(g.ops->device_open(g.backend, &address, &a.device), 0);
	assert_int_equal(g.ops->device_info(a.device, &info), 0);
	assert_true(info.has_fid && info.fid == 0x20 && info.refresh_required);
	assert_int_equal(info.vendor, 1);
	assert_int_equal(info.device, 2);
	assert_int_equal(info.designations, 4);
	assert_int_equal(info.page_sizes, PAGE);
	assert_string_equal(info.pci_address, "0001:00:00.0");
	a = function_of(&g, a.device);
	b = function_new(&g, 0x21);
	ioas = space_new(&g, &b, false, &table);
	/* The union of what the attached devices reserve, and no table above any one's window. */
	assert_int_equal(map(&g, ioas, 0xff000, 0, 1), EINVAL);
	assert_int_equal(map(&g, ioas, 0x100000, 0, 1), 0);
	assert_int_equal(map(&g, ioas, 0x4ff000, 1, 1), 0);
	assert_int_equal(map(&g, ioas, 0x500000, 2, 1), EIO);
	assert_int_equal(map(&g, ioas, 0x4fe000, 2, 3), EEXIST);
	assert_int_equal(g.ops->attach(a.device, table), EADDRINUSE);
	assert_int_equal(g.ops->unmap(g.context, ioas, 0x100000, PAGE, &(uint64_t){0}), 0);
	assert_int_equal(g.ops->attach(a.device, table), 0);
	assert_int_equal(g.ops->iova_ranges(g.context, ioas, &range, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(range.first, 0x200000);
	assert_int_equal(map(&g, ioas, 0x1ff000, 0, 2), EINVAL);
	assert_int_equal(map(&g, ioas, 0x3ff000, 0, 2), EIO);
	assert_int_equal(dma_write(&a, 0x4ff000, 1), EMULATED_DMA_OUTSIDE_WINDOW);
	assert_int_equal(dma_write(&b, 0x4ff000, 1), EMULATED_DMA_OK);
	assert_int_equal(dma_write(&a, 0x1ff000, 1), EMULATED_DMA_OUTSIDE_WINDOW);
	/* Detached, it reserves nothing. */
	assert_int_equal(g.ops->detach(a.device), 0);
	assert_int_equal(map(&g, ioas, 0x100000, 0, 1), 0);
	function_free(&g, &a);
	function_free(&g, &b);
	assert_null(g.ops->context_free(g.context));
	assert_null(g.ops->free(g.backend));
}

static void bad_configuration(void **state)
{
	struct iommu_emulated_function f[IOMMU_EMULATED_FUNCTIONS_MAX + 1];
	struct iommu_backend *backend;

	memset(f, 0, sizeof(f));
	for (unsigned int i = 0; i <= IOMMU_EMULATED_FUNCTIONS_MAX; i++)
		f[i] = (struct iommu_emulated_function){.fid = i, .dma_last = 0xffff};
	assert_int_equal(iommu_emulated_new(&backend, f, IOMMU_EMULATED_FUNCTIONS_MAX + 1),
			 -EINVAL);
	assert_int_equal(iommu_emulated_new(&backend, f, IOMMU_EMULATED_FUNCTIONS_MAX), 0);
	assert_null(backend->ops->free(backend));
	f[1].fid = 0;
	assert_int_equal(iommu_emulated_new(&backend, f, 2), -EINVAL);
	f[1].fid = 1;
	f[1].dma_first = 0x10000;
	assert_int_equal(iommu_emulated_new(&backend, f, 2), -EINVAL);
	f[1].dma_first = 8;
	assert_int_equal(iommu_emulated_new(&backend, f, 2), -EINVAL);
	f[1].dma_first = 0;
	f[1].dma_last = 0xfff0;
	assert_int_equal(iommu_emulated_new(&backend, f, 2), -EINVAL);
	f[1].dma_last = 0xffff;
	strcpy(f[0].pci_address, "0000:00:01.0");
	strcpy(f[1].pci_address, "0000:00:01.0");
	assert_int_equal(iommu_emulated_new(&backend, f, 2), -EINVAL);
	memset(f[1].pci_address, 'x', sizeof(f[1].pci_address));
	assert_int_equal(iommu_emulated_new(&backend, f, 2), -EINVAL);
}

static void closing_blocks_what_the_vmm_holds(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 3), again;
	struct emulated_dma_state s;
	uint32_t table, ioas = space_new(f, &a, false, &table);

	assert_int_equal(map(f, ioas, BASE, 0, 1), 0);
	emulated_dma_state(a.dma, &s);
	assert_true(s.enabled && s.attached && s.fid == 3 && s.resets == 0);
	assert_string_equal(s.pci_address, "0000:00:03.0");
	assert_null(f->ops->device_close(a.device));
	emulated_dma_state(a.dma, &s);
	assert_false(s.enabled || s.attached);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_DISABLED);
	/* Its objects are free, and the function can be opened again, as another file. */
	assert_int_equal(f->ops->destroy(f->context, table), 0);
	again = function_new(f, 3);
	space_new(f, &again, false, NULL);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_DISABLED);
	assert_null(emulated_dma_close(a.dma));
	function_free(f, &again);
}

static void stop_counts_resets_and_bind_enables(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	struct emulated_dma_state s;
	uint32_t ioas = space_new(f, &a, false, NULL);

	assert_int_equal(map(f, ioas, BASE, 0, 1), 0);
	assert_int_equal(f->ops->device_stop(a.device), 0);
	emulated_dma_state(a.dma, &s);
	assert_int_equal(s.resets, 1);
	assert_false(s.enabled);
	assert_true(s.attached);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_DISABLED);
	function_free(f, &a);
	a = function_new(f, 1);
	emulated_dma_state(a.dma, &s);
	assert_true(s.enabled);
	function_free(f, &a);
}

static void context_free_blocks_devices(void **state)
{
	struct fixture *f = *state;
	struct fixture g = *f;
	struct function a;
	uint32_t ioas;

	assert_int_equal(g.ops->context_new(g.backend, &g.context), 0);
	a = function_new(&g, 1);
	ioas = space_new(&g, &a, true, NULL);
	assert_int_equal(map(&g, ioas, BASE, 0, 100), 0);
	assert_null(g.ops->context_free(g.context));
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_DISABLED);
	assert_int_equal(f->ops->device_bind(a.device, f->context, NULL, &a.id), 0);
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_BLOCKED);
	function_free(f, &a);
}

static void descriptor_gives_no_writing(void **state)
{
	struct stat st;
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	int fd;

	assert_int_equal(f->ops->device_descriptor(a.device, &fd), 0);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	/* Another user's VMM cannot open the file anew. */
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_ptr_equal(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(f->ops->device_fd(a.device), 0), -1);
	close(fd);
	function_free(f, &a);
}

static void client_made_function(void **state)
{
	struct fixture *f = *state;
	int fd = device_file_new(0x900, 0x100000, 0xfffffff);
	struct iommu_device *device, *second;
	struct iommu_device_info info;
	struct function a;
	bool held;

	assert_int_equal(f->ops->device_open_fd(f->backend, fcntl(fd, F_DUPFD_CLOEXEC, 3), &device),
			 0);
	assert_int_equal(f->ops->device_info(device, &info), 0);
	assert_int_equal(info.fid, 0x900);
	assert_string_equal(info.pci_address, "0009:00:00.0");
	assert_int_equal(info.dma_first, 0x100000);
	assert_int_equal(info.dma_last, 0xfffffff);
	a = function_of(f, device);
	assert_int_equal(map(f, space_new(f, &a, false, NULL), 0x100000, 0, 4), 0);
	assert_int_equal(dma_write(&a, 0x100000, 77), EMULATED_DMA_OK);
	assert_int_equal(word_of(f, 0), 77);
	/* Once only: neither that file nor that function, and the first one goes on. */
	assert_int_equal(f->ops->device_open_fd(f->backend, fcntl(fd, F_DUPFD_CLOEXEC, 3), &second),
			 EBUSY);
	assert_int_equal(
		f->ops->device_open_fd(f->backend, device_file_new(0x900, 0, 0xffff), &second),
		EBUSY);
	assert_int_equal(dma_write(&a, 0x101000, 78), EMULATED_DMA_OK);
	/* Nobody can tell of a file that somebody else made. */
	a.dma = emulated_dma_close(a.dma);
	assert_int_equal(f->ops->device_held(a.device, &held), 0);
	assert_true(held);
	function_free(f, &a);
	assert_int_equal(f->ops->device_open_fd(f->backend, fd, &second), 0);
	assert_null(f->ops->device_close(second));
}

static void own_function_comes_back(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 5);
	struct iommu_device *device;
	int fd, copy;

	assert_int_equal(map(f, space_new(f, &a, false, NULL), BASE, 0, 4), 0);
	assert_int_equal(f->ops->device_descriptor(a.device, &fd), 0);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	assert_int_equal(f->ops->device_open_fd(f->backend, copy, &device), EBUSY);
	assert_int_equal(fcntl(copy, F_GETFD), -1);
	assert_null(f->ops->device_close(a.device));
	assert_int_equal(f->ops->device_open_fd(f->backend, fd, &device), 0);
	assert_int_equal(f->ops->device_bind(device, f->context, NULL, &a.id), 0);
	/* Nothing of its former life is left, and its old holder sees what comes now. */
	assert_int_equal(dma_write(&a, BASE, 1), EMULATED_DMA_BLOCKED);
	a.device = device;
	assert_int_equal(map(f, space_new(f, &a, false, NULL), BASE, 9, 1), 0);
	assert_int_equal(dma_write(&a, BASE, 123), EMULATED_DMA_OK);
	assert_int_equal(word_of(f, 9), 123);
	assert_int_equal(dma_write(&a, BASE + PAGE, 1), EMULATED_DMA_NOT_MAPPED);
	function_free(f, &a);
}

static void refuse_fd(struct fixture *f, int fd)
{
	struct iommu_device *device;

	assert_int_equal(f->ops->device_open_fd(f->backend, fd, &device), EINVAL);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static int header_file(struct emulated_device_header *header, int seals, uint64_t bytes)
{
	int fd = memfd_create("device", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(pwrite(fd, header, sizeof(*header), 0), sizeof(*header));
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void files_that_are_no_device(void **state)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	struct fixture *f = *state;
	struct emulated_device_header good =
					      {
						      .magic = EMULATED_DEVICE_MAGIC,
						      .version = EMULATED_VERSION,
						      .fid = 0x77,
						      .dma_last = 0xffff,
					      },
				      bad = good;
	struct iommu_device *device;
	struct emulated_dma *dma;

	assert_int_equal(f->ops->device_open_fd(f->backend, -1, &device), EINVAL);
	refuse_fd(f, open("/dev/null", O_RDWR | O_CLOEXEC));
	refuse_fd(f, header_file(&good, F_SEAL_SHRINK, EMULATED_FILE_BYTES));
	refuse_fd(f, header_file(&good, F_SEAL_GROW, EMULATED_FILE_BYTES));
	refuse_fd(f, header_file(&good, seals, EMULATED_FILE_BYTES - PAGE));
	refuse_fd(f, header_file(&good, seals | F_SEAL_FUTURE_WRITE, EMULATED_FILE_BYTES));
	bad.magic++;
	refuse_fd(f, header_file(&bad, seals, EMULATED_FILE_BYTES));
	bad = good;
	bad.version++;
	refuse_fd(f, header_file(&bad, seals, EMULATED_FILE_BYTES));
	bad = good;
	bad.dma_first = 0x10000;
	refuse_fd(f, header_file(&bad, seals, EMULATED_FILE_BYTES));
	bad = good;
	bad.dma_last = 0xfff0;
	refuse_fd(f, header_file(&bad, seals, EMULATED_FILE_BYTES));
	bad = good;
	memset(bad.pci_address, 'a', sizeof(bad.pci_address));
	refuse_fd(f, header_file(&bad, seals, EMULATED_FILE_BYTES));
	assert_int_equal(f->ops->device_open_fd(f->backend,
						header_file(&good, seals, EMULATED_FILE_BYTES),
						&device),
			 0);
	assert_null(f->ops->device_close(device));
	assert_int_equal(emulated_dma_open(&dma, f->file.fd), -EINVAL);
	assert_int_equal(emulated_dma_open(&dma, -1), -EBADF);
}

static void a_mapping_holds_the_device(void **state)
{
	struct fixture *f = *state;
	struct function a = function_new(f, 1);
	bool held;
	int fd;

	/* The engine closed its descriptor; its mapping of the file is left. */
	assert_int_equal(f->ops->device_descriptor(a.device, &fd), 0);
	close(fd);
	assert_int_equal(f->ops->device_held(a.device, &held), 0);
	assert_true(held);
	function_free(f, &a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(two_devices_see_one_space),
		TEST(window_of_configured_functions),
		TEST(bad_configuration),
		TEST(closing_blocks_what_the_vmm_holds),
		TEST(stop_counts_resets_and_bind_enables),
		TEST(context_free_blocks_devices),
		TEST(descriptor_gives_no_writing),
		TEST(client_made_function),
		TEST(own_function_comes_back),
		TEST(files_that_are_no_device),
		TEST(a_mapping_holds_the_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
