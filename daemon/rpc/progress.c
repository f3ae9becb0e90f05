/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/progress.h"

#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/memory.pb-c.h"
#include "rpc/request_table.h"

/* Two numbers of at most 10 bytes, with tags and a length. */
#define PROGRESS_BYTES 32

static void progress_send(struct operation *operation, const ProtobufCMessage *message)
{
	struct request_entry *entry =
		(struct request_entry *)((char *)operation -
					 offsetof(struct request_entry, operation));
	uint8_t bytes[PROGRESS_BYTES];

	request_entry_send(entry, bytes, protobuf_c_message_pack(message, bytes));
}

static Iommubroker__V1__Progress progress(uint64_t done_bytes, uint64_t total_bytes)
{
	Iommubroker__V1__Progress ret = IOMMUBROKER__V1__PROGRESS__INIT;

	ret.done_bytes = done_bytes;
	ret.total_bytes = total_bytes;
	return ret;
}

void progress_update_memory(struct operation *operation, uint64_t done_bytes, uint64_t total_bytes)
{
	Iommubroker__V1__UpdateMemoryResponse response =
		IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__INIT;
	Iommubroker__V1__Progress message = progress(done_bytes, total_bytes);

	response.update_case = IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_PROGRESS;
	response.progress = &message;
	progress_send(operation, &response.base);
}

void progress_bind_device(struct operation *operation, uint64_t done_bytes, uint64_t total_bytes)
{
	Iommubroker__V1__BindDeviceResponse response = IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__INIT;
	Iommubroker__V1__Progress message = progress(done_bytes, total_bytes);

	response.update_case = IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__UPDATE_PROGRESS;
	response.progress = &message;
	progress_send(operation, &response.base);
}
