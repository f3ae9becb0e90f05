/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/verdict.h"

#define V(name) IOMMUBROKER__V1__VERDICT__VERDICT_##name
#define L(name) IOMMUBROKER__V1__TABLE_LEVEL__TABLE_LEVEL_##name

struct verdict_answer verdict_answer(enum verdict verdict)
{
	switch (verdict) {
	case VERDICT_DONE:
		return (struct verdict_answer){V(DONE), 0, 0};
	case VERDICT_OPERAND:
		return (struct verdict_answer){V(OPERAND), 0, 0};
	case VERDICT_SEQUENCE:
		return (struct verdict_answer){V(SEQUENCE), 1, 24};
	case VERDICT_RESOURCES:
		return (struct verdict_answer){V(RESOURCES), 1, 16};
	case VERDICT_ERROR:
		return (struct verdict_answer){V(ERROR), 1, 8};
	case VERDICT_BUSY:
		return (struct verdict_answer){V(BUSY), 2, 0};
	case VERDICT_GONE:
		break;
	}
	return (struct verdict_answer){V(GONE), 3, 0};
}

Iommubroker__V1__TableLevel verdict_table_level(enum s390_level level)
{
	switch (level) {
	case S390_LEVEL_SEGMENT:
		return L(SEGMENT);
	case S390_LEVEL_REGION_THIRD:
		return L(REGION_THIRD);
	case S390_LEVEL_REGION_SECOND:
		return L(REGION_SECOND);
	case S390_LEVEL_REGION_FIRST:
		return L(REGION_FIRST);
	case S390_LEVEL_PAGE:
		return L(PAGE);
	case S390_LEVEL_NONE:
		break;
	}
	return L(ANCHOR);
}

void verdict_walk_fault(const struct s390_fault *fault, Iommubroker__V1__WalkFault *ret)
{
	iommubroker__v1__walk_fault__init(ret);
	ret->event_code = fault->code;
	ret->iova = fault->iova;
	ret->level = verdict_table_level(fault->level);
	ret->entry = fault->entry;
	ret->outside_memory = fault->outside_memory;
	ret->text = (char *)s390_event_code_name(fault->code);
}

void verdict_range_result(const struct range_result *result, Iommubroker__V1__RangeResult *ret,
			  Iommubroker__V1__WalkFault *ret_fault)
{
	struct verdict_answer answer = verdict_answer(result->verdict);

	iommubroker__v1__range_result__init(ret);
	ret->verdict = answer.verdict;
	ret->condition_code = answer.condition_code;
	ret->status = answer.status;
	ret->mapped = result->mapped;
	ret->unmapped = result->unmapped;
	if (result->verdict == VERDICT_ERROR) {
		verdict_walk_fault(&result->fault, ret_fault);
		ret->fault = ret_fault;
	}
}
