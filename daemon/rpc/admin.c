/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What operators ask, on the admin socket only: everybody's guests, whoever owns them.
 */

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iommubroker/v1/admin.pb-c.h"
#include "rpc/admin.h"
#include "rpc/convert.h"
#include "rpc/dispatcher.h"
#include "rpc/handler.h"
#include "rpc/stream.h"
#include "util/clock.h"

/* What these answers take grows with tenants and guests: some 2 KiB each. */
#define ANSWER_ARENA_BYTES_MAX (8 * 1024 * 1024)

static void answer_grows(struct call *call)
{
	call->arena.bound_bytes = ANSWER_ARENA_BYTES_MAX;
}

/* ── GetStatus ────────────────────────────────────────────────────────────────────────────── */

/* Host first, then a page of tenants. */
static int status_usage(struct call *call, Iommubroker__V1__GetStatusResponse *ret)
{
	const Iommubroker__V1__GetStatusRequest *request =
		(const Iommubroker__V1__GetStatusRequest *)call->request;
	struct usage_report *reports = call_array(call, USAGE_PAGE_MAX + 1, sizeof(*reports));
	bool more = false;
	size_t n = 0;
	int status;

	if (!reports)
		return call_refuse_memory(call);
	status = usage_report(call_broker(call), NULL, &reports[0], &call->refusal);
	if (!status)
		status = usage_page(call_broker(call), request->usage_after, reports + 1,
				    USAGE_PAGE_MAX, &n, &more, &call->refusal);
	if (status)
		return status;
	ret->usage = CONVERT_ARRAY(call, 1 + n, Iommubroker__V1__GetUsageResponse,
				   iommubroker__v1__get_usage_response__init);
	if (!ret->usage)
		return call_refuse_memory(call);
	ret->n_usage = 1 + n;
	ret->usage_more = more;
	for (size_t i = 0; !status && i < ret->n_usage; i++)
		status = convert_usage(call, &reports[i], ret->usage[i]);
	return status;
}

static void status_counters(struct call *call, Iommubroker__V1__GetStatusResponse *ret)
{
	struct dispatcher *dispatcher = call->dispatcher;
	struct broker_status status;

	broker_status(call_broker(call), &status);
	ret->sessions = status.sessions;
	ret->guests = status.guests;
	ret->devices = status.devices;
	ret->nested_domains = status.nested_domains;
	ret->pinned_bytes = status.pinned_bytes;
	ret->mappings_installed = status.mappings_installed;
	ret->mappings_reserved = status.mappings_reserved;
	ret->calls = atomic_load(&dispatcher->calls);
	ret->refusals = atomic_load(&dispatcher->refusals);
	ret->draining = broker_draining(call_broker(call));
	ret->pid = (uint64_t)getpid();
	ret->uptime_seconds = (clock_monotonic_ns() - dispatcher->started_ns) / 1000000000;
	pthread_mutex_lock(&dispatcher->lock);
	ret->connections = dispatcher->connections;
	pthread_mutex_unlock(&dispatcher->lock);
}

static void status_store(struct call *call, Iommubroker__V1__GetStatusResponse *ret,
			 Iommubroker__V1__GetStatusResponse__Takeover *takeover)
{
	struct store_report report;

	broker_store_report(call_broker(call), &report);
	ret->stored_descriptors = report.descriptors;
	ret->stored_descriptors_max = report.descriptors_max;
	if (!report.restored.ns)
		return;
	iommubroker__v1__get_status_response__takeover__init(takeover);
	takeover->guests = report.restored.guests;
	takeover->released = report.restored.released;
	takeover->regions = report.restored.regions;
	takeover->mappings = report.restored.mappings;
	takeover->nanoseconds = report.restored.ns;
	ret->takeover = takeover;
}

int handle_get_status(struct call *call)
{
	Iommubroker__V1__GetStatusResponse response = IOMMUBROKER__V1__GET_STATUS_RESPONSE__INIT;
	Iommubroker__V1__GetStatusResponse__Takeover takeover;
	Iommubroker__V1__GetInfoResponse info;
	int status = convert_info(call, &info);

	answer_grows(call);
	if (!status)
		status = status_usage(call, &response);
	if (status)
		return status;
	status_counters(call, &response);
	status_store(call, &response, &takeover);
	response.info = &info;
	return call_answer(call, &response.base);
}

/* ── ListAll ──────────────────────────────────────────────────────────────────────────────── */

/* Every guest there is, in the call's arena. */
static int all_guests(struct call *call, struct guest_summary **ret, size_t *ret_n)
{
	struct guest_summary *summaries;
	size_t n = 0, room;
	int status = guest_list(call_broker(call), NULL, NULL, 0, &n, &call->refusal);

	if (status)
		return status;
	room = n;
	summaries = call_array(call, room, sizeof(*summaries));
	if (!summaries)
		return call_refuse_memory(call);
	status = guest_list(call_broker(call), NULL, summaries, room, &n, &call->refusal);
	if (status)
		return status;
	*ret = summaries;
	*ret_n = n < room ? n : room;
	return 0;
}

