/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The emulated backend behind the seam: looks objects up, counts, and makes calls fail on request.
 *
 * What it does differently from the kernel, on purpose: addresses and lengths are whole pages also
 * before an address space has a page table, and in unmap; a cut of an address space that was not
 * made for it is EINVAL; a function is unbound when the daemon closes it, also while its VMM still
 * holds a descriptor, which then finds itself blocked and disabled; nothing is charged to anybody.
 */

#include "iommu/emulated/emulated.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iommu/call_count.h"
#include "iommu/emulated/device.h"
#include "iommu/emulated/device_file.h"
#include "iommu/emulated/ioas.h"

static struct emulated_backend *emulated(struct iommu_backend *backend)
{
	return (struct emulated_backend *)backend;
}

static enum iommu_call call_of(enum iommu_emulated_operation operation)
{
	switch (operation) {
	case IOMMU_EMULATED_IOAS_NEW:
		return IOMMU_CALL_IOAS_NEW;
	case IOMMU_EMULATED_MAP:
		return IOMMU_CALL_MAP;
	case IOMMU_EMULATED_COPY:
		return IOMMU_CALL_COPY;
	case IOMMU_EMULATED_UNMAP:
		return IOMMU_CALL_UNMAP;
	case IOMMU_EMULATED_CUT:
		return IOMMU_CALL_CUT;
	case IOMMU_EMULATED_PAGE_TABLE_NEW:
		return IOMMU_CALL_PAGE_TABLE_NEW;
	case IOMMU_EMULATED_DESTROY:
		return IOMMU_CALL_DESTROY;
	case IOMMU_EMULATED_BIND:
		return IOMMU_CALL_BIND;
	case IOMMU_EMULATED_ATTACH:
		return IOMMU_CALL_ATTACH;
	case IOMMU_EMULATED_DETACH:
		return IOMMU_CALL_DETACH;
	case IOMMU_EMULATED_STOP:
		return IOMMU_CALL_STOP;
	default:
		return IOMMU_CALL_OTHER;
	}
}

/* What the kernel would have been called for begins. The error that a test asked for, or 0. */
static int begin(struct emulated_backend *backend, enum iommu_emulated_operation operation)
{
	int error = 0;

	iommu_call_enter(call_of(operation), 0);
	pthread_mutex_lock(&backend->lock);
	if (backend->fail.every & operation)
		error = backend->fail.every_error;
	else if (backend->fail.n && backend->fail.operations & operation && --backend->fail.n == 0)
		error = backend->fail.error;
	pthread_mutex_unlock(&backend->lock);
	return error;
}

/* It ends; returns error. */
static int done(enum iommu_emulated_operation operation, int error)
{
	return iommu_call_exit(call_of(operation), 0, error);
}

static struct emulated_ioas *ioas_get(struct iommu_context *context, uint32_t id)
{
	return (struct emulated_ioas *)emulated_object_get(context, id, EMULATED_OBJECT_IOAS);
}

static void ioas_put(struct emulated_ioas *ioas)
{
	if (ioas)
		emulated_object_put(ioas->context, &ioas->object);
}

/* Counts what succeeded. */
static int counted(_Atomic uint64_t *counter, int error)
{
	if (!error)
		atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
	return error;
}

static int op_probe(struct iommu_backend *backend, struct iommu_features *ret)
{
	*ret = (struct iommu_features){.map_file = true, .cut = true};
	return 0;
}

static struct iommu_backend *op_free(struct iommu_backend *backend)
{
	if (backend) {
		pthread_mutex_destroy(&emulated(backend)->lock);
		free(emulated(backend));
	}
	return NULL;
}

static int op_context_new(struct iommu_backend *backend, struct iommu_context **ret)
{
	int error = begin(emulated(backend), IOMMU_EMULATED_CONTEXT_NEW);

	return done(IOMMU_EMULATED_CONTEXT_NEW,
		    error ? error : emulated_context_new(emulated(backend), ret));
}

static int op_context_fd(struct iommu_context *context)
{
	return context->arena.fd;
}

static int op_context_adopt(struct iommu_backend *backend, int consume_fd,
			    struct iommu_context **ret)
{
	return emulated_context_adopt(emulated(backend), consume_fd, ret);
}

static int op_context_has_device(struct iommu_context *context, uint32_t id, bool *ret)
{
	*ret = emulated_context_has_device(context, id);
	return 0;
}

/* Nothing is counted by process. */
static int op_context_change_process(struct iommu_context *context)
{
	return EOPNOTSUPP;
}

static int op_ioas_new(struct iommu_context *context, bool cuttable, uint32_t *ret_ioas)
{
	int error = begin(context->backend, IOMMU_EMULATED_IOAS_NEW);

	return done(IOMMU_EMULATED_IOAS_NEW,
		    error ? error : emulated_ioas_new(context, cuttable, ret_ioas));
}

