/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Contexts and devices of a process that died, from their files.
 *
 * The state file tells what there is; the trees in it are taken over where they lie. A device's
 * tree is made anew beside the one that its DMA goes through, from the address space that it is
 * attached to, and takes its place in one store: DMA goes on all the while. A call that its process
 * did not survive may have come half way, where a kernel's would have ended as a whole: of an
 * area a part can be mapped, and is an area then.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iommu/emulated/context.h"
#include "iommu/emulated/device.h"
#include "iommu/emulated/ioas.h"

/* ── the state file ───────────────────────────────────────────────────────────────────────── */

static bool is_context_file(int fd)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	struct emulated_context_header header;
	struct stat st;
	int have = fcntl(fd, F_GET_SEALS);

	return have >= 0 && (have & seals) == seals && fstat(fd, &st) == 0 &&
	       (uint64_t)st.st_size == EMULATED_FILE_BYTES &&
	       pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) &&
	       header.magic == EMULATED_CONTEXT_MAGIC && header.version == EMULATED_VERSION;
}

/* What the next process reads of an object that is not there any more. */
static void record_drop(struct iommu_context *context, uint32_t id)
{
	atomic_store_explicit(&context->records[id].kind, EMULATED_OBJECT_NONE,
			      memory_order_release);
}

static void object_place(struct iommu_context *context, struct emulated_object *object, uint32_t id,
			 enum emulated_object_kind kind)
{
	*object = (struct emulated_object){.id = id, .kind = kind};
	context->objects[id] = object;
}

static int adopt_ioas(struct iommu_context *context, uint8_t *used, uint32_t id)
{
	const struct emulated_object_record *record = &context->records[id];
	struct emulated_ioas *ioas;
	int error = emulated_ioas_adopt(context, record->cuttable, used, record->root, &ioas);

	if (error == EINVAL) {
		record_drop(context, id);
		return 0;
	}
	if (!error)
		object_place(context, &ioas->object, id, EMULATED_OBJECT_IOAS);
	return error;
}

static int adopt_page_table(struct iommu_context *context, uint32_t id)
{
	uint32_t over = context->records[id].over;
	struct emulated_object *ioas = emulated_object_get(context, over, EMULATED_OBJECT_IOAS);
	struct emulated_page_table *page_table;

	if (!ioas) {
		record_drop(context, id);
		return 0;
	}
	page_table = calloc(1, sizeof(*page_table));
	if (!page_table) {
		emulated_object_put(context, ioas);
		return ENOMEM;
	}
	page_table->ioas = (struct emulated_ioas *)ioas; /* it keeps the use */
	page_table->ioas->n_page_tables++;
	object_place(context, &page_table->object, id, EMULATED_OBJECT_PAGE_TABLE);
	return 0;
}

/* Somebody holds its descriptor: it is bound, whether we shall see it or not. */
static int adopt_absent(struct iommu_context *context, uint32_t id)
{
	struct emulated_object *object = calloc(1, sizeof(*object));

	if (!object)
		return ENOMEM;
	object_place(context, object, id, EMULATED_OBJECT_DEVICE);
	return 0;
}

static int adopt_object(struct iommu_context *context, uint8_t *used, uint32_t id,
			enum emulated_object_kind kind)
{
	if (context->records[id].kind != kind)
		return 0;
	switch (kind) {
	case EMULATED_OBJECT_IOAS:
		return adopt_ioas(context, used, id);
	case EMULATED_OBJECT_PAGE_TABLE:
		return adopt_page_table(context, id);
	case EMULATED_OBJECT_DEVICE:
		return adopt_absent(context, id);
	case EMULATED_OBJECT_NONE:
		break;
	}
	return 0;
}

/* Ids behind the last record that was ever written. */
static uint32_t objects_end(const struct iommu_context *context)
{
	const off_t first = (off_t)(EMULATED_CONTEXT_OBJECTS_PAGE * EMULATED_PAGE_BYTES);
	const off_t end = first + (off_t)(EMULATED_OBJECTS_MAX * sizeof(context->records[0]));
	off_t data, hole = first;

	while ((data = lseek(context->arena.fd, hole, SEEK_DATA)) >= 0 && data < end)
		hole = lseek(context->arena.fd, data, SEEK_HOLE);
	hole = hole < end ? hole : end;
	return (uint32_t)((size_t)(hole - first) / sizeof(context->records[0]));
}

