/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <stdio.h>

#include "rpc/convert.h"
#include "rpc/verdict.h"

typedef Iommubroker__V1__Explanation Explanation;
typedef Iommubroker__V1__Explanation__Step Step;

#define TEXT_BYTES 200

static bool convert_steps(struct call *call, const struct s390_explanation *tables,
			  Explanation *ret)
{
	ret->n_steps = tables->n_steps;
	ret->steps = CONVERT_ARRAY(call, tables->n_steps, Step,
				   iommubroker__v1__explanation__step__init);
	for (size_t i = 0; ret->steps && i < tables->n_steps; i++) {
		const struct s390_step *step = &tables->steps[i];

		ret->steps[i]->level = verdict_table_level(step->level);
		ret->steps[i]->table_gpa = step->table_gpa;
		ret->steps[i]->entry_gpa = step->entry_gpa;
		ret->steps[i]->entry = step->entry;
		ret->steps[i]->note = (char *)(step->note ? step->note : "");
	}
	return ret->steps;
}

static bool convert_fault(struct call *call, const struct s390_fault *fault, Explanation *ret)
{
	if (fault->code == S390_PEC_NONE)
		return true;
	ret->fault = call_array(call, 1, sizeof(*ret->fault));
	if (ret->fault)
		verdict_walk_fault(fault, ret->fault);
	return ret->fault;
}

/* What the tables say, or for a managed domain nothing. */
static int say_tables(char *ret, size_t bytes, const struct s390_explanation *tables)
{
	if (tables->fault.code == S390_PEC_OORANGE && !tables->n_steps)
		return snprintf(ret, bytes, "It lies outside the window of the domain");
	if (tables->fault.code == S390_PEC_NONE && !tables->n_steps)
		return snprintf(ret, bytes, "No tables of the guest decide this");
	if (tables->fault.code != S390_PEC_NONE)
		return snprintf(ret, bytes, "The guest's tables end in an error (%s)",
				s390_event_code_name(tables->fault.code));
	if (!tables->present)
		return snprintf(ret, bytes, "The guest's tables map nothing here");
	return snprintf(ret, bytes, "The guest's tables map it to 0x%" PRIx64 ", %s%s", tables->gpa,
			tables->writable ? "read and write" : "read only",
			tables->in_memory ? "" : ", which is not in guest memory");
}

static bool convert_text(struct call *call, const struct explanation *explanation, Explanation *ret)
{
	int n;

	ret->text = call_array(call, 1, TEXT_BYTES);
	if (!ret->text)
		return false;
	n = say_tables(ret->text, TEXT_BYTES, &explanation->tables);
	if (n < 0 || n >= TEXT_BYTES)
		return true;
	if (explanation->installed)
		snprintf(ret->text + n, TEXT_BYTES - (size_t)n,
			 "; the device reaches 0x%" PRIx64 ", %s.", explanation->installed_gpa,
			 explanation->installed_writable ? "read and write" : "read only");
	else
		snprintf(ret->text + n, TEXT_BYTES - (size_t)n, "; the device reaches nothing.");
	return true;
}

int convert_explanation(struct call *call, const struct explanation *explanation, Explanation *ret)
{
	const struct s390_explanation *tables = &explanation->tables;

	iommubroker__v1__explanation__init(ret);
	ret->iova = explanation->iova;
	ret->present = tables->present;
	if (tables->present) {
		ret->gpa = tables->gpa;
		ret->access = convert_access(tables->writable);
		ret->frame_bytes = tables->frame_bytes;
		ret->in_guest_memory = tables->in_memory;
	}
	ret->installed = explanation->installed;
	if (explanation->installed) {
		ret->installed_gpa = explanation->installed_gpa;
		ret->installed_access = convert_access(explanation->installed_writable);
	}
	ret->consistent = explanation->consistent;
	if (!convert_steps(call, tables, ret) || !convert_fault(call, &tables->fault, ret) ||
	    !convert_text(call, explanation, ret))
		return call_refuse_memory(call);
	return 0;
}

static const char *event_text(enum event_kind kind)
{
	switch (kind) {
	case EVENT_TRANSLATION_ERROR:
		return "a walk of the guest's tables found an error";
	case EVENT_LEAF_REFUSED:
		return "a leaf of the guest's tables was not installed";
	case EVENT_MEMORY_LOST:
		return "guest memory could not be read: its file was shrunk";
	case EVENT_DEVICE_FAULT:
		return "the device met a fault";
	case EVENT_DEVICE_BLOCKED:
		return "the device was blocked because an unmap failed";
	case EVENT_DEVICE_WANTED:
		return "the operator wants the device back";
	case EVENT_QUOTA_HIGH:
		return "usage is above its high mark";
	case EVENT_REVOKED:
		return "rights over the guest were revoked";
	case EVENT_RESTARTING:
		return "the daemon restarts";
	case EVENT_RESUMED:
		return "the daemon goes on";
	case EVENT_GUEST_GONE:
		return "the guest is gone";
	case EVENT_LOST:
		return "events were lost";
	}
	return "";
}

void convert_event(const struct event *event, Iommubroker__V1__Event *ret,
		   Iommubroker__V1__WalkFault *ret_fault)
{
	iommubroker__v1__event__init(ret);
	ret->sequence = event->sequence;
	ret->time_ns = event->time_ns;
	ret->kind = (Iommubroker__V1__EventKind)event->kind;
	ret->guest = event->guest;
	ret->device = event->device;
	ret->nested = event->nested;
	ret->iova = event->iova;
	ret->gpa = event->gpa;
	ret->lost = event->lost;
	ret->text = (char *)event_text(event->kind);
	if (event->kind == EVENT_TRANSLATION_ERROR) {
		verdict_walk_fault(&event->fault, ret_fault);
		ret->fault = ret_fault;
	}
	if (event->kind == EVENT_QUOTA_HIGH) {
		ret->resource = (char *)ledger_resource_name(event->resource);
		ret->level = (char *)limit_level_name(event->level);
		ret->used = event->used;
		ret->high = event->high;
	}
}
