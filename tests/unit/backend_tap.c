/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backend_tap.h"

static const struct iommu_backend_ops *real;
static int (*hook)(const char *call, const void *object);

#define TAPPED(name, object, parameters, ...)                   \
	static int tapped_##name parameters                     \
	{                                                       \
		int error = hook(#name, object);                \
                                                                \
		return error ? error : real->name(__VA_ARGS__); \
	}

TAPPED(context_new, b, (struct iommu_backend * b, struct iommu_context **ret), b, ret)
TAPPED(ioas_new, c, (struct iommu_context * c, bool cuttable, uint32_t *ret), c, cuttable, ret)
TAPPED(map_file, c,
       (struct iommu_context * c, uint32_t ioas, const struct iommu_file *file, uint64_t offset,
	uint64_t length, uint64_t iova, unsigned int prot),
       c, ioas, file, offset, length, iova, prot)
TAPPED(copy, c,
       (struct iommu_context * c, uint32_t dst, uint64_t dst_iova, uint32_t src, uint64_t src_iova,
	uint64_t length, unsigned int prot),
       c, dst, dst_iova, src, src_iova, length, prot)
TAPPED(unmap, c,
       (struct iommu_context * c, uint32_t ioas, uint64_t iova, uint64_t length, uint64_t *ret), c,
       ioas, iova, length, ret)
TAPPED(cut, c,
       (struct iommu_context * c, uint32_t ioas, uint64_t iova, uint64_t length, uint64_t *ret), c,
       ioas, iova, length, ret)
TAPPED(iova_ranges, c,
       (struct iommu_context * c, uint32_t ioas, struct iommu_range *ret, size_t n, size_t *ret_n),
       c, ioas, ret, n, ret_n)
TAPPED(page_table_new, c,
       (struct iommu_context * c, struct iommu_device *d, uint32_t ioas, uint32_t *ret), c, d, ioas,
       ret)
TAPPED(destroy, c, (struct iommu_context * c, uint32_t id), c, id)
TAPPED(device_identify, b,
       (struct iommu_backend * b, const struct iommu_device_address *a,
	struct iommu_device_info *ret),
       b, a, ret)
TAPPED(device_open, b,
       (struct iommu_backend * b, const struct iommu_device_address *a, struct iommu_device **ret),
       b, a, ret)
TAPPED(device_descriptor, d, (struct iommu_device * d, int *ret), d, ret)
TAPPED(device_held, d, (struct iommu_device * d, bool *ret), d, ret)
TAPPED(device_bind, d,
       (struct iommu_device * d, struct iommu_context *c, const uint8_t *token, uint32_t *ret), d,
       c, token, ret)
TAPPED(device_info, d, (struct iommu_device * d, struct iommu_device_info *ret), d, ret)
TAPPED(attach, d, (struct iommu_device * d, uint32_t page_table), d, page_table)
TAPPED(detach, d, (struct iommu_device * d), d)
TAPPED(device_stop, d, (struct iommu_device * d), d)

static struct iommu_context *tapped_context_free(struct iommu_context *c)
{
	hook("context_free", c);
	return real->context_free(c);
}

static struct iommu_device *tapped_device_close(struct iommu_device *d)
{
	hook("device_close", d);
	return real->device_close(d);
}

static struct iommu_backend_ops tapped;

void backend_tap(struct iommu_backend *backend,
		 int (*new_hook)(const char *call, const void *object))
{
	hook = new_hook;
	real = backend->ops;
	tapped = *real;
	tapped.context_free = tapped_context_free;
	tapped.device_close = tapped_device_close;
	tapped.context_new = tapped_context_new;
	tapped.ioas_new = tapped_ioas_new;
	tapped.map_file = tapped_map_file;
	tapped.copy = tapped_copy;
	tapped.unmap = tapped_unmap;
	tapped.cut = tapped_cut;
	tapped.iova_ranges = tapped_iova_ranges;
	tapped.page_table_new = tapped_page_table_new;
	tapped.destroy = tapped_destroy;
	tapped.device_identify = tapped_device_identify;
	tapped.device_open = tapped_device_open;
	tapped.device_descriptor = tapped_device_descriptor;
	tapped.device_held = tapped_device_held;
	tapped.device_bind = tapped_device_bind;
	tapped.device_info = tapped_device_info;
	tapped.attach = tapped_attach;
	tapped.detach = tapped_detach;
	tapped.device_stop = tapped_device_stop;
	backend->ops = &tapped;
}