static int op_map_file(struct iommu_context *context, uint32_t id, const struct iommu_file *file,
		       uint64_t offset, uint64_t length, uint64_t iova, unsigned int prot)
{
	struct emulated_ioas *ioas;
	int error = begin(context->backend, IOMMU_EMULATED_MAP);

	if (error)
		return done(IOMMU_EMULATED_MAP, error);
	ioas = ioas_get(context, id);
	if (!ioas)
		return done(IOMMU_EMULATED_MAP, ENOENT);
	if (offset > file->bytes || length > file->bytes - offset)
		error = EINVAL;
	else
		error = emulated_ioas_map_file(ioas, file->fd, offset, length, iova, prot);
	ioas_put(ioas);
	return done(IOMMU_EMULATED_MAP, counted(&context->counters.maps, error));
}

/* The source is looked at first, also where there is no destination. */
static int copy_by_ids(struct iommu_context *context, uint32_t dst_ioas, uint64_t dst_iova,
		       uint32_t src_ioas, uint64_t src_iova, uint64_t length, unsigned int prot)
{
	struct emulated_ioas *src = ioas_get(context, src_ioas), *dst;
	int error;

	if (!src)
		return prot & (IOMMU_PROT_READ | IOMMU_PROT_WRITE) ? ENOENT : EINVAL;
	dst = ioas_get(context, dst_ioas);
	if (dst) {
		error = emulated_ioas_copy(dst, dst_iova, src, src_iova, length, prot);
	} else {
		error = emulated_ioas_check_source(src, src_iova, length);
		error = error ? error : ENOENT;
	}
	ioas_put(src);
	ioas_put(dst);
	return error;
}

static int op_copy(struct iommu_context *context, uint32_t dst_ioas, uint64_t dst_iova,
		   uint32_t src_ioas, uint64_t src_iova, uint64_t length, unsigned int prot)
{
	int error = begin(context->backend, IOMMU_EMULATED_COPY);

	if (error)
		return done(IOMMU_EMULATED_COPY, error);
	error = copy_by_ids(context, dst_ioas, dst_iova, src_ioas, src_iova, length, prot);
	return done(IOMMU_EMULATED_COPY, counted(&context->counters.copies, error));
}

static int op_unmap(struct iommu_context *context, uint32_t id, uint64_t iova, uint64_t length,
		    uint64_t *ret_unmapped)
{
	struct emulated_ioas *ioas;
	int error = begin(context->backend, IOMMU_EMULATED_UNMAP);

	*ret_unmapped = 0;
	if (error)
		return done(IOMMU_EMULATED_UNMAP, error);
	ioas = ioas_get(context, id);
	if (!ioas)
		return done(IOMMU_EMULATED_UNMAP, ENOENT);
	error = emulated_ioas_unmap(ioas, iova, length, ret_unmapped);
	ioas_put(ioas);
	return done(IOMMU_EMULATED_UNMAP, counted(&context->counters.unmaps, error));
}

static int op_cut(struct iommu_context *context, uint32_t id, uint64_t iova, uint64_t length,
		  uint64_t *ret_unmapped)
{
	struct emulated_ioas *ioas;
	int error = begin(context->backend, IOMMU_EMULATED_CUT);

	*ret_unmapped = 0;
	if (error)
		return done(IOMMU_EMULATED_CUT, error);
	ioas = ioas_get(context, id);
	if (!ioas)
		return done(IOMMU_EMULATED_CUT, ENOENT);
	error = emulated_ioas_cut(ioas, iova, length, ret_unmapped);
	ioas_put(ioas);
	return done(IOMMU_EMULATED_CUT, counted(&context->counters.cuts, error));
}

static int op_iova_ranges(struct iommu_context *context, uint32_t id, struct iommu_range *ret,
			  size_t n, size_t *ret_n)
{
	struct emulated_ioas *ioas = ioas_get(context, id);

	if (!ioas)
		return ENOENT;
	if (n > 0)
		ret[0] = emulated_ioas_usable(ioas);
	*ret_n = 1;
	ioas_put(ioas);
	return 0;
}

static int op_page_table_new(struct iommu_context *context, struct iommu_device *device,
			     uint32_t ioas, uint32_t *ret_page_table)
{
	int error = begin(context->backend, IOMMU_EMULATED_PAGE_TABLE_NEW);

	return done(IOMMU_EMULATED_PAGE_TABLE_NEW,
		    error ? error : emulated_page_table_new(context, device, ioas, ret_page_table));
}

