/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/descriptor.h"

#include "rpc/rpc_session.h"
#include "util/fd.h"

int descriptor_set_reserve(struct descriptor_set *set, size_t max, struct refusal *refusal)
{
	if (max > DESCRIPTORS_WAITING_CAP)
		max = DESCRIPTORS_WAITING_CAP;
	if (set->n + set->reserved >= max)
		return refuse_quota(refusal, "descriptors_waiting", max, set->n + set->reserved, 1,
				    "", "DescriptorsWaitingMax=");
	set->reserved++;
	return 0;
}

void descriptor_set_unreserve(struct descriptor_set *set)
{
	set->reserved--;
}

void descriptor_set_put(struct descriptor_set *set, uint64_t token, int consume_fd, bool ours,
			uint64_t deadline_ns)
{
	set->reserved--;
	set->waiting[set->n++] = (struct waiting_descriptor){token, deadline_ns, consume_fd, ours};
}

/* The last one takes the place of the one that goes: order does not matter. */
static int take_at(struct descriptor_set *set, size_t i)
{
	int fd = set->waiting[i].fd;

	set->waiting[i] = set->waiting[--set->n];
	return fd;
}

int descriptor_set_take(struct descriptor_set *set, uint64_t token, bool ours)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->waiting[i].token == token && (set->waiting[i].ours || !ours))
			return take_at(set, i);
	return -1;
}

int descriptor_set_expire(struct descriptor_set *set, uint64_t now_ns)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->waiting[i].deadline_ns <= now_ns)
			return take_at(set, i);
	return -1;
}

uint64_t descriptor_set_deadline(const struct descriptor_set *set)
{
	uint64_t first = UINT64_MAX;

	for (size_t i = 0; i < set->n; i++)
		if (set->waiting[i].deadline_ns < first)
			first = set->waiting[i].deadline_ns;
	return first;
}

int descriptor_check(struct call *call, const Iommubroker__V1__DescriptorRef *ref, const char *path)
{
	if (!ref || ref->source_case == IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE__NOT_SET)
		return refuse_field(&call->refusal, path, "%s: a descriptor must be named", path);
	if (ref->source_case == IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_TOKEN)
		return 0;
	if (!call->rpc->native)
		return refuse_field(&call->refusal, path,
				    "%s.attached: descriptors are attached on the native transport "
				    "only; send it there and name its token",
				    path);
	if (ref->attached >= call->n_fds)
		return refuse_field(&call->refusal, path,
				    "%s.attached: %u, but %zu descriptors came with the message",
				    path, ref->attached, call->n_fds);
	return 0;
}

int descriptor_take(struct call *call, const Iommubroker__V1__DescriptorRef *ref, const char *path,
		    int *ret_fd)
{
	int status = descriptor_check(call, ref, path), fd;

	if (status)
		return status;
	if (ref->source_case == IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_TOKEN) {
		fd = rpc_session_take_descriptor(call->session, ref->token, false);
		if (fd < 0)
			return refuse_field(&call->refusal, path,
					    "%s.token: no descriptor waits under it (used already, "
					    "expired, or never sent)",
					    path);
	} else {
		fd = call->fds[ref->attached];
		if (fd < 0)
			return refuse_field(&call->refusal, path, "%s.attached: %u was named twice",
					    path, ref->attached);
		call->fds[ref->attached] = -1;
	}
	*ret_fd = fd;
	return 0;
}

int descriptor_reserve(struct call *call)
{
	if (call->rpc->native)
		return 0;
	return rpc_session_reserve_descriptor(call->session, &call->refusal);
}

void descriptor_unreserve(struct call *call)
{
	if (!call->rpc->native)
		rpc_session_unreserve_descriptor(call->session);
}

int descriptor_answer(struct call *call, int consume_fd, Iommubroker__V1__DescriptorRef *ret)
{
	iommubroker__v1__descriptor_ref__init(ret);
	if (call->rpc->native) {
		ret->source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_ATTACHED;
		ret->attached = 0;
		call->answer_fd = consume_fd;
		return 0;
	}
	ret->source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_TOKEN;
	return rpc_session_put_descriptor(call->session, consume_fd, true, &ret->token);
}

void descriptors_unreserve(struct call *call, size_t n)
{
	for (size_t i = 0; i < n; i++)
		rpc_session_unreserve_descriptor(call->session);
}

int descriptors_reserve(struct call *call, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int status = rpc_session_reserve_place(call->session, &call->refusal);

		if (!status)
			continue;
		descriptors_unreserve(call, i);
		return status;
	}
	return 0;
}

int descriptors_answer(struct call *call, const int *consume_fds, size_t n,
		       Iommubroker__V1__DescriptorRef *ret)
{
	int status = 0;

	for (size_t i = 0; i < n; i++) {
		int error;

		iommubroker__v1__descriptor_ref__init(&ret[i]);
		ret[i].source_case = IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_TOKEN;
		error = rpc_session_put_descriptor(call->session, consume_fds[i], true,
						   &ret[i].token);
		if (error)
			status = error;
	}
	return status;
}
