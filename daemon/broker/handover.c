/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/handover.h"

#include <string.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/device.h"
#include "broker/device_rule.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/memory_file.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "broker/save.h"
#include "util/clock.h"

#define SECOND_NS 1000000000ull

/* ── announced, and begun ──────────────────────────────────────────────────────────────────── */

int guest_prepare_handover(struct broker *broker, struct session *session, uint64_t handle,
			   uint32_t seconds, bool block_dma, struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, session, handle, refusal);

	if (!guest)
		return REFUSED;
	pthread_mutex_lock(&broker->lock);
	guest->handover.deadline_ns = clock_boottime_ns() + seconds * SECOND_NS;
	guest->handover.blocks = block_dma;
	pthread_mutex_unlock(&broker->lock);
	guest_unref(guest);
	return 0;
}

static bool block_run(struct pool_job *job)
{
	struct guest *guest =
		(struct guest *)((char *)job - offsetof(struct guest, handover.block));
	struct device *device;
	bool waiting;

	pthread_mutex_lock(&guest->broker->lock);
	waiting = guest->handover.waiting;
	guest->handover.blocking = false;
	pthread_mutex_unlock(&guest->broker->lock);
	/* Resumed already, or going: then its devices are somebody's again, or blocked anyway. */
	if (waiting && !guest->down) {
		DL_FOREACH (guest->devices, device)
			device_block(device, true);
		save_now(guest);
	}
	guest_unref(guest);
	return false;
}

static void tell_waiting(struct broker *broker)
{
	if (broker->tell_handover)
		broker->tell_handover(broker->handover_context);
}

void handover_restore(struct guest *guest, const struct record_guest *record)
{
	const uint64_t latest_ns = clock_boottime_ns() + BROKER_HANDOVER_SECONDS_MAX * SECOND_NS;

	guest->handover.deadline_ns =
		record->handover_ns < latest_ns ? record->handover_ns : latest_ns;
	guest->handover.blocks = record->handover_blocks;
}

bool handover_begin(struct guest *guest)
{
	struct handover *handover = &guest->handover;
	struct broker *broker = guest->broker;

	if (broker->ending || guest->dying || handover->deadline_ns <= clock_boottime_ns())
		return false;
	handover->waiting = true;
	save_later(guest);
	if (handover->blocks && !handover->blocking) {
		handover->blocking = true;
		handover->block = (struct pool_job){.run = block_run, .lane = guest->lane};
		guest_ref(guest);
		pool_submit(broker->pool, &handover->block);
	}
	tell_waiting(broker);
	return true;
}

/* ── over ──────────────────────────────────────────────────────────────────────────────────── */

void broker_on_handover(struct broker *broker, void (*tell)(void *context), void *context)
{
	pthread_mutex_lock(&broker->lock);
	broker->tell_handover = tell;
	broker->handover_context = context;
	pthread_mutex_unlock(&broker->lock);
}

void handover_await_claim(struct session *session)
{
	struct broker *broker = session->broker;

	if (session->pidfd >= 0)
		return;
	session->claim_by_ns = clock_boottime_ns() +
			       broker->policy->settings.delegation_claim_ms * UINT64_C(1000000);
	tell_waiting(broker);
}

static void expire_one(struct guest *guest, uint64_t now_ns, uint64_t *ret)
{
	if (!guest->handover.waiting)
		return;
	if (guest->handover.deadline_ns <= now_ns) {
		guest->handover.waiting = false;
		guest_begin_take_down(guest);
	} else if (guest->handover.deadline_ns < *ret) {
		*ret = guest->handover.deadline_ns;
	}
}

void handover_claims_expire(struct guest *guest)
{
	struct broker *broker = guest->broker;
	struct delegation *delegation;
	bool any = false;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (guest->delegations, delegation) {
		if (delegation->session->pidfd >= 0)
			continue;
		delegation->session->claim_by_ns = 1;
		any = true;
	}
	if (any)
		tell_waiting(broker);
	pthread_mutex_unlock(&broker->lock);
}

