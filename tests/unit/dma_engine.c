/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The engine as a judge, and what it must know of the suite's doings; see dma_engine.h. */

#include "dma_engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"

#define WORKSPACE_BYTES  ((uint64_t)ENGINE_WORKSPACE_PAGES * ENGINE_PAGE_BYTES)
#define WORKSPACE_OFFSET (UINT64_C(8) << 20) /* from the beginning of the device's window */
#define TABLES_MAX       64u
#define START_TRIES      5
/* Of the window, as far as the suite uses it. */
#define SEEN_PAGES (UINT64_C(4) << 30 >> 12)

struct table {
	uint32_t page_table, ioas;
};

/* What the suite did last. */
static struct {
	const struct iommu_backend_ops *ops;
	struct iommu_context *context;
	struct iommu_device *device;
	struct table tables[TABLES_MAX]; /* of the context; page_table 0: free */
	struct table attached;           /* page_table 0: nothing */
	uint64_t window;                 /* where the device's begins */
	bool learns_late;                /* only of mappings that are younger than the attachment */
	bool stopped;                    /* and not attached anew since */
	uint8_t *seen;                   /* a byte a page of the window: younger */
} watched;

static struct {
	struct iommu_file file;
	uint8_t *host;
	bool mapped; /* in what is attached */
	struct engine *engine;
	bool ready;
} judge;

static struct table *table_of(uint32_t page_table)
{
	for (unsigned int i = 0; i < TABLES_MAX; i++)
		if (watched.tables[i].page_table == page_table)
			return &watched.tables[i];
	return NULL;
}

static uint64_t workspace_iova(void)
{
	return watched.window + WORKSPACE_OFFSET;
}

void dma_engine_hide(void)
{
	uint64_t unmapped = 0;

	if (!judge.mapped)
		return;
	judge.mapped = false;
	assert_int_equal(watched.ops->unmap(watched.context, watched.attached.ioas,
					    workspace_iova(), WORKSPACE_BYTES, &unmapped),
			 0);
	assert_int_equal(unmapped, WORKSPACE_BYTES);
}

static bool reaches_workspace(struct iommu_context *context, uint32_t ioas, uint64_t iova,
			      uint64_t length)
{
	uint64_t last;

	if (!judge.mapped || context != watched.context || ioas != watched.attached.ioas || !length)
		return false;
	if (__builtin_add_overflow(iova, length - 1, &last))
		return false;
	return iova < workspace_iova() + WORKSPACE_BYTES && last >= workspace_iova();
}

/* Nothing that is mapped now was mapped under the device's eyes. */
static void see_nothing(void)
{
	if (watched.seen)
		memset(watched.seen, 0, SEEN_PAGES);
}

static void see(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length)
{
	uint64_t first, n = length / PAGE;

	if (!watched.seen || context != watched.context || !watched.attached.page_table ||
	    ioas != watched.attached.ioas || iova < watched.window)
		return;
	first = (iova - watched.window) / PAGE;
	for (uint64_t i = 0; i < n && first + i < SEEN_PAGES; i++)
		__atomic_store_n(&watched.seen[first + i], 1, __ATOMIC_RELAXED);
}

static void learn_device(struct iommu_device *device)
{
	struct iommu_device_info info;

	assert_int_equal(watched.ops->device_info(device, &info), 0);
	watched.window = info.dma_first;
	watched.learns_late = info.has_fid;
	if (watched.learns_late && !watched.seen)
		watched.seen = calloc(SEEN_PAGES, 1);
	assert_true(watched.seen || !watched.learns_late);
}

static int watch_bind(struct iommu_device *device, struct iommu_context *context,
		      const uint8_t *vf_token, uint32_t *ret_kernel_id)
{
	int error = watched.ops->device_bind(device, context, vf_token, ret_kernel_id);

	if (error)
		return error;
	if (context != watched.context)
		memset(watched.tables, 0, sizeof(watched.tables));
	watched.context = context;
	watched.device = device;
	watched.attached = (struct table){0};
	watched.stopped = false;
	learn_device(device);
	return 0;
}

