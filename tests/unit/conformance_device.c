/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Conformance: pins, page tables, attachment, object ids, and a device's life. */

#include "conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint32_t new_ioas(struct rig *rig)
{
	uint32_t ioas;

	assert_int_equal(rig->ops->ioas_new(rig->context, false, &ioas), 0);
	return ioas;
}

static uint32_t new_page_table(struct rig *rig, uint32_t ioas)
{
	uint32_t page_table;

	assert_int_equal(rig->ops->page_table_new(rig->context, rig->device, ioas, &page_table), 0);
	return page_table;
}

static void destroy(struct rig *rig, uint32_t id, int want)
{
	assert_int_equal(rig->ops->destroy(rig->context, id), want);
}

void conformance_pins_only_with_a_page_table(void **state)
{
	struct rig *rig = rig_new();
	uint64_t before = rig_pinned(rig);
	uint32_t ioas = new_ioas(rig), page_table;

	rig_map(rig, ioas, 0, 0, 16, RW, 0);
	assert_int_equal(rig_pinned(rig), before);
	rig_unmap(rig, ioas, 0, 16, 0, 16);
	page_table = new_page_table(rig, ioas);
	assert_int_equal(rig_pinned(rig), before);
	rig_map(rig, ioas, 0, 0, 16, RW, 0);
	assert_int_equal(rig_pinned(rig), before + 16);
	rig_map(rig, ioas, 16, 0, 4, RW, 0); /* the same pages by another map */
	assert_int_equal(rig_pinned(rig), before + 20);
	rig_unmap(rig, ioas, 0, 16, 0, 16);
	assert_int_equal(rig_pinned(rig), before + 4);
	destroy(rig, page_table, 0);
	assert_int_equal(rig_pinned(rig), before);
	rig_free(rig);
}

void conformance_first_page_table_pins_everything(void **state)
{
	struct rig *rig = rig_new();
	uint64_t before = rig_pinned(rig);
	uint32_t ioas = new_ioas(rig), first, second;

	rig_map(rig, ioas, 0, 0, 16, RW, 0);
	rig_map(rig, ioas, 1000, 100, 16, RW, 0);
	first = new_page_table(rig, ioas);
	assert_int_equal(rig_pinned(rig), before + 32);
	second = new_page_table(rig, ioas);
	assert_int_equal(rig_pinned(rig), before + 32);
	destroy(rig, first, 0);
	assert_int_equal(rig_pinned(rig), before + 32);
	destroy(rig, second, 0);
	assert_int_equal(rig_pinned(rig), before);
	rig_free(rig);
}

void conformance_copies_pin_nothing(void **state)
{
	struct rig *rig = rig_new();
	uint64_t before = rig_pinned(rig);
	uint32_t parent = rig_space(rig, false, NULL), ioas = rig_space(rig, true, NULL);

	rig_map(rig, parent, 0, 0, 64, RW, 0);
	assert_int_equal(rig_pinned(rig), before + 64);
	for (unsigned int i = 0; i < 100; i++)
		rig_copy(rig, ioas, i * 20, parent, i % 32, 16, RW, 0);
	assert_int_equal(rig_pinned(rig), before + 64);
	rig_cut(rig, ioas, 0, 2000, 1600);
	assert_int_equal(rig_pinned(rig), before + 64);
	rig_free(rig);
}

void conformance_pages_stay_pinned_while_a_copy_lives(void **state)
{
	struct rig *rig = rig_new();
	uint64_t before = rig_pinned(rig);
	uint32_t parent = rig_space(rig, false, NULL), ioas = rig_space(rig, true, NULL);

	rig_map(rig, parent, 0, 0, 64, RW, 0);
	rig_copy(rig, ioas, 0, parent, 8, 4, RW, 0);
	rig_copy(rig, ioas, 4, parent, 8, 2, RW, 0);
	rig_unmap(rig, parent, 0, 64, 0, 64);
	assert_int_equal(rig_pinned(rig), before + 4);
	rig_cut(rig, ioas, 0, 4, 4);
	assert_int_equal(rig_pinned(rig), before + 2);
	rig_cut(rig, ioas, 0, 8, 2);
	assert_int_equal(rig_pinned(rig), before);
	rig_free(rig);
}

