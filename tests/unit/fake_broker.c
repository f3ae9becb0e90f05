/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_broker.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "broker/tenant_explain.h"
#include "util/clock.h"
#include "util/fd.h"
#include "util/random.h"

#define HANDLES 99

struct fake_broker fake;

struct broker {
	struct pool *pool;
	struct pool_lane *lane;
	pthread_mutex_t lock;
	LIST_HEAD(, session) sessions;
	LIST_HEAD(, event_watch) watches;
	uint64_t next_id;
};

struct session {
	LIST_ENTRY(session) place;
	_Atomic uint32_t refs;
	struct broker *broker;
	struct pool_share *share;
	uint64_t id;
	int pidfd;
	pid_t pid;
	uint8_t secret[BROKER_SECRET_BYTES];
	bool closed;
};

static struct broker *only;

struct broker *fake_broker_new(void)
{
	struct broker *broker = calloc(1, sizeof(*broker));

	if (pool_new(&broker->pool, 4))
		abort();
	broker->lane = pool_lane_new();
	pthread_mutex_init(&broker->lock, NULL);
	LIST_INIT(&broker->sessions);
	LIST_INIT(&broker->watches);
	memset(&fake, 0, sizeof(fake));
	only = broker;
	return broker;
}

struct broker *broker_free(struct broker *broker)
{
	pool_free(broker->pool);
	pool_lane_unref(broker->lane);
	pthread_mutex_destroy(&broker->lock);
	free(broker);
	return NULL;
}

struct pool *broker_pool(struct broker *broker)
{
	return broker->pool;
}

uint32_t broker_state_version(const struct broker *broker)
{
	(void)broker;
	return 0;
}

const char *broker_backend_name(struct broker *broker)
{
	(void)broker;
	return "fake";
}

void broker_features(struct broker *broker, struct iommu_features *ret)
{
	(void)broker;
	*ret = (struct iommu_features){.map_file = true, .cut = true};
}

/* ── sessions ─────────────────────────────────────────────────────────────────────────────── */

int session_new(struct session **ret, struct broker *broker, const struct peer *peer,
		const char *name, uint8_t ret_secret[BROKER_SECRET_BYTES], struct refusal *refusal)
{
	struct session *session = calloc(1, sizeof(*session));
	struct pool_share *share = session ? pool_share_new(FAKE_SHARE) : NULL;

	(void)name;
	if (!share || random_bytes(session->secret, sizeof(session->secret))) {
		free(session);
		return refuse_errno(refusal, ENOMEM, "opening a session");
	}
	session->refs = 2; /* the caller's, and until it is closed */
	session->broker = broker;
	session->share = share;
	session->pidfd = fd_duplicate(peer->pidfd);
	session->pid = peer->pid;
	memcpy(ret_secret, session->secret, sizeof(session->secret));
	pthread_mutex_lock(&broker->lock);
	session->id = ++broker->next_id;
	LIST_INSERT_HEAD(&broker->sessions, session, place);
	pthread_mutex_unlock(&broker->lock);
	fake.sessions++;
	*ret = session;
	return 0;
}

int session_find(struct session **ret, struct broker *broker, const struct peer *peer,
		 const uint8_t *secret, size_t secret_bytes, struct refusal *refusal)
{
	struct session *session;
	bool found = false;

	pthread_mutex_lock(&broker->lock);
	LIST_FOREACH (session, &broker->sessions, place) {
		found = secret_bytes == BROKER_SECRET_BYTES &&
			(session->pid == peer->pid || !session->pid) &&
			!memcmp(session->secret, secret, secret_bytes);
		if (found)
			break;
	}
	if (found)
		*ret = session_ref(session);
	pthread_mutex_unlock(&broker->lock);
	return found ? 0 : refuse(refusal, REFUSAL_UNAUTHENTICATED, "NO_SESSION", "no session");
}

struct session *session_ref(struct session *session)
{
	session->refs++;
	return session;
}

struct session *session_unref(struct session *session)
{
	if (!session || --session->refs)
		return NULL;
	pool_share_unref(session->share);
	fd_close(session->pidfd);
	free(session);
	fake.sessions--;
	return NULL;
}

const char *session_tenant(struct session *session)
{
	(void)session;
	return "tenant-a";
}

unsigned int session_rights(struct session *session)
{
	(void)session;
	return ~fake.rights_lacking;
}

void session_secret(struct session *session, uint8_t ret[BROKER_SECRET_BYTES])
{
	memcpy(ret, session->secret, BROKER_SECRET_BYTES);
}

