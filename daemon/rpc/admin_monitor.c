/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What happens, as it happens: the monitor's events as a stream. */

#include <errno.h>
#include <stdlib.h>

#include "iommubroker/v1/admin.pb-c.h"
#include "rpc/dispatcher.h"
#include "rpc/handler.h"
#include "rpc/stream.h"

struct monitor_source {
	struct stream_source base;
	struct monitor_watch *watch;
};

static int monitor_answer(struct call *call, struct monitor_event *event)
{
	Iommubroker__V1__MonitorEvent message = IOMMUBROKER__V1__MONITOR_EVENT__INIT;

	message.sequence = event->sequence;
	message.time_ns = event->time_ns;
	message.kind = event->kind;
	message.tenant = event->tenant;
	message.guest = event->guest;
	message.guest_name = event->guest_name;
	message.pid = event->pid;
	message.uid = event->uid;
	message.text = event->text;
	message.lost = event->lost;
	return call_answer(call, &message.base);
}

static int monitor_next(struct stream_source *base, struct call *call)
{
	struct monitor_source *source = (struct monitor_source *)base;
	struct monitor_event event;

	if (!monitor_watch_next(source->watch, &event))
		return STREAM_EMPTY;
	return monitor_answer(call, &event) ? STREAM_REFUSED : STREAM_MESSAGE;
}

static void monitor_end(struct stream_source *base)
{
	struct monitor_source *source = (struct monitor_source *)base;

	monitor_watch_free(source->watch);
	free(source);
}

static void monitor_wake(void *context)
{
	stream_wake(context);
}

int handle_monitor(struct call *call)
{
	struct monitor_source *source = calloc(1, sizeof(*source));
	struct stream *stream = source ? stream_new(call) : NULL;
	int status;

	if (!stream) {
		free(source);
		return refuse_errno(&call->refusal, ENOMEM, "watching what happens");
	}
	source->base.next = monitor_next;
	source->base.end = monitor_end;
	status = monitor_watch_new(&source->watch, &call->dispatcher->monitor, monitor_wake, stream,
				   &call->refusal);
	if (status) {
		stream_discard(stream);
		free(source);
		return status;
	}
	stream_begin(stream, &source->base);
	return CALL_PENDING;
}