static void list_entry(struct guest_summary *summary, Iommubroker__V1__ListAllResponse__Guest *ret)
{
	ret->guest = summary->guest;
	if (summary->has_uuid)
		ret->uuid = (ProtobufCBinaryData){sizeof(summary->uuid), summary->uuid};
	ret->name = summary->name;
	ret->pid = (uint64_t)summary->pid;
	ret->uid = summary->uid;
	ret->tenant = summary->tenant;
	ret->region_bytes = summary->region_bytes;
	ret->pinned = summary->pinned;
	ret->devices = summary->devices;
	ret->nested_domains = summary->nested_domains;
	ret->live_leaves = summary->live_leaves;
}

int handle_list_all(struct call *call)
{
	Iommubroker__V1__ListAllResponse response = IOMMUBROKER__V1__LIST_ALL_RESPONSE__INIT;
	struct guest_summary *summaries;
	size_t n;
	int status;

	answer_grows(call);
	status = all_guests(call, &summaries, &n);
	if (status)
		return status;
	response.guests = CONVERT_ARRAY(call, n, Iommubroker__V1__ListAllResponse__Guest,
					iommubroker__v1__list_all_response__guest__init);
	if (!response.guests)
		return call_refuse_memory(call);
	response.n_guests = n;
	for (size_t i = 0; i < n; i++)
		list_entry(&summaries[i], response.guests[i]);
	return call_answer(call, &response.base);
}

/* ── which guest ──────────────────────────────────────────────────────────────────────────── */

/* 32 hex digits, with dashes anywhere. */
static bool uuid_parse(const char *text, uint8_t ret[16])
{
	size_t digits = 0;

	memset(ret, 0, 16);
	for (; *text; text++) {
		static const char hex[] = "0123456789abcdefABCDEF";
		const char *digit = strchr(hex, *text);
		size_t value;

		if (*text == '-')
			continue;
		if (!digit || digits == 32)
			return false;
		value = (size_t)(digit - hex);
		if (value > 15)
			value -= 6;
		ret[digits / 2] |= (uint8_t)(digits % 2 ? value : value << 4);
		digits++;
	}
	return digits == 32;
}