struct pool_share *session_share(struct session *session)
{
	return session->share;
}

uint64_t session_id(struct session *session)
{
	return session->id;
}

int session_pidfd(struct session *session)
{
	return session->pidfd;
}

void session_peer(struct session *session, struct peer *ret)
{
	*ret = (struct peer){.pid = session->pid, .pidfd = session->pidfd};
}

struct session *broker_next_session(struct broker *broker, uint64_t after)
{
	struct session *session, *next = NULL;

	pthread_mutex_lock(&broker->lock);
	LIST_FOREACH (session, &broker->sessions, place)
		if (session->id > after && (!next || session->id < next->id))
			next = session;
	if (next)
		session_ref(next);
	pthread_mutex_unlock(&broker->lock);
	return next;
}

void session_close(struct session *session, void (*done)(void *context), void *context)
{
	bool first;

	pthread_mutex_lock(&session->broker->lock);
	first = !session->closed;
	session->closed = true;
	if (first)
		LIST_REMOVE(session, place);
	pthread_mutex_unlock(&session->broker->lock);
	if (done)
		done(context);
	if (first) {
		fake.closed++;
		session_unref(session);
	}
}

struct pool_lane *broker_lane(struct broker *broker, struct session *session, uint64_t handle)
{
	(void)session;
	fake.n_lanes++;
	return handle && handle <= HANDLES && handle != FAKE_NO_LANE ? pool_lane_ref(broker->lane)
								     : NULL;
}

int fake_known(uint64_t handle, const char *what, struct refusal *refusal)
{
	return handle && handle <= HANDLES ? 0 : refuse_not_found(refusal, what);
}

/* ── guests ───────────────────────────────────────────────────────────────────────────────── */

int guest_create(struct broker *broker, struct session *session,
		 const struct guest_create_request *request, uint64_t *ret_guest,
		 uint8_t ret_secret[BROKER_SECRET_BYTES], struct refusal *refusal)
{
	(void)broker;
	(void)session;
	fake.creates++;
	fake.create = *request;
	if (fake.broken_status)
		return fake.broken_status;
	if (fake.refuse_creates) {
		*refusal = fake.refusal;
		return REFUSED;
	}
	*ret_guest = fake.creates;
	memset(ret_secret, 0x5a, BROKER_SECRET_BYTES);
	return 0;
}

int guest_reset(struct broker *broker, struct session *session, uint64_t guest,
		uint32_t *ret_nested_destroyed, struct refusal *refusal)
{
	int status = fake_known(guest, "guest", refusal);

	(void)broker;
	(void)session;
	if (!status)
		*ret_nested_destroyed = 3;
	return status;
}

int guest_destroy(struct broker *broker, struct session *session, uint64_t guest,
		  struct refusal *refusal)
{
	(void)broker;
	(void)session;
	return fake_known(guest, "guest", refusal);
}

/* Two guests of one name, and one of its own. */
int guest_list(struct broker *broker, struct session *session, struct guest_summary *ret, size_t n,
	       size_t *ret_n, struct refusal *refusal)
{
	(void)broker;
	(void)session;
	(void)refusal;
	for (size_t i = 0; i < 3 && i < n; i++) {
		ret[i] = (struct guest_summary){
			.guest = i + 1, .pid = 10, .uid = 20, .pinned = true};
		strcpy(ret[i].name, i < 2 ? "twin" : "single");
		strcpy(ret[i].tenant, "tenant-a");
		ret[i].has_uuid = i == 1;
		memset(ret[i].uuid, 0xab, sizeof(ret[i].uuid));
	}
	*ret_n = 3;
	return 0;
}

int guest_describe(struct broker *broker, struct session *session, uint64_t guest,
		   struct guest_description **ret, struct refusal *refusal)
{
	struct guest_description *description;
	int status = fake_known(guest, "guest", refusal);

