/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Conformance: map, copy and unmap. */

#include "conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

void conformance_map_shows_memory(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);

	/* Across a border of the lowest table, and not page 0 of the file. */
	rig_map(rig, ioas, 510, 7, 4, RW, 0);
	for (unsigned int i = 0; i < 4; i++)
		rig_shows(rig, ioas, 510 + i, 7 + i);
	rig_shows_nothing(rig, ioas, 509);
	rig_shows_nothing(rig, ioas, 514);
	rig_free(rig);
}

void conformance_map_overlap_changes_nothing(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);

	rig_map(rig, ioas, 4, 0, 4, RW, 0);
	rig_map(rig, ioas, 4, 100, 4, RW, EEXIST);
	rig_map(rig, ioas, 0, 100, 5, RW, EEXIST);
	rig_map(rig, ioas, 7, 100, 5, RW, EEXIST);
	rig_map(rig, ioas, 5, 100, 1, RW, EEXIST);
	rig_map(rig, ioas, 0, 100, 64, RW, EEXIST);
	for (unsigned int i = 0; i < 4; i++) {
		rig_shows(rig, ioas, 4 + i, i);
		rig_shows_nothing(rig, ioas, i);
		rig_shows_nothing(rig, ioas, 8 + i);
	}
	rig_unmap(rig, ioas, 0, 64, 0, 4);
	rig_free(rig);
}

void conformance_map_arguments(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, true, NULL);
	const struct iommu_backend_ops *ops = rig->ops;
	const struct iommu_file *file = &rig->file;
	struct iommu_file closed = *file;
	uint64_t base = rig->base;

	assert_int_equal(ops->map_file(rig->context, ioas, file, 0, 0, base, RW), EINVAL);
	assert_int_equal(ops->map_file(rig->context, ioas, file, 0, PAGE, base + 8, RW), EINVAL);
	assert_int_equal(ops->map_file(rig->context, ioas, file, 0, PAGE - 8, base, RW), EINVAL);
	assert_int_equal(ops->map_file(rig->context, ioas, file, 8, PAGE, base, RW), EINVAL);
	assert_int_equal(ops->map_file(rig->context, ioas, file, 0, PAGE, base, 0), EINVAL);
	assert_int_equal(ops->map_file(rig->context, ioas, file, 0, 2 * PAGE, -PAGE, RW),
			 EOVERFLOW);
	assert_int_equal(ops->map_file(rig->context, 4000, file, 0, PAGE, base, RW), ENOENT);
	assert_int_equal(ops->map_file(rig->context, rig->device_id, file, 0, PAGE, base, RW),
			 ENOENT);
	closed.fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 100);
	close(closed.fd);
	assert_int_equal(ops->map_file(rig->context, ioas, &closed, 0, PAGE, base, RW), EBADF);
	rig_shows_nothing(rig, ioas, 0);
	rig_unmap(rig, ioas, 0, 64, ENOENT, 0);
	rig_free(rig);
}

void conformance_map_beyond_the_file(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);

	rig_map(rig, ioas, 0, MEMORY_PAGES, 1, RW, EINVAL);
	rig_map(rig, ioas, 0, MEMORY_PAGES - 1, 2, RW, EINVAL);
	/* A file that is shorter than we think. */
	rig->file.bytes = 2 * MEMORY_PAGES * PAGE;
	rig_map(rig, ioas, 0, MEMORY_PAGES - 1, 2, RW, EINVAL);
	rig_map(rig, ioas, 0, MEMORY_PAGES + 1, 1, RW, EINVAL);
	rig_shows_nothing(rig, ioas, 0);
	rig_map(rig, ioas, 0, MEMORY_PAGES - 1, 1, RW, 0);
	rig_shows(rig, ioas, 0, MEMORY_PAGES - 1);
	/* Also where nothing is pinned yet. */
	rig->file.bytes = MEMORY_PAGES * PAGE;
	assert_int_equal(rig->ops->ioas_new(rig->context, false, &ioas), 0);
	rig_map(rig, ioas, 0, MEMORY_PAGES - 1, 2, RW, EINVAL);
	rig_map(rig, ioas, 0, MEMORY_PAGES + 1, 1, RW, EINVAL);
	rig_free(rig);
}