/* A whole number in that base. */
static bool number_parse(const char *text, int base, uint64_t *ret)
{
	char *end;

	if (!isxdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	*ret = strtoull(text, &end, base);
	return !errno && !*end;
}

/* In hex as this project shows handles, or in decimal as libraries print 64-bit numbers: handles
 * are random, so the same digits do not name two of them. */
static const struct guest_summary *by_handle(const char *text, const struct guest_summary *all,
					     size_t n)
{
	uint64_t hex = 0, decimal = 0;

	if (!number_parse(text, 16, &hex))
		return NULL;
	if (!number_parse(text, 10, &decimal))
		decimal = hex;
	for (size_t i = 0; i < n; i++)
		if (all[i].guest == hex || all[i].guest == decimal)
			return &all[i];
	return NULL;
}

/* Clients choose names and uuids, another one's on purpose perhaps: an operator is never shown one
 * guest for another. */
static int by_uuid_or_name(struct call *call, const char *text, const struct guest_summary *all,
			   size_t n, uint64_t *ret_guest)
{
	const struct guest_summary *found = NULL;
	uint8_t uuid[16];
	bool is_uuid = uuid_parse(text, uuid);

	for (size_t i = 0; i < n; i++) {
		if (strcmp(all[i].name, text) &&
		    (!is_uuid || !all[i].has_uuid || memcmp(all[i].uuid, uuid, sizeof(uuid))))
			continue;
		if (found)
			return refuse_field(&call->refusal, "guest",
					    "guest: several guests have that name or uuid; name "
					    "one by its handle");
		found = &all[i];
	}
	if (!found)
		return refuse(&call->refusal, REFUSAL_NOT_FOUND, "NOT_FOUND",
			      "there is no guest of that handle, uuid or name");
	*ret_guest = found->guest;
	return 0;
}

static int guest_named(struct call *call, const char *text, const struct guest_summary *all,
		       size_t n, uint64_t *ret_guest)
{
	const struct guest_summary *found = by_handle(text, all, n);

	if (!found)
		return by_uuid_or_name(call, text, all, n, ret_guest);
	*ret_guest = found->guest;
	return 0;
}

int admin_find_guest(struct call *call, const char *text, uint64_t *ret_guest)
{
	struct guest_summary *all;
	size_t n;
	int status = all_guests(call, &all, &n);

	return status ? status : guest_named(call, text, all, n, ret_guest);
}

/* ── ShowGuest ────────────────────────────────────────────────────────────────────────────── */

struct show_source {
	struct stream_source base;
	bool one; /* asked for by name: that it is gone is an error then */
	size_t at, n;
	uint64_t guests[];
};

static int show_answer(struct call *call, const struct guest_description *description)
{
	Iommubroker__V1__ShowGuestResponse response = IOMMUBROKER__V1__SHOW_GUEST_RESPONSE__INIT;
	Iommubroker__V1__GuestDescription message;
	int status = convert_guest(call, description, &message);

	response.description = &message;
	return status ? status : call_answer(call, &response.base);
}

static int show_next(struct stream_source *base, struct call *call)
{
	struct show_source *source = (struct show_source *)base;
	struct guest_description *description;
	int status;

	while (source->at < source->n) {
		uint64_t guest = source->guests[source->at++];

		status = guest_describe(call_broker(call), NULL, guest, &description,
					&call->refusal);
		if (status < 0)
			return status;
		if (status && (source->one || call->refusal.kind != REFUSAL_NOT_FOUND))
			return STREAM_REFUSED;
		if (status)
			continue;
		status = show_answer(call, description);
		guest_description_free(description);
		return status ? STREAM_REFUSED : STREAM_MESSAGE;
	}
	return STREAM_END;
}

static void show_end(struct stream_source *base)
{
	free(base);
}

static int show_source_new(struct call *call, const char *name, struct show_source **ret)
{
	struct guest_summary *all;
	struct show_source *source;
	size_t n;
	int status = all_guests(call, &all, &n);

	if (status)
		return status;
	source = calloc(1, sizeof(*source) + (n ? n : 1) * sizeof(source->guests[0]));
	if (!source)
		return refuse_errno(&call->refusal, ENOMEM, "showing guests");
	source->base.next = show_next;
	source->base.end = show_end;
	source->one = name[0];
	source->n = source->one ? 1 : n;
	for (size_t i = 0; !source->one && i < n; i++)
		source->guests[i] = all[i].guest;
	if (source->one)
		status = guest_named(call, name, all, n, &source->guests[0]);
	if (status)
		free(source);
	else
		*ret = source;
	return status;
}

int handle_show_guest(struct call *call)
{
	const Iommubroker__V1__ShowGuestRequest *request =
		(const Iommubroker__V1__ShowGuestRequest *)call->request;
	struct show_source *source = NULL;
	struct stream *stream;
	int status = show_source_new(call, request->guest, &source);

	if (status)
		return status;
	stream = stream_new_pooled(call);
	if (!stream) {
		free(source);
		return REFUSED;
	}
	stream_begin(stream, &source->base);
	return CALL_PENDING;
}

/* ── Explain ──────────────────────────────────────────────────────────────────────────────── */

int prepare_admin_explain(struct call *call)
{
	const Iommubroker__V1__ExplainRequest *request =
		(const Iommubroker__V1__ExplainRequest *)call->request;

	if (request->nested || request->guest[0])
		return 0;
	return refuse_field(&call->refusal, "guest",
			    "guest: must be set with a function id, if no nested domain is named");
}

static int attached_nested(struct call *call, uint64_t guest, uint32_t fid, uint64_t *ret_nested)
{
	struct guest_description *description;
	uint64_t nested = 0;
	bool seen = false;
	int status = guest_describe(call_broker(call), NULL, guest, &description, &call->refusal);

	if (status)
		return status;
	for (size_t i = 0; i < description->n_devices; i++) {
		const struct device_description *device = &description->devices[i];

		if (!device->info.has_fid || device->info.fid != fid)
			continue;
		seen = true;
		if (device->attachment == ATTACHMENT_NESTED)
			nested = device->nested;
	}
	guest_description_free(description);
	if (!seen)
		return refuse(&call->refusal, REFUSAL_NOT_FOUND, "NOT_FOUND",
			      "that guest has no function 0x%x", fid);
	if (!nested)
		return refuse(&call->refusal, REFUSAL_PRECONDITION, "NOT_ATTACHED",
			      "function 0x%x is not attached to a nested domain", fid);
	*ret_nested = nested;
	return 0;
}

static int explain_which(struct call *call, uint64_t *ret_nested)
{
	const Iommubroker__V1__ExplainRequest *request =
		(const Iommubroker__V1__ExplainRequest *)call->request;
	uint64_t guest;
	int status;

	if (request->nested) {
		*ret_nested = request->nested;
		return 0;
	}
	status = admin_find_guest(call, request->guest, &guest);
	return status ? status : attached_nested(call, guest, request->function_id, ret_nested);
}

int handle_admin_explain(struct call *call)
{
	const Iommubroker__V1__ExplainRequest *request =
		(const Iommubroker__V1__ExplainRequest *)call->request;
	Iommubroker__V1__ExplainTranslationResponse response =
		IOMMUBROKER__V1__EXPLAIN_TRANSLATION_RESPONSE__INIT;
	Iommubroker__V1__Explanation message;
	struct explanation explanation;
	uint64_t nested = 0;
	int status = explain_which(call, &nested);

	if (!status)
		status = nested_explain(call_broker(call), NULL, nested, request->iova,
					&explanation, &call->refusal);
	if (!status)
		status = convert_explanation(call, &explanation, &message);
	if (status)
		return status;
	response.explanation = &message;
	return call_answer(call, &response.base);
}
