/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Address spaces, see ioas.h. The rules are those of Linux drivers/iommu/iommufd/io_pagetable.c.
 *
 * A change has three steps: check; prepare (tables here and in every attached device, pins), which
 * can fail and is undone; commit, which cannot. Devices lose a translation before the pages behind
 * it are unpinned, and gain it after they are pinned.
 */

#include "iommu/emulated/ioas.h"

#include <errno.h>
#include <stdlib.h>

#include "iommu/emulated/device.h"

#define PAGE_MASK (EMULATED_PAGE_BYTES - 1)

/* Where the words of new areas come from: a piece of memory, or what another IOAS shows. */
struct source {
	struct emulated_memory *memory; /* NULL: src */
	struct radix_cursor src;
	uint64_t src_first;
	uint64_t flags; /* of the new words */
};

static struct source source_of_memory(struct emulated_memory *memory)
{
	return (struct source){.memory = memory};
}

static struct source source_of_ioas(const struct emulated_ioas *src, uint64_t first)
{
	return (struct source){.src = radix_cursor(&src->radix), .src_first = first};
}

static void source_set_prot(struct source *source, unsigned int prot)
{
	source->flags = EMULATED_WORD_VALID;
	if (prot & IOMMU_PROT_READ)
		source->flags |= EMULATED_WORD_READ;
	if (prot & IOMMU_PROT_WRITE)
		source->flags |= EMULATED_WORD_WRITE;
}

static uint64_t source_word(struct source *source, uint64_t i)
{
	uint64_t inherited = EMULATED_WORD_MEMORY_WRITE | EMULATED_WORD_START, word;

	if (source->memory) {
		word = emulated_word(source->memory->writable ? EMULATED_WORD_MEMORY_WRITE : 0,
				     source->memory->index, i);
	} else {
		word = radix_get(&source->src, source->src_first + i);
		word &= ~(EMULATED_WORD_VALID | EMULATED_WORD_READ | EMULATED_WORD_WRITE);
	}
	if (i == 0)
		word |= EMULATED_WORD_START;
	return (word & (inherited | ~UINT64_C(0) << EMULATED_MEMORY_SHIFT)) | source->flags;
}

int emulated_check_bytes(uint64_t iova, uint64_t length)
{
	if (length == 0)
		return EINVAL;
	return iova + (length - 1) < iova ? EOVERFLOW : 0;
}

static int check_range(uint64_t iova, uint64_t length)
{
	if ((iova | length) & PAGE_MASK)
		return EINVAL;
	return emulated_check_bytes(iova, length);
}

/* The window of the attached devices: [0, first) is reserved, above last no table reaches. */
static struct iommu_range ioas_window(const struct emulated_ioas *ioas)
{
	struct iommu_range window = {0, UINT64_MAX};

	for (struct iommu_device *d = ioas->devices; d; d = d->next_attached) {
		if (d->info.dma_first > window.first)
			window.first = d->info.dma_first;
		if (d->info.dma_last < window.last)
			window.last = d->info.dma_last;
	}
	return window;
}

static int check_place(const struct emulated_ioas *ioas, uint64_t iova, uint64_t length)
{
	uint64_t page, first = iova >> EMULATED_PAGE_BITS;
	int error;

	error = check_range(iova, length);
	if (error)
		return error;
	if (iova < ioas_window(ioas).first)
		return EINVAL;
	if (radix_next(&ioas->radix, first, (iova + (length - 1)) >> EMULATED_PAGE_BITS, &page))
		return EEXIST;
	return 0;
}

static int ioas_prepare(struct emulated_ioas *ioas, uint64_t first, uint64_t last)
{
	int error;

	error = radix_prepare(&ioas->radix, first, last);
	for (struct iommu_device *d = ioas->devices; d && !error; d = d->next_attached)
		error = radix_prepare(&d->radix, first, last);
	return error;
}

void emulated_ioas_prune(struct emulated_ioas *ioas, uint64_t first, uint64_t last)
{
	radix_prune(&ioas->radix, first, last);
	for (struct iommu_device *d = ioas->devices; d; d = d->next_attached)
		radix_prune(&d->radix, first, last);
}