	fake.described_by = pthread_self();
	(void)broker;
	(void)session;
	if (status)
		return status;
	description = calloc(1, sizeof(*description));
	if (!description)
		return refuse_errno(refusal, ENOMEM, "describing");
	description->memory_files = calloc(1, sizeof(*description->memory_files));
	description->regions = calloc(2, sizeof(*description->regions));
	description->devices = calloc(1, sizeof(*description->devices));
	description->nested = calloc(1, sizeof(*description->nested));
	if (!description->memory_files || !description->regions || !description->devices ||
	    !description->nested) {
		guest_description_free(description);
		return refuse_errno(refusal, ENOMEM, "describing");
	}
	description->summary.guest = guest;
	strcpy(description->summary.name, "described");
	description->n_labels = 1;
	strcpy(description->labels[0].key, "key");
	strcpy(description->labels[0].value, "value");
	description->n_memory_files = 1;
	description->n_regions = 2;
	description->n_devices = description->n_nested = 1;
	description->memory_files[0].memory_file = 11;
	description->regions[0].gpa = 0x1000;
	description->regions[0].length_bytes = 0x1000;
	description->regions[1].gpa = 0x5000;
	description->regions[1].length_bytes = 0x1000;
	description->devices[0].info.has_fid = true;
	description->devices[0].info.fid = 0x12;
	description->devices[0].attachment = ATTACHMENT_NESTED;
	description->devices[0].nested = 44;
	description->nested[0].format = NESTED_RELAXED;
	*ret = description;
	return 0;
}

struct guest_description *guest_description_free(struct guest_description *description)
{
	if (!description)
		return NULL;
	free(description->memory_files);
	free(description->regions);
	free(description->devices);
	free(description->nested);
	free(description);
	return NULL;
}

/* ── events ───────────────────────────────────────────────────────────────────────────────── */

struct event_watch {
	LIST_ENTRY(event_watch) place;
	struct broker *broker;
	void (*wake)(void *context);
	void *context;
	uint64_t next, emitted; /* sequence numbers; events are not kept, but made when read */
	bool gone;
};

int event_watch_new(struct event_watch **ret, struct broker *broker, struct session *session,
		    uint64_t guest, uint64_t since, void (*wake)(void *context), void *context,
		    struct refusal *refusal)
{
	struct event_watch *watch;
	int status = fake_known(guest, "guest", refusal);

	(void)session;
	if (status)
		return status;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return refuse_errno(refusal, ENOMEM, "watching");
	*watch = (struct event_watch){.broker = broker, .wake = wake, .context = context};
	watch->next = watch->emitted = since;
	pthread_mutex_lock(&broker->lock);
	LIST_INSERT_HEAD(&broker->watches, watch, place);
	pthread_mutex_unlock(&broker->lock);
	fake.watches++;
	*ret = watch;
	return 0;
}

int event_watch_next(struct event_watch *watch, struct event *ret)
{
	int answer = 0;

	pthread_mutex_lock(&watch->broker->lock);
	if (watch->next < watch->emitted) {
		*ret = (struct event){
			.sequence = ++watch->next, .kind = EVENT_TRANSLATION_ERROR, .guest = 1};
		ret->fault.code = S390_PEC_TT;
		answer = 1;
	} else if (watch->gone) {
		answer = -1;
	}
	pthread_mutex_unlock(&watch->broker->lock);
	return answer;
}

struct event_watch *event_watch_free(struct event_watch *watch)
{
	if (!watch)
		return NULL;
	pthread_mutex_lock(&watch->broker->lock);
	LIST_REMOVE(watch, place);
	pthread_mutex_unlock(&watch->broker->lock);
	free(watch);
	fake.watches--;
	return NULL;
}

void fake_event_emit(uint64_t n)
{
	struct event_watch *watch;

	pthread_mutex_lock(&only->lock);
	LIST_FOREACH (watch, &only->watches, place) {
		watch->emitted += n;
		watch->wake(watch->context);
	}
	pthread_mutex_unlock(&only->lock);
}

void fake_guest_gone(void)
{
	struct event_watch *watch;

	pthread_mutex_lock(&only->lock);
	LIST_FOREACH (watch, &only->watches, place) {
		watch->gone = true;
		watch->wake(watch->context);
	}
	pthread_mutex_unlock(&only->lock);
}

/* ── ledger ───────────────────────────────────────────────────────────────────────────────── */

const char *ledger_resource_name(enum ledger_resource resource)
{
	return resource == LEDGER_PINNED_BYTES ? "pinned_bytes" : "other";
}

int usage_report(struct broker *broker, struct session *session, struct usage_report *ret,
		 struct refusal *refusal)
{
	(void)broker;
	(void)refusal;
	memset(ret, 0, sizeof(*ret));
	strcpy(ret->tenant, session ? "tenant-a" : "host");
	ret->usage[LEDGER_PINNED_BYTES].current = 42;
	return 0;
}

int usage_page(struct broker *broker, const char *after, struct usage_report *ret, size_t n,
	       size_t *ret_n, bool *ret_more, struct refusal *refusal)
{
	(void)after;
	*ret_more = false;
	return usage_list(broker, ret, n, ret_n, refusal);
}

void usage_past(struct broker *broker, struct usage_past *ret)
{
	(void)broker;
	*ret = (struct usage_past){0};
}

