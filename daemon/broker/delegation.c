/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/delegation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/device.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "util/crash_point.h"
#include "util/fd.h"
#include "util/random.h"

#define RULE_DELEGATE "limit given at Delegate"

void delegation_free(struct delegation *delegation)
{
	if (!delegation)
		return;
	guest_unref(delegation->guest);
	fd_close(delegation->listener);
	free(delegation);
}

/* ── what it allows ────────────────────────────────────────────────────────────────────────── */

bool delegation_names_device(const struct delegation *delegation, uint64_t device)
{
	if (!delegation)
		return true;
	for (size_t i = 0; i < delegation->n_devices; i++)
		if (delegation->devices[i] == device)
			return true;
	return !delegation->n_devices;
}

bool delegation_covers(const struct delegation *delegation, const struct object *object)
{
	if (!delegation || delegation->session->closed || object->guest != delegation->guest)
		return false;
	switch (object->type) {
	case OBJECT_DEVICE:
		return delegation_names_device(delegation, object->handle);
	case OBJECT_NESTED:
		return delegation_names_device(delegation,
					       ((const struct nested *)object)->device_handle);
	case OBJECT_RING: /* only whose it is, who has it as object->session */
		return false;
	case OBJECT_GUEST:
	case OBJECT_MEMORY_FILE:
		break;
	}
	return true;
}

int delegation_refuse_part(const struct session *session, struct refusal *refusal)
{
	if (!session || !session->delegation || !session->delegation->n_devices)
		return 0;
	return refuse(refusal, REFUSAL_DENIED, "NO_RIGHT",
		      "this session was delegated %zu devices of the guest, and this concerns all",
		      session->delegation->n_devices);
}

void delegation_limit(const struct guest *guest, struct ledger_limits *limits)
{
	const struct delegation *delegation;

	DL_FOREACH (guest->delegations, delegation) {
		if (delegation->pinned_bytes_max)
			ledger_limits_tighten(limits, LEDGER_PINNED_BYTES,
					      delegation->pinned_bytes_max, RULE_DELEGATE);
		if (delegation->mappings_max)
			ledger_limits_tighten(limits, LEDGER_MAPPINGS, delegation->mappings_max,
					      RULE_DELEGATE);
	}
}

/* ── who is shown ──────────────────────────────────────────────────────────────────────────── */

static bool holds(const struct delegation *delegation)
{
	return delegation->rights & 1u << GUEST_RIGHT_HOLD && !delegation->session->closed;
}

/* Who holds a guest is who operators want to see beside it: not the manager that made it. With the
 * broker's lock held. */
static void guest_show_holder(struct guest *guest)
{
	const struct delegation *delegation;
	const struct session *holder = NULL;

	DL_FOREACH (guest->delegations, delegation)
		if (holds(delegation) && delegation->session->pidfd >= 0)
			holder = delegation->session;
	pthread_mutex_lock(&guest->lock);
	guest->pid = holder ? holder->pid : guest->owner_pid;
	guest->uid = holder ? holder->uid : guest->owner_uid;
	pthread_mutex_unlock(&guest->lock);
	event_ring_set_holder(guest->events, guest->tenant_name, guest->pid, guest->uid);
}

/* ── making one ────────────────────────────────────────────────────────────────────────────── */

static bool is_device_of(struct guest *guest, uint64_t handle)
{
	struct device *device;

	pthread_mutex_lock(&guest->lock);
	DL_FOREACH (guest->devices, device)
		if (device->object.handle == handle)
			break;
	pthread_mutex_unlock(&guest->lock);
	return device;
}

/* consume_guest: taken over with the delegation, or given back. */
static struct delegation *delegation_alloc(struct guest *consume_guest,
					   const struct delegation_request *request)
{
	struct delegation *delegation = calloc(1, sizeof(*delegation));

	if (!delegation || random_handle(&delegation->handle)) {
		guest_unref(consume_guest);
		free(delegation);
		return NULL;
	}
	delegation->guest = consume_guest;
	delegation->listener = -1;
	delegation->rights = request->rights | 1u << GUEST_RIGHT_ANY;
	delegation->pinned_bytes_max = request->pinned_bytes_max;
	delegation->mappings_max = request->mappings_max;
	delegation->n_devices = request->n_devices;
	memcpy(delegation->devices, request->devices, sizeof(delegation->devices));
	return delegation;
}

