/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * grpc.health.v1: who is answered at all is served. Names of services that there are not are
 * NOT_FOUND to Check and SERVICE_UNKNOWN to Watch, as the service's own description has it
 * (github.com/grpc/grpc, doc/health-checking.md).
 *
 * While the daemon is drained, clients are told NOT_SERVING, so that whoever places guests places
 * them elsewhere; what there is goes on being served. Operators' own socket serves all the same.
 */

#include "rpc/health.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "grpc/health/v1/health.pb-c.h"
#include "rpc/handler.h"
#include "rpc/method_table.h"
#include "rpc/stream.h"

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

/* "" asks for the daemon as a whole. */
static bool service_known(const struct call *call, const char *service)
{
	size_t n, length = strlen(service);
	const struct method *table = method_table(&n);

	if (!length)
		return true;
	for (size_t i = 0; i < n; i++)
		if (table[i].path && table[i].path_bytes > length + 1 &&
		    !memcmp(table[i].path + 1, service, length) &&
		    table[i].path[length + 1] == '/' && method_behind(&table[i], call->rpc->door))
			return true;
	return false;
}

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;

static serving_status health_now(const struct call *call)
{
	if (call->rpc->door == RPC_DOOR_CLIENT && broker_draining(call_broker(call)))
		return STATUS(NOT_SERVING);
	return STATUS(SERVING);
}

static int answer_health(struct call *call, serving_status status)
{
	Grpc__Health__V1__HealthCheckResponse response =
		GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	response.status = status;
	return call_answer(call, &response.base);
}

int handle_health_check(struct call *call)
{
	const Grpc__Health__V1__HealthCheckRequest *request =
		(const Grpc__Health__V1__HealthCheckRequest *)call->request;

	if (!service_known(call, request->service))
		return refuse(&call->refusal, REFUSAL_NOT_FOUND, "NOT_FOUND",
			      "there is no service of that name");
	return answer_health(call, health_now(call));
}

/* One message, and another whenever it is not true any more. */
struct health_source {
	struct stream_source base;
	struct stream *stream;
	bool known, told;
	serving_status said;
	struct health_source *prev, *next;
};

/* Those that may be woken. Held for the waking, so that none ends meanwhile. */
static pthread_mutex_t watches_lock = PTHREAD_MUTEX_INITIALIZER;
static struct health_source *watches;

void health_changed(void)
{
	struct health_source *source;

	pthread_mutex_lock(&watches_lock);
	DL_FOREACH (watches, source)
		stream_wake(source->stream);
	pthread_mutex_unlock(&watches_lock);
}

static int health_next(struct stream_source *base, struct call *call)
{
	struct health_source *source = (struct health_source *)base;
	serving_status now = source->known ? health_now(call) : STATUS(SERVICE_UNKNOWN);

	if (source->told && source->said == now)
		return STREAM_EMPTY;
	source->told = true;
	source->said = now;
	return answer_health(call, now) ? STREAM_REFUSED : STREAM_MESSAGE;
}

static void health_end(struct stream_source *base)
{
	struct health_source *source = (struct health_source *)base;

	pthread_mutex_lock(&watches_lock);
	DL_DELETE(watches, source);
	pthread_mutex_unlock(&watches_lock);
	free(source);
}

int handle_health_watch(struct call *call)
{
	const Grpc__Health__V1__HealthCheckRequest *request =
		(const Grpc__Health__V1__HealthCheckRequest *)call->request;
	struct stream *stream = stream_new(call);
	struct health_source *source;

	if (!stream)
		return REFUSED;
	source = calloc(1, sizeof(*source));
	if (!source) {
		stream_discard(stream);
		return refuse(&call->refusal, REFUSAL_HOST_RESOURCES, "HOST_RESOURCES",
			      "no memory to watch the daemon's health");
	}
	source->base.next = health_next;
	source->base.end = health_end;
	source->known = service_known(call, request->service);
	source->stream = stream;
	pthread_mutex_lock(&watches_lock);
	DL_APPEND(watches, source);
	pthread_mutex_unlock(&watches_lock);
	stream_begin(stream, &source->base);
	return CALL_PENDING;
}