void conformance_map_of_no_memory_file(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);
	int fd = rig->file.fd;
	struct statfs fs;

	rig->file.fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	assert_true(rig->file.fd >= 0);
	rig_map(rig, ioas, 0, 0, 1, IOMMU_PROT_READ, EINVAL);
	close(rig->file.fd);
	/* A file on a disk, as far as this program lies on one. */
	rig->file.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_true(rig->file.fd >= 0);
	assert_int_equal(fstatfs(rig->file.fd, &fs), 0);
	if (fs.f_type != TMPFS_MAGIC)
		rig_map(rig, ioas, 0, 0, 1, IOMMU_PROT_READ, EINVAL);
	close(rig->file.fd);
	rig->file.fd = fd;
	rig_shows_nothing(rig, ioas, 0);
	rig_free(rig);
}

void conformance_copy_shows_the_same_pages(void **state)
{
	struct rig *rig = rig_new();
	uint32_t parent = rig_space(rig, false, NULL), ioas;

	rig_map(rig, parent, 0, 0, 64, RW, 0);
	ioas = rig_space(rig, true, NULL);
	rig_copy(rig, ioas, 1022, parent, 10, 5, RW, 0);
	rig_copy(rig, ioas, 8, parent, 10, 1, RW, 0);
	for (unsigned int i = 0; i < 5; i++)
		rig_shows(rig, ioas, 1022 + i, 10 + i);
	rig_shows(rig, ioas, 8, 10);
	rig_shows_nothing(rig, ioas, 1021);
	rig_shows_nothing(rig, ioas, 1027);
	rig_shows_nothing(rig, ioas, 10);
	rig_free(rig);
}

void conformance_copy_of_a_hole(void **state)
{
	struct rig *rig = rig_new();
	uint32_t parent = rig_space(rig, false, NULL), ioas;

	rig_map(rig, parent, 0, 0, 4, RW, 0);
	rig_map(rig, parent, 5, 5, 4, RW, 0);
	ioas = rig_space(rig, true, NULL);
	rig_copy(rig, ioas, 0, parent, 0, 9, RW, ENOENT);
	rig_copy(rig, ioas, 0, parent, 4, 1, RW, ENOENT);
	rig_copy(rig, ioas, 0, parent, 8, 2, RW, ENOENT);
	rig_copy(rig, ioas, 0, parent, 4, 2, RW, ENOENT);
	for (unsigned int i = 0; i < 10; i++)
		rig_shows_nothing(rig, ioas, i);
	rig_copy(rig, ioas, 0, parent, 5, 4, RW, 0);
	rig_shows(rig, ioas, 3, 8);
	rig_free(rig);
}

void conformance_copy_overlap_changes_nothing(void **state)
{
	struct rig *rig = rig_new();
	uint32_t parent = rig_space(rig, false, NULL), ioas;

	rig_map(rig, parent, 0, 0, 64, RW, 0);
	ioas = rig_space(rig, true, NULL);
	rig_copy(rig, ioas, 4, parent, 20, 2, RW, 0);
	rig_copy(rig, ioas, 4, parent, 20, 2, RW, EEXIST);
	rig_copy(rig, ioas, 3, parent, 30, 2, RW, EEXIST);
	rig_copy(rig, ioas, 5, parent, 30, 2, RW, EEXIST);
	rig_copy(rig, ioas, 0, parent, 30, 16, RW, EEXIST);
	rig_map(rig, ioas, 5, 40, 1, RW, EEXIST);
	rig_shows(rig, ioas, 4, 20);
	rig_shows(rig, ioas, 5, 21);
	rig_shows_nothing(rig, ioas, 3);
	rig_shows_nothing(rig, ioas, 6);
	rig_unmap(rig, ioas, 0, 64, 0, 2);
	rig_free(rig);
}

void conformance_copy_across_areas(void **state)
{
	struct rig *rig = rig_new();
	uint32_t parent = rig_space(rig, false, NULL), ioas;

	rig_map(rig, parent, 0, 100, 4, RW, 0);
	rig_map(rig, parent, 4, 50, 4, RW, 0);
	rig_map(rig, parent, 8, 200, 4, RW, 0);
	ioas = rig_space(rig, true, NULL);
	rig_copy(rig, ioas, 32, parent, 3, 6, RW, 0);
	rig_shows(rig, ioas, 32, 103);
	for (unsigned int i = 0; i < 4; i++)
		rig_shows(rig, ioas, 33 + i, 50 + i);
	rig_shows(rig, ioas, 37, 200);
	/* Each piece is an area of its own. */
	rig_unmap(rig, ioas, 33, 4, 0, 4);
	rig_shows(rig, ioas, 32, 103);
	rig_shows_nothing(rig, ioas, 36);
	rig_shows(rig, ioas, 37, 200);
	rig_free(rig);
}

