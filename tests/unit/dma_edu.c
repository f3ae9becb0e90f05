/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Driving edu's DMA through its VFIO descriptor; see dma_edu.h. */

#include "dma_edu.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "iommu/iommufd/uapi.h"

#define EDU_SOURCE      0x80
#define EDU_DESTINATION 0x88
#define EDU_COUNT       0x90
#define EDU_COMMAND     0x98
#define EDU_RUN         0x1u
#define EDU_TO_MEMORY   0x2u
#define EDU_BUFFER      0x40000

#define PCI_COMMAND        4
#define PCI_COMMAND_ENABLE 0x6 /* memory space and bus mastering */

/* A copy takes edu 100 ms. */
#define POLL_US  2000
#define POLL_MAX 2000

#define SCRATCH_IOVA UINT64_C(0x10000000)

struct edu {
	int fd; /* borrowed */
	uint64_t registers, config;
	struct iommu_context *context; /* of the scratch address space */
	uint32_t ioas, page_table;     /* 0: not made yet */
	struct iommu_file file;
	uint64_t *scratch;
};

/* What the suite did last. */
static struct {
	const struct iommu_backend_ops *ops;
	struct iommu_context *context;
	struct iommu_device *device;
	uint32_t attached; /* 0: nothing */
} watched;

static int watch_bind(struct iommu_device *device, struct iommu_context *context,
		      const uint8_t *vf_token, uint32_t *ret_kernel_id)
{
	int error = watched.ops->device_bind(device, context, vf_token, ret_kernel_id);

	if (!error) {
		watched.context = context;
		watched.device = device;
		watched.attached = 0;
	}
	return error;
}

static int watch_attach(struct iommu_device *device, uint32_t page_table)
{
	int error = watched.ops->attach(device, page_table);

	if (!error && device == watched.device)
		watched.attached = page_table;
	return error;
}

static int watch_detach(struct iommu_device *device)
{
	if (device == watched.device)
		watched.attached = 0;
	return watched.ops->detach(device);
}

void dma_edu_watch(struct iommu_backend *backend)
{
	static struct iommu_backend_ops ops;

	watched.ops = backend->ops;
	ops = *backend->ops;
	ops.device_bind = watch_bind;
	ops.attach = watch_attach;
	ops.detach = watch_detach;
	backend->ops = &ops;
}

static uint64_t region(int fd, uint32_t index)
{
	struct uapi_vfio_region_info info = {.argsz = sizeof(info), .index = index};

	assert_int_equal(ioctl(fd, UAPI_VFIO_DEVICE_GET_REGION_INFO, &info), 0);
	return info.offset;
}

/* The device decodes and masters from now on, until it is stopped. */
static void *edu_open(int borrow_device_fd)
{
	struct edu *edu = calloc(1, sizeof(*edu));
	uint16_t command;

	assert_non_null(edu);
	edu->fd = borrow_device_fd;
	edu->registers = region(edu->fd, 0);
	edu->config = region(edu->fd, UAPI_VFIO_PCI_CONFIG_REGION);
	assert_int_equal(pread(edu->fd, &command, 2, (off_t)edu->config + PCI_COMMAND), 2);
	command |= htole16(PCI_COMMAND_ENABLE);
	assert_int_equal(pwrite(edu->fd, &command, 2, (off_t)edu->config + PCI_COMMAND), 2);
	edu->file.fd = memfd_create("edu", MFD_CLOEXEC);
	assert_true(edu->file.fd >= 0);
	assert_int_equal(ftruncate(edu->file.fd, PAGE), 0);
	edu->scratch = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, edu->file.fd, 0);
	assert_true(edu->scratch != MAP_FAILED);
	edu->file.host = edu->scratch;
	edu->file.bytes = PAGE;
	return edu;
}

/* The scratch address space goes with its context. */
static void edu_close(void *dma)
{
	struct edu *edu = dma;

	munmap(edu->scratch, PAGE);
	close(edu->file.fd);
	free(edu);
}

/* The memory is the suite's to look at. */
static void edu_add_memory(void *dma, int borrow_fd)
{
	(void)dma;
	(void)borrow_fd;
}

static void put(struct edu *edu, unsigned int at, uint64_t value)
{
	value = htole64(value);
	assert_int_equal(pwrite(edu->fd, &value, 8, (off_t)(edu->registers + at)), 8);
}

static bool is_running(struct edu *edu)
{
	uint64_t command = 0;

	assert_int_equal(pread(edu->fd, &command, 8, (off_t)(edu->registers + EDU_COMMAND)), 8);
	return le64toh(command) & EDU_RUN;
}

static void run(struct edu *edu, uint64_t source, uint64_t destination, uint64_t command)
{
	put(edu, EDU_SOURCE, source);
	put(edu, EDU_DESTINATION, destination);
	put(edu, EDU_COUNT, sizeof(uint64_t));
	put(edu, EDU_COMMAND, command | EDU_RUN);
	for (unsigned int i = 0; i < POLL_MAX && is_running(edu); i++)
		usleep(POLL_US);
	assert_false(is_running(edu));
}

static void make_scratch(struct edu *edu)
{
	const struct iommu_backend_ops *ops = watched.ops;

	if (edu->page_table)
		return;
	edu->context = watched.context;
	assert_int_equal(ops->ioas_new(edu->context, false, &edu->ioas), 0);
	assert_int_equal(
		ops->page_table_new(edu->context, watched.device, edu->ioas, &edu->page_table), 0);
	assert_int_equal(
		ops->map_file(edu->context, edu->ioas, &edu->file, 0, PAGE, SCRATCH_IOVA, RW), 0);
}

/* A copy between the buffer and our own page. */
static void run_aside(struct edu *edu, uint64_t source, uint64_t destination, uint64_t command)
{
	make_scratch(edu);
	assert_int_equal(watched.ops->attach(watched.device, edu->page_table), 0);
	run(edu, source, destination, command);
	if (watched.attached)
		assert_int_equal(watched.ops->attach(watched.device, watched.attached), 0);
	else
		assert_int_equal(watched.ops->detach(watched.device), 0);
}

/* edu does not tell whether its access was refused. */
static bool edu_write(void *dma, uint64_t iova, uint64_t value)
{
	struct edu *edu = dma;

	__atomic_store_n(edu->scratch, value, __ATOMIC_SEQ_CST);
	run_aside(edu, SCRATCH_IOVA, EDU_BUFFER, 0);
	run(edu, EDU_BUFFER, iova, EDU_TO_MEMORY);
	return true;
}

static bool edu_read(void *dma, uint64_t iova, uint64_t *ret)
{
	struct edu *edu = dma;

	run(edu, iova, EDU_BUFFER, 0);
	run_aside(edu, EDU_BUFFER, SCRATCH_IOVA, EDU_TO_MEMORY);
	*ret = __atomic_load_n(edu->scratch, __ATOMIC_SEQ_CST);
	return true;
}

const struct conformance_dma_ops dma_edu_ops = {
	.open = edu_open,
	.close = edu_close,
	.add_memory = edu_add_memory,
	.write = edu_write,
	.read = edu_read,
};
