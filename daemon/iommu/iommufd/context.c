/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A context and its address spaces: map, copy, unmap, cut.
 *
 * Mappings are always placed where the caller says (FIXED_IOVA), with the protection that it says;
 * the kernel refuses what it does not like, and its errno is the answer. Only what it would take in
 * a sense that callers do not mean is refused here.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/iommufd.h"
#include "iommu/iommufd/uapi.h"

int iommufd_context_new(struct iommu_backend *base, struct iommu_context **ret)
{
	struct iommufd_backend *backend = iommufd_backend_of(base);
	struct iommu_features features;
	struct iommu_context *context;
	int error = iommufd_features(backend, &features);

	if (error)
		return error;
	context = calloc(1, sizeof(*context));
	if (!context)
		return ENOMEM;
	context->fd = open(backend->iommu_path, O_RDWR | O_CLOEXEC);
	if (context->fd < 0) {
		error = errno;
		free(context);
		return error;
	}
	context->backend = backend;
	context->map_file = features.map_file;
	pthread_mutex_init(&context->select_lock, NULL);
	*ret = context;
	return 0;
}

/* Every iommufd knows that call, and no other descriptor does: of a device of that number it says
 * that there is none. */
static bool is_iommufd(int fd)
{
	struct uapi_iommu_destroy destroy = {.size = sizeof(destroy), .id = UINT32_MAX};
	struct stat status;

	return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) &&
	       iommufd_call(fd, UAPI_IOMMU_DESTROY, &destroy) == ENOENT;
}

int iommufd_context_adopt(struct iommu_backend *base, int consume_fd, struct iommu_context **ret)
{
	struct iommufd_backend *backend = iommufd_backend_of(base);
	struct iommu_features features;
	struct iommu_context *context = NULL;
	int error = is_iommufd(consume_fd) ? iommufd_features(backend, &features) : EINVAL;

	if (!error) {
		context = calloc(1, sizeof(*context));
		error = context ? 0 : ENOMEM;
	}
	if (error) {
		if (consume_fd >= 0)
			close(consume_fd);
		return error;
	}
	context->fd = consume_fd;
	context->backend = backend;
	context->map_file = features.map_file;
	pthread_mutex_init(&context->select_lock, NULL);
	*ret = context;
	return 0;
}

/* A kernel that cannot tell (before 6.3) has no device descriptors either. */
int iommufd_context_has_device(struct iommu_context *context, uint32_t id, bool *ret)
{
	struct uapi_hw_info info = {.size = sizeof(info), .dev_id = id};
	int error = iommufd_call(context->fd, UAPI_IOMMU_GET_HW_INFO, &info);

	if (error && error != ENOENT && error != EINVAL && error != EOPNOTSUPP)
		return error;
	/* Of a device whose IOMMU has nothing to tell: EOPNOTSUPP; of another object: ENOENT. */
	*ret = !error || error == EOPNOTSUPP;
	return 0;
}

int iommufd_context_change_process(struct iommu_context *context)
{
	struct uapi_change_process change = {.size = sizeof(change)};
	int error = iommufd_call(context->fd, UAPI_IOMMU_IOAS_CHANGE_PROCESS, &change);

	/* No such call; or an area that is no file's, which kernels without MAP_FILE have only. */
	return error == ENOTTY || error == EINVAL ? EOPNOTSUPP : error;
}

struct iommu_context *iommufd_context_free(struct iommu_context *context)
{
	if (!context)
		return NULL;
	close(context->fd);
	pthread_mutex_destroy(&context->select_lock);
	free(context);
	return NULL;
}

int iommufd_context_fd(struct iommu_context *context)
{
	return context->fd;
}

static int huge_pages_off(struct iommu_context *context, uint32_t ioas)
{
	struct uapi_iommu_option option = {
		.size = sizeof(option),
		.option_id = UAPI_IOMMU_OPTION_HUGE_PAGES,
		.op = UAPI_IOMMU_OPTION_SET,
		.object_id = ioas,
		.val64 = 0,
	};

	return iommufd_call(context->fd, UAPI_IOMMU_OPTION, &option);
}

