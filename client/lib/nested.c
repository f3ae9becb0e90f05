/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Nested domains: create, replace, destroy, the entries of managed ones, and explanations. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/result.h"
#include "lib/session.h"

typedef Iommubroker__V1__CreateNestedRequest CreateRequest;
typedef Iommubroker__V1__UpdateNestedRequest__Entry EntryMessage;

static void take_create(const Iommubroker__V1__CreateNestedResponse *response,
			struct iommubroker_registration *ret)
{
	ret->verdict = response->verdict;
	ret->condition_code = response->condition_code;
	ret->status = response->status;
	ret->index = response->index;
	result_from_message(response->walk, &ret->walk);
	snprintf(ret->reason, sizeof(ret->reason), "%s", response->reason);
}

/* A handle without DONE, or DONE without a handle, is neither made nor not made. */
static bool create_consistent(const Iommubroker__V1__CreateNestedResponse *response)
{
	return (response->nested != 0) ==
	       (response->verdict == IOMMUBROKER__V1__VERDICT__VERDICT_DONE);
}

static int create(struct iommubroker_device *device, CreateRequest *request,
		  struct iommubroker_nested **ret_nested,
		  struct iommubroker_registration *ret_registration,
		  struct iommubroker_error **ret_error)
{
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_CREATE_NESTED,
		.request = &request->base,
		.response = &iommubroker__v1__create_nested_response__descriptor,
	};
	struct iommubroker_nested *nested = malloc(sizeof(*nested));
	const Iommubroker__V1__CreateNestedResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	if (nested == NULL)
		return error_transport(-ENOMEM, ret_error);
	request->request_id = session_request_id(device->session);
	request->device = device->handle;
	r = exchange_run(device->session, &exchange, &message, ret_error);
	if (r == 0) {
		response = (const void *)message;
		nested->session = device->session;
		nested->handle = response->nested;
		if (create_consistent(response))
			take_create(response, ret_registration);
		else
			r = error_transport(-EBADMSG, ret_error);
		protobuf_c_message_free_unpacked(message, NULL);
	}
	if (r == 0)
		*ret_nested = nested->handle != 0 ? nested : NULL;
	if (r < 0 || nested->handle == 0)
		free(nested);
	return r;
}

int iommubroker_nested_create_s390(struct iommubroker_device *device,
				   const struct iommubroker_anchor *anchor, bool attach,
				   uint64_t mappings_max, struct iommubroker_nested **ret_nested,
				   struct iommubroker_registration *ret_registration,
				   struct iommubroker_error **ret_error)
{
	CreateRequest request = IOMMUBROKER__V1__CREATE_NESTED_REQUEST__INIT;
	Iommubroker__V1__S390Anchor s390 = IOMMUBROKER__V1__S390_ANCHOR__INIT;

	s390.iota = anchor->iota;
	s390.pba = anchor->pba;
	s390.pal = anchor->pal;
	request.format_case = IOMMUBROKER__V1__CREATE_NESTED_REQUEST__FORMAT_S390;
	request.s390 = &s390;
	request.attach = attach;
	request.mappings_max = mappings_max;
	return create(device, &request, ret_nested, ret_registration, ret_error);
}

int iommubroker_nested_create_managed(struct iommubroker_device *device,
				      const struct iommubroker_address_range *window, bool attach,
				      uint64_t mappings_max, struct iommubroker_nested **ret_nested,
				      struct iommubroker_registration *ret_registration,
				      struct iommubroker_error **ret_error)
{
	CreateRequest request = IOMMUBROKER__V1__CREATE_NESTED_REQUEST__INIT;
	Iommubroker__V1__AddressRange managed = IOMMUBROKER__V1__ADDRESS_RANGE__INIT;

	managed.first = window->first;
	managed.last = window->last;
	request.format_case = IOMMUBROKER__V1__CREATE_NESTED_REQUEST__FORMAT_MANAGED;
	request.managed = &managed;
	request.attach = attach;
	request.mappings_max = mappings_max;
	return create(device, &request, ret_nested, ret_registration, ret_error);
}