void conformance_page_table_arguments(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = new_ioas(rig), page_table = new_page_table(rig, ioas), n;

	assert_int_equal(rig->ops->page_table_new(rig->context, rig->device, 4000, &n), EINVAL);
	/* A device of another context. */
	struct iommu_context *other;
	assert_int_equal(rig->ops->context_new(rig->host->backend, &other), 0);
	assert_int_equal(rig->ops->ioas_new(other, false, &n), 0);
	assert_int_equal(rig->ops->page_table_new(other, rig->device, n, &n), EINVAL);
	assert_null(rig->ops->context_free(other));
	destroy(rig, page_table, 0);
	destroy(rig, ioas, 0);
	rig_free(rig);
}

void conformance_page_table_over_what_cannot_be_pinned(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = new_ioas(rig), page_table;
	int fd = memfd_create("short", MFD_CLOEXEC), error;
	struct iommu_file file = {.fd = fd, .bytes = 4 * PAGE};
	uint64_t before = rig->host->pinned_pages ? rig_pinned(rig) : 0;

	assert_int_equal(ftruncate(fd, 4 * PAGE), 0);
	file.host = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(file.host != MAP_FAILED);
	/* Mapped without a page table: nothing holds the file's pages yet, and it becomes shorter.
	 */
	rig_map(rig, ioas, 0, 0, 4, RW, 0);
	assert_int_equal(rig->ops->map_file(rig->context, ioas, &file, 0, 4 * PAGE,
					    rig->base + 64 * PAGE, RW),
			 0);
	assert_int_equal(ftruncate(fd, 2 * PAGE), 0);
	error = rig->ops->page_table_new(rig->context, rig->device, ioas, &page_table);
	assert_true(error == EINVAL || error == EFAULT);
	if (rig->host->pinned_pages)
		assert_int_equal(rig_pinned(rig), before);
	rig_unmap(rig, ioas, 64, 4, 0, 4);
	new_page_table(rig, ioas);
	munmap((void *)file.host, 4 * PAGE);
	close(fd);
	rig_free(rig);
}

void conformance_second_page_table_shows_the_same(void **state)
{
	struct rig *rig = rig_new();
	uint32_t first, second, ioas = rig_space(rig, true, &first);

	rig_map(rig, ioas, 0, 0, 4, RW, 0);
	second = new_page_table(rig, ioas);
	rig_attach(rig, second);
	rig_shows(rig, ioas, 2, 2);
	rig_map(rig, ioas, 4, 4, 4, RW, 0);
	rig_shows(rig, ioas, 4, 4);
	destroy(rig, first, 0);
	rig_cut(rig, ioas, 2, 1, 1);
	rig_shows_nothing(rig, ioas, 2);
	rig_shows(rig, ioas, 3, 3);
	rig_free(rig);
}

void conformance_attach_replaces(void **state)
{
	struct rig *rig = rig_new();
	uint32_t table_a, table_b;
	uint32_t a = rig_space(rig, false, &table_a), b = rig_space(rig, true, &table_b);

	rig_map(rig, a, 0, 0, 4, RW, 0);
	rig_map(rig, b, 0, 100, 2, RW, 0);
	rig_map(rig, b, 2000, 200, 1, RW, 0);
	rig_dma_lands(rig, 0, 100);
	rig_dma_misses(rig, 2);
	rig_attach(rig, table_a);
	rig_dma_lands(rig, 0, 0);
	rig_dma_lands(rig, 2, 2);
	rig_dma_misses(rig, 2000);
	/* What changes in an address space that is not attached any more stays there. */
	rig_cut(rig, b, 0, 1, 1);
	rig_dma_lands(rig, 0, 0);
	rig_attach(rig, table_b);
	rig_dma_misses(rig, 0);
	rig_dma_lands(rig, 1, 101);
	rig_attach(rig, table_b);
	rig_dma_lands(rig, 2000, 200);
	rig_free(rig);
}

void conformance_attach_arguments(void **state)
{
	struct rig *rig = rig_new();
	uint32_t table, ioas = rig_space(rig, false, &table), n;
	struct iommu_context *other;

	rig_map(rig, ioas, 0, 0, 4, RW, 0);
	assert_int_equal(rig->ops->attach(rig->device, 4000), ENOENT);
	destroy(rig, table, EBUSY);
	rig_dma_lands(rig, 1, 1);
	/* An id that only another context has. */
	assert_int_equal(rig->ops->context_new(rig->host->backend, &other), 0);
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(rig->ops->ioas_new(other, false, &n), 0);
	assert_int_equal(rig->ops->attach(rig->device, n), ENOENT);
	assert_null(rig->ops->context_free(other));
	rig_free(rig);
}