void conformance_copy_within_one_space(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);

	rig_map(rig, ioas, 0, 0, 8, RW, 0);
	rig_copy(rig, ioas, 4, ioas, 0, 8, RW, EEXIST);
	rig_copy(rig, ioas, 600, ioas, 2, 4, RW, 0);
	rig_shows(rig, ioas, 600, 2);
	rig_shows(rig, ioas, 603, 5);
	rig_shows(rig, ioas, 2, 2);
	rig_shows_nothing(rig, ioas, 604);
	rig_free(rig);
}

void conformance_copy_writable_of_read_only(void **state)
{
	struct rig *rig = rig_new();
	uint32_t parent = rig_space(rig, false, NULL), ioas;

	rig_map(rig, parent, 0, 0, 4, RW, 0);
	rig_map(rig, parent, 4, 4, 4, IOMMU_PROT_READ, 0);
	ioas = rig_space(rig, true, NULL);
	rig_copy(rig, ioas, 0, parent, 4, 4, RW, EPERM);
	rig_copy(rig, ioas, 0, parent, 0, 8, RW, EPERM);
	for (unsigned int i = 0; i < 8; i++)
		rig_shows_nothing(rig, ioas, i);
	rig_copy(rig, ioas, 0, parent, 0, 8, IOMMU_PROT_READ, 0);
	/* What counts is how the memory was mapped, not what the area in between allows. */
	rig_copy(rig, ioas, 16, ioas, 0, 4, RW, 0);
	rig_copy(rig, ioas, 20, ioas, 4, 4, RW, EPERM);
	rig_shows(rig, ioas, 16, 0);
	rig_free(rig);
}

void conformance_copy_arguments(void **state)
{
	struct rig *rig = rig_new();
	uint32_t parent = rig_space(rig, false, NULL), ioas = rig_space(rig, true, NULL);
	const struct iommu_backend_ops *ops = rig->ops;
	uint64_t base = rig->base;

	rig_map(rig, parent, 0, 0, 4, RW, 0);
	assert_int_equal(ops->copy(rig->context, ioas, base, parent, base, 0, RW), EINVAL);
	assert_int_equal(ops->copy(rig->context, ioas, base, parent, base, PAGE, 0), EINVAL);
	assert_int_equal(ops->copy(rig->context, ioas, base + 8, parent, base, PAGE, RW), EINVAL);
	assert_int_equal(ops->copy(rig->context, ioas, base, parent, base, PAGE - 8, RW), EINVAL);
	assert_int_equal(ops->copy(rig->context, ioas, base, parent, base + 8, PAGE, RW), EINVAL);
	assert_int_equal(ops->copy(rig->context, ioas, -PAGE, parent, base, 2 * PAGE, RW),
			 EOVERFLOW);
	assert_int_equal(ops->copy(rig->context, ioas, base, parent, -PAGE, 2 * PAGE, RW),
			 EOVERFLOW);
	assert_int_equal(ops->copy(rig->context, 4000, base, parent, base, PAGE, RW), ENOENT);
	assert_int_equal(ops->copy(rig->context, ioas, base, 4000, base, PAGE, RW), ENOENT);
	rig_shows_nothing(rig, ioas, 0);
	rig_free(rig);
}

void conformance_unmap_part_of_an_area(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);

	rig_map(rig, ioas, 4, 0, 4, RW, 0);
	rig_unmap(rig, ioas, 4, 3, ENOENT, 0);
	rig_unmap(rig, ioas, 5, 3, ENOENT, 0);
	rig_unmap(rig, ioas, 5, 1, ENOENT, 0);
	rig_unmap(rig, ioas, 0, 5, ENOENT, 0);
	rig_unmap(rig, ioas, 7, 64, ENOENT, 0);
	for (unsigned int i = 0; i < 4; i++)
		rig_shows(rig, ioas, 4 + i, i);
	rig_unmap(rig, ioas, 4, 4, 0, 4);
	rig_shows_nothing(rig, ioas, 4);
	rig_free(rig);
}

