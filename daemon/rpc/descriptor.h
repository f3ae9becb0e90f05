/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_DESCRIPTOR_H
#define IB_RPC_DESCRIPTOR_H

/*
 * Descriptors on their way to or from a message: attached to it, or waiting in the session under a
 * token, few of them and not for long.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommubroker/v1/common.pb-c.h"
#include "rpc/call.h"
#include "util/refusal.h"

#define DESCRIPTORS_WAITING_CAP 80 /* whatever the setting says; a ring has 66 */

/* Descriptors that wait in one session. Not locked: the session's lock. Zeroed memory is an empty
 * one. */
struct descriptor_set {
	size_t n, reserved; /* a reserved place is one that put() will fill */
	struct waiting_descriptor {
		uint64_t token, deadline_ns;
		int fd;
		bool ours; /* of an answer; else a client sent it */
	} waiting[DESCRIPTORS_WAITING_CAP];
};

/* Keep a place for an answer's descriptor before anything is done. max: at most the cap. */
int descriptor_set_reserve(struct descriptor_set *set, size_t max, struct refusal *refusal);
void descriptor_set_unreserve(struct descriptor_set *set);
/* Into a place that was reserved. token: not 0, unguessable. ours: an answer names it, no client
 * sent it. */
void descriptor_set_put(struct descriptor_set *set, uint64_t token, int consume_fd, bool ours,
			uint64_t deadline_ns);
/* -1: no such token, or not one of ours if ours is asked for. Else the caller's. */
int descriptor_set_take(struct descriptor_set *set, uint64_t token, bool ours);
/* Take out one whose time has passed, or any if now_ns is UINT64_MAX; -1: none. */
int descriptor_set_expire(struct descriptor_set *set, uint64_t now_ns);
/* When the first one expires; UINT64_MAX: none waits. */
uint64_t descriptor_set_deadline(const struct descriptor_set *set);

/* Form only: is the reference set, and does it name something that can be there? path: of the
 * field. ref may be NULL: refused. */
int descriptor_check(struct call *call, const Iommubroker__V1__DescriptorRef *ref,
		     const char *path);
/* The descriptor that a request names; the caller owns it. */
int descriptor_take(struct call *call, const Iommubroker__V1__DescriptorRef *ref, const char *path,
		    int *ret_fd);

/* For an answer that will carry a descriptor: reserve(), then answer() or, if nothing came of it,
 * unreserve(). answer() fills *ret and consumes fd; 0, or negative if there is no randomness. */
int descriptor_reserve(struct call *call);
void descriptor_unreserve(struct call *call);
int descriptor_answer(struct call *call, int consume_fd, Iommubroker__V1__DescriptorRef *ret);
/* The same for an answer with several, which are fetched one by one on either transport; more than
 * DescriptorsWaitingMax= may wait for that. All are consumed. */
int descriptors_reserve(struct call *call, size_t n);
void descriptors_unreserve(struct call *call, size_t n);
int descriptors_answer(struct call *call, const int *consume_fds, size_t n,
		       Iommubroker__V1__DescriptorRef *ret);

#endif