static bool awaits_claim(const struct session *session)
{
	return session->delegation && session->pidfd < 0 && !session->closed &&
	       session->claim_by_ns;
}

/* Those that wait no longer than now; the earliest of the others is over at *ret. With the broker's
 * lock held. */
static void expire(struct broker *broker, uint64_t now_ns, uint64_t *ret)
{
	struct session *session;
	struct guest *guest;

	DL_FOREACH (broker->sessions, session) {
		DL_FOREACH2(session->guests, guest, session_next)
		expire_one(guest, now_ns, ret);
		if (awaits_claim(session) && session->claim_by_ns > now_ns &&
		    session->claim_by_ns < *ret)
			*ret = session->claim_by_ns;
	}
}

struct session *broker_unclaimed_session(struct broker *broker)
{
	uint64_t now_ns = clock_boottime_ns();
	struct session *session;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (broker->sessions, session)
		if (awaits_claim(session) && session->claim_by_ns <= now_ns)
			break;
	if (session)
		session_ref(session);
	pthread_mutex_unlock(&broker->lock);
	return session;
}

uint64_t broker_expire_handovers(struct broker *broker)
{
	uint64_t now_ns = clock_boottime_ns(), next_ns = UINT64_MAX;

	pthread_mutex_lock(&broker->lock);
	expire(broker, now_ns, &next_ns);
	pthread_mutex_unlock(&broker->lock);
	return next_ns == UINT64_MAX ? UINT64_MAX : next_ns - now_ns;
}

void handover_give_up(struct broker *broker)
{
	uint64_t next_ns;

	expire(broker, UINT64_MAX, &next_ns);
}

/* ── resumed ───────────────────────────────────────────────────────────────────────────────── */

/* A reference, or NULL. With the broker's lock held. */
static struct guest *find_by_secret(struct broker *broker, const uint8_t *secret)
{
	struct session *session;
	struct guest *guest;

	DL_FOREACH (broker->sessions, session)
		DL_FOREACH2(session->guests, guest, session_next)
	if (secret_equal(guest->secret, secret))
		return guest_ref(guest);
	return NULL;
}

struct pool_lane *broker_lane_of_secret(struct broker *broker, const uint8_t *secret)
{
	struct pool_lane *lane = NULL;
	struct guest *guest;

	pthread_mutex_lock(&broker->lock);
	guest = find_by_secret(broker, secret);
	pthread_mutex_unlock(&broker->lock);
	if (guest)
		lane = pool_lane_ref(guest->lane);
	guest_unref(guest);
	return lane;
}

/* Whether the rules give each of its devices to who resumes it. */
static int check_devices(struct guest *guest, const struct session *session,
			 struct refusal *refusal)
{
	const struct device_client client = {session->tenant_name, session->uid};
	struct policy *policy = policy_get(guest->broker);
	struct device_judgement judgement;
	struct device *device;
	int status = 0;

	DL_FOREACH (guest->devices, device) {
		device_judge(&policy->settings, &client, device->passed, &device->info, &judgement);
		if (judgement.kind == DEVICE_ALLOWED)
			continue;
		status = device_refuse_judgement(&judgement, &client, &device->info, refusal);
		break;
	}
	policy_unref(policy);
	return status;
}

/* The objects that it has, which are found for whose it is. On its lane, with the broker's lock
 * held. */
static void give_objects(struct guest *guest, struct session *session)
{
	struct memory_file *file;
	struct device *device;
	struct nested *nested;

	guest->object.session = session;
	DL_FOREACH (guest->files, file)
		file->object.session = session;
	DL_FOREACH (guest->devices, device)
		device->object.session = session;
	DL_FOREACH (guest->nested, nested)
		nested->object.session = session;
}

