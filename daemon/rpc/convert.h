/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_CONVERT_H
#define IB_RPC_CONVERT_H

/*
 * The broker's plain structs as messages. Each: 0 or REFUSED (no room in the call's arena). What a
 * message points at lies in the arena or in the struct itself, which therefore must stay until the
 * message is packed.
 */

#include "broker/broker.h"
#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/events.pb-c.h"
#include "iommubroker/v1/guests.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "rpc/call.h"

Iommubroker__V1__Access convert_access(bool writable);
Iommubroker__V1__Attachment convert_attachment(enum attachment attachment);

int convert_device(struct call *call, const struct device_description *device,
		   Iommubroker__V1__DeviceInfo *ret);
int convert_guest(struct call *call, const struct guest_description *guest,
		  Iommubroker__V1__GuestDescription *ret);
int convert_usage(struct call *call, const struct usage_report *report,
		  Iommubroker__V1__GetUsageResponse *ret);
/* REFUSED: update rings are asked for. */
int convert_fit_request(struct call *call, const Iommubroker__V1__CheckFitRequest *request,
			struct fit_request *ret);
/* The answer of CheckFit. */
int answer_fit(struct call *call, const struct fit_missing *missing, size_t n);
int convert_info(struct call *call, Iommubroker__V1__GetInfoResponse *ret);
int convert_explanation(struct call *call, const struct explanation *explanation,
			Iommubroker__V1__Explanation *ret);
/* *ret_fault is used if the event has one and belongs to *ret. */
void convert_event(const struct event *event, Iommubroker__V1__Event *ret,
		   Iommubroker__V1__WalkFault *ret_fault);

/* An array of n messages that init() initialises, with its array of pointers. NULL: no room. */
void **convert_array(struct call *call, size_t n, size_t message_bytes, void (*init)(void *));
#define CONVERT_ARRAY(call, n, type, init_fn) \
	((type **)convert_array((call), (n), sizeof(type), (void (*)(void *))(init_fn)))

#endif
