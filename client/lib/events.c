/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What happens to a guest, as it happens. */

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "iommubroker/v1/events.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/async.h"

static void deliver_message(struct async *async, const Iommubroker__V1__Event *message)
{
	const struct iommubroker_event event = {
		.sequence = message->sequence,
		.time_ns = message->time_ns,
		.kind = message->kind,
		.guest = message->guest,
		.device = message->device,
		.nested = message->nested,
		.iova = message->iova,
		.gpa = message->gpa,
		.event_code = message->fault != NULL ? message->fault->event_code : 0,
		.lost = message->lost,
		.text = message->text,
	};

	async->done.event(async->user_data, 0, &event, NULL);
}

static bool deliver_event(struct async *async, const struct answer *answer, int result)
{
	bool last = answer == NULL || !answer->more || answer->code != 0;
	struct iommubroker_error *error = NULL;
	Iommubroker__V1__Event *message = NULL;

	if (answer != NULL && answer->code == 0 && answer->n_message > 0) {
		message = iommubroker__v1__event__unpack(NULL, answer->n_message, answer->message);
		if (message == NULL) {
			result = -EBADMSG;
			last = true;
		}
	}
	if (message != NULL) {
		async->told = message->sequence;
		deliver_message(async, message);
	}
	if (last) {
		if (answer != NULL && answer->code != 0)
			result = error_from_answer(answer, &error);
		else if (result < 0)
			error_transport(result, &error);
		async->done.event(async->user_data, result, NULL, error);
	}
	iommubroker__v1__event__free_unpacked(message, NULL);
	iommubroker_error_free(error);
	return last;
}

/* Not the daemon's: it has no sequence number of its own. */
static void tell_watch(struct async *async, uint32_t kind)
{
	struct iommubroker_event event = {
		.sequence = async->told,
		.kind = kind,
		.guest = async->guest,
		.text = kind == IOMMUBROKER_EVENT_RESTARTING
				? "the daemon is gone; calls wait for its successor"
				: "the daemon is back, and this session with it",
	};
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	event.time_ns = (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
	async->done.event(async->user_data, 0, &event, NULL);
}

int iommubroker_watch_events(struct iommubroker_guest *guest, uint64_t since,
			     iommubroker_event_fn function, void *user_data, uint64_t *ret_call)
{
	struct async *async = async_new(guest->session, deliver_event, user_data);
	uint8_t *packet = malloc(WATCH_PACKET_BYTES);

	if (async == NULL || packet == NULL) {
		free(async);
		free(packet);
		return -ENOMEM;
	}
	async->done.event = function;
	async->guest = guest->handle;
	async->since = async->told = since;
	async->tell = tell_watch;
	return async_submit(async, IOMMUBROKER__V1__METHOD__METHOD_WATCH_EVENTS, packet,
			    async_put_watch(async, packet), true, ret_call);
}