/* As on s390: no nesting, so nothing that could be invalidated, and no dirty tracking. */
static int op_page_table_new_nested(struct iommu_context *context, struct iommu_device *device,
				    uint32_t parent, const struct iommu_nested_data *data,
				    uint32_t *ret_page_table)
{
	return EOPNOTSUPP;
}

static int op_invalidate(struct iommu_context *context, uint32_t page_table, uint32_t type,
			 const void *entries, uint32_t entry_bytes, uint32_t n,
			 uint32_t *ret_consumed)
{
	struct emulated_object *object =
		emulated_object_get(context, page_table, EMULATED_OBJECT_PAGE_TABLE);

	*ret_consumed = 0;
	if (!object)
		return ENOENT;
	emulated_object_put(context, object);
	return EINVAL;
}

static int op_dirty_tracking(struct iommu_context *context, uint32_t page_table, bool on)
{
	return EOPNOTSUPP;
}

static int op_dirty_read(struct iommu_context *context, uint32_t page_table, uint64_t iova,
			 uint64_t length, uint64_t page_bytes, void *bitmap)
{
	return EOPNOTSUPP;
}

static int op_destroy(struct iommu_context *context, uint32_t id)
{
	int error = begin(context->backend, IOMMU_EMULATED_DESTROY);

	return done(IOMMU_EMULATED_DESTROY, error ? error : emulated_context_destroy(context, id));
}

static int op_device_identify(struct iommu_backend *backend,
			      const struct iommu_device_address *address,
			      struct iommu_device_info *ret)
{
	return emulated_device_identify(emulated(backend), address, ret);
}

static int op_device_open(struct iommu_backend *backend, const struct iommu_device_address *address,
			  struct iommu_device **ret)
{
	int error = begin(emulated(backend), IOMMU_EMULATED_OPEN);

	return done(IOMMU_EMULATED_OPEN,
		    error ? error : emulated_device_open(emulated(backend), address, ret));
}

static int op_device_open_fd(struct iommu_backend *backend, int consume_fd,
			     struct iommu_device **ret)
{
	int error = begin(emulated(backend), IOMMU_EMULATED_OPEN);

	if (error) {
		close(consume_fd);
		return done(IOMMU_EMULATED_OPEN, error);
	}
	return done(IOMMU_EMULATED_OPEN,
		    emulated_device_open_fd(emulated(backend), consume_fd, ret));
}

/* What its file says of it is enough. */
static int op_device_adopt(struct iommu_backend *backend, int consume_fd,
			   const struct iommu_device_address *address,
			   struct iommu_context *context, uint32_t kernel_id,
			   struct iommu_device **ret)
{
	return emulated_device_adopt(emulated(backend), consume_fd, context, kernel_id, ret);
}

static int op_device_descriptor(struct iommu_device *device, int *ret_fd)
{
	int error = begin(device->backend, IOMMU_EMULATED_DESCRIPTOR);

	return done(IOMMU_EMULATED_DESCRIPTOR,
		    error ? error : emulated_file_reopen(device->arena.fd, O_RDONLY, ret_fd));
}

static int op_device_fd(struct iommu_device *device)
{
	return device->arena.fd;
}

static int op_device_bind(struct iommu_device *device, struct iommu_context *context,
			  const uint8_t *vf_token, uint32_t *ret_kernel_id)
{
	int error = begin(device->backend, IOMMU_EMULATED_BIND);

	if (!error)
		error = emulated_device_bind(device, context);
	if (!error)
		*ret_kernel_id = device->object.id;
	return done(IOMMU_EMULATED_BIND, error);
}

static int op_device_info(struct iommu_device *device, struct iommu_device_info *ret)
{
	*ret = device->info;
	return 0;
}

static int op_attach(struct iommu_device *device, uint32_t page_table)
{
	int error = begin(device->backend, IOMMU_EMULATED_ATTACH);

	if (!error)
		return done(IOMMU_EMULATED_ATTACH, emulated_device_attach(device, page_table));
	/* Drivers of the kernel's block a device before what can fail, and leave it so. */
	emulated_device_detach(device);
	return done(IOMMU_EMULATED_ATTACH, error);
}

static int op_detach(struct iommu_device *device)
{
	int error = begin(device->backend, IOMMU_EMULATED_DETACH);

	if (!error)
		emulated_device_detach(device);
	return done(IOMMU_EMULATED_DETACH, error);
}

static int op_device_stop(struct iommu_device *device)
{
	int error = begin(device->backend, IOMMU_EMULATED_STOP);

	if (!error)
		emulated_device_stop(device);
	return done(IOMMU_EMULATED_STOP, error);
}