int iommufd_ioas_new(struct iommu_context *context, bool cuttable, uint32_t *ret_ioas)
{
	struct uapi_ioas_alloc alloc = {.size = sizeof(alloc)};
	int error = iommufd_call(context->fd, UAPI_IOMMU_IOAS_ALLOC, &alloc);

	if (error)
		return error;
	if (cuttable) {
		error = huge_pages_off(context, alloc.out_ioas_id);
		if (error) {
			iommufd_destroy(context, alloc.out_ioas_id);
			return error;
		}
	}
	*ret_ioas = alloc.out_ioas_id;
	return 0;
}

static uint32_t map_flags(unsigned int prot)
{
	uint32_t flags = UAPI_IOMMU_MAP_FIXED_IOVA;

	if (prot & IOMMU_PROT_READ)
		flags |= UAPI_IOMMU_MAP_READABLE;
	if (prot & IOMMU_PROT_WRITE)
		flags |= UAPI_IOMMU_MAP_WRITABLE;
	return flags;
}

/* What MAP_FILE takes. EINVAL: another kind of file, or it is shorter than end_bytes. Without the
 * second a mapping of ours that lies behind the file's could come in front of a device. */
static int check_memory_file(int fd, uint64_t end_bytes)
{
	struct statfs system;
	struct stat status;

	if (fstat(fd, &status) < 0 || fstatfs(fd, &system) < 0)
		return errno;
	/* /dev is a tmpfs too. */
	if (!S_ISREG(status.st_mode) || end_bytes > (uint64_t)status.st_size)
		return EINVAL;
	switch ((uint32_t)system.f_type) {
	case TMPFS_MAGIC:
	case HUGETLBFS_MAGIC:
		return 0;
	default:
		return EINVAL;
	}
}

/* Kernels before 6.13: pages are found through our own mapping of the file. Answers as MAP_FILE
 * does: a page that the file does not have is EFAULT in a mapping and EINVAL in a file. */
static int map_host(struct iommu_context *context, uint32_t ioas, const struct iommu_file *file,
		    uint64_t offset, uint64_t length, uint64_t iova, uint32_t flags)
{
	struct uapi_ioas_map map = {
		.size = sizeof(map),
		.flags = flags,
		.ioas_id = ioas,
		.user_va = (uintptr_t)file->host + offset,
		.length = length,
		.iova = iova,
	};
	int error = check_memory_file(file->fd, offset + length);

	if (!error)
		error = iommufd_call(context->fd, UAPI_IOMMU_IOAS_MAP, &map);
	return error == EFAULT ? EINVAL : error;
}

int iommufd_map_file(struct iommu_context *context, uint32_t ioas, const struct iommu_file *file,
		     uint64_t offset, uint64_t length, uint64_t iova, unsigned int prot)
{
	struct uapi_ioas_map_file map = {
		.size = sizeof(map),
		.flags = map_flags(prot),
		.ioas_id = ioas,
		.fd = file->fd,
		.start = offset,
		.length = length,
		.iova = iova,
	};

	/* Beyond the file the kernel pins nothing of it; beyond our mapping of the file lies
	 * memory that is nobody's to map. */
	if (offset > file->bytes || length > file->bytes - offset)
		return EINVAL;
	if (context->map_file)
		return iommufd_call(context->fd, UAPI_IOMMU_IOAS_MAP_FILE, &map);
	if (!file->host)
		return EOPNOTSUPP;
	return map_host(context, ioas, file, offset, length, iova, map.flags);
}

int iommufd_copy(struct iommu_context *context, uint32_t dst_ioas, uint64_t dst_iova,
		 uint32_t src_ioas, uint64_t src_iova, uint64_t length, unsigned int prot)
{
	struct uapi_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = map_flags(prot),
		.dst_ioas_id = dst_ioas,
		.src_ioas_id = src_ioas,
		.length = length,
		.dst_iova = dst_iova,
		.src_iova = src_iova,
	};

	return iommufd_call(context->fd, UAPI_IOMMU_IOAS_COPY, &copy);
}