/* All that it has, and itself, to another account: or nothing. */
static int move_charges(struct guest *guest, struct session *session, struct refusal *refusal)
{
	const struct ledger_amounts one = {.amount[LEDGER_GUESTS] = 1};
	struct ledger *ledger = &guest->broker->ledger;
	int status = ledger_move(ledger, &guest->account, &one, &session->account,
				 session->tenant_name, refusal);

	if (!status && guest->on_behalf)
		ledger_refund_one(ledger, &guest->session->managed, LEDGER_GUESTS, 1);
	return status;
}

/* It is that session's. *ret_home, *ret_creator: references that it gave up. With the broker's lock
 * held. */
static void give_guest(struct guest *guest, struct session *session, struct session **ret_home,
		       struct session **ret_creator)
{
	struct broker *broker = guest->broker;

	guest->handover = (struct handover){.block = guest->handover.block,
					    .blocking = guest->handover.blocking};
	*ret_home = guest->home;
	*ret_creator = guest->session;
	DL_DELETE2(guest->home->guests, guest, session_prev, session_next);
	DL_APPEND2(session->guests, guest, session_prev, session_next);
	session->users++;
	guest->home = session_ref(session);
	guest->session = session_ref(session);
	give_objects(guest, session);
	session->tenant->refs++;
	tenant_put(broker, guest->tenant);
	guest->tenant = session->tenant;
	guest->on_behalf = false;
	pthread_mutex_lock(&guest->lock);
	guest->pid = guest->owner_pid = session->pid;
	guest->uid = guest->owner_uid = session->uid;
	memcpy(guest->tenant_name, session->tenant_name, sizeof(guest->tenant_name));
	pthread_mutex_unlock(&guest->lock);
	event_ring_set_holder(guest->events, guest->tenant_name, guest->pid, guest->uid);
	guest->take_down.share = session->tenant->share;
	guest_set_limits(guest);
}

/* With the broker's lock held. */
static int check_waiting(const struct guest *guest, const struct session *session,
			 struct refusal *refusal)
{
	if (session->closed)
		return refuse(refusal, REFUSAL_CANCELLED, "SESSION_ENDED", "the session has ended");
	if (guest->dying || guest->down ||
	    (guest->owner_uid != session->uid && guest->uid != session->uid))
		return refuse_not_found(refusal, "guest");
	if (!guest->handover.waiting)
		return refuse(refusal, REFUSAL_PRECONDITION, "GUEST_HELD",
			      "the guest is held by process %d still: it can be resumed once that "
			      "has ended",
			      (int)guest->pid);
	return 0;
}

static int resume(struct guest *guest, struct session *session, struct refusal *refusal)
{
	struct session *home = NULL, *creator = NULL;
	struct broker *broker = guest->broker;
	int status;

	pthread_mutex_lock(&broker->lock);
	status = check_waiting(guest, session, refusal);
	if (!status)
		status = move_charges(guest, session, refusal);
	if (!status)
		give_guest(guest, session, &home, &creator);
	pthread_mutex_unlock(&broker->lock);
	if (status)
		return status;
	session_unref(creator);
	session_leave(home);
	return 0;
}

int guest_resume(struct broker *broker, struct session *session, const uint8_t *secret,
		 uint64_t *ret_guest, struct refusal *refusal)
{
	struct guest *guest;
	int status;

	pthread_mutex_lock(&broker->lock);
	guest = find_by_secret(broker, secret);
	pthread_mutex_unlock(&broker->lock);
	if (!guest)
		return refuse_not_found(refusal, "guest");
	pthread_mutex_lock(&broker->lock);
	status = check_waiting(guest, session, refusal);
	pthread_mutex_unlock(&broker->lock);
	if (!status)
		status = check_devices(guest, session, refusal);
	if (!status)
		status = resume(guest, session, refusal);
	if (!status)
		*ret_guest = guest->object.handle;
	guest_unref(guest);
	return status;
}