int iommubroker_nested_replace(struct iommubroker_nested *nested,
			       const struct iommubroker_anchor *anchor,
			       struct iommubroker_registration *ret_registration,
			       struct iommubroker_error **ret_error)
{
	Iommubroker__V1__ReplaceNestedRequest request =
		IOMMUBROKER__V1__REPLACE_NESTED_REQUEST__INIT;
	Iommubroker__V1__S390Anchor s390 = IOMMUBROKER__V1__S390_ANCHOR__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_REPLACE_NESTED,
		.request = &request.base,
		.response = &iommubroker__v1__replace_nested_response__descriptor,
	};
	const Iommubroker__V1__ReplaceNestedResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	s390.iota = anchor->iota;
	s390.pba = anchor->pba;
	s390.pal = anchor->pal;
	request.request_id = session_request_id(nested->session);
	request.nested = nested->handle;
	request.s390 = &s390;
	r = exchange_run(nested->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	*ret_registration = (struct iommubroker_registration){
		.verdict = response->verdict,
		.condition_code = response->condition_code,
		.status = response->status,
	};
	result_from_message(response->walk, &ret_registration->walk);
	snprintf(ret_registration->reason, sizeof(ret_registration->reason), "%s",
		 response->reason);
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

int iommubroker_nested_destroy(struct iommubroker_nested *nested, uint64_t *ret_leaves_dropped,
			       struct iommubroker_error **ret_error)
{
	Iommubroker__V1__DestroyNestedRequest request =
		IOMMUBROKER__V1__DESTROY_NESTED_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_DESTROY_NESTED,
		.request = &request.base,
		.response = &iommubroker__v1__destroy_nested_response__descriptor,
		.takes_away = true,
	};
	const Iommubroker__V1__DestroyNestedResponse *response;
	ProtobufCMessage *message = NULL;
	int r;

	request.request_id = session_request_id(nested->session);
	request.nested = nested->handle;
	r = exchange_run(nested->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	if (ret_leaves_dropped != NULL)
		*ret_leaves_dropped = response->leaves_dropped;
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

uint64_t iommubroker_nested_handle(const struct iommubroker_nested *nested)
{
	return nested->handle;
}

struct iommubroker_nested *iommubroker_nested_free(struct iommubroker_nested *nested)
{
	free(nested);
	return NULL;
}

static int take_results(const ProtobufCMessage *message, size_t n_max,
			struct iommubroker_result *ret_results, size_t *ret_n)
{
	const Iommubroker__V1__UpdateNestedResponse *response = (const void *)message;

	if (response->n_results > n_max)
		return -EBADMSG;
	for (size_t i = 0; i < response->n_results; i++)
		result_from_message(response->results[i], &ret_results[i]);
	*ret_n = response->n_results;
	return 0;
}

int iommubroker_nested_update(struct iommubroker_nested *nested,
			      const struct iommubroker_entry *entries, size_t n,
			      struct iommubroker_result *ret_results, size_t *ret_n,
			      struct iommubroker_error **ret_error)
{
	Iommubroker__V1__UpdateNestedRequest request = IOMMUBROKER__V1__UPDATE_NESTED_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_UPDATE_NESTED,
		.request = &request.base,
		.response = &iommubroker__v1__update_nested_response__descriptor,
	};
	EntryMessage messages[IOMMUBROKER_ENTRIES_MAX];
	EntryMessage *pointers[IOMMUBROKER_ENTRIES_MAX];
	ProtobufCMessage *message = NULL;
	int r;

	if (n < 1 || n > IOMMUBROKER_ENTRIES_MAX)
		return error_field(ret_error, "entries", "%zu entries, not 1 to %d", n,
				   IOMMUBROKER_ENTRIES_MAX);
	for (size_t i = 0; i < n; i++) {
		messages[i] = (EntryMessage)IOMMUBROKER__V1__UPDATE_NESTED_REQUEST__ENTRY__INIT;
		messages[i].iova = entries[i].iova;
		messages[i].length = entries[i].length;
		messages[i].gpa = entries[i].gpa;
		messages[i].access = entries[i].access;
		pointers[i] = &messages[i];
	}
	request.request_id = session_request_id(nested->session);
	request.nested = nested->handle;
	request.n_entries = n;
	request.entries = pointers;
	r = exchange_run(nested->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	r = take_results(message, n, ret_results, ret_n);
	protobuf_c_message_free_unpacked(message, NULL);
	return r < 0 ? error_transport(r, ret_error) : 0;
}

static struct iommubroker_explanation *explanation_new(ProtobufCMessage *consume_message,
						       const Iommubroker__V1__Explanation *from)
{
	struct iommubroker_explanation *to;
	struct iommubroker_step *steps;

	to = holder_new(sizeof(*to) + from->n_steps * sizeof(*steps), consume_message);
	if (to == NULL)
		return NULL;
	steps = (struct iommubroker_step *)(to + 1);
	for (size_t i = 0; i < from->n_steps; i++)
		steps[i] = (struct iommubroker_step){
			.level = from->steps[i]->level,
			.table_gpa = from->steps[i]->table_gpa,
			.entry_gpa = from->steps[i]->entry_gpa,
			.entry = from->steps[i]->entry,
			.note = from->steps[i]->note,
		};
	*to = (struct iommubroker_explanation){
		.iova = from->iova,
		.n_steps = from->n_steps,
		.steps = steps,
		.present = from->present,
		.in_guest_memory = from->in_guest_memory,
		.access = from->access,
		.gpa = from->gpa,
		.frame_bytes = from->frame_bytes,
		.event_code = from->fault != NULL ? from->fault->event_code : 0,
		.installed = from->installed,
		.installed_access = from->installed_access,
		.installed_gpa = from->installed_gpa,
		.consistent = from->consistent,
		.text = from->text,
	};
	return to;
}

int iommubroker_explain(struct iommubroker_nested *nested, uint64_t iova,
			struct iommubroker_explanation **ret_explanation,
			struct iommubroker_error **ret_error)
{
	Iommubroker__V1__ExplainTranslationRequest request =
		IOMMUBROKER__V1__EXPLAIN_TRANSLATION_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_EXPLAIN_TRANSLATION,
		.request = &request.base,
		.response = &iommubroker__v1__explain_translation_response__descriptor,
	};
	const Iommubroker__V1__ExplainTranslationResponse *response;
	struct iommubroker_explanation *explanation;
	ProtobufCMessage *message = NULL;
	int r;

	request.nested = nested->handle;
	request.iova = iova;
	r = exchange_run(nested->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	response = (const void *)message;
	if (response->explanation == NULL) {
		protobuf_c_message_free_unpacked(message, NULL);
		return error_transport(-EBADMSG, ret_error);
	}
	explanation = explanation_new(message, response->explanation);
	if (explanation == NULL)
		return error_transport(-ENOMEM, ret_error);
	*ret_explanation = explanation;
	return 0;
}

struct iommubroker_explanation *iommubroker_explanation_free(
	struct iommubroker_explanation *explanation)
{
	return holder_free(explanation);
}
