/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/device.h"
#include "broker/guest_record.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "broker/tenant.h"
#include "util/clock.h"
#include "util/crash_point.h"
#include "util/random.h"

static void guest_object_free(struct object *object)
{
	struct guest *guest = (struct guest *)object;

	free(atomic_load(&guest->view));
	region_list_clear(&guest->regions);
	event_ring_unref(guest->events);
	pool_lane_unref(guest->lane);
	pthread_mutex_destroy(&guest->lock);
	explicit_bzero(guest->secret, sizeof(guest->secret));
	session_unref(guest->home);
	session_unref(guest->session);
	free(guest);
}

struct guest *guest_ref(struct guest *guest)
{
	object_ref(&guest->object);
	return guest;
}

struct guest *guest_unref(struct guest *guest)
{
	if (guest)
		object_unref(&guest->object);
	return NULL;
}

struct guest *guest_find(struct broker *broker, struct session *session, uint64_t handle,
			 struct refusal *refusal)
{
	return (struct guest *)handle_find(broker, session, handle, OBJECT_GUEST, refusal);
}

struct pool_lane *broker_lane(struct broker *broker, struct session *session, uint64_t handle)
{
	struct object *object = handle_find_any(broker, session, handle);
	struct pool_lane *lane;

	if (!object)
		return NULL;
	lane = pool_lane_ref(object->guest->lane);
	object_unref(object);
	return lane;
}

bool guest_cancelled(const struct guest *guest, const struct operation *operation)
{
	return guest->dying || (operation && operation->cancelled);
}

int guest_refuse_cancelled(const struct guest *guest, struct refusal *refusal)
{
	if (guest->dying)
		return refuse(refusal, REFUSAL_CANCELLED, "GUEST_ENDS",
			      "the guest is being taken down");
	return refuse(refusal, REFUSAL_CANCELLED, "CANCELLED", "the operation was cancelled");
}

/* ── create ────────────────────────────────────────────────────────────────────────────────── */

void guest_set_limits(struct guest *guest)
{
	const struct tenant *tenant = guest->tenant;
	struct broker *broker = guest->broker;
	struct ledger_limits limits;

	if (tenant->stranger)
		policy_limit_stranger(broker->policy, LIMIT_GUEST, &limits);
	else
		policy_limits(broker->policy, tenant->rule, LIMIT_GUEST, &limits);
	if (guest->asked.pinned_bytes_max)
		ledger_limits_tighten(&limits, LEDGER_PINNED_BYTES, guest->asked.pinned_bytes_max,
				      RULE_GUEST_ASKED);
	if (guest->asked.mappings_max)
		ledger_limits_tighten(&limits, LEDGER_MAPPINGS, guest->asked.mappings_max,
				      RULE_GUEST_ASKED);
	delegation_limit(guest, &limits);
	ledger_account_set_limits(&broker->ledger, &guest->account, &limits);
	rates_set_limits(
		&broker->rates, &guest->rates, &broker->policy->settings.limits[LIMIT_GUEST],
		tenant->rule ? &tenant->rule->limits[LIMIT_GUEST] : NULL, clock_monotonic_ns());
}

static bool take_down_run(struct pool_job *job)
{
	struct guest *guest = (struct guest *)((char *)job - offsetof(struct guest, take_down));

	guest_take_down(guest);
	return false;
}

static void guest_set_identity(struct guest *guest, const struct guest_create_request *request)
{
	guest->has_uuid = request->has_uuid;
	memcpy(guest->uuid, request->uuid, sizeof(guest->uuid));
	memcpy(guest->name, request->name, sizeof(guest->name));
	guest->name[sizeof(guest->name) - 1] = '\0';
	guest->n_labels =
		request->n_labels < BROKER_LABELS_MAX ? request->n_labels : BROKER_LABELS_MAX;
	memcpy(guest->labels, request->labels, guest->n_labels * sizeof(guest->labels[0]));
}

