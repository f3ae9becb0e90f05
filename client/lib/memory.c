/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Memory files, and the map of guest memory. */

#include <errno.h>
#include <stdlib.h>

#include "iommubroker/v1/memory.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/async.h"
#include "lib/session.h"

typedef Iommubroker__V1__UpdateMemoryRequest UpdateRequest;
typedef Iommubroker__V1__UpdateMemoryRequest__Map MapMessage;

/* The API's own limit; checked here so that sums below cannot overflow. */
#define MAP_RANGES_MAX 512

static int add(struct iommubroker_memory_file *file, const struct exchange *exchange,
	       struct iommubroker_error **ret_error)
{
	const Iommubroker__V1__AddMemoryFileResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	r = exchange_run(file->session, exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	file->handle = response->memory_file;
	file->length = response->length;
	file->page_bytes = response->page_bytes;
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

int iommubroker_memory_file_add(struct iommubroker_guest *guest, int borrow_fd, bool writable,
				struct iommubroker_memory_file **ret_file,
				struct iommubroker_error **ret_error)
{
	Iommubroker__V1__AddMemoryFileRequest request =
		IOMMUBROKER__V1__ADD_MEMORY_FILE_REQUEST__INIT;
	Iommubroker__V1__DescriptorRef descriptor = IOMMUBROKER__V1__DESCRIPTOR_REF__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_ADD_MEMORY_FILE,
		.request = &request.base,
		.response = &iommubroker__v1__add_memory_file_response__descriptor,
		.has_fd = true,
		.fd = borrow_fd,
	};
	struct iommubroker_memory_file *file;
	int r;

	if (borrow_fd < 0)
		return error_field(ret_error, "descriptor", "%d is no descriptor", borrow_fd);
	file = calloc(1, sizeof(*file));
	if (file == NULL)
		return error_transport(-ENOMEM, ret_error);
	file->session = guest->session;
	file->guest = guest->handle;
	descriptor.source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
	descriptor.attached = 0;
	request.request_id = session_request_id(guest->session);
	request.guest = guest->handle;
	request.descriptor = &descriptor;
	request.writable = writable;
	r = add(file, &exchange, ret_error);
	if (r == 0)
		*ret_file = file;
	else
		free(file);
	return r;
}

uint64_t iommubroker_memory_file_length(const struct iommubroker_memory_file *file)
{
	return file->length;
}

uint64_t iommubroker_memory_file_page_bytes(const struct iommubroker_memory_file *file)
{
	return file->page_bytes;
}

int iommubroker_memory_file_remove(struct iommubroker_memory_file *file,
				   struct iommubroker_error **ret_error)
{
	Iommubroker__V1__RemoveMemoryFileRequest request =
		IOMMUBROKER__V1__REMOVE_MEMORY_FILE_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_REMOVE_MEMORY_FILE,
		.request = &request.base,
		.response = &iommubroker__v1__remove_memory_file_response__descriptor,
		.takes_away = true,
	};

	request.request_id = session_request_id(file->session);
	request.guest = file->guest;
	request.memory_file = file->handle;
	return exchange_run_only(file->session, &exchange, ret_error);
}

struct iommubroker_memory_file *iommubroker_memory_file_free(struct iommubroker_memory_file *file)
{
	free(file);
	return NULL;
}

/* An UpdateMemoryRequest and its parts, in one allocation. */
struct update {
	UpdateRequest request;
	Iommubroker__V1__AddressRange *unmap;
	MapMessage *map;
	void *pointers[];
};

static void fill_unmap(struct update *to, const struct iommubroker_memory_update *from)
{
	for (size_t i = 0; i < from->n_unmap; i++) {
		to->unmap[i] = (Iommubroker__V1__AddressRange)IOMMUBROKER__V1__ADDRESS_RANGE__INIT;
		to->unmap[i].first = from->unmap[i].first;
		to->unmap[i].last = from->unmap[i].last;
		to->request.unmap[i] = &to->unmap[i];
	}
}

static void fill_map(struct update *to, const struct iommubroker_memory_update *from)
{
	for (size_t i = 0; i < from->n_map; i++) {
		MapMessage *map = &to->map[i];

		*map = (MapMessage)IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__INIT;
		map->source_case = IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__SOURCE_MEMORY_FILE;
		map->memory_file = from->map[i].file->handle;
		map->offset = from->map[i].offset;
		map->gpa = from->map[i].gpa;
		map->length = from->map[i].length;
		map->access = from->map[i].access;
		map->granule = from->map[i].granule;
		to->request.map[i] = map;
	}
}

static int update_new(struct iommubroker_guest *guest, const struct iommubroker_memory_update *from,
		      struct update **ret)
{
	size_t n_unmap = from->n_unmap, n_map = from->n_map;
	struct update *update;