/* Pins the pages of n words. 0, or an errno and nothing is pinned. */
static int source_pin(struct emulated_memory_table *table, struct source *source, uint64_t n)
{
	struct emulated_memory_look look = {0};
	uint64_t i, word;
	int error = 0;

	for (i = 0; i < n; i++) {
		word = source_word(source, i);
		error = emulated_memory_pin(table, emulated_memory_of(table, word),
					    emulated_word_page(word), &look);
		if (error)
			break;
	}
	while (error && i-- > 0) {
		word = source_word(source, i);
		emulated_memory_unpin(table, emulated_memory_of(table, word),
				      emulated_word_page(word));
	}
	return error;
}

static void ioas_commit(struct emulated_ioas *ioas, uint64_t first, struct source *source,
			uint64_t n)
{
	struct emulated_memory_table *table = &ioas->context->memory;
	struct radix_cursor cursor = radix_cursor(&ioas->radix);

	for (uint64_t i = 0; i < n; i++) {
		uint64_t word = source_word(source, i);

		emulated_memory_ref(emulated_memory_of(table, word));
		radix_set(&cursor, first + i, word);
	}
	for (struct iommu_device *d = ioas->devices; d; d = d->next_attached)
		emulated_device_fill(d, &d->radix, ioas, first, first + n - 1);
}

/* What map and copy share. The place was checked; source is complete. */
static int ioas_add(struct emulated_ioas *ioas, uint64_t iova, uint64_t length,
		    struct source *source)
{
	uint64_t first = iova >> EMULATED_PAGE_BITS, n = length >> EMULATED_PAGE_BITS;
	int error;

	/* Seen on s390x: the space above the end of DMA is not reserved, but no table reaches it.
	 */
	if (iova + (length - 1) > ioas_window(ioas).last)
		return EIO;
	error = ioas_prepare(ioas, first, first + n - 1);
	if (!error && ioas->n_page_tables)
		error = source_pin(&ioas->context->memory, source, n);
	if (error) {
		emulated_ioas_prune(ioas, first, first + n - 1);
		return error;
	}
	ioas_commit(ioas, first, source, n);
	return 0;
}

static int check_prot(uint64_t iova, uint64_t length, unsigned int prot)
{
	if (iova == UINT64_MAX || length == UINT64_MAX)
		return EOVERFLOW;
	return prot & (IOMMU_PROT_READ | IOMMU_PROT_WRITE) ? 0 : EINVAL;
}

int emulated_ioas_map_file(struct emulated_ioas *ioas, int borrow_fd, uint64_t offset,
			   uint64_t length, uint64_t iova, unsigned int prot)
{
	struct emulated_memory_table *table = &ioas->context->memory;
	struct emulated_memory *memory;
	struct source source;
	int error;

	error = check_prot(iova, length, prot);
	if (!error)
		error = check_range(offset, length);
	if (error)
		return error;
	error = emulated_memory_new(table, borrow_fd, offset, length, prot & IOMMU_PROT_WRITE,
				    &memory);
	if (error)
		return error;
	source = source_of_memory(memory);
	source_set_prot(&source, prot);
	pthread_rwlock_wrlock(&ioas->lock);
	error = check_place(ioas, iova, length);
	if (!error)
		error = ioas_add(ioas, iova, length, &source);
	pthread_rwlock_unlock(&ioas->lock);
	emulated_memory_unref(table, memory);
	return error;
}

/* Every page is mapped, and if asked of memory that may be written. */
static int check_source(struct emulated_ioas *src, uint64_t first, uint64_t n)
{
	struct radix_cursor cursor = radix_cursor(&src->radix);

	for (uint64_t i = 0; i < n; i++)
		if (!radix_is_set(&cursor, first + i))
			return ENOENT;
	return 0;
}

int emulated_ioas_check_source(struct emulated_ioas *src, uint64_t iova, uint64_t length)
{
	int error = check_range(iova, length);

	if (error)
		return error;
	pthread_rwlock_rdlock(&src->lock);
	error = check_source(src, iova >> EMULATED_PAGE_BITS, length >> EMULATED_PAGE_BITS);
	pthread_rwlock_unlock(&src->lock);
	return error;
}