static int watch_page_table_new(struct iommu_context *context, struct iommu_device *device,
				uint32_t ioas, uint32_t *ret_page_table)
{
	int error = watched.ops->page_table_new(context, device, ioas, ret_page_table);
	struct table *free_table;

	if (error || context != watched.context)
		return error;
	free_table = table_of(0);
	assert_non_null(free_table);
	*free_table = (struct table){.page_table = *ret_page_table, .ioas = ioas};
	return 0;
}

static int watch_destroy(struct iommu_context *context, uint32_t id)
{
	int error = watched.ops->destroy(context, id);
	struct table *table;

	if (!error && id && context == watched.context) {
		table = table_of(id);
		if (table)
			*table = (struct table){0};
	}
	return error;
}

static int watch_attach(struct iommu_device *device, uint32_t page_table)
{
	struct table *table = table_of(page_table);
	int error;

	if (device != watched.device)
		return watched.ops->attach(device, page_table);
	dma_engine_hide();
	error = watched.ops->attach(device, page_table);
	if (error)
		return error;
	assert_non_null(table);
	/* The same again is nothing for the kernel. */
	if (watched.attached.page_table != page_table)
		see_nothing();
	watched.attached = *table;
	watched.stopped = false;
	return 0;
}

static int watch_detach(struct iommu_device *device)
{
	if (device == watched.device) {
		dma_engine_hide();
		see_nothing();
		watched.attached = (struct table){0};
	}
	return watched.ops->detach(device);
}

static int watch_stop(struct iommu_device *device)
{
	if (device == watched.device) {
		watched.stopped = true;
		judge.ready = false;
	}
	return watched.ops->device_stop(device);
}

static struct iommu_device *watch_close(struct iommu_device *device)
{
	if (device && device == watched.device) {
		dma_engine_hide();
		watched.attached = (struct table){0};
		watched.device = NULL;
	}
	return watched.ops->device_close(device);
}

static struct iommu_context *watch_context_free(struct iommu_context *context)
{
	if (context && context == watched.context)
		watched.context = NULL;
	return watched.ops->context_free(context);
}

static int watch_map_file(struct iommu_context *context, uint32_t ioas,
			  const struct iommu_file *file, uint64_t offset, uint64_t length,
			  uint64_t iova, unsigned int prot)
{
	int error = watched.ops->map_file(context, ioas, file, offset, length, iova, prot);

	if (!error)
		see(context, ioas, iova, length);
	return error;
}

static int watch_copy(struct iommu_context *context, uint32_t dst_ioas, uint64_t dst_iova,
		      uint32_t src_ioas, uint64_t src_iova, uint64_t length, unsigned int prot)
{
	int error =
		watched.ops->copy(context, dst_ioas, dst_iova, src_ioas, src_iova, length, prot);

	if (!error)
		see(context, dst_ioas, dst_iova, length);
	return error;
}

static int watch_unmap(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		       uint64_t *ret_unmapped)
{
	if (reaches_workspace(context, ioas, iova, length))
		dma_engine_hide();
	return watched.ops->unmap(context, ioas, iova, length, ret_unmapped);
}

static int watch_cut(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		     uint64_t *ret_unmapped)
{
	if (reaches_workspace(context, ioas, iova, length))
		dma_engine_hide();
	return watched.ops->cut(context, ioas, iova, length, ret_unmapped);
}

void dma_engine_watch(struct iommu_backend *backend)
{
	static struct iommu_backend_ops ops;

	watched.ops = backend->ops;
	ops = *backend->ops;
	ops.device_bind = watch_bind;
	ops.page_table_new = watch_page_table_new;
	ops.destroy = watch_destroy;
	ops.attach = watch_attach;
	ops.detach = watch_detach;
	ops.device_stop = watch_stop;
	ops.device_close = watch_close;
	ops.context_free = watch_context_free;
	ops.map_file = watch_map_file;
	ops.copy = watch_copy;
	ops.unmap = watch_unmap;
	ops.cut = watch_cut;
	backend->ops = &ops;
}

