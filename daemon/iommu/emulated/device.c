/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Emulated PCI functions, see device.h. */

#include "iommu/emulated/device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "iommu/emulated/device_file.h"

static void header_set(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

/* --- open and close --- */

static const struct iommu_emulated_function *find_function(
	const struct emulated_backend *backend, const struct iommu_device_address *address)
{
	for (size_t i = 0; i < backend->n_functions; i++) {
		const struct iommu_emulated_function *f = &backend->functions[i];

		if (address->by_fid ? f->fid == address->fid
				    : strncmp(f->pci_address, address->pci_address,
					      sizeof(f->pci_address)) == 0)
			return f;
	}
	return NULL;
}

int emulated_device_identify(const struct emulated_backend *backend,
			     const struct iommu_device_address *address,
			     struct iommu_device_info *ret)
{
	const struct iommu_emulated_function *f = find_function(backend, address);

	if (!f)
		return ENOENT;
	*ret = (struct iommu_device_info){
		.fid = f->fid,
		.has_fid = true,
		.vendor = f->vendor,
		.device = f->device,
	};
	memcpy(ret->pci_address, f->pci_address, sizeof(f->pci_address));
	return 0;
}

/* Publishes the device, unless its function or its file is open already. */
static int open_devices_add(struct iommu_device *device)
{
	struct emulated_backend *backend = device->backend;
	int error = 0;

	pthread_mutex_lock(&backend->lock);
	for (struct iommu_device *d = backend->open_devices; d; d = d->next_open)
		if (d->info.fid == device->info.fid ||
		    (d->dev == device->dev && d->ino == device->ino))
			error = EBUSY;
	if (!error) {
		device->next_open = backend->open_devices;
		backend->open_devices = device;
	}
	pthread_mutex_unlock(&backend->lock);
	return error;
}

static void open_devices_remove(struct iommu_device *device)
{
	struct iommu_device **p;

	pthread_mutex_lock(&device->backend->lock);
	for (p = &device->backend->open_devices; *p; p = &(*p)->next_open)
		if (*p == device) {
			*p = device->next_open;
			break;
		}
	pthread_mutex_unlock(&device->backend->lock);
}

static void device_free(struct iommu_device *device)
{
	arena_deinit(&device->arena);
	sparse_free(device->serials, EMULATED_MEMORY_MAX * sizeof(*device->serials));
	free(device);
}

/* consume_fd: open for reading and writing. */
static int device_new(struct emulated_backend *backend, int consume_fd,
		      int (*arena_begin)(struct arena *arena, int consume_fd, uint32_t first_page),
		      struct iommu_device **ret)
{
	struct iommu_device *device;
	struct stat st;
	int error;

	device = calloc(1, sizeof(*device));
	if (!device) {
		close(consume_fd);
		return ENOMEM;
	}
	device->backend = backend;
	device->arena.fd = -1;
	error = arena_begin(&device->arena, consume_fd, EMULATED_DEVICE_TABLES_PAGE);
	if (!error && fstat(consume_fd, &st) < 0)
		error = errno;
	if (!error) {
		device->serials = sparse_new(EMULATED_MEMORY_MAX * sizeof(*device->serials));
		error = device->serials ? 0 : ENOMEM;
	}
	if (error) {
		device_free(device);
		return error;
	}
	device->dev = st.st_dev;
	device->ino = st.st_ino;
	device->header = arena_at(&device->arena, 0);
	device->records = arena_at(&device->arena, EMULATED_DEVICE_RECORDS_PAGE);
	device->arena.generation = &device->header->generation;
	*ret = device;
	return 0;
}

static void device_describe(struct iommu_device *device, const struct iommu_emulated_function *f)
{
	device->info = (struct iommu_device_info){
		.fid = f->fid,
		.has_fid = true,
		.vendor = f->vendor,
		.device = f->device,
		.dma_first = f->dma_first,
		.dma_last = f->dma_last,
		.page_sizes = EMULATED_PAGE_BYTES,
		.designations = f->designations,
		.refresh_required = f->refresh_required,
	};
	memcpy(device->info.pci_address, f->pci_address, sizeof(f->pci_address));
}

/* A device file of our own. Opened a second time and the first closed: the kernel counts those who
 * have a file open by open(), not by memfd_create(), see emulated_device_held(). */
static int function_file_new(const struct iommu_emulated_function *f, int *ret_fd)
{
	struct emulated_device_parameters parameters = {
		.fid = f->fid,
		.dma_first = f->dma_first,
		.dma_last = f->dma_last,
	};
	int fd, error;

	memcpy(parameters.pci_address, f->pci_address, sizeof(parameters.pci_address));
	error = emulated_device_create(&parameters, &fd);
	if (error)
		return error;
	/* A VMM of another user cannot open its read-only descriptor's file for writing. */
	if (fchmod(fd, 0600) < 0)
		error = errno;
	else
		error = emulated_file_reopen(fd, O_RDWR, ret_fd);
	close(fd);
	return error;
}

static int device_publish(struct iommu_device *device, struct iommu_device **ret)
{
	int error;

	error = open_devices_add(device);
	if (error)
		device_free(device);
	else
		*ret = device;
	return error;
}

int emulated_device_open(struct emulated_backend *backend,
			 const struct iommu_device_address *address, struct iommu_device **ret)
{
	const struct iommu_emulated_function *f = find_function(backend, address);
	struct iommu_device *device;
	int fd, error;

	if (!f)
		return ENOENT;
	error = function_file_new(f, &fd);
	if (error)
		return error;
	error = device_new(backend, fd, arena_init, &device);
	if (error)
		return error;
	device_describe(device, f);
	return device_publish(device, ret);
}

/* A tmpfs memfd of the right size that nobody can resize. (A hugetlbfs file's pages can be missing
 * when they are written.) */
static bool is_device_file(int fd, struct emulated_device_header *ret)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	struct statfs fs;
	struct stat st;
	int have = fcntl(fd, F_GET_SEALS);

	if (have < 0 || (have & seals) != seals)
		return false;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != EMULATED_FILE_BYTES ||
	    fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
		return false;
	if (pread(fd, ret, sizeof(*ret), 0) != (ssize_t)sizeof(*ret))
		return false;
	return ret->magic == EMULATED_DEVICE_MAGIC && ret->version == EMULATED_VERSION &&
	       memchr(ret->pci_address, 0, sizeof(ret->pci_address)) &&
	       ret->dma_first <= ret->dma_last && ret->dma_first % EMULATED_PAGE_BYTES == 0 &&
	       (ret->dma_last + 1) % EMULATED_PAGE_BYTES == 0;
}

