/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * iommubroker_refresh(): for vCPU threads. The request is packed by hand on the stack, and whoever
 * reads the socket decodes the answer straight into the caller's results, so nothing is allocated
 * and nothing is copied. Whatever goes wrong ends in a verdict that the guest can be told.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iommubroker/v1/common.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/async.h"
#include "lib/clock.h"
#include "lib/result.h"
#include "lib/session.h"
#include "lib/wire.h"

/* Header, nested (tag and 8 bytes), and per range tag, length, and two tagged varints. */
#define RANGE_BYTES_MAX (2 + 2 * (1 + WIRE_VARINT_BYTES_MAX))
#define REQUEST_BYTES_MAX \
	(PACKET_HEADER_BYTES + 9 + IOMMUBROKER_REFRESH_RANGES_MAX * RANGE_BYTES_MAX)

/* s390-translation: a guest that is told BUSY tries again at once. */
#define BUSY_NOT_BEFORE_NS 1000000u

#define CODE_INVALID_ARGUMENT 3

struct refresh {
	struct iommubroker_result *results;
	size_t n;
	int32_t code;
};

static uint8_t *put_range(uint8_t *to, const struct iommubroker_range *range)
{
	uint8_t body[RANGE_BYTES_MAX];
	uint8_t *end = body;

	end = wire_put_tag(end, 1, WIRE_VARINT);
	end = wire_put_varint(end, range->start);
	end = wire_put_tag(end, 2, WIRE_VARINT);
	end = wire_put_varint(end, range->length);
	to = wire_put_tag(to, 2, WIRE_BYTES);
	to = wire_put_varint(to, end - body);
	memcpy(to, body, end - body);
	return to + (end - body);
}

static size_t put_request(uint8_t *packet, uint64_t nested, const struct iommubroker_range *ranges,
			  size_t n)
{
	uint8_t *end = packet + PACKET_HEADER_BYTES;

	end = wire_put_tag(end, 1, WIRE_FIXED64);
	end = wire_put_fixed64(end, nested);
	for (size_t i = 0; i < n; i++)
		end = put_range(end, &ranges[i]);
	return end - packet;
}

static int refresh_take(void *sink, const struct answer *answer, struct packet *packet)
{
	struct refresh *refresh = sink;
	size_t n;

	refresh->code = answer->code;
	if (answer->more)
		return -EBADMSG;
	if (answer->code != 0)
		return 0;
	if (results_parse(answer->message, answer->n_message, refresh->results, refresh->n, &n) < 0)
		return -EBADMSG;
	return n == refresh->n ? 0 : -EBADMSG;
}

static const struct call_ops refresh_ops = {.take = refresh_take};

static int transact(struct connection *c, struct refresh *refresh, uint8_t *packet, size_t n_bytes,
		    uint64_t deadline)
{
	/* Not to be repeated: the guest does that itself when it is told BUSY. */
	const struct call_request request = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_REFRESH_NESTED,
		.packet = packet,
		.n_bytes = n_bytes,
		.borrow_fd = -1,
	};
	struct call *call = NULL;
	int r;

	r = call_start(c, &request, &refresh_ops, refresh, deadline, &call);
	if (r < 0)
		return r;
	r = call_wait(c, call, deadline);
	call_end(c, call);
	return r;
}

/* The daemon could not be asked: 0 has its verdict in *ret, or a negative errno. */
static int verdict_of_code(int32_t code, uint32_t *ret)
{
	switch (code) {
	case 1:  /* CANCELLED */
	case 4:  /* DEADLINE_EXCEEDED */
	case 8:  /* RESOURCE_EXHAUSTED: a rate; refreshes need nothing else */
	case 10: /* ABORTED */
	case 14: /* UNAVAILABLE */
		*ret = IOMMUBROKER_VERDICT_BUSY;
		return 0;
	case 5:  /* NOT_FOUND */
	case 16: /* UNAUTHENTICATED */
		*ret = IOMMUBROKER_VERDICT_GONE;
		return 0;
	case CODE_INVALID_ARGUMENT:
		return -EINVAL;
	default:
		*ret = IOMMUBROKER_VERDICT_ERROR;
		return 0;
	}
}