void conformance_detach_blocks(void **state)
{
	struct rig *rig = rig_new();
	uint32_t table, ioas = rig_space(rig, false, &table);

	rig_map(rig, ioas, 0, 0, 4, RW, 0);
	rig_dma_lands(rig, 1, 1);
	assert_int_equal(rig->ops->detach(rig->device), 0);
	rig_dma_misses(rig, 1);
	assert_int_equal(rig->ops->detach(rig->device), 0);
	rig_map(rig, ioas, 4, 4, 4, RW, 0);
	rig_unmap(rig, ioas, 0, 4, 0, 4);
	rig_dma_misses(rig, 4);
	rig_attach(rig, table);
	rig_dma_lands(rig, 4, 4);
	rig_dma_misses(rig, 1);
	rig_free(rig);
}

void conformance_low_mapping_refuses_attach(void **state)
{
	struct rig *rig = rig_new();
	uint32_t good_table, good = rig_space(rig, false, &good_table);
	uint32_t ioas = new_ioas(rig), table;
	uint64_t below = rig->info.dma_first - PAGE, n;

	if (rig->info.dma_first == 0)
		rig_skip("the device's addresses begin at 0: none lie below");
	rig_map(rig, good, 0, 0, 1, RW, 0);
	assert_int_equal(rig->ops->map_file(rig->context, ioas, &rig->file, 0, PAGE, below, RW), 0);
	table = new_page_table(rig, ioas);
	assert_int_equal(rig->ops->attach(rig->device, table), EADDRINUSE);
	/* It stays where it was. */
	rig_dma_lands(rig, 0, 0);
	destroy(rig, good_table, EBUSY);
	assert_int_equal(rig->ops->unmap(rig->context, ioas, below, PAGE, &n), 0);
	rig_attach(rig, table);
	rig_dma_misses(rig, 0);
	rig_free(rig);
}

void conformance_attach_reserves_low_addresses(void **state)
{
	struct rig *rig = rig_new();
	struct iommu_range ranges[IOMMU_IOVA_RANGES_MAX];
	uint32_t ioas = new_ioas(rig), table = new_page_table(rig, ioas);
	uint64_t below = rig->info.dma_first - PAGE;
	size_t n = 0;

	if (rig->info.dma_first == 0)
		rig_skip("the device's addresses begin at 0: none lie below");
	assert_int_equal(
		rig->ops->iova_ranges(rig->context, ioas, ranges, IOMMU_IOVA_RANGES_MAX, &n), 0);
	assert_true(n > 0);
	assert_int_equal(ranges[0].first, 0);
	rig_attach(rig, table);
	assert_int_equal(
		rig->ops->iova_ranges(rig->context, ioas, ranges, IOMMU_IOVA_RANGES_MAX, &n), 0);
	assert_true(n > 0);
	assert_int_equal(ranges[0].first, rig->info.dma_first);
	assert_int_equal(rig->ops->map_file(rig->context, ioas, &rig->file, 0, PAGE, below, RW),
			 EINVAL);
	assert_int_equal(rig->ops->map_file(rig->context, ioas, &rig->file, 0, 2 * PAGE, below, RW),
			 EINVAL);
	assert_int_equal(
		rig->ops->map_file(rig->context, ioas, &rig->file, 0, PAGE, below + PAGE, RW), 0);
	rig_free(rig);
}

/* No table or reservation keeps a mapping out of the space above: the device does not reach it. */
void conformance_window_is_enforced(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = new_ioas(rig), table;
	uint64_t above = rig->info.dma_last + 1;

	if (rig->info.dma_last >= UINT64_MAX - 4 * PAGE)
		rig_skip("no addresses lie above the device's");
	assert_int_equal(
		rig->ops->map_file(rig->context, ioas, &rig->file, 0, 2 * PAGE, above - PAGE, RW),
		0);
	if (rig->ops->page_table_new(rig->context, rig->device, ioas, &table) == 0 &&
	    rig->ops->attach(rig->device, table) == 0) {
		rig_dma_lands(rig, (above - PAGE - rig->base) / PAGE, 0);
		rig_dma_misses(rig, (above - rig->base) / PAGE);
		assert_int_not_equal(rig->ops->map_file(rig->context, ioas, &rig->file, 0, PAGE,
							above + PAGE, RW),
				     0);
	}
	rig_free(rig);
}