/* A function of ours keeps what its configuration says; a client's own has what its file says. */
static void describe_foreign(struct iommu_device *device,
			     const struct emulated_device_header *header)
{
	struct iommu_device_address address = {.by_fid = true, .fid = header->fid};
	const struct iommu_emulated_function *known = find_function(device->backend, &address);
	struct iommu_emulated_function f = {
		.fid = header->fid,
		.vendor = known ? known->vendor : 0,
		.device = known ? known->device : 0,
		.dma_first = header->dma_first,
		.dma_last = header->dma_last,
		.designations = known ? known->designations : 0xf,
		.refresh_required = known && known->refresh_required,
	};

	memcpy(f.pci_address, header->pci_address, sizeof(f.pci_address));
	device_describe(device, &f);
	device->foreign = true;
}

/* Whatever was in the file: blocked, disabled, no tables. */
static int device_wipe(struct iommu_device *device)
{
	header_set(&device->header->enabled, 0);
	header_set(&device->header->root, 0);
	atomic_fetch_add(&device->header->generation, 1);
	if (fallocate(device->arena.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      EMULATED_PAGE_BYTES, (off_t)(EMULATED_FILE_BYTES - EMULATED_PAGE_BYTES)) < 0)
		return errno;
	return 0;
}

static int device_open_foreign(struct emulated_backend *backend, int borrow_fd,
			       struct iommu_device **ret)
{
	struct emulated_device_header header;
	struct iommu_device *device;
	int fd, error;