static struct memory_view *memory_view_empty(uint64_t generation)
{
	struct memory_view *view = calloc(1, sizeof(*view));

	if (view)
		view->generation = generation;
	return view;
}

/* Whose it is: its creator's, or the process' that a manager creates it for. */
static void guest_set_owner(struct guest *guest, const struct peer *on_behalf_of)
{
	struct session *session = guest->session;
	struct ledger_account *parent = on_behalf_of ? &guest->tenant->account : &session->account;

	guest->on_behalf = on_behalf_of != NULL;
	guest->pid = guest->owner_pid = on_behalf_of ? on_behalf_of->pid : session->pid;
	guest->uid = guest->owner_uid = on_behalf_of ? on_behalf_of->uid : session->uid;
	memcpy(guest->tenant_name, guest->tenant->name, sizeof(guest->tenant_name));
	ledger_account_init(&guest->account, parent, LIMIT_GUEST, guest->tenant_name);
	rates_open_guest(&guest->rates, guest->tenant_name);
}

/* tenant: the caller's reference, taken over when the guest was made. */
static struct guest *guest_alloc(struct broker *broker, struct session *session,
				 struct tenant *tenant, const struct guest_create_request *request)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	if (!guest)
		return NULL;
	object_init(&guest->object, OBJECT_GUEST, session, guest, guest_object_free);
	pthread_mutex_init(&guest->lock, NULL);
	guest->broker = broker;
	guest->session = session_ref(session);
	guest->home = session_ref(session);
	guest->tenant = tenant;
	guest->generation = 1;
	guest->lane = pool_lane_new();
	atomic_init(&guest->view, memory_view_empty(guest->generation));
	guest_set_identity(guest, request);
	guest_set_owner(guest, request->on_behalf_of);
	guest->asked.pinned_bytes_max = request->pinned_bytes_max;
	guest->asked.mappings_max = request->mappings_max;
	guest->take_down = (struct pool_job){
		.run = take_down_run,
		.lane = guest->lane,
		.share = tenant->share,
	};
	if (guest->lane && guest_view(guest))
		return guest;
	return guest_unref(guest);
}

static uint32_t event_slots_wanted(struct guest *guest)
{
	struct broker *broker = guest->broker;
	struct ledger_limits limits;

	pthread_mutex_lock(&broker->lock);
	policy_limits(broker->policy, guest->tenant->rule, LIMIT_GUEST, &limits);
	pthread_mutex_unlock(&broker->lock);
	return policy_event_slots(&limits);
}

/* Operators are told who created it. */
static void guest_observe(struct guest *guest)
{
	event_ring_observe(
		guest->events, &guest->broker->observer,
		&(struct event_subject){guest->name, guest->tenant_name, guest->pid, guest->uid});
}

static int guest_make_events(struct guest *guest, struct refusal *refusal)
{
	uint32_t n = event_slots_wanted(guest);

	if (ledger_charge_one(&guest->broker->ledger, &guest->account, LEDGER_EVENT_SLOTS, n,
			      refusal))
		return REFUSED;
	guest->event_slots = n;
	guest->events = event_ring_new(n);
	if (!guest->events)
		return refuse_errno(refusal, ENOMEM, "the guest's events");
	guest_observe(guest);
	return 0;
}

uint64_t guest_tell_high(struct ledger_account *account, const struct quota_high *high)
{
	struct guest *guest = (struct guest *)((char *)account - offsetof(struct guest, account));
	const struct event event = {
		.kind = EVENT_QUOTA_HIGH,
		.guest = guest->object.handle,
		.resource = high->resource,
		.level = high->level,
		.used = high->used,
		.high = high->high,
	};

	if (guest->events)
		event_post(guest->events, &event);
	return guest->object.handle;
}

void guest_refund_events(struct guest *guest)
{
	ledger_refund_one(&guest->broker->ledger, &guest->account, LEDGER_EVENT_SLOTS,
			  guest->event_slots);
	guest->event_slots = 0;
}