	if (n_unmap > MAP_RANGES_MAX || n_map > MAP_RANGES_MAX)
		return -EMSGSIZE;
	update = calloc(1, sizeof(*update) + (n_unmap + n_map) * sizeof(void *) +
				   n_unmap * sizeof(*update->unmap) + n_map * sizeof(*update->map));
	if (update == NULL)
		return -ENOMEM;
	update->request = (UpdateRequest)IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__INIT;
	update->request.unmap = (void *)update->pointers;
	update->request.map = (void *)(update->pointers + n_unmap);
	update->unmap = (void *)(update->pointers + n_unmap + n_map);
	update->map = (void *)(update->unmap + n_unmap);
	update->request.request_id = session_request_id(guest->session);
	update->request.guest = guest->handle;
	update->request.n_unmap = n_unmap;
	update->request.n_map = n_map;
	fill_unmap(update, from);
	fill_map(update, from);
	*ret = update;
	return 0;
}

/* false: not an answer that says it is done. */
static bool take_done(const ProtobufCMessage *message, struct iommubroker_memory_change *ret)
{
	const Iommubroker__V1__UpdateMemoryResponse *response = (const void *)message;

	if (response == NULL ||
	    response->update_case != IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_DONE)
		return false;
	ret->pinned = response->done->pinned;
	ret->region_bytes = response->done->region_bytes;
	ret->leaves_dropped = response->done->leaves_dropped;
	ret->leaves_restored = response->done->leaves_restored;
	return true;
}

int iommubroker_memory_update(struct iommubroker_guest *guest,
			      const struct iommubroker_memory_update *update,
			      iommubroker_progress_fn progress, void *user_data,
			      struct iommubroker_memory_change *ret_change,
			      struct iommubroker_error **ret_error)
{
	struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_UPDATE_MEMORY,
		.response = &iommubroker__v1__update_memory_response__descriptor,
		.progress = progress,
		.user_data = user_data,
	};
	struct iommubroker_memory_change change;
	ProtobufCMessage *message = NULL;
	struct update *request = NULL;
	int r;

	r = update_new(guest, update, &request);
	if (r < 0)
		return error_transport(r, ret_error);
	exchange.request = &request->request.base;
	exchange.request_id = request->request.request_id;
	r = exchange_run(guest->session, &exchange, &message, ret_error);
	free(request);
	if (r < 0)
		return r;
	if (!take_done(message, &change))
		r = error_transport(-EBADMSG, ret_error);
	protobuf_c_message_free_unpacked(message, NULL);
	if (r == 0 && ret_change != NULL)
		*ret_change = change;
	return r;
}

static bool deliver_update(struct async *async, const struct answer *answer, int result)
{
	struct iommubroker_memory_change change;
	struct iommubroker_error *error = NULL;
	ProtobufCMessage *message = NULL;
	bool last = answer == NULL || !answer->more || answer->code != 0;

	if (answer != NULL && answer->code == 0)
		message = protobuf_c_message_unpack(
			&iommubroker__v1__update_memory_response__descriptor, NULL,
			answer->n_message, answer->message);
	if (!last) {
		if (message != NULL)
			async_report_progress(async, message);
	} else if (message != NULL && take_done(message, &change)) {
		async->done.memory(async->user_data, 0, &change, NULL);
	} else {
		if (answer != NULL && answer->code != 0)
			result = error_from_answer(answer, &error);
		else
			result = error_transport(result < 0 ? result : -EBADMSG, &error);
		async->done.memory(async->user_data, result, NULL, error);
	}
	iommubroker_error_free(error);
	protobuf_c_message_free_unpacked(message, NULL);
	return last;
}

int iommubroker_memory_update_submit(struct iommubroker_guest *guest,
				     const struct iommubroker_memory_update *update,
				     iommubroker_progress_fn progress, iommubroker_memory_fn done,
				     void *user_data, uint64_t *ret_call)
{
	struct update *request = NULL;
	uint8_t *packet = NULL;
	struct async *async;
	size_t n_bytes = 0;
	int r;

	r = update_new(guest, update, &request);
	if (r < 0)
		return r;
	async = async_new(guest->session, deliver_update, user_data);
	r = async != NULL ? exchange_pack(&request->request.base, &packet, &n_bytes) : -ENOMEM;
	if (r == 0) {
		async->done.memory = done;
		async->progress = progress;
		async->request_id = request->request.request_id;
		r = async_submit(async, IOMMUBROKER__V1__METHOD__METHOD_UPDATE_MEMORY, packet,
				 n_bytes, true, ret_call);
	} else {
		free(async);
	}
	free(request);
	return r;
}
