/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See result.h. */

#include <errno.h>

#include "lib/result.h"
#include "lib/wire.h"

/* Too large a number must not turn into a small one that means something. */
static uint32_t narrow(uint64_t value)
{
	return value > UINT32_MAX ? UINT32_MAX : value;
}

static int parse_fault(const uint8_t *bytes, size_t n_bytes, struct iommubroker_result *result)
{
	struct wire_reader reader = {bytes, n_bytes};
	struct wire_field field;
	int r;

	while ((r = wire_next(&reader, &field)) > 0) {
		if (field.type != WIRE_VARINT)
			continue;
		switch (field.number) {
		case 1:
			result->event_code = narrow(field.value);
			break;
		case 2:
			result->fault_iova = field.value;
			break;
		case 3:
			result->fault_level = narrow(field.value);
			break;
		case 4:
			result->fault_entry = field.value;
			break;
		case 5:
			result->fault_outside_memory = field.value != 0;
			break;
		}
	}
	return r;
}

static int parse_result(const uint8_t *bytes, size_t n_bytes, struct iommubroker_result *ret)
{
	struct wire_reader reader = {bytes, n_bytes};
	struct wire_field field;
	int r;

	*ret = (struct iommubroker_result){0};
	while ((r = wire_next(&reader, &field)) > 0) {
		if (field.number == 4 && field.type == WIRE_BYTES &&
		    parse_fault(field.bytes, field.n_bytes, ret) < 0)
			return -EBADMSG;
		if (field.type != WIRE_VARINT)
			continue;
		switch (field.number) {
		case 1:
			ret->verdict = narrow(field.value);
			break;
		case 2:
			ret->condition_code = narrow(field.value);
			break;
		case 3:
			ret->status = narrow(field.value);
			break;
		case 5:
			ret->mapped = field.value;
			break;
		case 6:
			ret->unmapped = field.value;
			break;
		}
	}
	/* Nothing may reach a guest that is no verdict. */
	if (ret->verdict < IOMMUBROKER_VERDICT_DONE || ret->verdict > IOMMUBROKER_VERDICT_GONE)
		return -EBADMSG;
	return r;
}

int results_parse(const uint8_t *message, size_t n_message, struct iommubroker_result *ret_results,
		  size_t n_max, size_t *ret_n)
{
	struct wire_reader reader = {message, n_message};
	struct wire_field field;
	size_t n = 0;
	int r;

	while ((r = wire_next(&reader, &field)) > 0) {
		if (field.number != 1)
			continue;
		if (field.type != WIRE_BYTES || n == n_max)
			return -EBADMSG;
		if (parse_result(field.bytes, field.n_bytes, &ret_results[n++]) < 0)
			return -EBADMSG;
	}
	*ret_n = n;
	return r;
}

void result_from_message(const Iommubroker__V1__RangeResult *message,
			 struct iommubroker_result *ret)
{
	*ret = (struct iommubroker_result){0};
	if (message == NULL)
		return;
	ret->verdict = message->verdict;
	ret->condition_code = message->condition_code;
	ret->status = message->status;
	ret->mapped = message->mapped;
	ret->unmapped = message->unmapped;
	if (message->fault == NULL)
		return;
	ret->event_code = message->fault->event_code;
	ret->fault_iova = message->fault->iova;
	ret->fault_level = message->fault->level;
	ret->fault_entry = message->fault->entry;
	ret->fault_outside_memory = message->fault->outside_memory;
}