/* --- the judge --- */

static void *judge_open(int borrow_device_fd)
{
	struct engine_workspace workspace = {.iova = workspace_iova()};
	int fd = memfd_create("workspace", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, WORKSPACE_BYTES), 0);
	judge.host = mmap(NULL, WORKSPACE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(judge.host != MAP_FAILED);
	judge.file = (struct iommu_file){.fd = fd, .host = judge.host, .bytes = WORKSPACE_BYTES};
	workspace.host = judge.host;
	judge.ready = false;
	judge.mapped = false;
	assert_int_equal(engine_open(&judge.engine, borrow_device_fd, &workspace), 0);
	return &judge;
}

static void judge_close(void *dma)
{
	dma_engine_hide();
	judge.engine = engine_close(judge.engine);
	munmap(judge.host, WORKSPACE_BYTES);
	close(judge.file.fd);
}

/* The memory is the suite's to look at. */
static void judge_add_memory(void *dma, int borrow_fd)
{
	(void)dma;
	(void)borrow_fd;
}

static void show_workspace(void)
{
	if (judge.mapped || !watched.attached.page_table)
		return;
	assert_int_equal(watched.ops->map_file(watched.context, watched.attached.ioas, &judge.file,
					       0, WORKSPACE_BYTES, workspace_iova(), RW),
			 0);
	judge.mapped = true;
}

/* As a VMM does it that lives. Blocked, nvme cannot be started. The error of a blocked access can
 * be told late, after the reset that was to end it: then it takes another. */
static void make_ready(void)
{
	int r;

	show_workspace();
	if (judge.ready || watched.stopped || !watched.attached.page_table)
		return;
	r = engine_start(judge.engine);
	for (int i = 0; r == -EIO && i < START_TRIES; i++) {
		assert_int_equal(engine_reset(judge.engine), 0);
		r = engine_start(judge.engine);
	}
	assert_int_equal(r, 0);
	judge.ready = true;
}

/* A blocked access is an error of the function on s390, and until the kernel has recovered it every
 * change of what it is attached to fails: the suite finds it in order again. */
static bool judge_done(int r)
{
	if (r == 0)
		return true;
	judge.ready = false;
	assert_int_equal(engine_reset(judge.engine), 0);
	return false;
}

static bool judge_sees(void *dma, uint64_t iova)
{
	uint64_t page = (iova - watched.window) / PAGE;

	(void)dma;
	if (!watched.learns_late)
		return true;
	return page < SEEN_PAGES && __atomic_load_n(&watched.seen[page], __ATOMIC_RELAXED);
}

static bool judge_write(void *dma, uint64_t iova, uint64_t value)
{
	(void)dma;
	make_ready();
	return judge_done(engine_write(judge.engine, iova, &value, sizeof(value)));
}

static bool judge_read(void *dma, uint64_t iova, uint64_t *ret)
{
	(void)dma;
	make_ready();
	return judge_done(engine_read(judge.engine, iova, ret, sizeof(*ret)));
}

/* Of its page tables only those are known that were told; the last one is attached. */
static void judge_took_over(struct iommu_context *context, struct iommu_device *device,
			    uint32_t page_table, uint32_t ioas)
{
	if (context != watched.context)
		memset(watched.tables, 0, sizeof(watched.tables));
	watched.context = context;
	watched.device = device;
	watched.attached = (struct table){.page_table = page_table, .ioas = ioas};
	watched.stopped = false;
	if (page_table)
		*table_of(0) = watched.attached;
	learn_device(device);
	see_nothing();
}

const struct conformance_dma_ops dma_engine_ops = {
	.open = judge_open,
	.close = judge_close,
	.add_memory = judge_add_memory,
	.sees = judge_sees,
	.write = judge_write,
	.read = judge_read,
	.took_over = judge_took_over,
};