/* The daemon did not answer. */
static uint32_t verdict_of_loss(int result)
{
	return result == -EPERM ? IOMMUBROKER_VERDICT_GONE : IOMMUBROKER_VERDICT_BUSY;
}

/* What a VMM tells its guest with a verdict that did not come with numbers of its own. */
static void fill(struct iommubroker_result *results, size_t n, uint32_t verdict)
{
	struct iommubroker_result result = {.verdict = verdict};

	if (verdict == IOMMUBROKER_VERDICT_BUSY) {
		result.condition_code = 2;
	} else if (verdict == IOMMUBROKER_VERDICT_ERROR) {
		result.condition_code = 1;
		result.status = 8;
	} else if (verdict == IOMMUBROKER_VERDICT_GONE) {
		result.condition_code = 3;
	}
	for (size_t i = 0; i < n; i++)
		results[i] = result;
}

static bool any_busy(const struct iommubroker_result *results, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (results[i].verdict == IOMMUBROKER_VERDICT_BUSY)
			return true;
	return false;
}

int iommubroker_refresh(struct iommubroker_nested *nested, const struct iommubroker_range *ranges,
			size_t n, uint64_t timeout_ns, struct iommubroker_result *ret_results)
{
	struct refresh refresh = {.results = ret_results, .n = n};
	uint64_t deadline = clock_deadline(timeout_ns);
	uint64_t not_before = clock_deadline(BUSY_NOT_BEFORE_NS);
	uint8_t packet[REQUEST_BYTES_MAX];
	uint32_t verdict = IOMMUBROKER_VERDICT_BUSY;
	int r;

	if (n < 1 || n > IOMMUBROKER_REFRESH_RANGES_MAX)
		return -EINVAL;
	r = transact(&nested->session->connection, &refresh, packet,
		     put_request(packet, nested->handle, ranges, n), deadline);
	if (r == 0 && refresh.code != 0) {
		if (verdict_of_code(refresh.code, &verdict) < 0)
			return -EINVAL;
		fill(ret_results, n, verdict);
	} else if (r < 0) {
		fill(ret_results, n, verdict_of_loss(r));
	}
	if (any_busy(ret_results, n))
		clock_sleep_until(not_before < deadline ? not_before : deadline);
	return 0;
}

static bool deliver_refresh(struct async *async, const struct answer *answer, int result)
{
	struct iommubroker_result results[IOMMUBROKER_REFRESH_RANGES_MAX];
	uint32_t verdict = verdict_of_loss(result);
	size_t n;

	if (answer != NULL && answer->code == 0 && !answer->more &&
	    results_parse(answer->message, answer->n_message, results, async->n_ranges, &n) == 0 &&
	    n == async->n_ranges) {
		async->done.refresh(async->user_data, 0, results, n);
		return true;
	}
	if (result == -ECANCELED) {
		async->done.refresh(async->user_data, result, NULL, 0);
		return true;
	}
	if (answer != NULL && answer->code != 0 && verdict_of_code(answer->code, &verdict) < 0) {
		async->done.refresh(async->user_data, -EINVAL, NULL, 0);
		return true;
	}
	fill(results, async->n_ranges, verdict);
	async->done.refresh(async->user_data, 0, results, async->n_ranges);
	return true;
}

int iommubroker_refresh_submit(struct iommubroker_nested *nested,
			       const struct iommubroker_range *ranges, size_t n,
			       iommubroker_refresh_fn done, void *user_data, uint64_t *ret_call)
{
	struct async *async;
	uint8_t *packet;
	size_t n_bytes;

	if (n < 1 || n > IOMMUBROKER_REFRESH_RANGES_MAX)
		return -EINVAL;
	packet = malloc(REQUEST_BYTES_MAX);
	async = async_new(nested->session, deliver_refresh, user_data);
	if (packet == NULL || async == NULL) {
		free(packet);
		free(async);
		return -ENOMEM;
	}
	async->done.refresh = done;
	async->n_ranges = n;
	n_bytes = put_request(packet, nested->handle, ranges, n);
	return async_submit(async, IOMMUBROKER__V1__METHOD__METHOD_REFRESH_NESTED, packet, n_bytes,
			    false, ret_call);
}