void conformance_destroy_of_what_is_used(void **state)
{
	struct rig *rig = rig_new();
	uint32_t table, ioas = rig_space(rig, false, &table);

	rig_map(rig, ioas, 0, 0, 4, RW, 0);
	destroy(rig, ioas, EBUSY);
	destroy(rig, table, EBUSY);
	destroy(rig, rig->device_id, EBUSY);
	rig_dma_lands(rig, 1, 1);
	assert_int_equal(rig->ops->detach(rig->device), 0);
	destroy(rig, ioas, EBUSY);
	destroy(rig, table, 0);
	destroy(rig, table, ENOENT);
	/* Mappings do not keep it. */
	destroy(rig, ioas, 0);
	destroy(rig, ioas, ENOENT);
	destroy(rig, 0, ENOENT);
	rig_free(rig);
}

void conformance_ids_are_the_lowest_free(void **state)
{
	struct rig *rig = rig_new();
	uint32_t a = new_ioas(rig), b = new_ioas(rig), c = new_ioas(rig), table;

	assert_int_equal(rig->device_id, 1);
	assert_int_equal(rig->info.kernel_device_id, 1);
	assert_int_equal(a, 2);
	assert_int_equal(b, 3);
	assert_int_equal(c, 4);
	destroy(rig, b, 0);
	destroy(rig, a, 0);
	table = new_page_table(rig, c);
	assert_int_equal(table, 2);
	assert_int_equal(new_ioas(rig), 3);
	assert_int_equal(new_ioas(rig), 5);
	rig_free(rig);
}

void conformance_bind_twice(void **state)
{
	struct rig *rig = rig_new();
	struct iommu_context *other;
	uint32_t id;

	assert_int_equal(rig->ops->device_bind(rig->device, rig->context, NULL, &id), EBUSY);
	assert_int_equal(rig->ops->context_new(rig->host->backend, &other), 0);
	assert_int_equal(rig->ops->device_bind(rig->device, other, NULL, &id), EBUSY);
	assert_null(rig->ops->context_free(other));
	rig_free(rig);
}

/* A second open of a bound device is refused, at the latest when it is bound. */
void conformance_second_open(void **state)
{
	struct rig *rig = rig_new();
	struct iommu_device *second;
	uint32_t id;
	int error;

	error = rig->ops->device_open(rig->host->backend, &rig->host->device, &second);
	if (error) {
		assert_int_equal(error, EBUSY);
	} else {
		assert_int_not_equal(rig->ops->device_bind(second, rig->context, NULL, &id), 0);
		assert_null(rig->ops->device_close(second));
	}
	/* The device goes on. */
	rig_map(rig, rig_space(rig, false, NULL), 0, 0, 1, RW, 0);
	rig_dma_lands(rig, 0, 0);
	rig_free(rig);
}

/* Before it is opened, while it is open, by either name: always the same function. */
void conformance_identify(void **state)
{
	struct rig *rig = rig_new();
	struct iommu_device_address other = {0};
	struct iommu_device_info info;

	assert_int_equal(rig->ops->device_identify(rig->host->backend, &rig->host->device, &info),
			 0);
	assert_string_equal(info.pci_address, rig->info.pci_address);
	assert_int_equal(info.has_fid, rig->info.has_fid);
	assert_int_equal(info.fid, rig->info.fid);
	assert_int_equal(info.vendor, rig->info.vendor);
	assert_int_equal(info.device, rig->info.device);
	rig_close_device(rig);
	if (rig->info.has_fid && !rig->host->device.by_fid) {
		other.by_fid = true;
		other.fid = rig->info.fid;
	} else {
		memcpy(other.pci_address, rig->info.pci_address, sizeof(other.pci_address));
	}
	assert_int_equal(rig->ops->device_identify(rig->host->backend, &other, &info), 0);
	assert_string_equal(info.pci_address, rig->info.pci_address);
	assert_int_equal(info.vendor, rig->info.vendor);
	other = (struct iommu_device_address){.pci_address = "ffff:ff:1f.7"};
	info.vendor = 0x5aa5;
	assert_int_equal(rig->ops->device_identify(rig->host->backend, &other, &info), ENOENT);
	other = (struct iommu_device_address){.by_fid = true, .fid = 0xfffffff0};
	assert_int_equal(rig->ops->device_identify(rig->host->backend, &other, &info), ENOENT);
	assert_int_equal(info.vendor, 0x5aa5);
	rig_free(rig);
}