static struct session *delegate_alloc(struct broker *broker, struct guest *consume_guest,
				      const struct session *delegator,
				      const struct delegation_request *request)
{
	struct delegation *delegation = delegation_alloc(consume_guest, request);
	struct session *session = delegation ? session_alloc(broker, "") : NULL;

	if (!session || random_bytes(session->secret, sizeof(session->secret))) {
		delegation_free(delegation);
		session_unref(session);
		return NULL;
	}
	delegation->delegator = delegator->id;
	delegation->session = session;
	session->delegation = delegation;
	session->rights = delegation->rights;
	return session;
}

static int delegation_count(const struct guest *guest, struct refusal *refusal)
{
	const struct delegation *delegation;
	unsigned int n = 0;

	DL_COUNT(guest->delegations, delegation, n);
	if (n < DELEGATIONS_OF_GUEST_MAX)
		return 0;
	return refuse_quota(refusal, "delegations", DELEGATIONS_OF_GUEST_MAX, n, 1,
			    guest->tenant_name, "of one guest");
}

/* ── the socket it listens on ──────────────────────────────────────────────────────────────── */

static bool listener_index_used(const struct guest *guest, uint32_t index)
{
	const struct delegation *delegation;

	DL_FOREACH2(guest->kept.listeners, delegation, kept_next)
	if (delegation->listener_index == index)
		return true;
	return false;
}

static uint64_t claimed_bit(const struct delegation *delegation)
{
	return UINT64_C(1) << delegation->listener_index % 64;
}

static void listener_keep(struct delegation *delegation, uint32_t index)
{
	struct guest *guest = delegation->guest;

	session_ref(delegation->session);
	delegation->listener_index = index;
	DL_APPEND2(guest->kept.listeners, delegation, kept_prev, kept_next);
	pthread_mutex_lock(&guest->broker->lock);
	delegation->claimed = state_word(guest->kept.state, GUEST_WORD_CLAIMED);
	pthread_mutex_unlock(&guest->broker->lock);
}

static void listener_drop(struct delegation *delegation)
{
	struct guest *guest = delegation->guest;

	pthread_mutex_lock(&guest->broker->lock);
	delegation->claimed = NULL;
	pthread_mutex_unlock(&guest->broker->lock);
	save_forget_fd(guest, FD_LISTENER, delegation->listener_index);
	DL_DELETE2(guest->kept.listeners, delegation, kept_prev, kept_next);
	delegation->kept_prev = delegation->kept_next = NULL;
	session_unref(delegation->session);
}

/* A socket that was of one that is over can be given again: the manager would keep one of two. */
static void listeners_settle(struct guest *guest)
{
	const struct delegation *delegation;

	DL_FOREACH2(guest->kept.listeners, delegation, kept_next)
	if (atomic_load(&delegation->left))
		break;
	if (delegation)
		save_now(guest);
}

/* On the guest's lane. */
static int listener_store(struct delegation *delegation, int fd, struct refusal *refusal)
{
	struct guest *guest = delegation->guest;
	uint32_t index = 0;
	int status;

	if (guest->down)
		return refuse_not_found(refusal, "guest");
	delegation->listener = fd_duplicate(fd);
	if (delegation->listener < 0)
		return refuse_errno(refusal, -delegation->listener, "listening socket");
	listeners_settle(guest);
	while (listener_index_used(guest, index))
		index++;
	status = save_fd(guest, FD_LISTENER, index, delegation->listener, refusal);
	if (status)
		return status;
	listener_keep(delegation, index);
	atomic_fetch_and(delegation->claimed, ~claimed_bit(delegation));
	return 0;
}

void delegation_restore_listener(struct session *session, uint32_t index, int consume_fd)
{
	struct delegation *delegation = session->delegation;

	delegation->listener = consume_fd;
	listener_keep(delegation, index);
	pthread_mutex_lock(&session->broker->lock);
	delegation->only_by_secret =
		session->pidfd < 0 && atomic_load(delegation->claimed) & claimed_bit(delegation);
	if (session != delegation->guest->home && !delegation->only_by_secret)
		session->claim_by_ns = 0; /* who was to come can come still */
	pthread_mutex_unlock(&session->broker->lock);
}

