/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/check.h"
#include "rpc/convert.h"
#include "rpc/descriptor.h"
#include "rpc/descriptor_drop.h"
#include "rpc/log_device.h"
#include "rpc/peer_identity.h"
#include "rpc/peer_pidfd.h"

typedef Iommubroker__V1__CreateGuestRequest CreateGuestRequest;
typedef Iommubroker__V1__CreateGuestRequest__LabelsEntry LabelsEntry;

/* ── CreateGuest ──────────────────────────────────────────────────────────────────────────── */

static int prepare_label(struct call *call, size_t i, const LabelsEntry *entry,
			 struct guest_create_request *plain)
{
	struct broker_label *label = &plain->labels[i];
	char path[32];
	int status;

	snprintf(path, sizeof(path), "labels[%zu].key", i);
	status = check_text(call, path, entry->key, label->key, sizeof(label->key));
	if (!status && !label->key[0])
		status = refuse_field(&call->refusal, path, "%s: must not be empty", path);
	for (size_t j = 0; !status && j < i; j++)
		if (!strcmp(plain->labels[j].key, label->key))
			status = refuse_field(&call->refusal, path, "%s: given twice", path);
	if (status)
		return status;
	snprintf(path, sizeof(path), "labels[%zu].value", i);
	return check_text(call, path, entry->value, label->value, sizeof(label->value));
}

static int compare_labels(const void *a, const void *b)
{
	const LabelsEntry *const *left = a, *const *right = b;

	return strcmp((*left)->key, (*right)->key);
}

/* Libraries send a map in any order, another one at each attempt: sorted, so that the same request
 * has the same digest. After all checks: refusals name the place in the message as it came. */
static void sort_labels(CreateGuestRequest *request)
{
	if (request->n_labels)
		qsort(request->labels, request->n_labels, sizeof(*request->labels), compare_labels);
}

static int prepare_labels(struct call *call, CreateGuestRequest *request,
			  struct guest_create_request *plain)
{
	int status = check_count(call, "labels", request->n_labels, 0, BROKER_LABELS_MAX);

	for (size_t i = 0; !status && i < request->n_labels; i++)
		status = prepare_label(call, i, request->labels[i], plain);
	plain->n_labels = request->n_labels;
	return status;
}

int prepare_create_guest(struct call *call)
{
	CreateGuestRequest *request = (CreateGuestRequest *)call->request;
	struct guest_create_request *plain = call_array(call, 1, sizeof(*plain));
	int status;

	if (!plain)
		return call_refuse_memory(call);
	status = check_bytes(call, "uuid", &request->uuid, sizeof(plain->uuid), true);
	if (!status)
		status = check_text(call, "name", request->name, plain->name, sizeof(plain->name));
	if (!status)
		status = prepare_labels(call, request, plain);
	if (!status && request->on_behalf_of)
		status = descriptor_check(call, request->on_behalf_of, "on_behalf_of");
	if (status)
		return status;
	sort_labels(request);
	plain->has_uuid = request->uuid.len;
	if (plain->has_uuid)
		memcpy(plain->uuid, request->uuid.data, sizeof(plain->uuid));
	if (request->limits) {
		plain->pinned_bytes_max = request->limits->pinned_bytes_max;
		plain->mappings_max = request->limits->mappings_max;
	}
	call->plain = plain;
	return 0;
}

/* The process that a pidfd names, and what tenant rules ask about it. The descriptor is to be
 * dropped. */
static int behalf_read(struct call *call, struct peer *peer, struct tenant_identity *identity)
{
	const CreateGuestRequest *request = (const CreateGuestRequest *)call->request;
	int status = descriptor_take(call, request->on_behalf_of, "on_behalf_of", &peer->pidfd);

	if (!status)
		status = peer_of_pidfd(peer->pidfd, "on_behalf_of", peer, &call->refusal);
	if (!status && peer_identity_read(peer, identity))
		peer->identity = identity;
	return status;
}

static int create_on_behalf(struct call *call, uint64_t *ret_guest,
			    uint8_t ret_secret[BROKER_SECRET_BYTES])
{
	struct guest_create_request *request = call->plain;
	struct tenant_identity *identity = call_array(call, 1, sizeof(*identity));
	struct peer peer = {.pidfd = -1};
	int status;

	if (!identity)
		return call_refuse_memory(call);
	status = behalf_read(call, &peer, identity);
	request->on_behalf_of = &peer;
	if (!status)
		status = guest_create(call_broker(call), call_session(call), request, ret_guest,
				      ret_secret, &call->refusal);
	request->on_behalf_of = NULL;
	descriptors_drop(call->dispatcher, call->session, call->uid, &peer.pidfd, 1);
	return status;
}

int handle_create_guest(struct call *call)
{
	Iommubroker__V1__CreateGuestResponse response =
		IOMMUBROKER__V1__CREATE_GUEST_RESPONSE__INIT;
	const struct guest_create_request *request = call->plain;
	uint8_t secret[BROKER_SECRET_BYTES];
	int status;

	if (((const CreateGuestRequest *)call->request)->on_behalf_of)
		status = create_on_behalf(call, &response.guest, secret);
	else
		status = guest_create(call_broker(call), call_session(call), request,
				      &response.guest, secret, &call->refusal);
	if (status)
		return status;
	call_settles(call, response.guest);
	log_guest_created(call, response.guest, request->name);
	response.secret = (ProtobufCBinaryData){sizeof(secret), secret};
	status = call_answer(call, &response.base);
	explicit_bzero(secret, sizeof(secret));
	return status;
}