void conformance_unmap_areas_before_a_part_are_gone(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);

	rig_map(rig, ioas, 0, 0, 2, RW, 0);
	rig_map(rig, ioas, 2, 2, 2, RW, 0);
	rig_map(rig, ioas, 6, 6, 4, RW, 0);
	rig_map(rig, ioas, 10, 10, 1, RW, 0);
	rig_unmap(rig, ioas, 0, 8, ENOENT, 0);
	for (unsigned int i = 0; i < 6; i++)
		rig_shows_nothing(rig, ioas, i);
	for (unsigned int i = 6; i < 11; i++)
		rig_shows(rig, ioas, i, i);
	/* The first area is the one that is cut: nothing goes. */
	rig_unmap(rig, ioas, 7, 4, ENOENT, 0);
	for (unsigned int i = 6; i < 11; i++)
		rig_shows(rig, ioas, i, i);
	rig_free(rig);
}

void conformance_unmap_nothing(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);
	uint64_t unmapped;

	rig_unmap(rig, ioas, 0, 64, ENOENT, 0);
	rig_map(rig, ioas, 4, 0, 1, RW, 0);
	rig_unmap(rig, ioas, 0, 4, ENOENT, 0);
	rig_unmap(rig, ioas, 5, 4, ENOENT, 0);
	assert_int_equal(rig->ops->unmap(rig->context, ioas, rig->base, 0, &unmapped), EINVAL);
	assert_int_equal(rig->ops->unmap(rig->context, ioas, -PAGE, 2 * PAGE, &unmapped),
			 EOVERFLOW);
	assert_int_equal(rig->ops->unmap(rig->context, 4000, rig->base, PAGE, &unmapped), ENOENT);
	rig_shows(rig, ioas, 4, 0);
	rig_free(rig);
}

void conformance_unmap_many_areas(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);

	for (unsigned int i = 0; i < 100; i++)
		rig_map(rig, ioas, i * 37, i, 1 + i % 3, RW, 0);
	rig_unmap(rig, ioas, 37, 98 * 37, 0, 98 + 33 + 2 * 33);
	rig_shows(rig, ioas, 0, 0);
	rig_shows_nothing(rig, ioas, 37);
	rig_shows_nothing(rig, ioas, 98 * 37);
	rig_shows(rig, ioas, 99 * 37, 99);
	rig_free(rig);
}

void conformance_unmap_everything(void **state)
{
	struct rig *rig = rig_new();
	uint32_t ioas = rig_space(rig, false, NULL);
	uint64_t unmapped;

	rig_map(rig, ioas, 0, 0, 4, RW, 0);
	rig_map(rig, ioas, ROOM_PAGES - 4, 4, 4, RW, 0);
	assert_int_equal(rig->ops->unmap(rig->context, ioas, 0, UINT64_MAX, &unmapped), 0);
	assert_int_equal(unmapped, 8 * PAGE);
	assert_int_equal(rig->ops->unmap(rig->context, ioas, 0, UINT64_MAX, &unmapped), 0);
	assert_int_equal(unmapped, 0);
	rig_shows_nothing(rig, ioas, 0);
	rig_free(rig);
}

void conformance_unmap_of_the_source_leaves_copies(void **state)
{
	struct rig *rig = rig_new();
	uint32_t parent = rig_space(rig, false, NULL), ioas;

	rig_map(rig, parent, 0, 0, 8, RW, 0);
	ioas = rig_space(rig, true, NULL);
	rig_copy(rig, ioas, 0, parent, 2, 4, RW, 0);
	rig_unmap(rig, parent, 0, 8, 0, 8);
	for (unsigned int i = 0; i < 4; i++)
		rig_shows(rig, ioas, i, 2 + i);
	/* Another file where the old one was: the copies keep the old. */
	rig_map(rig, parent, 0, 300, 8, RW, 0);
	for (unsigned int i = 0; i < 4; i++)
		rig_shows(rig, ioas, i, 2 + i);
	rig_free(rig);
}

void conformance_read_only_holds(void **state)
{
	struct rig *rig = rig_new();
	uint32_t parent = rig_space(rig, false, NULL), ioas;

	rig_map(rig, parent, 0, 0, 2, IOMMU_PROT_READ, 0);
	rig_map(rig, parent, 2, 2, 2, RW, 0);
	ioas = rig_space(rig, true, NULL);
	rig_copy(rig, ioas, 0, parent, 0, 4, IOMMU_PROT_READ, 0);
	for (unsigned int i = 0; i < 4; i++) {
		rig_dma_misses(rig, i);
		rig_dma_reads(rig, i, i);
	}
	rig_free(rig);
}