int usage_list(struct broker *broker, struct usage_report *ret, size_t n, size_t *ret_n,
	       struct refusal *refusal)
{
	*ret_n = 1;
	if (!n)
		return 0;
	usage_report(broker, NULL, ret, refusal);
	strcpy(ret->tenant, "tenant-a");
	return 0;
}

int broker_explain_tenant(struct tenant_explanation **ret, struct broker *broker,
			  const struct tenant_identity *identity, unsigned int known,
			  struct refusal *refusal)
{
	(void)broker;
	(void)identity;
	(void)known;
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : refuse_errno(refusal, ENOMEM, "explaining");
}

int check_fit(struct broker *broker, struct session *session, const struct fit_request *request,
	      struct fit_missing *ret, size_t *ret_n, struct refusal *refusal)
{
	(void)broker;
	(void)session;
	(void)refusal;
	*ret_n = 0;
	if (request->pinned_bytes > 100)
		ret[(*ret_n)++] = (struct fit_missing){.resource = LEDGER_PINNED_BYTES,
						       .limit = 100,
						       .requested = request->pinned_bytes,
						       .rule = "file:1"};
	return 0;
}

int check_fit_tenant(struct broker *broker, const char *tenant, const struct fit_request *request,
		     struct fit_missing *ret, size_t *ret_n, struct refusal *refusal)
{
	(void)tenant;
	return check_fit(broker, NULL, request, ret, ret_n, refusal);
}

int quota_list(struct broker *broker, const char *tenant, struct quota_report **ret, size_t *ret_n,
	       struct refusal *refusal)
{
	(void)broker;
	(void)tenant;
	(void)ret;
	(void)ret_n;
	return refuse_not_found(refusal, "tenant");
}

void broker_on_quota_high(struct broker *broker,
			  void (*tell)(void *context, const struct quota_high *high), void *context)
{
	(void)broker;
	(void)tell;
	(void)context;
}

const char *limit_level_name(enum limit_level level)
{
	return level == LIMIT_HOST ? "host" : "other";
}

void broker_set_observer(struct broker *broker,
			 void (*observe)(void *context, const struct event *event,
					 const struct event_subject *subject),
			 void *context)
{
	(void)broker;
	(void)observe;
	(void)context;
}

void broker_status(struct broker *broker, struct broker_status *ret)
{
	(void)broker;
	*ret = (struct broker_status){.sessions = fake.sessions};
}

bool delegation_is_claimed(struct session *session)
{
	(void)session;
	return false;
}

int delegation_listener(struct session *session)
{
	(void)session;
	return -1;
}

void broker_store_report(struct broker *broker, struct store_report *ret)
{
	(void)broker;
	*ret = (struct store_report){0};
}

/* ── who is charged ───────────────────────────────────────────────────────────────────────── */

struct tenant {
	LIST_ENTRY(tenant) place;
	uid_t uid;
	uint32_t refs;
	uint64_t used[LEDGER_RESOURCES];
};

static LIST_HEAD(, tenant) tenants = LIST_HEAD_INITIALIZER(tenants);
static pthread_mutex_t tenants_lock = PTHREAD_MUTEX_INITIALIZER;

static struct tenant *tenant_of_user(uid_t uid)
{
	struct tenant *tenant;

	LIST_FOREACH (tenant, &tenants, place)
		if (tenant->uid == uid)
			return tenant;
	tenant = calloc(1, sizeof(*tenant));
	if (!tenant)
		return NULL;
	tenant->uid = uid;
	LIST_INSERT_HEAD(&tenants, tenant, place);
	fake.tenants++;
	return tenant;
}

int broker_tenant_find(struct tenant **ret, struct broker *broker, const struct peer *peer,
		       struct refusal *refusal)
{
	struct tenant *tenant;

	(void)broker;
	if (fake.ruleless && peer->uid == fake.ruleless)
		return refuse(refusal, REFUSAL_DENIED, "NO_TENANT_RULE", "no rule for user %u",
			      (unsigned int)peer->uid);
	pthread_mutex_lock(&tenants_lock);
	tenant = tenant_of_user(peer->uid);
	if (tenant)
		tenant->refs++;
	pthread_mutex_unlock(&tenants_lock);
	if (!tenant)
		return refuse_errno(refusal, ENOMEM, "connection");
	*ret = tenant;
	return 0;
}

