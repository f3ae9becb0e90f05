/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the tests of the emulated backend share, see emulated_fixture.h. */

#include "emulated_fixture.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void memory_new(struct iommu_file *ret, uint64_t **ret_memory)
{
	int fd = memfd_create("emulated_test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, MEMORY_PAGES * PAGE), 0);
	*ret_memory = mmap(NULL, MEMORY_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(*ret_memory != MAP_FAILED);
	*ret = (struct iommu_file){.fd = fd, .host = *ret_memory, .bytes = MEMORY_PAGES * PAGE};
}

void memory_free(struct iommu_file *file)
{
	munmap((void *)file->host, file->bytes);
	close(file->fd);
}

int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(iommu_emulated_new(&f->backend, NULL, 0), 0);
	f->ops = f->backend->ops;
	assert_int_equal(f->ops->context_new(f->backend, &f->context), 0);
	memory_new(&f->file, &f->memory);
	*state = f;
	return 0;
}

int teardown(void **state)
{
	struct fixture *f = *state;

	assert_null(f->ops->context_free(f->context));
	assert_null(f->ops->free(f->backend));
	memory_free(&f->file);
	free(f);
	return 0;
}

struct function function_of(struct fixture *f, struct iommu_device *device)
{
	struct function function = {.device = device};
	int fd;

	assert_int_equal(f->ops->device_bind(device, f->context, NULL, &function.id), 0);
	assert_int_equal(f->ops->device_descriptor(device, &fd), 0);
	assert_int_equal(emulated_dma_open(&function.dma, fd), 0);
	assert_int_equal(emulated_dma_add_memory(function.dma, f->file.fd), 0);
	close(fd);
	return function;
}

struct function function_new(struct fixture *f, uint32_t fid)
{
	struct iommu_device_address address = {.by_fid = true, .fid = fid};
	struct iommu_device *device;

	assert_int_equal(f->ops->device_open(f->backend, &address, &device), 0);
	return function_of(f, device);
}

void function_free(struct fixture *f, struct function *function)
{
	assert_null(emulated_dma_close(function->dma));
	assert_null(f->ops->device_close(function->device));
}

uint32_t space_new(struct fixture *f, struct function *function, bool cuttable, uint32_t *ret_table)
{
	uint32_t ioas, table;

	assert_int_equal(f->ops->ioas_new(f->context, cuttable, &ioas), 0);
	assert_int_equal(f->ops->page_table_new(f->context, function->device, ioas, &table), 0);
	assert_int_equal(f->ops->attach(function->device, table), 0);
	if (ret_table)
		*ret_table = table;
	return ioas;
}

int map(struct fixture *f, uint32_t ioas, uint64_t iova, uint64_t memory_page, uint64_t n)
{
	return f->ops->map_file(f->context, ioas, &f->file, memory_page * PAGE, n * PAGE, iova, RW);
}

enum emulated_dma_reason dma_write(struct function *function, uint64_t iova, uint64_t value)
{
	return emulated_dma_write(function->dma, iova, &value, sizeof(value), NULL);
}

uint64_t word_of(struct fixture *f, uint64_t page)
{
	return __atomic_load_n(&f->memory[page * PAGE / 8], __ATOMIC_RELAXED);
}

struct iommu_emulated_counters counters_of(struct fixture *f)
{
	struct iommu_emulated_counters counters;

	iommu_emulated_counters(f->context, &counters);
	return counters;
}

int device_file_new(uint32_t fid, uint64_t first, uint64_t last)
{
	struct emulated_device_parameters parameters = {
		.fid = fid,
		.pci_address = "0009:00:00.0",
		.dma_first = first,
		.dma_last = last,
	};
	int fd = -1;

	assert_int_equal(emulated_device_create(&parameters, &fd), 0);
	return fd;
}