bool delegation_is_claimed(struct session *session)
{
	bool claimed;

	pthread_mutex_lock(&session->broker->lock);
	claimed = session->delegation->only_by_secret;
	pthread_mutex_unlock(&session->broker->lock);
	return claimed;
}

int delegation_listener(struct session *session)
{
	if (!session->delegation || session->delegation->listener < 0)
		return -1;
	return fd_duplicate(session->delegation->listener);
}

void listeners_judge(struct guest *guest)
{
	struct delegation *delegation;

	DL_FOREACH2(guest->kept.listeners, delegation, kept_next)
	delegation->unwritten = atomic_load(&delegation->left);
}

void listeners_forget(struct guest *guest, bool all)
{
	struct delegation *delegation, *next;

	DL_FOREACH_SAFE2(guest->kept.listeners, delegation, next, kept_next)
	{
		if (all || delegation->unwritten)
			listener_drop(delegation);
	}
}

/* With the broker's lock held. */
static int delegate_list(struct session *session, const struct session *delegator, bool listens,
			 struct refusal *refusal)
{
	struct delegation *delegation = session->delegation;
	struct guest *guest = delegation->guest;
	int status;

	if (session->broker->ending || delegator->closed || guest->dying || !guest->tenant)
		return refuse_not_found(refusal, "guest");
	if (listens && !session_is_manager(delegator))
		return refuse(refusal, REFUSAL_DENIED, "NOT_A_MANAGER",
			      "no rule with Manager=yes is for this process: it may delegate by a "
			      "connected socket only");
	status = delegation_count(guest, refusal);
	if (!status)
		status = session_admit_to(session, guest->tenant, refusal);
	if (status)
		return status;
	guest->tenant->refs++;
	session_ref(session);
	DL_APPEND(guest->delegations, delegation);
	delegation->listed = true;
	guest_set_limits(guest);
	guest_show_holder(guest);
	return 0;
}

static int delegate_admit(struct session *session, const struct session *delegator, bool listens,
			  struct refusal *refusal)
{
	int status;

	pthread_mutex_lock(&session->broker->lock);
	status = delegate_list(session, delegator, listens, refusal);
	pthread_mutex_unlock(&session->broker->lock);
	return status;
}

/* The same, and its socket outlives this process. */
static int delegate_admit_stored(struct session *session, const struct session *delegator,
				 int listener, struct refusal *refusal)
{
	struct guest *guest = guest_ref(session->delegation->guest);
	int status;

	pool_lane_enter(guest->lane);
	status = listener_store(session->delegation, listener, refusal);
	if (!status) {
		status = delegate_admit(session, delegator, true, refusal);
		if (status)
			listener_drop(session->delegation);
	}
	pool_lane_leave(guest->broker->pool, guest->lane);
	guest_unref(guest);
	return status;
}

static int check_devices(struct guest *guest, const struct delegation_request *request,
			 struct refusal *refusal)
{
	for (size_t i = 0; i < request->n_devices; i++)
		if (!is_device_of(guest, request->devices[i]))
			return refuse_not_found(refusal, "device");
	return 0;
}

int delegation_new(struct session **ret, struct broker *broker, struct session *delegator,
		   const struct delegation_request *request, uint64_t *ret_delegation,
		   struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, delegator, request->guest, refusal);
	struct session *session;
	int status;

	if (!guest)
		return REFUSED;
	status = check_devices(guest, request, refusal);
	if (status) {
		guest_unref(guest);
		return status;
	}
	session = delegate_alloc(broker, guest, delegator, request);
	if (!session)
		return refuse_errno(refusal, ENOMEM, "delegation");
	if (request->peer)
		status = delegation_bind(session, request->peer, refusal);
	if (!status && request->listener && fd_store_keeps(broker->store))
		status = delegate_admit_stored(session, delegator, *request->listener, refusal);
	else if (!status)
		status = delegate_admit(session, delegator, request->listener, refusal);
	if (status) {
		session_unref(session);
		return status;
	}
	CRASH_POINT(DELEGATED);
	*ret_delegation = session->delegation->handle;
	*ret = session;
	return 0;
}

