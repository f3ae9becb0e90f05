/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include <stdio.h>

#include "iommubroker/v1/memory.pb-c.h"
#include "rpc/check.h"
#include "rpc/descriptor.h"
#include "rpc/progress.h"

typedef Iommubroker__V1__UpdateMemoryRequest UpdateMemoryRequest;
typedef Iommubroker__V1__UpdateMemoryRequest__Map UpdateMemoryMap;

/* ── AddMemoryFile ────────────────────────────────────────────────────────────────────────── */

int prepare_add_memory_file(struct call *call)
{
	const Iommubroker__V1__AddMemoryFileRequest *request =
		(const Iommubroker__V1__AddMemoryFileRequest *)call->request;
	int status = check_handle(call, "guest", request->guest);

	return status ? status : descriptor_check(call, request->descriptor, "descriptor");
}

int handle_add_memory_file(struct call *call)
{
	const Iommubroker__V1__AddMemoryFileRequest *request =
		(const Iommubroker__V1__AddMemoryFileRequest *)call->request;
	Iommubroker__V1__AddMemoryFileResponse response =
		IOMMUBROKER__V1__ADD_MEMORY_FILE_RESPONSE__INIT;
	struct memory_file_added added;
	int fd, status = descriptor_take(call, request->descriptor, "descriptor", &fd);

	if (!status)
		status = memory_file_add(call_broker(call), call_session(call), request->guest, fd,
					 request->writable, &added, &call->refusal);
	if (status)
		return status;
	response.memory_file = added.memory_file;
	response.length = added.length_bytes;
	response.page_bytes = added.page_bytes;
	return call_answer(call, &response.base);
}

/* ── UpdateMemory ─────────────────────────────────────────────────────────────────────────── */

static int refuse_device_region(struct call *call, const UpdateMemoryMap *map, const char *path)
{
	if (!map->device_region->device)
		return refuse_field(&call->refusal, path, "%s.device: must be set; no handle is 0",
				    path);
	return refuse_unimplemented(&call->refusal, "DEVICE_REGION",
				    "%s: device regions (peer to peer) come with a later version "
				    "of the daemon",
				    path);
}

static int prepare_map(struct call *call, size_t i, const UpdateMemoryMap *map,
		       struct memory_map_entry *ret)
{
	char path[48];

	if (map->source_case == IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__SOURCE__NOT_SET) {
		snprintf(path, sizeof(path), "map[%zu].source", i);
		return refuse_field(&call->refusal, path,
				    "%s: memory_file or device_region must be set", path);
	}
	if (map->source_case == IOMMUBROKER__V1__UPDATE_MEMORY_REQUEST__MAP__SOURCE_DEVICE_REGION) {
		snprintf(path, sizeof(path), "map[%zu].device_region", i);
		return refuse_device_region(call, map, path);
	}
	if (!map->memory_file) {
		snprintf(path, sizeof(path), "map[%zu].memory_file", i);
		return check_handle(call, path, 0);
	}
	if (map->access == IOMMUBROKER__V1__ACCESS__ACCESS_UNSPECIFIED) {
		snprintf(path, sizeof(path), "map[%zu].access", i);
		return refuse_field(&call->refusal, path,
				    "%s: ACCESS_READ or ACCESS_READ_WRITE must be set", path);
	}
	*ret = (struct memory_map_entry){
		.memory_file = map->memory_file,
		.offset = map->offset,
		.gpa = map->gpa,
		.length = map->length,
		.granule = map->granule,
		.writable = map->access == IOMMUBROKER__V1__ACCESS__ACCESS_READ_WRITE,
	};
	return 0;
}

int prepare_update_memory(struct call *call)
{
	const UpdateMemoryRequest *request = (const UpdateMemoryRequest *)call->request;
	struct memory_update_request *plain = call_array(call, 1, sizeof(*plain));
	int status = check_handle(call, "guest", request->guest);

	if (!plain)
		return call_refuse_memory(call);
	if (!status)
		status = check_count(call, "unmap", request->n_unmap, 0, BROKER_MAP_RANGES_MAX);
	if (!status)
		status = check_count(call, "map", request->n_map, 0, BROKER_MAP_RANGES_MAX);
	if (status)
		return status;
	plain->n_unmap = request->n_unmap;
	plain->n_map = request->n_map;
	for (size_t i = 0; i < request->n_unmap; i++)
		plain->unmap[i] =
			(struct iommu_range){request->unmap[i]->first, request->unmap[i]->last};
	for (size_t i = 0; !status && i < request->n_map; i++)
		status = prepare_map(call, i, request->map[i], &plain->map[i]);
	call->plain = plain;
	return status;
}

int handle_update_memory(struct call *call)
{
	const UpdateMemoryRequest *request = (const UpdateMemoryRequest *)call->request;
	Iommubroker__V1__UpdateMemoryResponse response =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__INIT;
	Iommubroker__V1__UpdateMemoryResponse__Done done =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__DONE__INIT;
	struct operation *operation = call_operation(call);
	struct memory_updated updated;
	int status;

	operation->progress = progress_update_memory;
	status = memory_update(call_broker(call), call_session(call), request->guest, call->plain,
			       operation, &updated, &call->refusal);
	if (status)
		return status;
	done.pinned = updated.pinned;
	done.region_bytes = updated.region_bytes;
	done.leaves_dropped = updated.leaves_dropped;
	done.leaves_restored = updated.leaves_restored;
	response.update_case = IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_DONE;
	response.done = &done;
	return call_answer(call, &response.base);
}

/* ── RemoveMemoryFile ─────────────────────────────────────────────────────────────────────── */

int prepare_remove_memory_file(struct call *call)
{
	const Iommubroker__V1__RemoveMemoryFileRequest *request =
		(const Iommubroker__V1__RemoveMemoryFileRequest *)call->request;
	int status = check_handle(call, "guest", request->guest);

	return status ? status : check_handle(call, "memory_file", request->memory_file);
}

int handle_remove_memory_file(struct call *call)
{
	const Iommubroker__V1__RemoveMemoryFileRequest *request =
		(const Iommubroker__V1__RemoveMemoryFileRequest *)call->request;
	Iommubroker__V1__RemoveMemoryFileResponse response =
		IOMMUBROKER__V1__REMOVE_MEMORY_FILE_RESPONSE__INIT;
	int status = memory_file_remove(call_broker(call), call_session(call), request->guest,
					request->memory_file, &call->refusal);

	return status ? status : call_answer(call, &response.base);
}
