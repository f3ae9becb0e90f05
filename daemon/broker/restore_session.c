/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sessions that a guest's records name, and the guest itself.
 */
#include "broker/restore.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/root.h"

/* The same session can be in the files of several guests: it is known by its secret. */
static struct session *session_known(struct broker *broker, const struct record_session *record)
{
	struct session *session;

	DL_FOREACH (broker->sessions, session)
		if (secret_equal(session->secret, record->secret))
			return session_ref(session);
	return NULL;
}

static bool id_is_taken(const struct broker *broker, uint64_t id)
{
	const struct session *session;

	DL_FOREACH (broker->sessions, session)
		if (session->id == id)
			return true;
	return false;
}

/* With the broker's lock held. */
static struct session *session_new_from(struct restoring *r, const struct record_session *record)
{
	struct broker *broker = r->broker;
	struct session *session;
	bool lives = true;
	struct tenant *tenant =
		tenant_restore(broker, record->tenant_name, record->rule_name, record->tenant_uid);

	if (!tenant)
		return NULL;
	session = session_restore(broker, record, tenant, &lives);
	if (session)
		session->gone = !lives || record->closed;
	else
		tenant_put(broker, tenant);
	return session;
}

/* Whose record is damaged cannot be told, and whoever has an id first keeps it: nobody becomes
 * another, and nobody is left out where sessions are looked at by their ids. */
struct session *restore_session(struct restoring *r, struct record_session *record)
{
	struct broker *broker = r->broker;
	struct session *session;

	pthread_mutex_lock(&broker->lock);
	session = session_known(broker, record);
	if (!session && id_is_taken(broker, record->id))
		restore_plan_renumber(&r->plan, record->id, broker->next_session_id + 1);
	else if (session && session->id != record->id)
		restore_plan_renumber(&r->plan, record->id, session->id);
	if (!session)
		session = session_new_from(r, record);
	pthread_mutex_unlock(&broker->lock);
	return session;
}

/* Of a guest whose creator has ended: what its objects refer to. */
static struct session *session_ended(struct restoring *r)
{
	const struct record_guest *guest = &r->plan.guest;
	struct record_session record = {.id = guest->creator};
	struct session *session;

	memcpy(record.tenant_name, guest->tenant_name, sizeof(record.tenant_name));
	pthread_mutex_lock(&r->broker->lock);
	session = session_restore(r->broker, &record, NULL, NULL);
	pthread_mutex_unlock(&r->broker->lock);
	return session;
}

static struct tenant *tenant_get_back(struct restoring *r)
{
	const struct record_guest *guest = &r->plan.guest;
	struct tenant *tenant;

	pthread_mutex_lock(&r->broker->lock);
	tenant = tenant_restore(r->broker, guest->tenant_name, guest->rule_name, guest->tenant_uid);
	pthread_mutex_unlock(&r->broker->lock);
	return tenant;
}

/* An ended session's guests are charged to their tenant. */
static void adopt_account(struct session *creator, struct tenant *tenant)
{
	if (creator->ended)
		creator->account.parent = &tenant->account;
}

static int guest_build_with(struct restoring *r, struct session *creator, struct session *home)
{
	struct tenant *tenant = creator && home ? tenant_get_back(r) : NULL;

	if (!tenant)
		return restore_fail(r, "no memory");
	adopt_account(creator, tenant);
	r->guest = guest_restore(r->broker, &r->plan.guest, creator, home, tenant);
	return r->guest ? 0 : restore_fail(r, "no memory");
}

static void guest_add_labels(struct restoring *r)
{
	struct guest *guest = r->guest;

	guest->n_labels = r->plan.n_labels;
	for (size_t i = 0; i < guest->n_labels; i++) {
		memcpy(guest->labels[i].key, r->plan.labels[i].key, BROKER_NAME_MAX);
		memcpy(guest->labels[i].value, r->plan.labels[i].value, BROKER_NAME_MAX);
	}
}

static void guest_take_state(struct restoring *r)
{
	struct guest_kept *kept = &r->guest->kept;

	kept->number = r->number;
	kept->numbered = true;
	kept->state = r->state;
	kept->highest_id = r->plan.guest.highest_id;
	r->state = NULL;
	event_ring_keep(r->guest->events, state_word(kept->state, GUEST_WORD_EVENTS));
}

/* One that is not there any more is missed by those who come, not by who came. */
static void listener_build(struct restoring *r, struct session *session,
			   const struct record_session *record)
{
	int fd = record->listener ? restore_fd_take(r, FD_LISTENER, record->listener - 1) : -1;

	if (fd < 0)
		return;
	delegation_restore_listener(session, record->listener - 1, fd);
}

static int delegation_build(struct restoring *r, struct record_session *record)
{
	struct session *session = restore_session(r, record);
	bool fresh = session && !session->delegation;
	int status = session ? 0 : -ENOMEM;

	pthread_mutex_lock(&r->broker->lock);
	if (fresh)
		status = delegation_restore(r->guest, session, record);
	pthread_mutex_unlock(&r->broker->lock);
	if (fresh && !status)
		listener_build(r, session, record);
	session_unref(session);
	return status;
}

/* All have their ids before one names another. */
static int delegations_build(struct restoring *r)
{
	int status = 0;

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; !status && i < r->plan.n_sessions; i++) {
			struct record_session *record = &r->plan.sessions[i];

			if (!record->has_delegation || record->closed)
				continue;
			if (pass)
				status = delegation_build(r, record);
			else
				session_unref(restore_session(r, record));
		}
	}
	return status ? restore_fail(r, "no memory") : 0;
}

static void answers_build(struct restoring *r)
{
	for (size_t i = 0; i < r->plan.n_answers; i++) {
		const struct restore_answer *answer = &r->plan.answers[i];
		struct broker_answer plain = {
			.request_id = answer->record.request_id,
			.method = answer->record.method,
			.code = answer->record.code,
			.bytes = answer->bytes,
			.n_bytes = answer->n_bytes,
		};

		/* One that has ended asks no more, and its number can be another one's. */
		if (!restore_plan_session(&r->plan, answer->record.session))
			continue;
		memcpy(plain.digest, answer->record.digest, sizeof(plain.digest));
		answers_add(&r->guest->kept.answers, answer->record.session, &plain);
	}
}

int restore_guest_itself(struct restoring *r)
{
	const struct record_guest *guest = &r->plan.guest;
	struct record_session *record = restore_plan_session(&r->plan, guest->creator);
	struct session *creator = record ? restore_session(r, record) : session_ended(r), *home;
	int status;

	record = restore_plan_session(&r->plan, guest->home);
	if (!record)
		home = creator ? session_ref(creator) : NULL;
	else
		home = restore_session(r, record);
	status = guest_build_with(r, creator, home);
	session_unref(creator);
	session_unref(home);
	if (status)
		return status;
	guest_add_labels(r);
	guest_take_state(r);
	status = delegations_build(r);
	answers_build(r); /* by the ids that sessions have now */
	return status;
}
