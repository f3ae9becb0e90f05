/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The backend object: where the kernel's interfaces are, and which of them this kernel has. That is
 * found by trying each on a scratch context, never by a version: distributions backport.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/iommufd.h"
#include "iommu/iommufd/options.h"
#include "iommu/iommufd/uapi.h"

static bool is_missing(int error)
{
	return error == ENOTTY || error == EOPNOTSUPP;
}

/* A map of one page pins nothing, since a scratch IOAS has no page table. */
static int probe_map_file(struct iommu_context *scratch, uint32_t ioas, bool *ret)
{
	long page_bytes = sysconf(_SC_PAGESIZE);
	struct uapi_ioas_map_file map = {
		.size = sizeof(map),
		.flags = UAPI_IOMMU_MAP_FIXED_IOVA | UAPI_IOMMU_MAP_READABLE,
		.ioas_id = ioas,
		.length = (uint64_t)page_bytes,
		.iova = UINT64_C(1) << 32,
	};
	int error;

	map.fd = memfd_create("iommu-probe", MFD_CLOEXEC);
	if (map.fd < 0)
		return errno;
	error = ftruncate(map.fd, page_bytes) < 0
			? errno
			: iommufd_call(scratch->fd, UAPI_IOMMU_IOAS_MAP_FILE, &map);
	close(map.fd);
	if (error && !is_missing(error))
		return error;
	*ret = !error;
	return 0;
}

static int probe_cut(struct iommu_context *scratch, bool *ret)
{
	uint64_t unmapped;
	uint32_t ioas;
	int error = iommufd_ioas_new(scratch, true, &ioas);

	if (!error)
		error = iommufd_cut(scratch, ioas, UINT64_C(1) << 32, UINT64_C(1) << 32, &unmapped);
	if (error && !is_missing(error))
		return error;
	*ret = !error;
	return 0;
}

/* Takes over the charge of an empty context: nothing. */
static int probe_change_process(struct iommu_context *scratch, bool *ret)
{
	struct uapi_change_process change = {.size = sizeof(change)};
	int error = iommufd_call(scratch->fd, UAPI_IOMMU_IOAS_CHANGE_PROCESS, &change);

	if (error && !is_missing(error))
		return error;
	*ret = !error;
	return 0;
}

static int probe_in(struct iommu_context *scratch, struct iommu_features *ret)
{
	struct iommu_features features = {0};
	uint32_t ioas;
	int error = probe_change_process(scratch, &features.change_process);

	if (!error)
		error = probe_cut(scratch, &features.cut);
	if (!error)
		error = iommufd_ioas_new(scratch, false, &ioas);
	if (!error)
		error = probe_map_file(scratch, ioas, &features.map_file);
	if (!error)
		*ret = features;
	return error;
}

static int probe_once(struct iommufd_backend *backend)
{
	struct iommu_context scratch = {.backend = backend};
	int error;

	if (backend->probed)
		return 0;
	scratch.fd = open(backend->iommu_path, O_RDWR | O_CLOEXEC);
	if (scratch.fd < 0)
		return errno;
	pthread_mutex_init(&scratch.select_lock, NULL);
	error = probe_in(&scratch, &backend->features);
	pthread_mutex_destroy(&scratch.select_lock);
	close(scratch.fd);
	if (error)
		return error;
	if (backend->without_map_file)
		backend->features.map_file = false;
	backend->probed = true;
	return 0;
}

int iommufd_features(struct iommufd_backend *backend, struct iommu_features *ret)
{
	int error;

	pthread_mutex_lock(&backend->probe_lock);
	error = probe_once(backend);
	if (!error)
		*ret = backend->features;
	pthread_mutex_unlock(&backend->probe_lock);
	if (error)
		return error;
	ret->nest_parent = atomic_load(&backend->seen_nest_parent);
	ret->dirty_tracking = atomic_load(&backend->seen_dirty_tracking);
	return 0;
}

static int backend_probe(struct iommu_backend *base, struct iommu_features *ret)
{
	return iommufd_features(iommufd_backend_of(base), ret);
}

static struct iommu_backend *backend_free(struct iommu_backend *base)
{
	struct iommufd_backend *backend = iommufd_backend_of(base);

	if (!backend)
		return NULL;
	pthread_mutex_destroy(&backend->probe_lock);
	free(backend->iommu_path);
	free(backend->vfio_dir);
	free(backend->sysfs);
	free(backend);
	return NULL;
}

static const struct iommu_backend_ops iommufd_ops = {
	.name = "iommufd",
	.probe = backend_probe,
	.free = backend_free,
	.context_new = iommufd_context_new,
	.context_free = iommufd_context_free,
	.context_fd = iommufd_context_fd,
	.context_adopt = iommufd_context_adopt,
	.context_has_device = iommufd_context_has_device,
	.context_change_process = iommufd_context_change_process,
	.ioas_new = iommufd_ioas_new,
	.map_file = iommufd_map_file,
	.copy = iommufd_copy,
	.unmap = iommufd_unmap,
	.cut = iommufd_cut,
	.iova_ranges = iommufd_iova_ranges,
	.page_table_new = iommufd_page_table_new,
	.page_table_new_nested = iommufd_page_table_new_nested,
	.invalidate = iommufd_invalidate,
	.dirty_tracking = iommufd_dirty_tracking,
	.dirty_read = iommufd_dirty_read,
	.destroy = iommufd_destroy,
	.device_identify = iommufd_device_identify,
	.device_open = iommufd_device_open,
	.device_open_fd = iommufd_device_open_fd,
	.device_adopt = iommufd_device_adopt,
	.device_close = iommufd_device_close,
	.device_descriptor = iommufd_device_descriptor,
	.device_fd = iommufd_device_fd,
	.device_held = iommufd_device_held,
	.device_bind = iommufd_device_bind,
	.device_info = iommufd_device_info,
	.attach = iommufd_attach,
	.detach = iommufd_detach,
	.device_stop = iommufd_device_stop,
};

/* Whether there is an iommufd to open, and we may. */
static int check_node(const char *iommu_path)
{
	int fd = open(iommu_path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int iommu_iommufd_new_with(struct iommu_backend **ret, const struct iommu_iommufd_options *options)
{
	int error = check_node(options->iommu_path);
	struct iommufd_backend *backend;

	if (error)
		return error;
	backend = calloc(1, sizeof(*backend));
	if (!backend)
		return -ENOMEM;
	backend->base.ops = &iommufd_ops;
	backend->open_wait_ns = options->open_wait_ns;
	backend->without_map_file = options->without_map_file;
	pthread_mutex_init(&backend->probe_lock, NULL);
	backend->iommu_path = strdup(options->iommu_path);
	backend->vfio_dir = strdup(options->vfio_dir);
	backend->sysfs = strdup(options->sysfs);
	if (!backend->iommu_path || !backend->vfio_dir || !backend->sysfs) {
		backend_free(&backend->base);
		return -ENOMEM;
	}
	*ret = &backend->base;
	return 0;
}

int iommu_iommufd_new(struct iommu_backend **ret, const char *iommu_path, const char *vfio_dir,
		      const char *sysfs)
{
	struct iommu_iommufd_options options = {
		.iommu_path = iommu_path,
		.vfio_dir = vfio_dir,
		.sysfs = sysfs,
		.open_wait_ns = IOMMU_IOMMUFD_OPEN_WAIT_NS,
	};

	return iommu_iommufd_new_with(ret, &options);
}