	if (!is_device_file(borrow_fd, &header) ||
	    emulated_file_reopen(borrow_fd, O_RDWR, &fd) != 0)
		return EINVAL;
	error = device_new(backend, fd, arena_init, &device);
	if (error) /* sealed against writing: EPERM */
		return error == EPERM ? EINVAL : error;
	describe_foreign(device, &header);
	/* In the list first: a file that is open already must not be wiped. */
	error = open_devices_add(device);
	if (error) {
		device_free(device);
		return error;
	}
	error = device_wipe(device);
	if (error) {
		emulated_device_close(device);
		return EINVAL;
	}
	*ret = device;
	return 0;
}

int emulated_device_open_fd(struct emulated_backend *backend, int consume_fd,
			    struct iommu_device **ret)
{
	int error;

	error = device_open_foreign(backend, consume_fd, ret);
	if (consume_fd >= 0)
		close(consume_fd);
	return error;
}

struct iommu_device *emulated_device_close(struct iommu_device *device)
{
	if (!device)
		return NULL;
	emulated_device_unbind(device);
	open_devices_remove(device);
	device_free(device);
	return NULL;
}

/*
 * A write lease is granted only to the one who has the file open alone, and a mapping counts like
 * the descriptor that it was made from: exactly the question. It is given back at once; should
 * somebody open the file in between, the notice comes as a signal that is ignored by default.
 *
 * As behind the seam's other implementation this ends the device's life, and a descriptor of a
 * function that was never bound does not count.
 *
 * A lease wants the file to be ours and opened by open(); a file that was passed in may be held
 * through the memfd's first descriptor, which is not counted. Of those, and where leases do not
 * work, the answer is that it is held.
 */
int emulated_device_held(struct iommu_device *device, bool *ret)
{
	int fd = device->arena.fd;

	emulated_device_unbind(device);
	if (!device->was_bound) {
		*ret = false;
		return 0;
	}
	*ret = true;
	if (device->foreign || fcntl(fd, F_SETSIG, SIGURG) < 0)
		return 0;
	if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
		fcntl(fd, F_SETLEASE, F_UNLCK);
		*ret = false;
	}
	return 0;
}

/* --- bind --- */

int emulated_device_bind(struct iommu_device *device, struct iommu_context *context)
{
	int error;

	if (device->context)
		return EBUSY;
	error = emulated_object_add(context, &device->object, EMULATED_OBJECT_DEVICE, 0, 0,
				    device->info.fid);
	if (error)
		return error;
	pthread_mutex_lock(&context->lock);
	device->next_bound = context->devices;
	context->devices = device;
	pthread_mutex_unlock(&context->lock);
	device->context = context;
	device->was_bound = true;
	device->info.kernel_device_id = device->object.id;
	header_set(&device->header->enabled, 1);
	return 0;
}

void emulated_device_unbind(struct iommu_device *device)
{
	struct iommu_context *context = device->context;
	struct iommu_device **p;

	if (!context)
		return;
	emulated_device_detach(device);
	header_set(&device->header->enabled, 0);
	pthread_mutex_lock(&context->lock);
	for (p = &context->devices; *p; p = &(*p)->next_bound)
		if (*p == device) {
			*p = device->next_bound;
			break;
		}
	pthread_mutex_unlock(&context->lock);
	emulated_object_remove(context, &device->object, 0);
	device->context = NULL;
	device->info.kernel_device_id = 0;
}

void emulated_device_stop(struct iommu_device *device)
{
	header_set(&device->header->enabled, 0);
	atomic_fetch_add(&device->header->resets, 1);
}

/* --- translations --- */

/* Makes the device's record of that piece of memory right, before a word leads to it. */
static void fill_record(struct iommu_device *device, const struct emulated_memory *memory)
{
	struct emulated_memory_record *record = &device->records[memory->index];

	if (device->serials[memory->index] == memory->serial)
		return;
	if (device->serials[memory->index]) {
		/* No word of ours leads to the old one, but a reader may stand between the two. */
		atomic_fetch_add_explicit(&device->header->generation, 1, memory_order_acq_rel);
		atomic_thread_fence(memory_order_seq_cst);
	}
	atomic_store_explicit(&record->dev, memory->dev, memory_order_relaxed);
	atomic_store_explicit(&record->ino, memory->ino, memory_order_relaxed);
	atomic_store_explicit(&record->first_page, memory->first_page, memory_order_relaxed);
	atomic_store_explicit(&record->n_pages, memory->n_pages, memory_order_release);
	device->serials[memory->index] = memory->serial;
}

