/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Methods that the API has and this version of the daemon does not: what a request says is held to
 * the same rules as anywhere, so that a client that gets them wrong learns it now, and then refused
 * with the name of what is missing.
 */

#include "rpc/handler.h"

#include "iommubroker/v1/domains.pb-c.h"
#include "rpc/check.h"
#include "rpc/descriptor.h"

static int lacks(struct call *call, const char *reason, const char *what)
{
	return refuse_unimplemented(&call->refusal, reason,
				    "%s come with a later version of the daemon", what);
}

int prepare_invalidate_nested(struct call *call)
{
	const Iommubroker__V1__InvalidateNestedRequest *request =
		(const Iommubroker__V1__InvalidateNestedRequest *)call->request;
	int status = check_owned(call, "nested", "nested domain", request->nested);

	if (!status && !request->entry_bytes)
		status = refuse_field(&call->refusal, "entry_bytes", "entry_bytes: must not be 0");
	if (!status && request->entries.len % request->entry_bytes)
		status = refuse_field(&call->refusal, "entries",
				      "entries: %zu bytes are no whole number of entries of %u",
				      request->entries.len, request->entry_bytes);
	return status ? status
		      : lacks(call, "KERNEL_NESTED_FORMAT", "formats that the kernel nests itself");
}

int prepare_set_dirty_tracking(struct call *call)
{
	const Iommubroker__V1__SetDirtyTrackingRequest *request =
		(const Iommubroker__V1__SetDirtyTrackingRequest *)call->request;
	int status = check_owned(call, "device", "device", request->device);

	return status ? status : lacks(call, "DIRTY_TRACKING", "dirty bitmaps");
}

int prepare_read_dirty(struct call *call)
{
	const Iommubroker__V1__ReadDirtyRequest *request =
		(const Iommubroker__V1__ReadDirtyRequest *)call->request;
	int status = check_owned(call, "device", "device", request->device);

	if (!status)
		status = check_owned(call, "bitmap_file", "memory file", request->bitmap_file);
	if (!status && !request->range)
		status = refuse_field(&call->refusal, "range", "range: must be set");
	if (!status && request->range->first > request->range->last)
		status = refuse_field(&call->refusal, "range", "range: first is above last");
	if (!status &&
	    (request->page_bytes < 4096 || request->page_bytes & (request->page_bytes - 1)))
		status = refuse_field(&call->refusal, "page_bytes",
				      "page_bytes: a power of two of at least 4096 is wanted");
	return status ? status : lacks(call, "DIRTY_TRACKING", "dirty bitmaps");
}
