/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include <errno.h>
#include <stdlib.h>

#include "rpc/account.h"
#include "rpc/check.h"
#include "rpc/convert.h"
#include "rpc/stream.h"

struct watch_source {
	struct stream_source base;
	struct event_watch *watch;
	struct broker *broker;
	struct rpc_account *account; /* reference: charged with one watch */
};

static int watch_next(struct stream_source *base, struct call *call)
{
	struct watch_source *source = (struct watch_source *)base;
	Iommubroker__V1__WalkFault fault;
	Iommubroker__V1__Event message;
	struct event event;

	switch (event_watch_next(source->watch, &event)) {
	case 0:
		return STREAM_EMPTY;
	case 1:
		convert_event(&event, &message, &fault);
		return call_answer(call, &message.base) ? STREAM_REFUSED : STREAM_MESSAGE;
	default:
		return STREAM_END;
	}
}

static struct watch_source *source_new(struct call *call)
{
	struct watch_source *source = calloc(1, sizeof(*source));

	if (!source) {
		refuse_errno(&call->refusal, ENOMEM, "watching events");
		return NULL;
	}
	source->broker = call_broker(call);
	if (rpc_account_charge(source->broker, call->account, LEDGER_WATCHES, 1, &call->refusal)) {
		free(source);
		return NULL;
	}
	source->account = rpc_account_ref(call->account);
	return source;
}

static void source_free(struct watch_source *source)
{
	rpc_account_refund(source->broker, source->account, LEDGER_WATCHES, 1);
	rpc_account_unref(source->account);
	free(source);
}

static void watch_end(struct stream_source *base)
{
	struct watch_source *source = (struct watch_source *)base;

	event_watch_free(source->watch);
	source_free(source);
}

static void watch_wake(void *context)
{
	stream_wake(context);
}

int prepare_watch_events(struct call *call)
{
	const Iommubroker__V1__WatchEventsRequest *request =
		(const Iommubroker__V1__WatchEventsRequest *)call->request;

	return check_handle(call, "guest", request->guest);
}

int handle_watch_events(struct call *call)
{
	const Iommubroker__V1__WatchEventsRequest *request =
		(const Iommubroker__V1__WatchEventsRequest *)call->request;
	struct watch_source *source = source_new(call);
	struct stream *stream;
	int status;

	if (!source)
		return REFUSED;
	stream = stream_new(call);
	if (!stream) {
		source_free(source);
		return REFUSED;
	}
	source->base.next = watch_next;
	source->base.end = watch_end;
	status =
		event_watch_new(&source->watch, call_broker(call), call_session(call),
				request->guest, request->since, watch_wake, stream, &call->refusal);
	if (status) {
		stream_discard(stream);
		source_free(source);
		return status;
	}
	stream_begin(stream, &source->base);
	return CALL_PENDING;
}
