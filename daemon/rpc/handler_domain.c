/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include <stdio.h>

#include "rpc/check.h"
#include "rpc/convert.h"
#include "rpc/verdict.h"

typedef Iommubroker__V1__CreateNestedRequest CreateNestedRequest;
typedef Iommubroker__V1__UpdateNestedRequest UpdateNestedRequest;

#define FORMAT(name) IOMMUBROKER__V1__CREATE_NESTED_REQUEST__FORMAT_##name

static int check_pasid(struct call *call, uint32_t pasid)
{
	if (!pasid)
		return 0;
	return refuse_field(&call->refusal, "pasid", "pasid: %u, must be 0", pasid);
}

/* ── CreateNested ─────────────────────────────────────────────────────────────────────────── */

static int prepare_format(struct call *call, const CreateNestedRequest *request,
			  struct nested_create_request *plain)
{
	switch (request->format_case) {
	case FORMAT(S390):
		plain->format = NESTED_S390;
		plain->iota = request->s390->iota;
		plain->first = request->s390->pba;
		plain->last = request->s390->pal;
		return 0;
	case FORMAT(MANAGED):
		plain->format = NESTED_MANAGED;
		plain->first = request->managed->first;
		plain->last = request->managed->last;
		return 0;
	case FORMAT(VTD_S1):
	case FORMAT(ARM_SMMUV3):
	case FORMAT(AMD_GUEST):
		return refuse_unimplemented(&call->refusal, "KERNEL_NESTED_FORMAT",
					    "formats that the kernel nests itself come with a "
					    "later version of the daemon");
	default:
		return refuse_field(&call->refusal, "format",
				    "format: s390, managed, vtd_s1, arm_smmuv3 or amd_guest must "
				    "be set");
	}
}

int prepare_create_nested(struct call *call)
{
	const CreateNestedRequest *request = (const CreateNestedRequest *)call->request;
	struct nested_create_request *plain = call_array(call, 1, sizeof(*plain));
	int status = check_handle(call, "device", request->device);

	if (!plain)
		return call_refuse_memory(call);
	if (!status)
		status = check_pasid(call, request->pasid);
	if (!status)
		status = prepare_format(call, request, plain);
	plain->device = request->device;
	plain->attach = request->attach;
	plain->mappings_max = request->mappings_max;
	call->plain = plain;
	return status;
}

/* What CreateNested and ReplaceNested both answer. */
struct registration {
	struct verdict_answer answer;
	const char *reason;
	Iommubroker__V1__RangeResult walk;
	Iommubroker__V1__WalkFault fault;
	bool walked;
};

static void registration_of(const struct nested_created *created, struct registration *ret)
{
	ret->answer = verdict_answer(created->verdict);
	ret->reason = created->verdict == VERDICT_OPERAND
			      ? s390_anchor_fault_text(created->anchor_fault)
			      : "";
	ret->walked = created->walk.verdict;
	if (ret->walked)
		verdict_range_result(&created->walk, &ret->walk, &ret->fault);
}

int handle_create_nested(struct call *call)
{
	Iommubroker__V1__CreateNestedResponse response =
		IOMMUBROKER__V1__CREATE_NESTED_RESPONSE__INIT;
	struct nested_created created = {0};
	struct registration registration;
	int status = nested_create(call_broker(call), call_session(call), call->plain, &created,
				   &call->refusal);

	if (status)
		return status;
	registration_of(&created, &registration);
	response.nested = created.nested;
	response.index = created.index;
	response.verdict = registration.answer.verdict;
	response.condition_code = registration.answer.condition_code;
	response.status = registration.answer.status;
	response.walk = registration.walked ? &registration.walk : NULL;
	response.reason = (char *)registration.reason;
	return call_answer(call, &response.base);
}

int prepare_replace_nested(struct call *call)
{
	const Iommubroker__V1__ReplaceNestedRequest *request =
		(const Iommubroker__V1__ReplaceNestedRequest *)call->request;
	int status = check_handle(call, "nested", request->nested);

	if (!status && !request->s390)
		status = refuse_field(&call->refusal, "s390", "s390: must be set");
	return status;
}

int handle_replace_nested(struct call *call)
{
	const Iommubroker__V1__ReplaceNestedRequest *request =
		(const Iommubroker__V1__ReplaceNestedRequest *)call->request;
	Iommubroker__V1__ReplaceNestedResponse response =
		IOMMUBROKER__V1__REPLACE_NESTED_RESPONSE__INIT;
	struct nested_created created = {0};
	struct registration registration;
	int status = nested_replace(call_broker(call), call_session(call), request->nested,
				    request->s390->iota, request->s390->pba, request->s390->pal,
				    &created, &call->refusal);

	if (status)
		return status;
	registration_of(&created, &registration);
	response.verdict = registration.answer.verdict;
	response.condition_code = registration.answer.condition_code;
	response.status = registration.answer.status;
	response.walk = registration.walked ? &registration.walk : NULL;
	response.reason = (char *)registration.reason;
	return call_answer(call, &response.base);
}

/* ── DestroyNested, Attach ────────────────────────────────────────────────────────────────── */

int prepare_destroy_nested(struct call *call)
{
	const Iommubroker__V1__DestroyNestedRequest *request =
		(const Iommubroker__V1__DestroyNestedRequest *)call->request;

	return check_handle(call, "nested", request->nested);
}

int handle_destroy_nested(struct call *call)
{
	const Iommubroker__V1__DestroyNestedRequest *request =
		(const Iommubroker__V1__DestroyNestedRequest *)call->request;
	Iommubroker__V1__DestroyNestedResponse response =
		IOMMUBROKER__V1__DESTROY_NESTED_RESPONSE__INIT;
	int status = nested_destroy(call_broker(call), call_session(call), request->nested,
				    &response.leaves_dropped, &call->refusal);

	return status ? status : call_answer(call, &response.base);
}