void emulated_device_fill(struct iommu_device *device, struct radix *radix,
			  const struct emulated_ioas *ioas, uint64_t first, uint64_t last)
{
	const uint64_t shared = ~(EMULATED_WORD_MEMORY_WRITE | EMULATED_WORD_START);
	struct radix_cursor from = radix_cursor(&ioas->radix), to = radix_cursor(radix);
	uint64_t page;

	for (; radix_next(&ioas->radix, first, last, &page); first = page) {
		for (; page <= last && radix_is_set(&from, page); page++) {
			uint64_t word = radix_get(&from, page);

			fill_record(device, emulated_memory_of(&ioas->context->memory, word));
			radix_set(&to, page, word & shared);
		}
	}
}

void emulated_device_clear(struct iommu_device *device, uint64_t first, uint64_t last)
{
	struct radix_cursor cursor = radix_cursor(&device->radix);
	uint64_t page;

	for (; radix_next(&device->radix, first, last, &page); first = page)
		for (; page <= last && radix_is_set(&cursor, page); page++)
			radix_set(&cursor, page, 0);
}

/* --- attach --- */

/* A second tree, complete, beside the one in use. */
static int tree_new(struct iommu_device *device, const struct emulated_ioas *ioas,
		    struct radix *ret)
{
	uint64_t page, first = 0;
	struct radix radix;
	int error;

	error = radix_init(&radix, &device->arena);
	if (error)
		return error;
	while (!error && radix_next(&ioas->radix, first, EMULATED_LAST_PAGE, &page)) {
		error = radix_prepare(&radix, page, page);
		first = (page | (EMULATED_TABLE_WORDS - 1)) + 1;
	}
	if (error) {
		radix_deinit(&radix);
		return error;
	}
	emulated_device_fill(device, &radix, ioas, 0, EMULATED_LAST_PAGE);
	*ret = radix;
	return 0;
}

static void attached_remove(struct iommu_device *device)
{
	struct iommu_device **p;

	for (p = &device->page_table->ioas->devices; *p; p = &(*p)->next_attached)
		if (*p == device) {
			*p = device->next_attached;
			break;
		}
}

/* The new tree and everything that goes with it, under the locks of both address spaces. */
static int attach_locked(struct iommu_device *device, struct emulated_page_table *page_table)
{
	struct emulated_ioas *ioas = page_table->ioas;
	struct radix old = device->radix, new;
	uint64_t page;
	int error;

	if (device->info.dma_first &&
	    radix_next(&ioas->radix, 0, (device->info.dma_first - 1) >> EMULATED_PAGE_BITS, &page))
		return EADDRINUSE;
	error = tree_new(device, ioas, &new);
	if (error)
		return error;
	header_set(&device->header->root, radix_root_page(&new));
	device->radix = new;
	radix_deinit(&old);
	if (device->page_table)
		attached_remove(device);
	device->next_attached = ioas->devices;
	ioas->devices = device;
	return 0;
}

static void lock_two(struct emulated_ioas *a, struct emulated_ioas *b)
{
	if (b && b != a && b->object.id < a->object.id)
		pthread_rwlock_wrlock(&b->lock);
	pthread_rwlock_wrlock(&a->lock);
	if (b && b != a && b->object.id > a->object.id)
		pthread_rwlock_wrlock(&b->lock);
}

static void unlock_two(struct emulated_ioas *a, struct emulated_ioas *b)
{
	pthread_rwlock_unlock(&a->lock);
	if (b && b != a)
		pthread_rwlock_unlock(&b->lock);
}

int emulated_device_attach(struct iommu_device *device, uint32_t page_table)
{
	struct emulated_page_table *old = device->page_table, *new;
	struct emulated_ioas *old_ioas = old ? old->ioas : NULL;
	int error;

	if (!device->context)
		return EINVAL;
	new = (struct emulated_page_table *)emulated_object_get(device->context, page_table,
								EMULATED_OBJECT_PAGE_TABLE);
	if (!new)
		return ENOENT;
	lock_two(new->ioas, old_ioas);
	error = attach_locked(device, new);
	if (!error)
		device->page_table = new;
	unlock_two(new->ioas, old_ioas);
	if (error) {
		emulated_object_put(device->context, &new->object);
		return error;
	}
	emulated_object_attached(device->context, device->object.id, page_table);
	if (old)
		emulated_object_put(device->context, &old->object);
	/* There is no configuration space: after a stop, whoever has the function attached again is
	 * taken to turn bus mastering on again as well, as the guest's driver does. */
	header_set(&device->header->enabled, 1);
	return 0;
}