/* From here on the session's end takes it down. Draining is looked at under the lock that guests
 * are counted with: whoever was told that none is left sees none come. */
static int guest_publish(struct guest *guest, struct refusal *refusal)
{
	struct session *session = guest->session;
	int status = handle_publish(guest->broker, &guest->object, refusal);

	if (status)
		return status;
	pthread_mutex_lock(&guest->broker->lock);
	if (session->closed)
		status = refuse(refusal, REFUSAL_CANCELLED, "SESSION_ENDED",
				"the session has ended");
	else
		status = broker_refuse_draining(guest->broker, refusal);
	if (!status) {
		guest_set_limits(guest);
		DL_APPEND2(session->guests, guest, session_prev, session_next);
	}
	pthread_mutex_unlock(&guest->broker->lock);
	if (status)
		handle_withdraw(guest->broker, &guest->object);
	return status;
}

static int guest_make(struct guest *guest, struct refusal *refusal)
{
	int status = random_bytes(guest->secret, sizeof(guest->secret));
	int error;

	if (status)
		return status;
	error = broker_ops(guest->broker)->context_new(guest->broker->backend, &guest->context);
	if (error)
		return refuse_errno(refusal, error, "a context of the IOMMU");
	CRASH_POINT(CONTEXT_MADE);
	status = save_begin(guest, refusal);
	if (!status)
		status = parent_new(guest, refusal);
	if (!status) {
		CRASH_POINT(PARENT_MADE);
		event_ring_keep(guest->events, state_word(guest->kept.state, GUEST_WORD_EVENTS));
		status = guest_publish(guest, refusal);
	}
	CRASH_POINT(GUEST_LISTED);
	if (!status)
		return 0;
	parent_destroy(guest);
	event_ring_keep(guest->events, NULL);
	save_end(guest);
	guest->context = broker_ops(guest->broker)->context_free(guest->context);
	return status;
}

/* Whose rule is missing is not the caller's: say so, and by which process it was looked for. */
static int refuse_behalf(const struct peer *on_behalf_of, struct refusal *refusal)
{
	char message[sizeof(refusal->message)];

	memcpy(message, refusal->message, sizeof(message));
	snprintf(refusal->message, sizeof(refusal->message),
		 "on behalf of process %d, user %lu: %.190s", (int)on_behalf_of->pid,
		 (unsigned long)on_behalf_of->uid, message);
	return REFUSED;
}

/* ── of a process before this one ──────────────────────────────────────────────────────────── */

static void guest_take_over(struct guest *guest, const struct record_guest *record)
{
	struct ledger *ledger = &guest->broker->ledger;
	struct ledger_amounts one = {.amount[LEDGER_GUESTS] = 1};
	struct ledger_amounts slots = {.amount[LEDGER_EVENT_SLOTS] = record->event_slots};

	if (record->on_behalf)
		ledger_take_over(ledger, &guest->session->managed, &one);
	ledger_take_over(ledger,
			 record->on_behalf ? &guest->tenant->account : &guest->session->account,
			 &one);
	ledger_take_over(ledger, &guest->account, &slots);
	guest->event_slots = record->event_slots;
}

static void guest_go_home(struct guest *guest, struct session *home)
{
	pthread_mutex_lock(&guest->broker->lock);
	session_unref(guest->home); /* its creator, which it refers to anyway */
	guest->home = session_ref(home);
	handover_await_claim(home);
	home->users++;
	DL_APPEND2(home->guests, guest, session_prev, session_next);
	pthread_mutex_unlock(&guest->broker->lock);
}

static void request_of(const struct record_guest *record, const struct peer *peer,
		       struct guest_create_request *ret)
{
	*ret = (struct guest_create_request){
		.has_uuid = record->has_uuid,
		.pinned_bytes_max = record->pinned_bytes_max,
		.mappings_max = record->mappings_max,
		.on_behalf_of = record->on_behalf ? peer : NULL,
	};
	memcpy(ret->uuid, record->uuid, sizeof(ret->uuid));
	memcpy(ret->name, record->name, sizeof(ret->name));
}

