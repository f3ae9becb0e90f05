/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Revoke and Drain.
 *
 * What is to go is found by name first, and refused if there is no such thing; then the broker
 * takes it away on the lanes of the guests that it concerns, and the last one answers the call: no
 * worker waits for another one's lane.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iommubroker/v1/admin.pb-c.h"
#include "rpc/admin.h"
#include "rpc/check.h"
#include "rpc/dispatcher.h"
#include "rpc/handler.h"
#include "rpc/health.h"
#include "rpc/log_revoked.h"

#define REASON_BYTES 128
#define LINES_MAX    256 /* of an answer; what is more is counted */

struct revoke_plain {
	struct revoke_request request;
	char guest[BROKER_NAME_MAX]; /* as it was named */
	char reason[REASON_BYTES];
};

/* ── Revoke ───────────────────────────────────────────────────────────────────────────────── */

static int check_device(struct call *call, const char *text, struct iommu_device_address *ret)
{
	const char *digits = text + strlen("fid:");
	size_t n;

	*ret = (struct iommu_device_address){0};
	if (strncmp(text, "fid:", strlen("fid:")) && !strchr(text, ':'))
		return refuse_field(
			&call->refusal, "device",
			"device: '%.40s' is neither a PCI address, as 0000:01:00.0, nor "
			"a zPCI function id, as fid:1f",
			text);
	if (strncmp(text, "fid:", strlen("fid:")))
		return check_pci_address(call, "device", text, ret->pci_address);
	if (digits[0] == '0' && (digits[1] | 0x20) == 'x')
		digits += 2;
	n = strspn(digits, "0123456789abcdefABCDEF");
	if (!n || n > 8 || digits[n])
		return refuse_field(&call->refusal, "device",
				    "device: '%.40s' is not fid: and up to 8 hex digits", text);
	ret->by_fid = true;
	ret->fid = (uint32_t)strtoul(digits, NULL, 16);
	return 0;
}

static int check_what(struct call *call, const Iommubroker__V1__RevokeRequest *request,
		      struct revoke_plain *ret)
{
	if (request->guest[0]) {
		ret->request.what = REVOKE_GUEST;
		return check_text(call, "guest", request->guest, ret->guest, sizeof(ret->guest));
	}
	if (request->tenant[0]) {
		ret->request.what = REVOKE_TENANT;
		return check_text(call, "tenant", request->tenant, ret->request.tenant,
				  sizeof(ret->request.tenant));
	}
	ret->request.what = REVOKE_DEVICE;
	return check_device(call, request->device, &ret->request.device);
}

int prepare_revoke(struct call *call)
{
	const Iommubroker__V1__RevokeRequest *request =
		(const Iommubroker__V1__RevokeRequest *)call->request;
	int named = !!request->guest[0] + !!request->tenant[0] + !!request->device[0];
	struct revoke_plain *plain;
	int status;

	if (named != 1)
		return refuse_field(&call->refusal, "guest",
				    "guest, tenant, device: one of them must be set, not %d",
				    named);
	plain = call_array(call, 1, sizeof(*plain));
	if (!plain)
		return call_refuse_memory(call);
	status = check_text(call, "reason", request->reason, plain->reason, sizeof(plain->reason));
	if (!status)
		status = check_what(call, request, plain);
	call->plain = plain;
	return status;
}

static int revoke_answer(struct call *call, const struct revoked *revoked, size_t n)
{
	Iommubroker__V1__RevokeResponse response = IOMMUBROKER__V1__REVOKE_RESPONSE__INIT;
	size_t shown = n < LINES_MAX ? n : LINES_MAX;

	response.revoked = call_array(call, shown + 1, sizeof(*response.revoked));
	for (size_t i = 0; response.revoked && i <= shown && i < n; i++) {
		char *text = call_array(call, 1, REVOKED_TEXT_BYTES);

		if (!text)
			return call_refuse_memory(call);
		if (i < shown)
			revoked_text(&revoked[i], text);
		else
			snprintf(text, REVOKED_TEXT_BYTES, "and %zu more", n - shown);
		response.revoked[response.n_revoked++] = text;
	}
	return response.revoked ? call_answer(call, &response.base) : call_refuse_memory(call);
}

/* What was found is gone meanwhile, or a tenant has none. */
static int refuse_nothing(struct call *call, const struct revoke_plain *plain)
{
	static const char *const what[] = {
		[REVOKE_DEVICE] = "no guest has the function",
		[REVOKE_GUEST] = "the guest has ended:",
		[REVOKE_TENANT] = "there is no guest of a tenant of the name",
	};
	const Iommubroker__V1__RevokeRequest *request =
		(const Iommubroker__V1__RevokeRequest *)call->request;
	const char *named[] = {
		[REVOKE_DEVICE] = request->device,
		[REVOKE_GUEST] = request->guest,
		[REVOKE_TENANT] = request->tenant,
	};

	return refuse(&call->refusal, REFUSAL_NOT_FOUND, "NOT_FOUND", "%s %.*s",
		      what[plain->request.what], BROKER_NAME_MAX, named[plain->request.what]);
}

static void on_revoked(void *context, const struct revoked *revoked, size_t n)
{
	struct call *call = context;
	const struct revoke_plain *plain = call->plain;

	for (size_t i = 0; i < n; i++)
		log_revoked(&revoked[i], plain->reason);
	call_finish(call, n ? revoke_answer(call, revoked, n) : refuse_nothing(call, plain));
}

int handle_revoke(struct call *call)
{
	struct revoke_plain *plain = call->plain;
	int status = 0;

	if (plain->request.what == REVOKE_GUEST)
		status = admin_find_guest(call, plain->guest, &plain->request.guest);
	if (!status)
		status = broker_revoke(call_broker(call), &plain->request, on_revoked, call,
				       &call->refusal);
	return status ? status : CALL_PENDING;
}

/* ── Drain ────────────────────────────────────────────────────────────────────────────────── */

static void drain_tell(bool draining)
{
	if (draining)
		log_as(LOG_LEVEL_WARNING, LOG_MESSAGE_DRAINING,
		       "draining: no new session, guest or device is accepted");
	else
		log_as(LOG_LEVEL_INFO, LOG_MESSAGE_DRAIN_ENDED,
		       "not draining any more: sessions, guests and devices are accepted again");
	health_changed();
}

int handle_drain(struct call *call)
{
	const Iommubroker__V1__DrainRequest *request =
		(const Iommubroker__V1__DrainRequest *)call->request;
	Iommubroker__V1__DrainResponse response = IOMMUBROKER__V1__DRAIN_RESPONSE__INIT;
	struct usage_report host;
	int status;

	if (broker_set_draining(call_broker(call), !request->cancel))
		drain_tell(!request->cancel);
	status = usage_report(call_broker(call), NULL, &host, &call->refusal);
	if (status)
		return status;
	response.draining = !request->cancel;
	response.sessions = (uint32_t)host.usage[LEDGER_SESSIONS].current;
	response.guests = (uint32_t)host.usage[LEDGER_GUESTS].current;
	return call_answer(call, &response.base);
}