static void adopt_pins(struct iommu_context *context, uint32_t end)
{
	for (uint32_t id = 1; id < end; id++) {
		struct emulated_object *object = context->objects[id];

		if (object && object->kind == EMULATED_OBJECT_IOAS)
			emulated_ioas_adopt_pins((struct emulated_ioas *)object,
						 ((struct emulated_ioas *)object)->n_page_tables);
	}
}

static int adopt_objects(struct iommu_context *context, uint8_t *used)
{
	static const enum emulated_object_kind order[] = {
		EMULATED_OBJECT_IOAS,
		EMULATED_OBJECT_PAGE_TABLE,
		EMULATED_OBJECT_DEVICE,
	};
	uint32_t end = objects_end(context);
	int error = 0;

	for (size_t k = 0; k < 3; k++)
		for (uint32_t id = 1; !error && id < end; id++)
			error = adopt_object(context, used, id, order[k]);
	if (!error)
		adopt_pins(context, end);
	return error;
}

static int context_adopt(struct iommu_context *context)
{
	uint32_t end = context->arena.next_page;
	uint8_t *used = calloc(1, end / 8 + 1);
	int error = used ? emulated_context_init(context) : ENOMEM;

	if (!error)
		error = emulated_memory_adopt(&context->memory, context->arena.fd);
	if (!error)
		error = adopt_objects(context, used);
	if (!error) {
		emulated_memory_adopted(&context->memory);
		arena_sweep(&context->arena, used, end);
	}
	free(used);
	return error;
}

int emulated_context_adopt(struct emulated_backend *backend, int consume_fd,
			   struct iommu_context **ret)
{
	struct iommu_context *context;
	int error;

	if (!is_context_file(consume_fd)) {
		if (consume_fd >= 0)
			close(consume_fd);
		return EINVAL;
	}
	context = emulated_context_alloc(backend);
	if (!context) {
		close(consume_fd);
		return ENOMEM;
	}
	error = arena_adopt(&context->arena, consume_fd, EMULATED_CONTEXT_TABLES_PAGE);
	if (!error)
		error = context_adopt(context);
	if (error)
		emulated_context_free(context);
	else
		*ret = context;
	return error;
}

/* ── devices ──────────────────────────────────────────────────────────────────────────────── */

bool emulated_context_has_device(struct iommu_context *context, uint32_t id)
{
	struct emulated_object *object = emulated_object_get(context, id, EMULATED_OBJECT_DEVICE);

	if (object)
		emulated_object_put(context, object);
	return object;
}

static bool is_absent(const struct iommu_context *context, uint32_t id)
{
	const struct iommu_device *device;

	if (id >= EMULATED_OBJECTS_MAX || !context->objects[id] ||
	    context->objects[id]->kind != EMULATED_OBJECT_DEVICE)
		return false;
	for (device = context->devices; device; device = device->next_bound)
		if (context->objects[id] == &device->object)
			return false;
	return true;
}

int emulated_context_adopt_device(struct iommu_context *context, struct iommu_device *device,
				  uint32_t id, uint32_t *ret_page_table)
{
	int error = EINVAL;

	pthread_mutex_lock(&context->lock);
	if (is_absent(context, id) && context->records[id].root == device->info.fid) {
		free(context->objects[id]);
		object_place(context, &device->object, id, EMULATED_OBJECT_DEVICE);
		device->next_bound = context->devices;
		context->devices = device;
		*ret_page_table = context->records[id].over;
		error = 0;
	}
	pthread_mutex_unlock(&context->lock);
	return error;
}

void emulated_context_drop_absent(struct iommu_context *context)
{
	for (uint32_t id = 1; id < EMULATED_OBJECTS_MAX; id++)
		if (is_absent(context, id)) {
			free(context->objects[id]);
			context->objects[id] = NULL;
		}
}