/* ── the others ───────────────────────────────────────────────────────────────────────────── */

static void list_entry(const struct guest_summary *summary,
		       Iommubroker__V1__ListGuestsResponse__Guest *ret)
{
	ret->guest = summary->guest;
	if (summary->has_uuid)
		ret->uuid = (ProtobufCBinaryData){sizeof(summary->uuid), (uint8_t *)summary->uuid};
	ret->name = (char *)summary->name;
}

/* Guests may come between the two looks: what does not fit is not shown. */
int handle_list_guests(struct call *call)
{
	Iommubroker__V1__ListGuestsResponse response = IOMMUBROKER__V1__LIST_GUESTS_RESPONSE__INIT;
	struct guest_summary *summaries;
	size_t n = 0, room;
	int status = guest_list(call_broker(call), call_session(call), NULL, 0, &n, &call->refusal);

	if (status)
		return status;
	room = n;
	summaries = call_array(call, room, sizeof(*summaries));
	response.guests = CONVERT_ARRAY(call, room, Iommubroker__V1__ListGuestsResponse__Guest,
					iommubroker__v1__list_guests_response__guest__init);
	if (!summaries || !response.guests)
		return call_refuse_memory(call);
	status = guest_list(call_broker(call), call_session(call), summaries, room, &n,
			    &call->refusal);
	if (status)
		return status;
	response.n_guests = n < room ? n : room;
	for (size_t i = 0; i < response.n_guests; i++)
		list_entry(&summaries[i], response.guests[i]);
	return call_answer(call, &response.base);
}

int prepare_describe_guest(struct call *call)
{
	const Iommubroker__V1__DescribeGuestRequest *request =
		(const Iommubroker__V1__DescribeGuestRequest *)call->request;

	return check_handle(call, "guest", request->guest);
}

/* The part of the regions that was asked for; they are in the order of their addresses. */
static void description_clip(const Iommubroker__V1__DescribeGuestRequest *request,
			     struct guest_description *part, uint64_t *ret_next)
{
	const struct region_description *region = part->regions;

	while (part->n_regions &&
	       region->gpa + (region->length_bytes - 1) < request->regions_from) {
		region++;
		part->n_regions--;
	}
	part->regions = (struct region_description *)region;
	if (request->regions_max && part->n_regions > request->regions_max) {
		part->n_regions = request->regions_max;
		*ret_next = region[part->n_regions].gpa;
	}
}

int handle_describe_guest(struct call *call)
{
	const Iommubroker__V1__DescribeGuestRequest *request =
		(const Iommubroker__V1__DescribeGuestRequest *)call->request;
	Iommubroker__V1__DescribeGuestResponse response =
		IOMMUBROKER__V1__DESCRIBE_GUEST_RESPONSE__INIT;
	Iommubroker__V1__GuestDescription message;
	struct guest_description *description, part;
	int status = guest_describe(call_broker(call), call_session(call), request->guest,
				    &description, &call->refusal);

	if (status)
		return status;
	part = *description;
	description_clip(request, &part, &response.regions_next);
	status = convert_guest(call, &part, &message);
	response.description = &message;
	if (!status)
		status = call_answer(call, &response.base);
	guest_description_free(description);
	return status;
}

int prepare_reset_guest(struct call *call)
{
	const Iommubroker__V1__ResetGuestRequest *request =
		(const Iommubroker__V1__ResetGuestRequest *)call->request;

	return check_handle(call, "guest", request->guest);
}

int handle_reset_guest(struct call *call)
{
	const Iommubroker__V1__ResetGuestRequest *request =
		(const Iommubroker__V1__ResetGuestRequest *)call->request;
	Iommubroker__V1__ResetGuestResponse response = IOMMUBROKER__V1__RESET_GUEST_RESPONSE__INIT;
	int status = guest_reset(call_broker(call), call_session(call), request->guest,
				 &response.nested_destroyed, &call->refusal);

	return status ? status : call_answer(call, &response.base);
}

int prepare_destroy_guest(struct call *call)
{
	const Iommubroker__V1__DestroyGuestRequest *request =
		(const Iommubroker__V1__DestroyGuestRequest *)call->request;

	return check_handle(call, "guest", request->guest);
}

int handle_destroy_guest(struct call *call)
{
	const Iommubroker__V1__DestroyGuestRequest *request =
		(const Iommubroker__V1__DestroyGuestRequest *)call->request;
	Iommubroker__V1__DestroyGuestResponse response =
		IOMMUBROKER__V1__DESTROY_GUEST_RESPONSE__INIT;
	int status = guest_destroy(call_broker(call), call_session(call), request->guest,
				   &call->refusal);

	return status ? status : call_answer(call, &response.base);
}