void emulated_device_detach(struct iommu_device *device)
{
	struct emulated_page_table *page_table = device->page_table;

	if (!page_table)
		return;
	pthread_rwlock_wrlock(&page_table->ioas->lock);
	header_set(&device->header->root, 0);
	radix_deinit(&device->radix);
	attached_remove(device);
	device->page_table = NULL;
	pthread_rwlock_unlock(&page_table->ioas->lock);
	emulated_object_attached(device->context, device->object.id, 0);
	emulated_object_put(device->context, &page_table->object);
}

/* --- what another process opened --- */

/* Its DMA goes through the tree that is there until a new one is complete. */
static int device_adopt_tree(struct iommu_device *device, uint32_t page_table)
{
	struct emulated_object *object =
		emulated_object_get(device->context, page_table, EMULATED_OBJECT_PAGE_TABLE);
	struct emulated_ioas *ioas;
	struct radix radix;
	int error;

	if (!object) {
		header_set(&device->header->root, 0);
		emulated_object_attached(device->context, device->object.id, 0);
		return 0;
	}
	ioas = ((struct emulated_page_table *)object)->ioas;
	pthread_rwlock_wrlock(&ioas->lock);
	error = tree_new(device, ioas, &radix);
	if (!error) {
		header_set(&device->header->root, radix_root_page(&radix));
		device->radix = radix;
		device->page_table = (struct emulated_page_table *)object;
		device->next_attached = ioas->devices;
		ioas->devices = device;
	}
	pthread_rwlock_unlock(&ioas->lock);
	if (error)
		emulated_object_put(device->context, object);
	return error;
}

static int device_adopt_bound(struct iommu_device *device, struct iommu_context *context,
			      uint32_t id)
{
	uint32_t page_table;
	int error = emulated_context_adopt_device(context, device, id, &page_table);

	if (error)
		return error;
	device->context = context;
	device->was_bound = true;
	device->info.kernel_device_id = id;
	if (page_table)
		return device_adopt_tree(device, page_table);
	header_set(&device->header->root, 0);
	return 0;
}

/* One that we made has our owner and mode; a client's may have any other. */
static void describe_adopted(struct iommu_device *device,
			     const struct emulated_device_header *header)
{
	struct iommu_device_address address = {.by_fid = true, .fid = header->fid};
	const struct iommu_emulated_function *known = find_function(device->backend, &address);
	struct stat st;

	if (known && !fstat(device->arena.fd, &st) && st.st_uid == geteuid() &&
	    (st.st_mode & 0777) == 0600)
		device_describe(device, known);
	else
		describe_foreign(device, header);
}

static int device_adopt(struct iommu_device *device, struct iommu_context *context, uint32_t id)
{
	uint32_t end = device->arena.next_page;
	uint8_t *none;
	int error = open_devices_add(device);

	if (error) {
		device_free(device);
		return error;
	}
	none = calloc(1, end / 8 + 1);
	error = none ? 0 : ENOMEM;
	if (!error && context)
		error = device_adopt_bound(device, context, id);
	else if (!error)
		header_set(&device->header->root, 0);
	if (error)
		emulated_device_close(device);
	else
		arena_sweep(&device->arena, none, end); /* all of the old tree */
	free(none);
	return error;
}

int emulated_device_adopt(struct emulated_backend *backend, int consume_fd,
			  struct iommu_context *context, uint32_t kernel_id,
			  struct iommu_device **ret)
{
	struct emulated_device_header header;
	struct iommu_device *device;
	int error;

	if (!is_device_file(consume_fd, &header)) {
		if (consume_fd >= 0)
			close(consume_fd);
		return EINVAL;
	}
	error = device_new(backend, consume_fd, arena_adopt, &device);
	if (error)
		return error;
	describe_adopted(device, &header);
	error = device_adopt(device, context, kernel_id);
	if (!error)
		*ret = device;
	return error;
}