void conformance_open_of_what_is_not_there(void **state)
{
	struct rig *rig = rig_new();
	struct iommu_device_address fid = {.by_fid = true, .fid = 0xfffffff0};
	struct iommu_device_address pci = {.pci_address = "ffff:ff:1f.7"};
	struct iommu_device *device;
	int fds[2];

	assert_int_equal(rig->ops->device_open(rig->host->backend, &fid, &device), ENOENT);
	assert_int_equal(rig->ops->device_open(rig->host->backend, &pci, &device), ENOENT);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(rig->ops->device_open_fd(rig->host->backend, fds[0], &device), EINVAL);
	/* Consumed. */
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);
	close(fds[1]);
	rig_free(rig);
}

void conformance_unbound_device(void **state)
{
	struct rig *rig = rig_new();
	uint32_t table, ioas = rig_space(rig, false, &table), id;
	struct iommu_device *device;
	struct iommu_device_info info;

	rig_close_device(rig);
	assert_int_equal(rig->ops->device_open(rig->host->backend, &rig->host->device, &device), 0);
	assert_int_equal(rig->ops->attach(device, table), EINVAL);
	assert_int_equal(rig->ops->detach(device), 0);
	assert_int_equal(rig->ops->device_stop(device), 0);
	assert_int_equal(rig->ops->page_table_new(rig->context, device, ioas, &id), EINVAL);
	/* Closing gave its id back. */
	destroy(rig, rig->device_id, ENOENT);
	assert_int_equal(rig->ops->device_bind(device, rig->context, NULL, &id), 0);
	assert_int_equal(id, rig->device_id);
	assert_int_equal(rig->ops->device_info(device, &info), 0);
	assert_int_equal(info.kernel_device_id, id);
	assert_int_equal(rig->ops->attach(device, table), 0);
	rig->device = device;
	assert_int_equal(rig->ops->device_descriptor(device, &rig->vmm_fd), 0);
	if (rig->host->dma) {
		rig->dma = rig->host->dma->open(rig->vmm_fd);
		rig->host->dma->add_memory(rig->dma, rig->file.fd);
	}
	rig_map(rig, ioas, 0, 0, 1, RW, 0);
	rig_dma_lands(rig, 0, 0);
	rig_free(rig);
}

/* Opens the device, binds it or not, keeps a descriptor or not, and asks. */
static bool held(struct rig *rig, bool bind, bool keep)
{
	struct iommu_device *device;
	uint32_t id;
	bool ret;
	int fd;

	assert_int_equal(rig->ops->device_open(rig->host->backend, &rig->host->device, &device), 0);
	assert_int_equal(rig->ops->device_descriptor(device, &fd), 0);
	if (bind)
		assert_int_equal(rig->ops->device_bind(device, rig->context, NULL, &id), 0);
	if (!keep)
		close(fd);
	assert_int_equal(rig->ops->device_held(device, &ret), 0);
	assert_null(rig->ops->device_close(device));
	if (keep)
		close(fd);
	return ret;
}

void conformance_held_by_the_vmm(void **state)
{
	struct rig *rig = rig_new();
	bool ret;

	assert_int_equal(rig->ops->device_held(rig->device, &ret), 0);
	rig->device = rig->ops->device_close(rig->device);
	assert_true(ret);
	rig_close_device(rig);
	assert_false(held(rig, true, false));
	assert_true(held(rig, true, true));
	assert_false(held(rig, true, false));
	assert_false(held(rig, false, true));
	rig_free(rig);
}

void conformance_stop_ends_dma(void **state)
{
	struct rig *rig = rig_new();
	uint32_t table, ioas = rig_space(rig, false, &table);

	rig_map(rig, ioas, 0, 0, 4, RW, 0);
	rig_dma_lands(rig, 1, 1);
	assert_int_equal(rig->ops->device_stop(rig->device), 0);
	rig_dma_misses(rig, 1);
	assert_int_equal(rig->ops->device_stop(rig->device), 0);
	/* What it is attached to stays, and can be changed. */
	destroy(rig, table, EBUSY);
	rig_map(rig, ioas, 4, 4, 4, RW, 0);
	rig_dma_misses(rig, 4);
	rig_unmap(rig, ioas, 4, 4, 0, 4);
	/* Whoever has it attached again has it go on. */
	rig_attach(rig, table);
	rig_dma_lands(rig, 1, 1);
	/* Detached and stopped, in that order as well. */
	assert_int_equal(rig->ops->detach(rig->device), 0);
	assert_int_equal(rig->ops->device_stop(rig->device), 0);
	rig_dma_misses(rig, 1);
	destroy(rig, table, 0);
	rig_free(rig);
}