struct guest *guest_restore(struct broker *broker, const struct record_guest *record,
			    struct session *creator, struct session *home,
			    struct tenant *consume_tenant)
{
	const struct peer peer = {.pid = record->pid, .uid = record->uid};
	struct guest_create_request request;
	struct event_ring *events = event_ring_new(record->event_slots);
	struct guest *guest;

	request_of(record, &peer, &request);
	guest = events ? guest_alloc(broker, creator, consume_tenant, &request) : NULL;
	if (!guest) {
		event_ring_unref(events);
		broker_tenant_unref(broker, consume_tenant);
		return NULL;
	}
	memcpy(guest->secret, record->secret, sizeof(guest->secret));
	guest->pid = record->pid;
	guest->uid = record->uid;
	guest->owner_pid = record->has_owner ? record->owner_pid : record->pid;
	guest->owner_uid = record->has_owner ? record->owner_uid : record->uid;
	handover_restore(guest, record);
	guest->events = events;
	guest_observe(guest);
	guest_take_over(guest, record);
	guest_go_home(guest, home);
	return guest;
}

/* With a reference. */
static int guest_find_tenant(struct broker *broker, struct session *session,
			     const struct peer *on_behalf_of, struct tenant **ret,
			     struct refusal *refusal)
{
	int status = 0;

	pthread_mutex_lock(&broker->lock);
	if (!on_behalf_of) {
		*ret = session->tenant;
		session->tenant->refs++;
	} else if (!session_is_manager(session)) {
		status = refuse(refusal, REFUSAL_DENIED, "NOT_A_MANAGER",
				"no rule with Manager=yes is for this process: it may create "
				"guests for itself only");
	}
	pthread_mutex_unlock(&broker->lock);
	if (!status && on_behalf_of)
		status = tenant_get(broker, on_behalf_of, ret, refusal)
				 ? refuse_behalf(on_behalf_of, refusal)
				 : 0;
	return status;
}

/* One that is on behalf of another is counted at that one's tenant; and at its creator, which may
 * not have more of them than of its own. */
static int guest_count(struct broker *broker, struct session *session, struct tenant *tenant,
		       bool on_behalf, struct refusal *refusal)
{
	struct ledger *ledger = &broker->ledger;
	int status;

	if (!on_behalf)
		return ledger_charge_one(ledger, &session->account, LEDGER_GUESTS, 1, refusal);
	status = ledger_charge_one(ledger, &session->managed, LEDGER_GUESTS, 1, refusal);
	if (status)
		return status;
	status = ledger_charge_one(ledger, &tenant->account, LEDGER_GUESTS, 1, refusal);
	if (status)
		ledger_refund_one(ledger, &session->managed, LEDGER_GUESTS, 1);
	return status;
}

static void uncount(struct broker *broker, struct session *session, struct tenant *tenant,
		    bool on_behalf)
{
	struct ledger *ledger = &broker->ledger;

	ledger_refund_one(ledger, on_behalf ? &tenant->account : &session->account, LEDGER_GUESTS,
			  1);
	if (on_behalf)
		ledger_refund_one(ledger, &session->managed, LEDGER_GUESTS, 1);
}

void guest_uncount(struct guest *guest)
{
	struct broker *broker = guest->broker;
	struct tenant *tenant = guest->tenant;

	uncount(broker, guest->session, tenant, guest->on_behalf);
	pthread_mutex_lock(&broker->lock); /* who lists guests, or leaves one, looks at it */
	guest->tenant = NULL;
	tenant_put(broker, tenant);
	pthread_mutex_unlock(&broker->lock);
}