static int check_source_writable(struct emulated_ioas *src, uint64_t first, uint64_t n)
{
	struct radix_cursor cursor = radix_cursor(&src->radix);

	for (uint64_t i = 0; i < n; i++)
		if (!(radix_get(&cursor, first + i) & EMULATED_WORD_MEMORY_WRITE))
			return EPERM;
	return 0;
}

static int copy_locked(struct emulated_ioas *dst, uint64_t dst_iova, struct emulated_ioas *src,
		       uint64_t src_iova, uint64_t length, unsigned int prot)
{
	uint64_t first = src_iova >> EMULATED_PAGE_BITS, n = length >> EMULATED_PAGE_BITS;
	struct source source = source_of_ioas(src, first);
	int error;

	error = check_source(src, first, n);
	if (!error)
		error = check_place(dst, dst_iova, length);
	if (!error && prot & IOMMU_PROT_WRITE)
		error = check_source_writable(src, first, n);
	if (error)
		return error;
	source_set_prot(&source, prot);
	return ioas_add(dst, dst_iova, length, &source);
}

/* The source is only read: copies out of one parent go on side by side. */
static void lock_for_copy(struct emulated_ioas *dst, struct emulated_ioas *src)
{
	if (src != dst && src->object.id < dst->object.id)
		pthread_rwlock_rdlock(&src->lock);
	pthread_rwlock_wrlock(&dst->lock);
	if (src != dst && src->object.id > dst->object.id)
		pthread_rwlock_rdlock(&src->lock);
}

int emulated_ioas_copy(struct emulated_ioas *dst, uint64_t dst_iova, struct emulated_ioas *src,
		       uint64_t src_iova, uint64_t length, unsigned int prot)
{
	int error;

	error = check_prot(src_iova, length, prot);
	if (!error && dst_iova == UINT64_MAX)
		error = EOVERFLOW;
	if (!error)
		error = check_range(src_iova, length);
	if (error)
		return error;
	lock_for_copy(dst, src);
	error = copy_locked(dst, dst_iova, src, src_iova, length, prot);
	pthread_rwlock_unlock(&dst->lock);
	if (src != dst)
		pthread_rwlock_unlock(&src->lock);
	return error;
}

struct iommu_range emulated_ioas_usable(struct emulated_ioas *ioas)
{
	struct iommu_range range;

	pthread_rwlock_rdlock(&ioas->lock);
	range = (struct iommu_range){ioas_window(ioas).first, UINT64_MAX};
	pthread_rwlock_unlock(&ioas->lock);
	return range;
}

/* Unpin the translations up to last. */
static void ioas_unpin(struct emulated_ioas *ioas, uint64_t last)
{
	struct emulated_memory_table *table = &ioas->context->memory;
	struct radix_cursor cursor = radix_cursor(&ioas->radix);
	uint64_t page, first = 0;

	for (; radix_next(&ioas->radix, first, last, &page); first = page) {
		for (; page <= last && radix_is_set(&cursor, page); page++) {
			uint64_t word = radix_get(&cursor, page);

			emulated_memory_unpin(table, emulated_memory_of(table, word),
					      emulated_word_page(word));
		}
	}
}

static int ioas_pin(struct emulated_ioas *ioas)
{
	struct radix_cursor cursor = radix_cursor(&ioas->radix);
	uint64_t page, end, first = 0;
	struct source source;
	int error;

	for (; radix_next(&ioas->radix, first, EMULATED_LAST_PAGE, &page); first = end) {
		for (end = page; end <= EMULATED_LAST_PAGE && radix_is_set(&cursor, end); end++)
			;
		source = source_of_ioas(ioas, page);
		error = source_pin(&ioas->context->memory, &source, end - page);
		if (error) {
			if (page > 0)
				ioas_unpin(ioas, page - 1);
			return error;
		}
	}
	return 0;
}

int emulated_ioas_add_page_table(struct emulated_ioas *ioas)
{
	int error = 0;

	pthread_rwlock_wrlock(&ioas->lock);
	if (ioas->n_page_tables == 0)
		error = ioas_pin(ioas);
	if (!error)
		ioas->n_page_tables++;
	pthread_rwlock_unlock(&ioas->lock);
	return error;
}

