/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/refresh.h"

#include <stdlib.h>

#include "iommubroker/v1/domains.pb-c.h"
#include "rpc/check.h"
#include "rpc/dispatcher.h"
#include "rpc/verdict.h"

/* An answer's RangeResult packs into at most 128 bytes: 4 small numbers, 2 counters of 11, and a
 * fault of 5 numbers of up to 11 and a text of at most 40. */
#define RESULT_PACKED_MAX 160

struct refresh_call {
	struct call call;
	struct refresh refresh;
	Iommubroker__V1__RangeResult *pointers[BROKER_REFRESH_RANGES_MAX];
	Iommubroker__V1__RangeResult results[BROKER_REFRESH_RANGES_MAX];
	Iommubroker__V1__WalkFault faults[BROKER_REFRESH_RANGES_MAX];
	uint8_t packed[BROKER_REFRESH_RANGES_MAX * RESULT_PACKED_MAX];
};

static struct refresh_call *refresh_call_of(struct call *call)
{
	return (struct refresh_call *)((char *)call - offsetof(struct refresh_call, call));
}

struct call *refresh_call_new(void)
{
	struct refresh_call *refresh = malloc(sizeof(*refresh));

	return refresh ? &refresh->call : NULL;
}

int prepare_refresh_nested(struct call *call)
{
	const Iommubroker__V1__RefreshNestedRequest *request =
		(const Iommubroker__V1__RefreshNestedRequest *)call->request;
	struct refresh *refresh = &refresh_call_of(call)->refresh;
	int status = check_handle(call, "nested", request->nested);

	if (!status)
		status = check_count(call, "ranges", request->n_ranges, 1,
				     BROKER_REFRESH_RANGES_MAX);
	if (status)
		return status;
	refresh->nested = request->nested;
	refresh->n_ranges = request->n_ranges;
	for (size_t i = 0; i < request->n_ranges; i++)
		refresh->ranges[i] = (struct refresh_range){request->ranges[i]->start,
							    request->ranges[i]->length};
	return 0;
}

uint64_t refresh_call_ranges(const struct call *call)
{
	const Iommubroker__V1__RefreshNestedRequest *request =
		(const Iommubroker__V1__RefreshNestedRequest *)call->request;

	return request->n_ranges;
}

static int refresh_answer(struct refresh_call *refresh)
{
	Iommubroker__V1__RefreshNestedResponse response =
		IOMMUBROKER__V1__REFRESH_NESTED_RESPONSE__INIT;
	struct call *call = &refresh->call;

	for (size_t i = 0; i < refresh->refresh.n_ranges; i++) {
		verdict_range_result(&refresh->refresh.results[i], &refresh->results[i],
				     &refresh->faults[i]);
		refresh->pointers[i] = &refresh->results[i];
	}
	response.n_results = refresh->refresh.n_ranges;
	response.results = refresh->pointers;
	metrics_refresh(call->dispatcher->metrics, refresh->refresh.results,
			refresh->refresh.n_ranges);
	if (protobuf_c_message_get_packed_size(&response.base) > sizeof(refresh->packed))
		return refuse(&call->refusal, REFUSAL_HOST, "ANSWER_TOO_LARGE",
			      "the answer does not fit a message");
	call->answer_bytes = protobuf_c_message_pack(&response.base, refresh->packed);
	call->answer = refresh->packed;
	return 0;
}

/* Come back later is a verdict that the guest understands, and no failure of the call. */
static bool refused_for_now(const struct refusal *refusal)
{
	return refusal->kind == REFUSAL_BUSY || refusal->kind == REFUSAL_RATE;
}

static void refresh_done(struct refresh *done, int status)
{
	struct refresh_call *refresh =
		(struct refresh_call *)((char *)done - offsetof(struct refresh_call, refresh));

	if (status == REFUSED && refused_for_now(&done->refusal)) {
		for (size_t i = 0; i < done->n_ranges; i++)
			done->results[i] = (struct range_result){.verdict = VERDICT_BUSY};
		status = 0;
	}
	if (status == REFUSED)
		refresh->call.refusal = done->refusal;
	else if (!status)
		status = refresh_answer(refresh);
	call_finish(&refresh->call, status);
}

int handle_refresh_nested(struct call *call)
{
	struct refresh *refresh = &refresh_call_of(call)->refresh;

	refresh->done = refresh_done;
	broker_refresh_run(call_broker(call), call_session(call), refresh);
	return CALL_PENDING;
}
