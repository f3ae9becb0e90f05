/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Contexts, their object tables, and page tables; see context.h. */

#include "iommu/emulated/context.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "iommu/emulated/device.h"
#include "iommu/emulated/device_file.h"
#include "iommu/emulated/ioas.h"

static int context_open_file(struct iommu_context *context)
{
	struct emulated_context_header header = {
		.magic = EMULATED_CONTEXT_MAGIC,
		.version = EMULATED_VERSION,
	};
	int fd, error;

	error = emulated_file_new("iommubroker-context", &fd);
	if (error)
		return error;
	if (pwrite(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header)) {
		close(fd);
		return ENOMEM;
	}
	return arena_init(&context->arena, fd, EMULATED_CONTEXT_TABLES_PAGE);
}

int emulated_context_init(struct iommu_context *context)
{
	context->records = arena_at(&context->arena, EMULATED_CONTEXT_OBJECTS_PAGE);
	context->objects = sparse_new(EMULATED_OBJECTS_MAX * sizeof(struct emulated_object *));
	if (!context->objects)
		return ENOMEM;
	return emulated_memory_table_init(&context->memory,
					  arena_at(&context->arena, EMULATED_CONTEXT_RECORDS_PAGE));
}

static struct iommu_context *context_release(struct iommu_context *context)
{
	emulated_memory_table_deinit(&context->memory);
	sparse_free(context->objects, EMULATED_OBJECTS_MAX * sizeof(struct emulated_object *));
	arena_deinit(&context->arena);
	pthread_mutex_destroy(&context->lock);
	free(context);
	return NULL;
}

struct iommu_context *emulated_context_alloc(struct emulated_backend *backend)
{
	struct iommu_context *context = calloc(1, sizeof(*context));

	if (!context)
		return NULL;
	context->backend = backend;
	context->arena.fd = -1;
	context->lowest_free = 1;
	pthread_mutex_init(&context->lock, NULL);
	return context;
}

int emulated_context_new(struct emulated_backend *backend, struct iommu_context **ret)
{
	struct iommu_context *context = emulated_context_alloc(backend);
	int error;

	if (!context)
		return ENOMEM;
	error = context_open_file(context);
	if (!error)
		error = emulated_context_init(context);
	if (error) {
		context_release(context);
		return error;
	}
	*ret = context;
	return 0;
}

struct iommu_context *emulated_context_free(struct iommu_context *context)
{
	if (!context)
		return NULL;
	if (context->objects)
		emulated_context_drop_absent(context);
	while (context->devices)
		emulated_device_unbind(context->devices);
	/* Page tables before the address spaces that they are over. */
	for (int kind = EMULATED_OBJECT_PAGE_TABLE; kind >= EMULATED_OBJECT_IOAS; kind--)
		for (uint32_t id = 1; context->objects && id < EMULATED_OBJECTS_MAX; id++)
			if (context->objects[id] && (int)context->objects[id]->kind == kind)
				emulated_context_destroy(context, id);
	return context_release(context);
}

/* --- the object table --- */

static void record_store(struct emulated_object_record *record, enum emulated_object_kind kind,
			 uint32_t cuttable, uint32_t over, uint32_t root)
{
	atomic_store_explicit(&record->cuttable, cuttable, memory_order_relaxed);
	atomic_store_explicit(&record->over, over, memory_order_relaxed);
	atomic_store_explicit(&record->root, root, memory_order_relaxed);
	atomic_store_explicit(&record->kind, kind, memory_order_release);
}

int emulated_object_add(struct iommu_context *context, struct emulated_object *object,
			enum emulated_object_kind kind, uint32_t cuttable, uint32_t over,
			uint32_t root)
{
	uint32_t id;

	pthread_mutex_lock(&context->lock);
	for (id = context->lowest_free; id < EMULATED_OBJECTS_MAX && context->objects[id]; id++)
		;
	if (id < EMULATED_OBJECTS_MAX) {
		*object = (struct emulated_object){.id = id, .kind = kind};
		record_store(&context->records[id], kind, cuttable, over, root);
		context->objects[id] = object;
		context->lowest_free = id + 1;
	}
	pthread_mutex_unlock(&context->lock);
	return id < EMULATED_OBJECTS_MAX ? 0 : ENOMEM;
}