struct tenant *broker_tenant_unref(struct broker *broker, struct tenant *tenant)
{
	(void)broker;
	pthread_mutex_lock(&tenants_lock);
	if (tenant && !--tenant->refs) {
		LIST_REMOVE(tenant, place);
		free(tenant);
		fake.tenants--;
	}
	pthread_mutex_unlock(&tenants_lock);
	return NULL;
}

struct tenant *broker_tenant_ref(struct broker *broker, struct tenant *tenant)
{
	(void)broker;
	pthread_mutex_lock(&tenants_lock);
	tenant->refs++;
	pthread_mutex_unlock(&tenants_lock);
	return tenant;
}

/* Delegations are the real broker's: here none can be made. */
struct tenant *broker_tenant_of(struct broker *broker, struct session *session)
{
	(void)broker;
	(void)session;
	return NULL;
}

int delegation_new(struct session **ret, struct broker *broker, struct session *delegator,
		   const struct delegation_request *request, uint64_t *ret_delegation,
		   struct refusal *refusal)
{
	(void)ret;
	(void)broker;
	(void)delegator;
	(void)request;
	(void)ret_delegation;
	return refuse_not_found(refusal, "guest");
}

int delegation_bind(struct session *session, const struct peer *peer, struct refusal *refusal)
{
	if (session->pid)
		return refuse_not_found(refusal, "delegation");
	session->pid = peer->pid;
	return 0;
}

int delegation_find(struct session **ret, struct broker *broker, struct session *delegator,
		    uint64_t delegation, struct refusal *refusal)
{
	(void)ret;
	(void)broker;
	(void)delegator;
	(void)delegation;
	return refuse_not_found(refusal, "delegation");
}

void delegation_tell_revoked(struct session *session)
{
	(void)session;
}

int broker_charge(struct broker *broker, struct tenant *tenant, enum ledger_resource resource,
		  uint64_t amount, struct refusal *refusal)
{
	uint64_t max = fake.max[resource];
	bool full;

	(void)broker;
	pthread_mutex_lock(&tenants_lock);
	full = max && (tenant ? tenant->used[resource] : fake.used[resource]) + amount > max;
	if (!full && tenant)
		tenant->used[resource] += amount;
	if (!full)
		fake.used[resource] += amount;
	pthread_mutex_unlock(&tenants_lock);
	return full ? refuse_quota(refusal, "fake", max, max, amount, "tenant-a", "file:7") : 0;
}

bool broker_rate_limited(const struct broker *broker, const struct tenant *tenant,
			 const struct rate_request *request)
{
	(void)broker;
	(void)tenant;
	return fake.rates[request->kind].tokens && !request->guest_only;
}

/* So many tokens; each one more than those waits a step longer, at most as long as is allowed. */
int broker_rate_take(struct broker *broker, struct tenant *tenant,
		     const struct rate_request *request, uint64_t *ret_wait_ns,
		     struct refusal *refusal)
{
	struct fake_rate *rate = &fake.rates[request->kind];
	uint64_t wait_ns;
	bool refused;

	(void)broker;
	(void)tenant;
	pthread_mutex_lock(&tenants_lock);
	wait_ns = rate->taken + request->n > rate->tokens
			  ? (rate->taken + request->n - rate->tokens) * rate->step_ns
			  : 0;
	refused = wait_ns > request->delay_max_ns && !request->gives_back;
	if (!refused)
		rate->taken += request->n;
	pthread_mutex_unlock(&tenants_lock);
	if (!refused) {
		*ret_wait_ns = wait_ns < request->delay_max_ns ? wait_ns : request->delay_max_ns;
		return 0;
	}
	refuse(refusal, REFUSAL_RATE, "RATE_EXCEEDED", "too fast");
	refusal->retry_after_ms = (uint32_t)(wait_ns / 1000000);
	refusal->limit = rate->tokens;
	snprintf(refusal->resource, sizeof(refusal->resource), "requests");
	snprintf(refusal->tenant, sizeof(refusal->tenant), "tenant-a");
	snprintf(refusal->rule, sizeof(refusal->rule), "file:9");
	return REFUSED;
}

const char *rate_kind_name(enum rate_kind kind)
{
	static const char *const names[RATES] = {"requests", "refreshes", "connections"};

	return names[kind];
}

void broker_refund(struct broker *broker, struct tenant *tenant, enum ledger_resource resource,
		   uint64_t amount)
{
	(void)broker;
	pthread_mutex_lock(&tenants_lock);
	if (fake.used[resource] < amount || (tenant && tenant->used[resource] < amount))
		abort();
	if (tenant)
		tenant->used[resource] -= amount;
	fake.used[resource] -= amount;
	pthread_mutex_unlock(&tenants_lock);
}