void emulated_ioas_remove_page_table(struct emulated_ioas *ioas)
{
	pthread_rwlock_wrlock(&ioas->lock);
	if (--ioas->n_page_tables == 0)
		ioas_unpin(ioas, EMULATED_LAST_PAGE);
	pthread_rwlock_unlock(&ioas->lock);
}

static struct emulated_ioas *ioas_alloc(struct iommu_context *context, bool cuttable)
{
	struct emulated_ioas *ioas;

	ioas = calloc(1, sizeof(*ioas));
	if (!ioas)
		return NULL;
	ioas->context = context;
	ioas->cuttable = cuttable;
	if (radix_init(&ioas->radix, &context->arena) != 0) {
		free(ioas);
		return NULL;
	}
	pthread_rwlock_init(&ioas->lock, NULL);
	return ioas;
}

/* ── what another process made ─────────────────────────────────────────────────────────────── */

struct ioas_adoption {
	struct emulated_ioas *ioas;
	uint64_t next; /* page behind the last one that is set */
};

/* A call that its process did not survive may have left a part of an area: that is an area, then.
 */
static bool word_adopt(void *context, uint64_t page, uint64_t *word)
{
	struct ioas_adoption *adoption = context;
	struct emulated_memory_table *table = &adoption->ioas->context->memory;
	struct emulated_memory *memory = emulated_memory_of(table, *word);

	if (!(*word & EMULATED_WORD_VALID) || !memory ||
	    emulated_word_page(*word) >= memory->n_pages)
		return false;
	if (*word & EMULATED_WORD_MEMORY_WRITE)
		memory->writable = true;
	if (adoption->next != page)
		*word |= EMULATED_WORD_START;
	adoption->next = page + 1;
	emulated_memory_ref(memory);
	return true;
}

int emulated_ioas_adopt(struct iommu_context *context, bool cuttable, uint8_t *used, uint32_t root,
			struct emulated_ioas **ret)
{
	struct emulated_ioas *ioas = calloc(1, sizeof(*ioas));
	struct ioas_adoption adoption = {.ioas = ioas, .next = UINT64_MAX};
	int error;

	if (!ioas)
		return ENOMEM;
	ioas->context = context;
	ioas->cuttable = cuttable;
	pthread_rwlock_init(&ioas->lock, NULL);
	error = radix_adopt(&ioas->radix, &context->arena, used, root, word_adopt, &adoption);
	if (!error) {
		*ret = ioas;
		return 0;
	}
	if (ioas->radix.root)
		emulated_ioas_free(ioas);
	else
		free(ioas);
	return error;
}

/* Each page was pinned before: there is no limit to meet. */
void emulated_ioas_adopt_pins(struct emulated_ioas *ioas, unsigned int n_page_tables)
{
	struct emulated_memory_table *table = &ioas->context->memory;
	struct radix_cursor cursor = radix_cursor(&ioas->radix);
	uint64_t page, first = 0;

	ioas->n_page_tables = n_page_tables;
	for (; n_page_tables && radix_next(&ioas->radix, first, EMULATED_LAST_PAGE, &page);
	     first = page + 1) {
		uint64_t word = radix_get(&cursor, page);
		struct emulated_memory *memory = emulated_memory_of(table, word);

		if (!atomic_fetch_add_explicit(&memory->pins[emulated_word_page(word)], 1,
					       memory_order_relaxed))
			atomic_fetch_add_explicit(&table->pinned_pages, 1, memory_order_relaxed);
	}
}

struct emulated_ioas *emulated_ioas_free(struct emulated_ioas *ioas)
{
	if (!ioas)
		return NULL;
	emulated_ioas_clear(ioas, 0, EMULATED_LAST_PAGE);
	radix_deinit(&ioas->radix);
	pthread_rwlock_destroy(&ioas->lock);
	free(ioas);
	return NULL;
}

int emulated_ioas_new(struct iommu_context *context, bool cuttable, uint32_t *ret_ioas)
{
	struct emulated_ioas *ioas;
	int error;

	ioas = ioas_alloc(context, cuttable);
	if (!ioas)
		return ENOMEM;
	error = emulated_object_add(context, &ioas->object, EMULATED_OBJECT_IOAS, cuttable, 0,
				    radix_root_page(&ioas->radix));
	if (error)
		emulated_ioas_free(ioas);
	else
		*ret_ioas = ioas->object.id;
	return error;
}