struct emulated_object *emulated_object_get(struct iommu_context *context, uint32_t id,
					    enum emulated_object_kind kind)
{
	struct emulated_object *object;

	if (id >= EMULATED_OBJECTS_MAX)
		return NULL;
	pthread_mutex_lock(&context->lock);
	object = context->objects[id];
	if (object && object->kind == kind)
		object->users++;
	else
		object = NULL;
	pthread_mutex_unlock(&context->lock);
	return object;
}

void emulated_object_put(struct iommu_context *context, struct emulated_object *object)
{
	pthread_mutex_lock(&context->lock);
	object->users--;
	pthread_mutex_unlock(&context->lock);
}

int emulated_object_remove(struct iommu_context *context, struct emulated_object *object,
			   unsigned int own_uses)
{
	int error = EBUSY;

	pthread_mutex_lock(&context->lock);
	if (object->users == own_uses) {
		error = 0;
		atomic_store_explicit(&context->records[object->id].kind, EMULATED_OBJECT_NONE,
				      memory_order_release);
		context->objects[object->id] = NULL;
		if (object->id < context->lowest_free)
			context->lowest_free = object->id;
	}
	pthread_mutex_unlock(&context->lock);
	return error;
}

void emulated_object_attached(struct iommu_context *context, uint32_t id, uint32_t page_table)
{
	atomic_store_explicit(&context->records[id].over, page_table, memory_order_release);
}

/* --- page tables, and destroying --- */

static int page_table_add(struct iommu_context *context, struct emulated_ioas *ioas,
			  uint32_t *ret_page_table)
{
	struct emulated_page_table *page_table;
	int error;

	page_table = calloc(1, sizeof(*page_table));
	if (!page_table)
		return ENOMEM;
	page_table->ioas = ioas;
	error = emulated_ioas_add_page_table(ioas);
	if (error) {
		free(page_table);
		return error;
	}
	error = emulated_object_add(context, &page_table->object, EMULATED_OBJECT_PAGE_TABLE, 0,
				    ioas->object.id, 0);
	if (error) {
		emulated_ioas_remove_page_table(ioas);
		free(page_table);
		return error;
	}
	*ret_page_table = page_table->object.id;
	return 0;
}

int emulated_page_table_new(struct iommu_context *context, struct iommu_device *device,
			    uint32_t ioas, uint32_t *ret_page_table)
{
	struct emulated_object *object;
	int error;

	if (device->context != context)
		return EINVAL;
	object = emulated_object_get(context, ioas, EMULATED_OBJECT_IOAS);
	if (!object)
		return EINVAL; /* as the kernel answers */
	error = page_table_add(context, (struct emulated_ioas *)object, ret_page_table);
	if (error) /* else the page table keeps the use */
		emulated_object_put(context, object);
	return error;
}

static int destroy_page_table(struct iommu_context *context, struct emulated_page_table *page_table)
{
	struct emulated_ioas *ioas = page_table->ioas;
	int error;

	error = emulated_object_remove(context, &page_table->object, 1);
	if (error)
		return error;
	emulated_ioas_remove_page_table(ioas);
	emulated_object_put(context, &ioas->object);
	free(page_table);
	return 0;
}

static int destroy_ioas(struct iommu_context *context, struct emulated_ioas *ioas)
{
	int error;

	error = emulated_object_remove(context, &ioas->object, 1);
	if (!error)
		emulated_ioas_free(ioas);
	return error;
}

int emulated_context_destroy(struct iommu_context *context, uint32_t id)
{
	struct emulated_object *object;
	int error;

	object = emulated_object_get(context, id, EMULATED_OBJECT_PAGE_TABLE);
	if (object) {
		error = destroy_page_table(context, (struct emulated_page_table *)object);
		if (error)
			emulated_object_put(context, object);
		return error;
	}
	object = emulated_object_get(context, id, EMULATED_OBJECT_IOAS);
	if (object) {
		error = destroy_ioas(context, (struct emulated_ioas *)object);
		if (error)
			emulated_object_put(context, object);
		return error;
	}
	object = emulated_object_get(context, id, EMULATED_OBJECT_DEVICE);
	if (!object)
		return ENOENT;
	emulated_object_put(context, object);
	return EBUSY;
}