static int guest_create_charged(struct broker *broker, struct session *session,
				struct tenant *tenant, const struct guest_create_request *request,
				uint64_t *ret_guest, uint8_t ret_secret[BROKER_SECRET_BYTES],
				struct refusal *refusal)
{
	struct guest *guest = guest_alloc(broker, session, tenant, request);
	int status;

	if (!guest)
		return refuse_errno(refusal, ENOMEM, "guest");
	guest_ref(guest); /* ours: once it is published it can be taken down */
	status = guest_make_events(guest, refusal);
	if (!status)
		status = guest_make(guest, refusal);
	if (status) {
		guest_refund_events(guest);
		guest_unref(guest);
	} else {
		memcpy(ret_secret, guest->secret, BROKER_SECRET_BYTES);
		*ret_guest = guest->object.handle;
	}
	guest_unref(guest);
	return status;
}

int guest_create(struct broker *broker, struct session *session,
		 const struct guest_create_request *request, uint64_t *ret_guest,
		 uint8_t ret_secret[BROKER_SECRET_BYTES], struct refusal *refusal)
{
	bool on_behalf = request->on_behalf_of;
	struct tenant *tenant = NULL;
	int status;

	if (broker_refuse_draining(broker, refusal) || session_enter(session, refusal))
		return REFUSED;
	status = guest_find_tenant(broker, session, request->on_behalf_of, &tenant, refusal);
	if (!status)
		status = guest_count(broker, session, tenant, on_behalf, refusal);
	if (!status) {
		status = guest_create_charged(broker, session, tenant, request, ret_guest,
					      ret_secret, refusal);
		if (status)
			uncount(broker, session, tenant, on_behalf);
	}
	if (status)
		broker_tenant_unref(broker, tenant);
	/* A guest that was made stays counted until it was taken down. */
	if (status)
		session_leave(session_ref(session));
	return status;
}

/* ── end ───────────────────────────────────────────────────────────────────────────────────── */

void guest_begin_take_down(struct guest *guest)
{
	if (atomic_load(&guest->broker->leaving) || atomic_exchange(&guest->dying, true))
		return;
	guest_ref(guest);
	pool_submit(guest->broker->pool, &guest->take_down);
}

static void guest_move(struct guest *guest, struct session *heir)
{
	struct session *old = guest->home;

	DL_DELETE2(old->guests, guest, session_prev, session_next);
	old->users--; /* not the last one: see guest_lose_home() */
	DL_APPEND2(heir->guests, guest, session_prev, session_next);
	heir->users++;
	guest->home = session_ref(heir);
	handover_await_claim(heir);
	CRASH_POINT(HOME_LOST);
	save_later(guest);
	session_unref(old); /* not the last one either: the creator is guest->session as well */
}

void guest_lose_home(struct guest *guest)
{
	struct session *heir = guest->dying ? NULL : delegation_heir(guest);

	if (heir)
		guest_move(guest, heir);
	else if (!handover_begin(guest))
		guest_begin_take_down(guest);
}

int guest_destroy(struct broker *broker, struct session *session, uint64_t handle,
		  struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, session, handle, refusal);

	if (!guest)
		return REFUSED;
	guest_take_down(guest);
	return 0;
}

int guest_reset(struct broker *broker, struct session *session, uint64_t handle,
		uint32_t *ret_nested_destroyed, struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, session, handle, refusal);
	struct nested *nested, *next;
	struct device *device;
	uint32_t destroyed = 0;

	if (!guest)
		return REFUSED;
	if (delegation_refuse_part(session, refusal)) {
		guest_unref(guest);
		return REFUSED;
	}
	DL_FOREACH (guest->devices, device) {
		device_block(device, true);
		CRASH_POINT(RESET_BLOCKED);
		relaxed_leave(guest, &device->relaxed);
	}
	DL_FOREACH_SAFE(guest->nested, nested, next)
	{
		nested_drop(nested);
		CRASH_POINT(RESET_DROPPED);
		destroyed++;
	}
	guest_unref(guest);
	*ret_nested_destroyed = destroyed;
	return 0;
}
