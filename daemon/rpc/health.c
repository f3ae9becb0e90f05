/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * grpc.health.v1: who is answered at all is served. Names of services that there are not are
 * NOT_FOUND to Check and SERVICE_UNKNOWN to Watch, as the service's own description has it
 * (github.com/grpc/grpc, doc/health-checking.md).
 */

#include <stdlib.h>
#include <string.h>

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

static int answer_health(struct call *call,
			 Grpc__Health__V1__HealthCheckResponse__ServingStatus status)
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
	return answer_health(call, STATUS(SERVING));
}

/* One message; it stays true for as long as anybody can read it. */
struct health_source {
	struct stream_source base;
	bool known, told;
};

static int health_next(struct stream_source *base, struct call *call)
{
	struct health_source *source = (struct health_source *)base;

	if (source->told)
		return STREAM_EMPTY;
	source->told = true;
	return answer_health(call, source->known ? STATUS(SERVING) : STATUS(SERVICE_UNKNOWN))
		       ? STREAM_REFUSED
		       : STREAM_MESSAGE;
}

static void health_end(struct stream_source *base)
{
	free(base);
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
	stream_begin(stream, &source->base);
	return CALL_PENDING;
}