int prepare_attach(struct call *call)
{
	const Iommubroker__V1__AttachRequest *request =
		(const Iommubroker__V1__AttachRequest *)call->request;
	bool nested = request->to == IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_NESTED;
	int status = check_handle(call, "device", request->device);

	if (!status)
		status = check_pasid(call, request->pasid);
	if (!status && request->to == IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_UNSPECIFIED)
		status = refuse_field(&call->refusal, "to", "to: must be set");
	if (!status && nested)
		status = check_handle(call, "nested", request->nested);
	if (!status && !nested && request->nested)
		status = refuse_field(&call->refusal, "nested",
				      "nested: only with ATTACHMENT_NESTED");
	return status;
}

static enum attachment attachment_of(Iommubroker__V1__Attachment to)
{
	switch (to) {
	case IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_PARENT:
		return ATTACHMENT_PARENT;
	case IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_RELAXED:
		return ATTACHMENT_RELAXED;
	case IOMMUBROKER__V1__ATTACHMENT__ATTACHMENT_NESTED:
		return ATTACHMENT_NESTED;
	default:
		return ATTACHMENT_BLOCKED;
	}
}

int handle_attach(struct call *call)
{
	const Iommubroker__V1__AttachRequest *request =
		(const Iommubroker__V1__AttachRequest *)call->request;
	Iommubroker__V1__AttachResponse response = IOMMUBROKER__V1__ATTACH_RESPONSE__INIT;
	enum attachment to = attachment_of(request->to);
	Iommubroker__V1__RangeResult message;
	Iommubroker__V1__WalkFault fault;
	struct range_result walk = {0};
	int status = device_attach(call_broker(call), call_session(call), request->device, to,
				   request->nested, &walk, &call->refusal);

	if (status)
		return status;
	if (to == ATTACHMENT_NESTED) {
		verdict_range_result(&walk, &message, &fault);
		response.walk = &message;
	}
	return call_answer(call, &response.base);
}

/* ── UpdateNested ─────────────────────────────────────────────────────────────────────────── */

int prepare_update_nested(struct call *call)
{
	const UpdateNestedRequest *request = (const UpdateNestedRequest *)call->request;
	struct nested_entry *entries;
	int status = check_handle(call, "nested", request->nested);

	if (!status)
		status = check_count(call, "entries", request->n_entries, 1,
				     BROKER_MANAGED_ENTRIES_MAX);
	if (status)
		return status;
	entries = call_array(call, request->n_entries, sizeof(*entries));
	if (!entries)
		return call_refuse_memory(call);
	for (size_t i = 0; i < request->n_entries; i++) {
		const Iommubroker__V1__UpdateNestedRequest__Entry *entry = request->entries[i];

		entries[i] = (struct nested_entry){
			.iova = entry->iova,
			.length = entry->length,
			.gpa = entry->gpa,
			.map = entry->access != IOMMUBROKER__V1__ACCESS__ACCESS_UNSPECIFIED,
			.writable = entry->access == IOMMUBROKER__V1__ACCESS__ACCESS_READ_WRITE,
		};
	}
	call->plain = entries;
	return 0;
}

uint64_t update_nested_entries(const struct call *call)
{
	return ((const UpdateNestedRequest *)call->request)->n_entries;
}

int handle_update_nested(struct call *call)
{
	const UpdateNestedRequest *request = (const UpdateNestedRequest *)call->request;
	Iommubroker__V1__UpdateNestedResponse response =
		IOMMUBROKER__V1__UPDATE_NESTED_RESPONSE__INIT;
	struct range_result *results =
		call_array(call, BROKER_MANAGED_ENTRIES_MAX, sizeof(*results));
	Iommubroker__V1__WalkFault *faults =
		call_array(call, BROKER_MANAGED_ENTRIES_MAX, sizeof(*faults));
	size_t n = 0;
	int status;

	response.results =
		CONVERT_ARRAY(call, BROKER_MANAGED_ENTRIES_MAX, Iommubroker__V1__RangeResult,
			      iommubroker__v1__range_result__init);
	if (!results || !faults || !response.results)
		return call_refuse_memory(call);
	status = nested_update(call_broker(call), call_session(call), request->nested, call->plain,
			       request->n_entries, results, &n, &call->refusal);
	if (status)
		return status;
	for (size_t i = 0; i < n; i++)
		verdict_range_result(&results[i], response.results[i], &faults[i]);
	response.n_results = n;
	return call_answer(call, &response.base);
}

/* ── ExplainTranslation ───────────────────────────────────────────────────────────────────── */

int prepare_explain_translation(struct call *call)
{
	const Iommubroker__V1__ExplainTranslationRequest *request =
		(const Iommubroker__V1__ExplainTranslationRequest *)call->request;

	return check_handle(call, "nested", request->nested);
}

int handle_explain_translation(struct call *call)
{
	const Iommubroker__V1__ExplainTranslationRequest *request =
		(const Iommubroker__V1__ExplainTranslationRequest *)call->request;
	Iommubroker__V1__ExplainTranslationResponse response =
		IOMMUBROKER__V1__EXPLAIN_TRANSLATION_RESPONSE__INIT;
	Iommubroker__V1__Explanation message;
	struct explanation explanation;
	int status = nested_explain(call_broker(call), call_session(call), request->nested,
				    request->iova, &explanation, &call->refusal);

	if (!status)
		status = convert_explanation(call, &explanation, &message);
	if (status)
		return status;
	response.explanation = &message;
	return call_answer(call, &response.base);
}