int delegation_restore(struct guest *guest, struct session *session,
		       const struct record_session *record)
{
	struct delegation *delegation = calloc(1, sizeof(*delegation));

	if (!delegation)
		return -ENOMEM;
	*delegation = (struct delegation){
		.guest = guest_ref(guest),
		.session = session,
		.handle = record->delegation,
		.delegator = record->delegator,
		.rights = record->rights,
		.listener = -1,
		.pinned_bytes_max = record->pinned_bytes_max,
		.mappings_max = record->mappings_max,
		.n_devices = record->n_devices,
		.listed = true,
	};
	memcpy(delegation->devices, record->devices, sizeof(delegation->devices));
	session->delegation = delegation;
	DL_APPEND(guest->delegations, delegation);
	return 0;
}

/* ── whose it is ───────────────────────────────────────────────────────────────────────────── */

int delegation_bind(struct session *session, const struct peer *peer, struct refusal *refusal)
{
	struct delegation *delegation = session->delegation;
	int status;

	pthread_mutex_lock(&session->broker->lock);
	if (session->pidfd < 0)
		status = session_set_peer(session, peer, refusal);
	else if (session_same_process(session, peer))
		status = 0;
	else
		status = refuse(refusal, REFUSAL_UNAUTHENTICATED, "NOT_THE_PEER",
				"this delegation is process %d's, not process %d's",
				(int)session->pid, (int)peer->pid);
	if (!status) {
		session->uid = peer->uid; /* it may have changed its user since Delegate */
		delegation->only_by_secret = false;
		if (delegation->claimed)
			atomic_fetch_or(delegation->claimed, claimed_bit(delegation));
	}
	/* Else it is being made, and may be refused. */
	if (!status && delegation->listed) {
		guest_show_holder(delegation->guest);
		save_later(delegation->guest);
	}
	pthread_mutex_unlock(&session->broker->lock);
	return status;
}

int delegation_find(struct session **ret, struct broker *broker, struct session *delegator,
		    uint64_t handle, struct refusal *refusal)
{
	struct session *session;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (broker->sessions, session)
		if (session->delegation && session->delegation->handle == handle &&
		    session->delegation->delegator == delegator->id && !session->closed)
			break;
	if (session)
		session_ref(session);
	pthread_mutex_unlock(&broker->lock);
	if (!session)
		return refuse_not_found(refusal, "delegation");
	*ret = session;
	return 0;
}

/* ── its end ───────────────────────────────────────────────────────────────────────────────── */

struct session *delegation_heir(const struct guest *guest)
{
	const struct delegation *delegation;
	struct session *unclaimed = NULL;

	DL_FOREACH (guest->delegations, delegation) {
		if (!holds(delegation))
			continue;
		if (delegation->session->pidfd >= 0)
			return delegation->session;
		unclaimed = delegation->session;
	}
	return unclaimed;
}

void delegation_leave(struct session *session)
{
	struct delegation *delegation = session->delegation;
	struct guest *guest;

	if (!delegation || !delegation->listed)
		return;
	guest = delegation->guest;
	delegation->listed = false;
	atomic_store(&delegation->left, true);
	DL_DELETE(guest->delegations, delegation);
	/* The last one to hold it stays who it was held by, while it waits. */
	if (guest->home != session || delegation_heir(guest))
		guest_show_holder(guest);
	if (!guest->dying)
		save_later(guest);
	/* Its tenant is there as long as it is in a session's list. */
	if (guest->tenant && !guest->dying)
		guest_set_limits(guest);
}

static bool over_run(struct pool_job *job)
{
	struct delegation *delegation =
		(struct delegation *)((char *)job - offsetof(struct delegation, over));

	save_now(delegation->guest);
	session_leave(delegation->session);
	return false;
}

bool delegation_write_end(struct session *consume_session)
{
	struct delegation *delegation = consume_session->delegation;
	struct broker *broker = consume_session->broker;

	if (!delegation || !fd_store_keeps(broker->store))
		return false;
	delegation->over = (struct pool_job){
		.run = over_run,
		.lane = delegation->guest->lane,
	};
	pool_submit(broker->pool, &delegation->over);
	return true;
}

void delegation_tell_end(struct session *session)
{
	if (session->delegation)
		event_ring_wake(session->delegation->guest->events);
}

void delegation_tell_revoked(struct session *session)
{
	struct guest *guest = session->delegation->guest;
	const struct event event = {.kind = EVENT_REVOKED, .guest = guest->object.handle};
	uint64_t sequence = event_post(guest->events, &event);

	pthread_mutex_lock(&session->broker->lock);
	session->last_event = sequence;
	pthread_mutex_unlock(&session->broker->lock);
}
