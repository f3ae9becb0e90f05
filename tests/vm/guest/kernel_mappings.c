/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the kernel has mapped for a daemon, whatever that daemon believes; as root.
 *
 *	kernel_mappings PID FIRST PAGES
 *
 * For each address space of each iommufd that process PID has open there is a line: a bit for each
 * of so many pages from IOVA FIRST on, the first one's in the first digit's highest, set where
 * something is mapped. The kernel tells nobody what is mapped, but a copy of what is not fails. For
 * that an address space is made in the same context and destroyed: nobody else may change anything
 * in it meanwhile.
 */

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "iommu/backend.h"

#define PAGE    UINT64_C(4096)
#define IDS_MAX 512u

static void fail(const char *what, int error)
{
	printf("FAILED %s: %s\n", what, strerror(error));
	exit(EXIT_FAILURE);
}

static bool page_is_mapped(const struct iommu_backend_ops *ops, struct iommu_context *context,
			   uint32_t probe, uint32_t ioas, uint64_t iova)
{
	uint64_t unmapped;
	int error = ops->copy(context, probe, iova, ioas, iova, PAGE, IOMMU_PROT_READ);

	if (error == ENOENT)
		return false;
	if (!error)
		error = ops->unmap(context, probe, iova, PAGE, &unmapped);
	if (error)
		fail("looking at a page", error);
	return true;
}

static void space_print(const struct iommu_backend_ops *ops, struct iommu_context *context,
			uint32_t probe, uint32_t ioas, uint64_t first, uint64_t n_pages)
{
	unsigned int digit = 0;

	for (uint64_t i = 0; i < n_pages; i++) {
		digit = digit << 1 | page_is_mapped(ops, context, probe, ioas, first + i * PAGE);
		if (i % 4 == 3) {
			printf("%x", digit);
			digit = 0;
		}
	}
	putchar('\n');
}

static void context_print(struct iommu_backend *backend, int consume_fd, uint64_t first,
			  uint64_t n_pages)
{
	const struct iommu_backend_ops *ops = backend->ops;
	struct iommu_range ranges[IOMMU_IOVA_RANGES_MAX];
	struct iommu_context *context;
	uint32_t probe;
	size_t n;
	int error = ops->context_adopt(backend, consume_fd, &context);

	if (!error)
		error = ops->ioas_new(context, false, &probe);
	if (error)
		fail("a context", error);
	for (uint32_t id = 1; id < IDS_MAX; id++) {
		if (id == probe || ops->iova_ranges(context, id, ranges, IOMMU_IOVA_RANGES_MAX, &n))
			continue;
		space_print(ops, context, probe, id, first, n_pages);
	}
	error = ops->destroy(context, probe);
	if (error)
		fail("giving back", error);
	ops->context_free(context);
}

/* One that was opened in a mount namespace that is gone has lost the beginning of its name. */
static bool is_iommufd(const char *pid, const char *number)
{
	static const char name[] = "/iommu";
	char path[300], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, number);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return n >= (ssize_t)sizeof(name) - 1 && !strcmp(target + n - (sizeof(name) - 1), name);
}

int main(int argc, char **argv)
{
	struct iommu_backend *backend;
	struct dirent *entry;
	char path[64];
	DIR *folder;
	int pidfd, fd;

	if (argc != 4)
		return 2;
	snprintf(path, sizeof(path), "/proc/%s/fd", argv[1]);
	folder = opendir(path);
	pidfd = (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0);
	if (!folder || pidfd < 0)
		fail("the process", errno);
	if (iommu_iommufd_new(&backend, "/dev/iommu", "/dev/vfio", "/sys"))
		fail("/dev/iommu", errno);
	while ((entry = readdir(folder))) {
		if (!is_iommufd(argv[1], entry->d_name))
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);
		if (fd < 0)
			fail("a descriptor", errno);
		context_print(backend, fd, strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0));
	}
	closedir(folder);
	return EXIT_SUCCESS;
}