static const struct iommu_backend_ops emulated_ops = {
	.name = "emulated",
	.probe = op_probe,
	.free = op_free,
	.context_new = op_context_new,
	.context_free = emulated_context_free,
	.context_fd = op_context_fd,
	.context_adopt = op_context_adopt,
	.context_has_device = op_context_has_device,
	.context_change_process = op_context_change_process,
	.ioas_new = op_ioas_new,
	.map_file = op_map_file,
	.copy = op_copy,
	.unmap = op_unmap,
	.cut = op_cut,
	.iova_ranges = op_iova_ranges,
	.page_table_new = op_page_table_new,
	.page_table_new_nested = op_page_table_new_nested,
	.invalidate = op_invalidate,
	.dirty_tracking = op_dirty_tracking,
	.dirty_read = op_dirty_read,
	.destroy = op_destroy,
	.device_identify = op_device_identify,
	.device_open = op_device_open,
	.device_open_fd = op_device_open_fd,
	.device_close = emulated_device_close,
	.device_adopt = op_device_adopt,
	.device_descriptor = op_device_descriptor,
	.device_fd = op_device_fd,
	.device_held = emulated_device_held,
	.device_bind = op_device_bind,
	.device_info = op_device_info,
	.attach = op_attach,
	.detach = op_detach,
	.device_stop = op_device_stop,
};

/* Functions 1 to 8, with the ids of QEMU's educational device. */
static void default_functions(struct emulated_backend *backend)
{
	backend->n_functions = 8;
	for (unsigned int i = 0; i < backend->n_functions; i++) {
		struct iommu_emulated_function *f = &backend->functions[i];

		*f = (struct iommu_emulated_function){
			.fid = i + 1,
			.vendor = 0x1234,
			.device = 0x11e8,
			.dma_first = UINT64_C(0x100000000),
			.dma_last = UINT64_C(0x1fffffffffffff),
			.designations = 0xf,
		};
		snprintf(f->pci_address, sizeof(f->pci_address), "0000:00:%02x.0", i + 1);
	}
}

static bool functions_valid(const struct iommu_emulated_function *functions, size_t n)
{
	if (n > IOMMU_EMULATED_FUNCTIONS_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct iommu_emulated_function *f = &functions[i];

		if (f->dma_first > f->dma_last || f->dma_first % EMULATED_PAGE_BYTES ||
		    (f->dma_last + 1) % EMULATED_PAGE_BYTES ||
		    !memchr(f->pci_address, 0, sizeof(f->pci_address)))
			return false;
		for (size_t j = 0; j < i; j++)
			if (functions[j].fid == f->fid ||
			    (f->pci_address[0] &&
			     strcmp(functions[j].pci_address, f->pci_address) == 0))
				return false;
	}
	return true;
}

int iommu_emulated_new(struct iommu_backend **ret, const struct iommu_emulated_function *functions,
		       size_t n)
{
	struct emulated_backend *backend;

	if (!functions_valid(functions, n))
		return -EINVAL;
	backend = calloc(1, sizeof(*backend));
	if (!backend)
		return -ENOMEM;
	backend->base.ops = &emulated_ops;
	backend->n_functions = n;
	if (n > 0)
		memcpy(backend->functions, functions, n * sizeof(*functions));
	else
		default_functions(backend);
	pthread_mutex_init(&backend->lock, NULL);
	*ret = &backend->base;
	return 0;
}

/* --- for tests --- */

void iommu_emulated_fail_nth(struct iommu_backend *backend, unsigned int operations, unsigned int n,
			     int error)
{
	struct emulated_backend *b = emulated(backend);

	pthread_mutex_lock(&b->lock);
	b->fail.operations = operations;
	b->fail.n = n;
	b->fail.error = error;
	pthread_mutex_unlock(&b->lock);
}

void iommu_emulated_fail_every(struct iommu_backend *backend, unsigned int operations, int error)
{
	struct emulated_backend *b = emulated(backend);

	pthread_mutex_lock(&b->lock);
	b->fail.every = operations;
	b->fail.every_error = error;
	pthread_mutex_unlock(&b->lock);
}

void iommu_emulated_limit_pins(struct iommu_context *context, uint64_t pages)
{
	atomic_store(&context->memory.pinned_pages_max, pages);
}

void iommu_emulated_counters(struct iommu_context *context, struct iommu_emulated_counters *ret)
{
	*ret = (struct iommu_emulated_counters){
		.maps = atomic_load(&context->counters.maps),
		.copies = atomic_load(&context->counters.copies),
		.unmaps = atomic_load(&context->counters.unmaps),
		.cuts = atomic_load(&context->counters.cuts),
		.pinned_pages = atomic_load(&context->memory.pinned_pages),
	};
	pthread_mutex_lock(&context->arena.lock);
	ret->table_pages = context->arena.n_used;
	pthread_mutex_unlock(&context->arena.lock);
}
