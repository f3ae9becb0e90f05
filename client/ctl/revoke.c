/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl revoke, drain: take away, and accept nothing new. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

#define DRAIN_PAUSE_NS 200000000

typedef Iommubroker__V1__RevokeRequest RevokeRequest;

static bool print_revoked(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__RevokeResponse *response = (const void *)message;

	for (size_t i = 0; i < response->n_revoked; i++)
		puts(text_safe(response->revoked[i], 0).bytes);
	if (response->n_revoked == 0)
		puts("there was nothing to take away");
	return true;
}

static bool set_what(RevokeRequest *request, const char *kind, char *what)
{
	char **member = strcmp(kind, "guest") == 0    ? &request->guest
			: strcmp(kind, "tenant") == 0 ? &request->tenant
			: strcmp(kind, "device") == 0 ? &request->device
						      : NULL;

	/* An empty name would mean that none is given. */
	if (member == NULL || what[0] == '\0')
		return false;
	*member = what;
	return true;
}

int command_revoke(struct command_context *context, int argc, char **argv)
{
	RevokeRequest request = IOMMUBROKER__V1__REVOKE_REQUEST__INIT;
	struct rpc_status status;

	if (!set_what(&request, argv[0], argv[1]))
		return command_bad_usage(context,
					 "revoke takes guest, tenant or device, and which one");
	if (context->options->reason != NULL)
		request.reason = (char *)context->options->reason;
	rpc_call(context->rpc, "Revoke", &request.base,
		 &iommubroker__v1__revoke_response__descriptor,
		 context->options->json ? command_print_json : print_revoked, NULL, &status);
	return command_outcome(context, &status);
}

/* ── drain ────────────────────────────────────────────────────────────────────────────────── */

struct drain {
	bool draining;
	uint32_t sessions, guests;
};

static bool take_drain(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__DrainResponse *response = (const void *)message;
	struct drain *drain = user_data;

	drain->draining = response->draining;
	drain->sessions = response->sessions;
	drain->guests = response->guests;
	return true;
}

/* Asked again, it answers what is left. */
static void ask(struct command_context *context, struct drain *drain, struct rpc_status *ret)
{
	Iommubroker__V1__DrainRequest request = IOMMUBROKER__V1__DRAIN_REQUEST__INIT;

	request.cancel = context->options->cancel;
	rpc_call(context->rpc, "Drain", &request.base, &iommubroker__v1__drain_response__descriptor,
		 take_drain, drain, ret);
}

static void print_drain(const struct options *options, const struct drain *drain)
{
	Iommubroker__V1__DrainResponse response = IOMMUBROKER__V1__DRAIN_RESPONSE__INIT;

	if (options->json) {
		response.draining = drain->draining;
		response.sessions = drain->sessions;
		response.guests = drain->guests;
		command_print_json(NULL, &response.base);
		return;
	}
	printf("%s; %" PRIu32 " guests and %" PRIu32 " sessions are left\n",
	       drain->draining ? "nothing new is accepted" : "new guests are accepted",
	       drain->guests, drain->sessions);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* false: the time is over. */
static bool wait_empty(struct command_context *context, struct drain *drain, struct rpc_status *ret)
{
	static const struct timespec pause = {.tv_nsec = DRAIN_PAUSE_NS};
	const struct number *timeout = &context->options->timeout_ms;
	uint64_t start = now_ms();

	while (ret->code == 0 && drain->draining && drain->guests > 0) {
		if (timeout->given && now_ms() - start >= timeout->value)
			return false;
		nanosleep(&pause, NULL);
		ask(context, drain, ret);
	}
	return true;
}

int command_drain(struct command_context *context, int argc, char **argv)
{
	const struct options *options = context->options;
	struct rpc_status status;
	struct drain drain = {0};
	bool in_time = true;

	if ((options->wait && options->cancel) || (options->timeout_ms.given && !options->wait))
		return command_bad_usage(
			context, "--timeout goes with --wait, and --wait not with --cancel");
	ask(context, &drain, &status);
	if (options->wait)
		in_time = wait_empty(context, &drain, &status);
	if (status.code != 0)
		return command_outcome(context, &status);
	print_drain(options, &drain);
	return in_time ? EXIT_DONE : EXIT_REFUSED;
}