int iommufd_unmap(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		  uint64_t *ret_unmapped)
{
	struct uapi_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = ioas,
		.iova = iova,
		.length = length,
	};
	int error = iommufd_call(context->fd, UAPI_IOMMU_IOAS_UNMAP, &unmap);

	/* On failure the kernel does not tell what it took before. */
	*ret_unmapped = error ? 0 : unmap.length;
	return error;
}

/* With select_lock held: the address space that VFIO-compatible calls work on. */
static int select_ioas(struct iommu_context *context, uint32_t ioas)
{
	struct uapi_vfio_ioas set = {
		.size = sizeof(set),
		.ioas_id = ioas,
		.op = UAPI_IOMMU_VFIO_IOAS_SET,
	};

	return iommufd_call(context->fd, UAPI_IOMMU_VFIO_IOAS, &set);
}

int iommufd_cut(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		uint64_t *ret_unmapped)
{
	struct uapi_vfio_unmap unmap = {.argsz = sizeof(unmap), .iova = iova, .size = length};
	uint64_t last;
	int error;

	*ret_unmapped = 0;
	/* The kernel splits at the ends before it looks whether the range makes sense. */
	if (!length)
		return EINVAL;
	if (__builtin_add_overflow(iova, length - 1, &last))
		return EOVERFLOW;
	pthread_mutex_lock(&context->select_lock);
	error = select_ioas(context, ioas);
	if (!error)
		error = iommufd_call(context->fd, UAPI_VFIO_IOMMU_UNMAP_DMA, &unmap);
	pthread_mutex_unlock(&context->select_lock);
	/* A failure while splitting leaves the asked length in place; one while unmapping tells
	 * what was taken, which is less. */
	if (!error || unmap.size < length)
		*ret_unmapped = unmap.size;
	return error;
}

int iommufd_iova_ranges(struct iommu_context *context, uint32_t ioas, struct iommu_range *ret,
			size_t n, size_t *ret_n)
{
	struct uapi_iova_range room[IOMMU_IOVA_RANGES_MAX];
	struct uapi_ioas_iova_ranges ranges = {
		.size = sizeof(ranges),
		.ioas_id = ioas,
		.num_iovas = (uint32_t)(n < IOMMU_IOVA_RANGES_MAX ? n : IOMMU_IOVA_RANGES_MAX),
		.allowed_iovas = (uintptr_t)room,
	};
	uint32_t fits = ranges.num_iovas;
	int error = iommufd_call(context->fd, UAPI_IOMMU_IOAS_IOVA_RANGES, &ranges);

	/* EMSGSIZE: there are more, and num_iovas tells how many. */
	if (error && error != EMSGSIZE)
		return error;
	if (fits > ranges.num_iovas)
		fits = ranges.num_iovas;
	for (uint32_t i = 0; i < fits; i++)
		ret[i] = (struct iommu_range){.first = room[i].start, .last = room[i].last};
	*ret_n = ranges.num_iovas;
	return 0;
}

int iommufd_page_sizes(struct iommu_context *context, uint32_t ioas, uint64_t *ret)
{
	struct uapi_vfio_iommu_info info = {.argsz = sizeof(info)};
	int error;

	pthread_mutex_lock(&context->select_lock);
	error = select_ioas(context, ioas);
	if (!error)
		error = iommufd_call(context->fd, UAPI_VFIO_IOMMU_GET_INFO, &info);
	pthread_mutex_unlock(&context->select_lock);
	if (error)
		return error;
	if (!(info.flags & UAPI_VFIO_IOMMU_INFO_PGSIZES))
		return EOPNOTSUPP;
	*ret = info.iova_pgsizes;
	return 0;
}

/* Can wait up to a minute for calls that still use the object. */
int iommufd_destroy(struct iommu_context *context, uint32_t id)
{
	struct uapi_iommu_destroy destroy = {.size = sizeof(destroy), .id = id};

	return iommufd_call(context->fd, UAPI_IOMMU_DESTROY, &destroy);
}
