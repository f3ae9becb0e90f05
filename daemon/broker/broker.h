/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_BROKER_H
#define IB_BROKER_BROKER_H

/*
 * The model, as rpc/ and main see it: sessions, guests, memory, devices, nested domains, events.
 *
 * Everything that crosses here is a plain bounded C struct: no protobuf, no gRPC, no libevent.
 * Functions answer 0, REFUSED (and then *refusal is set), or a negative errno (the daemon is
 * broken). Out parameters are written only on 0.
 *
 * Threads. Functions marked INLINE are short and may run on any thread, the event loop included.
 * Functions marked LANE can take long: they run on a pool thread that holds the guest's lane, see
 * broker_lane(). broker_refresh_run() orders itself.
 *
 * Lifetimes. A session pointer is a reference (session_ref/unref). Handles are looked up within
 * the session at every call; an object that was found is kept alive by the call.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker/limit.h"
#include "iommu/backend.h"
#include "s390/walk.h"
#include "state/fd_store.h"
#include "util/pool.h"
#include "util/refusal.h"

#define BROKER_NAME_MAX            64 /* with the terminating zero */
#define BROKER_SECRET_BYTES        16
#define BROKER_LABELS_MAX          8
#define BROKER_MAP_RANGES_MAX      512
#define BROKER_REFRESH_RANGES_MAX  256
#define BROKER_MANAGED_ENTRIES_MAX 256
#define BROKER_EVENTS_MAX          65536 /* of one guest that wait */
#define BROKER_EVENTS_DEFAULT      1024

enum broker_seals {
	BROKER_SEALS_OFF,        /* not looked at, but for write seals */
	BROKER_SEALS_PERMISSIVE, /* F_SEAL_SHRINK wanted where the file can be sealed */
	BROKER_SEALS_REQUIRED,   /* F_SEAL_SHRINK or refused */
};

enum broker_unpopulated {
	BROKER_UNPOPULATED_REJECT, /* FAILED_PRECONDITION */
	BROKER_UNPOPULATED_CHARGE, /* populated by us, on our memory cgroup */
};

struct tenant_rule;
struct tenant_identity;

#define BROKER_RULE_PATTERNS_MAX 32 /* of one kind in one rule */
#define BROKER_RULE_USERS_MAX    64

struct broker_device_id {
	bool any_vendor, any_device;
	uint16_t vendor, device;
};

/* Who may have which functions. Of each kind that is named one must fit, of all kinds; a kind of
 * which none is named fits always. */
struct broker_device_rule {
	size_t n_tenants, n_users, n_addresses, n_fids, n_ids;
	const char *tenants[BROKER_RULE_PATTERNS_MAX]; /* globs; owned by whoever made the rule */
	uid_t users[BROKER_RULE_USERS_MAX];
	const char *addresses[BROKER_RULE_PATTERNS_MAX]; /* globs, in lower case; likewise */
	struct {
		uint32_t first, last;
	} fids[BROKER_RULE_PATTERNS_MAX];
	struct broker_device_id ids[BROKER_RULE_PATTERNS_MAX];
	bool by_name;           /* opened by the daemon; else passed-in descriptors only */
	bool passed_descriptor; /* may be passed in as a descriptor that the client opened */
	bool deny;
	bool relaxed;   /* relaxed translation granted */
	char where[96]; /* file:line, for refusals */
};

enum broker_rule_lost {
	BROKER_RULE_LOST_KEEP,   /* a device stays with its guest until that gives it back */
	BROKER_RULE_LOST_REVOKE, /* it is taken away: broker_revoke() with REVOKE_UNRULED */
};

/* Plain settings; main fills them from the table in config_table.c. Bytes, counts. */
struct broker_settings {
	/* Of a tenant, its guests and its sessions: unless its rule has a lower one. */
	struct limit_set limits[LIMIT_LEVELS];
	uint64_t nested_mappings_default; /* reservation of a nested domain that asks for none */
	uint32_t designations;            /* set of enum s390_level that is supported */
	enum broker_seals require_seals;
	enum broker_unpopulated unpopulated_memory;
	unsigned int threads_max; /* 1 .. 32 */
	uint64_t pin_slice_bytes; /* at most 256 MiB */
	/* Who is charged: broker/tenant_rule.h. None: each user is a tenant, with the limits above.
	 * Borrowed until broker_free(), or release() of broker_set_settings(). */
	const struct tenant_rule *tenant_rules;
	size_t n_tenant_rules;
	const struct broker_device_rule *device_rules; /* borrowed likewise */
	size_t n_device_rules;
	enum broker_rule_lost rule_lost;
	uint32_t delegation_claim_ms; /* that a guest waits for a holder who never came */
	bool open_devices; /* no rule needed: the emulated backend without configuration */
};

struct broker;
struct session;

/* consume_backend: freed with the broker, also if this fails. 0 or a negative errno. */
int broker_new(struct broker **ret, struct iommu_backend *consume_backend,
	       const struct broker_settings *settings);
/* Other settings from now on; threads_max and pin_slice_bytes stay. What is charged stays charged,
 * also above a lower limit; a tenant that no rule is for any more keeps what it has and gets
 * nothing new. release(context) is called, from any thread, when nobody uses the settings any more.
 * 0 or -ENOMEM: nothing changed, and release is not called. */
int broker_set_settings(struct broker *broker, const struct broker_settings *settings,
			void (*release)(void *context), void *context);
/* Descriptors and state go into store from now on, which is borrowed until broker_free(). Before
 * anything else; NULL: nothing outlives the process. */
void broker_set_store(struct broker *broker, struct fd_store *store);
/* Of the state that it writes; 0: nothing outlives the process. */
uint32_t broker_state_version(const struct broker *broker);
/* A descriptor that lay in the store when this process was started. */
struct stored_fd {
	struct fd_name name;
	int fd;
};
struct restore_report {
	uint32_t guests, released; /* that live on; that could not */
	uint64_t regions, mappings;
	uint64_t ns;
	/* What the kernel counts as pinned by this process, and what it should by the ledger: equal
	 * unless something is wrong. */
	bool pins_compared;
	uint64_t kernel_pinned_bytes, ledger_pinned_bytes;
	/* An errno if not: it goes on counting a guest's with the process before. EOPNOTSUPP: it
	 * counts with no process, or cannot hand over. */
	int uncounted_error;
};
/* What a process before this one left: adopted, or released and said so in the log. After
 * broker_set_store(), before anything is served. consume: the descriptors, not the array. 0, or a
 * negative errno if nothing could be looked at. */
int broker_restore(struct broker *broker, struct stored_fd *consume, size_t n,
		   struct restore_report *ret);
/* What outlives the process, and what it took over itself. */
struct store_report {
	size_t descriptors, descriptors_max; /* with the service manager; max 0: nothing outlives */
	struct restore_report restored;      /* of broker_restore(); zero: nothing was left */
};
void broker_store_report(struct broker *broker, struct store_report *ret);
/* The process is about to end, and with a store that keeps: from now on the end of a session takes
 * no guest down, they are left to a successor as they are. What runs goes on and may be ended at
 * any instant by _exit(2); broker_free() must not follow. INLINE. */
void broker_leave(struct broker *broker);
/* Ends every session, waits for the pool. NULL is fine; returns NULL. */
struct broker *broker_free(struct broker *broker);
struct pool *broker_pool(struct broker *broker);
const char *broker_backend_name(struct broker *broker);
void broker_features(struct broker *broker, struct iommu_features *ret);

/* ── sessions ─────────────────────────────────────────────────────────────────────────────── */

struct peer {
	pid_t pid; /* > 0 */
	uid_t uid;
	gid_t gid;
	int pidfd;                              /* of the very process that connected */
	const struct tenant_identity *identity; /* borrowed for session_new(); NULL: uid and gid */
};

/* INLINE. Duplicates peer->pidfd. */
int session_new(struct session **ret, struct broker *broker, const struct peer *peer,
		const char *name, uint8_t ret_secret[BROKER_SECRET_BYTES], struct refusal *refusal);
/* INLINE. Find by secret; the peer must be the same process. UNAUTHENTICATED otherwise, one answer
 * for all reasons. ret is a reference. */
int session_find(struct session **ret, struct broker *broker, const struct peer *peer,
		 const uint8_t *secret, size_t secret_bytes, struct refusal *refusal);
struct session *session_ref(struct session *session);
struct session *session_unref(struct session *session); /* returns NULL */
const char *session_tenant(struct session *session);
struct pool_share *session_share(struct session *session); /* borrowed */
uint64_t session_id(struct session *session);              /* for logs: small, rising, no secret */
/* Borrowed: readable when the process has died. */
int session_pidfd(struct session *session);
/* Whose process it is, as far as a session knows: pid, uid, and the pidfd, borrowed. pid 0:
 * nobody's yet. */
void session_peer(struct session *session, struct peer *ret);
/* INLINE. Of those that are not closed, the one with the lowest id above that: a reference, or
 * NULL.
 */
struct session *broker_next_session(struct broker *broker, uint64_t after);
/* INLINE. No call is accepted any more; what runs is cancelled; every guest is taken down on its
 * lane; done(context) is called once, from any thread, when nothing is left. May be called again:
 * done is called all the same. done may be NULL. */
void session_close(struct session *session, void (*done)(void *context), void *context);
bool session_closed(struct session *session);
/* What it may do: set of 1 << enum guest_right. */
unsigned int session_rights(struct session *session);
void session_secret(struct session *session, uint8_t ret[BROKER_SECRET_BYTES]);

/* ── operations: what a mutation may report and how it is stopped ─────────────────────────── */

struct operation {
	/* May be NULL. Called on the working thread, seldom (once a slice). */
	void (*progress)(struct operation *operation, uint64_t done_bytes, uint64_t total_bytes);
	_Atomic bool cancelled; /* set it to stop; looked at between slices */
};

/* INLINE. The lane of the guest that a handle (guest, memory file, device or nested) belongs to,
 * a reference; NULL if the session has no such handle: then run without, and be refused. */
struct pool_lane *broker_lane(struct broker *broker, struct session *session, uint64_t handle);

/* ── what outlives the process ────────────────────────────────────────────────────────────── */

/* What a request was answered; bytes: the message, or with a code that is not 0 a packed
 * google.rpc.Status. */
struct broker_answer {
	uint64_t request_id;
	uint32_t method;
	int code;
	uint8_t digest[32];
	const uint8_t *bytes;
	size_t n_bytes;
};

/* INLINE. The guest that a handle (guest, memory file, device or nested) belongs to, for
 * broker_settle(): a reference, or NULL if the session has no such handle. */
struct guest *broker_guest_of(struct broker *broker, struct session *session, uint64_t handle);
/* A call that changes something is over, well or not: what it changed in that guest is stored, and
 * with it its answer, if that is given; what it promises outlives the process once this has
 * returned. Of a guest that is gone, nothing. May wait for the service manager. holds_lane: whether
 * the thread has the guest's lane; else it waits for it. consume_guest: the reference. */
void broker_settle(struct guest *consume_guest, struct session *session,
		   const struct broker_answer *answer, bool holds_lane);
/* LANE. The answers that are kept of that session's requests about that guest, oldest first. */
void broker_answers(struct broker *broker, struct session *session, uint64_t guest,
		    void (*each)(void *context, const struct broker_answer *answer), void *context);

/* ── guests ───────────────────────────────────────────────────────────────────────────────── */

struct broker_label {
	char key[BROKER_NAME_MAX], value[BROKER_NAME_MAX];
};

struct guest_create_request {
	bool has_uuid;
	uint8_t uuid[16];
	char name[BROKER_NAME_MAX];
	size_t n_labels;
	struct broker_label labels[BROKER_LABELS_MAX];
	uint64_t pinned_bytes_max, mappings_max; /* 0: no further limit */
	/* The process that it is for, with its identity; NULL: its creator. For managers. */
	const struct peer *on_behalf_of;
};

/* LANE (none yet: any pool thread; opens a context). */
int guest_create(struct broker *broker, struct session *session,
		 const struct guest_create_request *request, uint64_t *ret_guest,
		 uint8_t ret_secret[BROKER_SECRET_BYTES], struct refusal *refusal);
/* LANE. */
int guest_reset(struct broker *broker, struct session *session, uint64_t guest,
		uint32_t *ret_nested_destroyed, struct refusal *refusal);
int guest_destroy(struct broker *broker, struct session *session, uint64_t guest,
		  struct refusal *refusal);

/* LANE. From now on, and for so many seconds, 1 .. BROKER_HANDOVER_SECONDS_MAX, the end of the last
 * session that holds the guest does not take it down: its devices are blocked then, if so asked,
 * and it waits for guest_resume(). Again: anew. */
#define BROKER_HANDOVER_SECONDS_MAX 3600
int guest_prepare_handover(struct broker *broker, struct session *session, uint64_t guest,
			   uint32_t seconds, bool block_dma, struct refusal *refusal);
/* LANE, of broker_lane_of_secret(). The guest that waits is that session's, as if it had created
 * it, and charged to it: all or nothing. For the user that it was of, if the rules give all of its
 * devices to that session. secret: BROKER_SECRET_BYTES. */
int guest_resume(struct broker *broker, struct session *session, const uint8_t *secret,
		 uint64_t *ret_guest, struct refusal *refusal);
/* INLINE. A reference, or NULL: there is no such guest. */
struct pool_lane *broker_lane_of_secret(struct broker *broker, const uint8_t *secret);
/* tell(context) whenever a guest begins to wait: under locks, so that it must not call back. NULL:
 * nobody is told. */
void broker_on_handover(struct broker *broker, void (*tell)(void *context), void *context);
/* INLINE. Take down those that waited for as long as they may. In how many nanoseconds the next is
 * due; UINT64_MAX: none waits. */
uint64_t broker_expire_handovers(struct broker *broker);
/* INLINE. A delegation's session that nobody has come to use for as long as was to be waited, since
 * nobody else holds its guest, or since the start: a reference, to be closed. NULL: none. */
struct session *broker_unclaimed_session(struct broker *broker);

enum attachment {
	ATTACHMENT_BLOCKED,
	ATTACHMENT_PARENT,
	ATTACHMENT_RELAXED,
	ATTACHMENT_NESTED,
};

enum nested_format {
	NESTED_S390,
	NESTED_RELAXED, /* an s390 anchor with T = 0 */
	NESTED_MANAGED,
};

struct guest_summary {
	uint64_t guest;
	bool has_uuid;
	uint8_t uuid[16];
	char name[BROKER_NAME_MAX];
	char tenant[BROKER_NAME_MAX];
	pid_t pid;
	uid_t uid;
	uint64_t region_bytes;
	bool pinned;
	uint32_t devices, nested_domains;
	uint64_t live_leaves;
};

struct memory_file_description {
	uint64_t memory_file, length_bytes, page_bytes;
	bool writable, huge_pages;
};

struct region_description {
	uint64_t memory_file, offset, gpa, length_bytes, granule_bytes;
	bool writable;
};

struct device_description {
	uint64_t device;
	bool bound;
	enum attachment attachment;
	uint64_t nested; /* with ATTACHMENT_NESTED */
	bool relaxed_granted;
	bool passed;   /* as a descriptor that its client opened */
	char rule[96]; /* file:line of the device rule that gives it; "": none does any more */
	uint64_t mappings_budget;
	struct iommu_device_info info;
	size_t n_iova_ranges;
	struct iommu_range iova_ranges[IOMMU_IOVA_RANGES_MAX];
};

struct nested_description {
	uint64_t nested;
	uint32_t index;
	uint64_t device;
	enum nested_format format;
	uint64_t iota, first, last;
	bool attached;
	uint64_t live_leaves, kept_tables, kept_bytes, mappings_reserved;
	uint64_t refreshes, backend_maps, backend_unmaps;
};

/* A snapshot on the heap: free with guest_description_free(). */
struct guest_description {
	struct guest_summary summary;
	size_t n_labels;
	struct broker_label labels[BROKER_LABELS_MAX];
	uint64_t mappings_reserved;
	size_t n_memory_files, n_regions, n_devices, n_nested;
	struct memory_file_description *memory_files;
	struct region_description *regions;
	struct device_description *devices;
	struct nested_description *nested;
};

/* INLINE. session NULL: any session's guests (for operators). Fills up to n, *ret_n the number
 * there are. */
int guest_list(struct broker *broker, struct session *session, struct guest_summary *ret, size_t n,
	       size_t *ret_n, struct refusal *refusal);
/* INLINE. session NULL: any guest. */
int guest_describe(struct broker *broker, struct session *session, uint64_t guest,
		   struct guest_description **ret, struct refusal *refusal);
struct guest_description *guest_description_free(struct guest_description *description);

/* ── delegations ──────────────────────────────────────────────────────────────────────────── */

/* What a session may do. One that a process opened itself has all of them. */
enum guest_right { /* the API's numbers */
		   GUEST_RIGHT_MAP = 1,
		   GUEST_RIGHT_DEVICE,
		   GUEST_RIGHT_DOMAIN,
		   GUEST_RIGHT_REFRESH,
		   GUEST_RIGHT_EVENTS,
		   GUEST_RIGHT_HOLD, /* the guest lives while a session with this right lives */
		   GUEST_RIGHTS_END, /* those below are nobody's to give */
		   GUEST_RIGHT_ANY,  /* every session has it */
		   GUEST_RIGHT_OWN,  /* of sessions that no delegation made */
};

#define DELEGATION_DEVICES_MAX   64
#define DELEGATIONS_OF_GUEST_MAX 16

struct delegation_request {
	uint64_t guest;
	unsigned int rights; /* set of 1 << enum guest_right, below GUEST_RIGHTS_END */
	/* Of the guest as a whole, while the delegation lasts; 0: no further limit. */
	uint64_t pinned_bytes_max, mappings_max;
	size_t n_devices; /* 0: all, and those that it will have */
	uint64_t devices[DELEGATION_DEVICES_MAX];
	const struct peer *peer; /* the process that it is for; NULL: who comes first */
	/* A listening socket of the delegator's, which must be a manager: its flags are the
	 * delegator's, too, who could let an accept of ours wait. Stored, so that a successor can
	 * go on listening. NULL: none. */
	const int *listener;
};

/* A session of its own that can do what was asked for and no more. Not on the guest's lane. Charged
 * to the guest's tenant. *ret is a reference; what ends it is session_close(), as of any session.
 * *ret_delegation names it, to delegation_find() by the same delegator. */
int delegation_new(struct session **ret, struct broker *broker, struct session *delegator,
		   const struct delegation_request *request, uint64_t *ret_delegation,
		   struct refusal *refusal);
/* INLINE. Of a session that a process before this one made: the socket that it listened on, of the
 * caller's from now on. -1: none. */
int delegation_listener(struct session *session);
/* INLINE. Whether one that a process before this one listened for was somebody's, and nobody knows
 * whose: who has its secret. */
bool delegation_is_claimed(struct session *session);
/* INLINE. It is this process' from now on. REFUSED (UNAUTHENTICATED): it is another's already. */
int delegation_bind(struct session *session, const struct peer *peer, struct refusal *refusal);
/* INLINE. The session of a delegation of this delegator's, which has not ended: a reference. */
int delegation_find(struct session **ret, struct broker *broker, struct session *delegator,
		    uint64_t delegation, struct refusal *refusal);
/* INLINE. Its guest's watchers are told; those of this session end there once it is closed. */
void delegation_tell_revoked(struct session *session);

/* ── memory ───────────────────────────────────────────────────────────────────────────────── */

struct memory_file_added {
	uint64_t memory_file, length_bytes, page_bytes;
};

/* LANE. consume_fd: taken also on failure. */
int memory_file_add(struct broker *broker, struct session *session, uint64_t guest, int consume_fd,
		    bool writable, struct memory_file_added *ret, struct refusal *refusal);
int memory_file_remove(struct broker *broker, struct session *session, uint64_t guest,
		       uint64_t memory_file, struct refusal *refusal);

struct memory_map_entry {
	uint64_t memory_file, offset, gpa, length, granule; /* granule 0: never cut */
	bool writable;
};

struct memory_update_request {
	size_t n_unmap, n_map;
	struct iommu_range unmap[BROKER_MAP_RANGES_MAX];
	struct memory_map_entry map[BROKER_MAP_RANGES_MAX];
};

struct memory_updated {
	bool pinned;
	uint64_t region_bytes, leaves_dropped, leaves_restored;
};

/* LANE. All or nothing. Fields in refusals are "unmap[i].…" and "map[i].…". */
int memory_update(struct broker *broker, struct session *session, uint64_t guest,
		  const struct memory_update_request *request, struct operation *operation,
		  struct memory_updated *ret, struct refusal *refusal);

/* ── devices ──────────────────────────────────────────────────────────────────────────────── */

struct device_open_request {
	bool by_descriptor;
	int consume_fd; /* with by_descriptor; taken also on failure; else -1 */
	struct iommu_device_address address;
};

/* LANE. ret_fd: a new descriptor for the VMM, the caller owns it. */
int device_open(struct broker *broker, struct session *session, uint64_t guest,
		const struct device_open_request *request, uint64_t *ret_device, int *ret_fd,
		struct refusal *refusal);
/* LANE. vf_token: 16 bytes or NULL. */
int device_bind(struct broker *broker, struct session *session, uint64_t device,
		const uint8_t *vf_token, struct operation *operation,
		struct device_description *ret, struct refusal *refusal);
/* INLINE. */
int device_describe(struct broker *broker, struct session *session, uint64_t device,
		    struct device_description *ret, struct refusal *refusal);
/* LANE. */
int device_descriptor(struct broker *broker, struct session *session, uint64_t device, int *ret_fd,
		      struct refusal *refusal);
int device_close(struct broker *broker, struct session *session, uint64_t device,
		 bool *ret_still_held, struct refusal *refusal);

/* ── domains ──────────────────────────────────────────────────────────────────────────────── */

enum verdict {
	VERDICT_DONE = 1, /* the API's numbers */
	VERDICT_OPERAND,
	VERDICT_SEQUENCE,
	VERDICT_RESOURCES,
	VERDICT_ERROR,
	VERDICT_BUSY,
	VERDICT_GONE,
};

struct range_result {
	enum verdict verdict;
	struct s390_fault fault; /* with VERDICT_ERROR */
	uint64_t mapped, unmapped;
};

struct nested_create_request {
	uint64_t device;
	bool attach;
	enum nested_format format;  /* NESTED_S390 (also for T = 0) or NESTED_MANAGED */
	uint64_t iota, first, last; /* pba, pal; window of a managed one */
	uint64_t mappings_max;      /* 0: default */
};

struct nested_created {
	uint64_t nested; /* 0 with VERDICT_OPERAND and VERDICT_SEQUENCE */
	uint32_t index;
	enum verdict verdict;
	enum s390_anchor_fault anchor_fault; /* with VERDICT_OPERAND */
	struct range_result walk;
};

/* LANE, all of them. */
int nested_create(struct broker *broker, struct session *session,
		  const struct nested_create_request *request, struct nested_created *ret,
		  struct refusal *refusal);
int nested_replace(struct broker *broker, struct session *session, uint64_t nested, uint64_t iota,
		   uint64_t pba, uint64_t pal, struct nested_created *ret, struct refusal *refusal);
int nested_destroy(struct broker *broker, struct session *session, uint64_t nested,
		   uint64_t *ret_leaves_dropped, struct refusal *refusal);
int device_attach(struct broker *broker, struct session *session, uint64_t device,
		  enum attachment to, uint64_t nested, struct range_result *ret_walk,
		  struct refusal *refusal);

struct nested_entry {
	uint64_t iova, length, gpa;
	bool map, writable;
};
/* LANE. *ret_n: entries tried; ret[BROKER_MANAGED_ENTRIES_MAX]. */
int nested_update(struct broker *broker, struct session *session, uint64_t nested,
		  const struct nested_entry *entries, size_t n, struct range_result *ret,
		  size_t *ret_n, struct refusal *refusal);

struct refresh_range {
	uint64_t start, length;
};

/* One RefreshNested call. The caller owns the memory until done is called. */
struct refresh {
	uint64_t nested;
	size_t n_ranges; /* 1 .. BROKER_REFRESH_RANGES_MAX, checked by the callee */
	struct refresh_range ranges[BROKER_REFRESH_RANGES_MAX];
	/* Called exactly once, from the calling thread before broker_refresh_run() returns, or from
	 * a pool thread. status: 0, REFUSED or negative, as of every function here. */
	void (*done)(struct refresh *refresh, int status);
	struct refusal refusal;
	struct range_result results[BROKER_REFRESH_RANGES_MAX];
	/* the broker's own, see broker/refresh.c */
	uint64_t priv[128];
};

/* Ranges by their verdict, and leaves. */
struct refresh_counts {
	uint64_t verdicts[VERDICT_GONE + 1];
	uint64_t mapped, unmapped;
};

/* Any thread, the event loop included: runs here if the nested domain is free and the work short,
 * else on the pool. A nested domain whose device was taken away: verdict GONE. */
void broker_refresh_run(struct broker *broker, struct session *session, struct refresh *refresh);

/* ── update rings: what they are to the broker; served by ring/ ────────────────────────────── */

#define BROKER_RING_LANES_MAX 64

/* What a ring's maker has open. */
struct ring_parts {
	uint32_t lanes, entries;
	int memory; /* shared with the client */
	int state;  /* the maker's own, which outlives it */
	int submit; /* its ends of the doorbells */
	int complete[BROKER_RING_LANES_MAX];
};

/* Those that are not -1. */
void ring_parts_close(const struct ring_parts *consume_parts);

struct ring_claim {
	uint64_t guest;
	uint64_t bytes; /* of memory, charged as TABLE_BYTES */
	/* Called once if the claim was made, from any thread, with no lock held: its session or its
	 * guest ends, or it was given back. Short, and must not call back. */
	void (*end)(void *context);
	void *context;
};

/* LANE of the guest. Charged to it, and the session's only. 0, REFUSED or a negative errno. */
int ring_claim(struct broker *broker, struct session *session, const struct ring_claim *claim,
	       uint64_t *ret_ring, struct refusal *refusal);
/* LANE of the guest. Write it down and have its descriptors outlive this process, where anything
 * does: behind the next broker_settle(). They stay the caller's. 0 or REFUSED. */
int ring_keep(struct broker *broker, struct session *session, uint64_t ring,
	      const struct ring_parts *borrow_parts, struct refusal *refusal);

/* A ring of a process before this one, which nobody serves yet. */
struct ring_left {
	uint64_t ring, guest;
	struct session *session; /* a reference */
	struct ring_parts parts;
};
/* At the start, before anybody calls. One of those that broker_restore() found: with its session
 * and descriptors, the caller's now. false: none is left. */
bool ring_take_left(struct broker *broker, struct ring_left *ret);
/* From here on end() is called as of a claim, and that many bytes are charged, also above a limit.
 * false: it has ended already. */
bool ring_serve_left(struct broker *broker, uint64_t ring, uint64_t bytes,
		     void (*end)(void *context), void *context);

/* INLINE. Give it back. REFUSED: the session has no such ring. */
int ring_release(struct broker *broker, struct session *session, uint64_t ring,
		 struct refusal *refusal);
/* INLINE. All that are left. */
void ring_release_all(struct broker *broker);
/* INLINE. The nested domain of that index in that guest, as far as the session has it; 0: none. */
uint64_t nested_of_index(struct broker *broker, struct session *session, uint64_t guest,
			 uint32_t index);

struct explanation {
	uint64_t iova;
	struct s390_explanation tables; /* n_steps 0 for a managed domain */
	bool installed;
	uint64_t installed_gpa;
	bool installed_writable;
	bool consistent;
};
/* Any pool thread, no lane. session NULL: any nested domain. */
int nested_explain(struct broker *broker, struct session *session, uint64_t nested, uint64_t iova,
		   struct explanation *ret, struct refusal *refusal);

/* ── what an operator takes away ──────────────────────────────────────────────────────────── */

enum revoke_what {
	REVOKE_DEVICE,  /* the function of that name, whoever has it */
	REVOKE_GUEST,   /* everything of it; its session stays */
	REVOKE_TENANT,  /* all its guests likewise */
	REVOKE_UNRULED, /* every device, and every relaxed mapping, that no device rule gives now */
};

struct revoke_request {
	enum revoke_what what;
	struct iommu_device_address device;
	uint64_t guest;
	char tenant[BROKER_NAME_MAX];
};

enum revoked_kind {
	REVOKED_DEVICE,
	REVOKED_RELAXED, /* the device stays, blocked if it was relaxed */
	REVOKED_GUEST,
};

struct revoked {
	enum revoked_kind kind;
	uint64_t guest, device; /* handles that are gone now; device 0 with REVOKED_GUEST */
	char name[BROKER_NAME_MAX], tenant[BROKER_NAME_MAX]; /* of the guest */
	struct iommu_device_info info;                       /* but with REVOKED_GUEST */
	uint32_t devices;                                    /* that went */
	/* Its VMM, or whoever has it from that, still holds a descriptor of a device: the function
	 * is not free for others before that is closed. */
	bool still_held;
};

/* Any thread. Takes it away on the lanes of the guests that it concerns, stopping devices first,
 * and tells their VMMs (REVOKED; DEVICE_BLOCKED for a relaxed mapping). done is called once when
 * all is gone, from a pool thread or from here: what went, borrowed until it returns, none if there
 * was nothing of that name. 0; or REFUSED: no memory, nothing happened. */
int broker_revoke(struct broker *broker, const struct revoke_request *request,
		  void (*done)(void *context, const struct revoked *revoked, size_t n),
		  void *context, struct refusal *refusal);

/* INLINE. While draining, session_new(), guest_create(), device_open() and device_bind() are
 * refused: BUSY, reason DRAINING. */
/* Whether that is a change. */
bool broker_set_draining(struct broker *broker, bool draining);
bool broker_draining(struct broker *broker);

/* ── events ───────────────────────────────────────────────────────────────────────────────── */

enum event_kind { /* the API's numbers */
		  EVENT_TRANSLATION_ERROR = 1,
		  EVENT_LEAF_REFUSED,
		  EVENT_MEMORY_LOST,
		  EVENT_DEVICE_FAULT,
		  EVENT_DEVICE_BLOCKED,
		  EVENT_DEVICE_WANTED,
		  EVENT_QUOTA_HIGH,
		  EVENT_REVOKED,
		  EVENT_RESTARTING,
		  EVENT_RESUMED,
		  EVENT_GUEST_GONE,
		  EVENT_LOST,
};

struct event {
	uint64_t sequence, time_ns;
	enum event_kind kind;
	uint64_t guest, device, nested;
	struct s390_fault fault;
	uint64_t iova, gpa, lost;
	/* with QUOTA_HIGH */
	enum ledger_resource resource;
	enum limit_level level;
	uint64_t used, high;
};

/* Whose guest an event is of: who created it. */
struct event_subject {
	const char *name, *tenant;
	pid_t pid;
	uid_t uid;
};
/* INLINE. One who is told every event of every guest, from the thread that it happens on: it must
 * not wait. NULL: nobody; when that returns, observe() does not run any more. */
void broker_set_observer(struct broker *broker,
			 void (*observe)(void *context, const struct event *event,
					 const struct event_subject *subject),
			 void *context);

/* A reader of one guest's events. */
struct event_watch;
/* INLINE. wake(context) is called from any thread, with no lock held that event_watch_next() needs,
 * whenever there may be something new; it must not block. */
int event_watch_new(struct event_watch **ret, struct broker *broker, struct session *session,
		    uint64_t guest, uint64_t since, void (*wake)(void *context), void *context,
		    struct refusal *refusal);
/* 1: *ret is the next event. 0: none now. -1: the guest is gone and all was read. */
int event_watch_next(struct event_watch *watch, struct event *ret);
/* After it returns wake is not called any more. */
struct event_watch *event_watch_free(struct event_watch *watch);

/* ── ledger ───────────────────────────────────────────────────────────────────────────────── */

/* ── what clients hold beside their guests ────────────────────────────────────────────────── */

struct tenant;
/* INLINE. The tenant of whoever connected, found or made: a reference. REFUSED: no rule is for it,
 * no memory. It stays that tenant when the rules change. */
int broker_tenant_find(struct tenant **ret, struct broker *broker, const struct peer *peer,
		       struct refusal *refusal);
/* INLINE. Who is charged for a session: a reference; NULL: it has ended. */
struct tenant *broker_tenant_of(struct broker *broker, struct session *session);
struct tenant *broker_tenant_ref(struct broker *broker, struct tenant *tenant);
/* INLINE. tenant NULL is fine; returns NULL. */
struct tenant *broker_tenant_unref(struct broker *broker, struct tenant *tenant);
/* INLINE. At the tenant and the host, or at none; tenant NULL: at the host only. 0 or REFUSED
 * (QUOTA). */
int broker_charge(struct broker *broker, struct tenant *tenant, enum ledger_resource resource,
		  uint64_t amount, struct refusal *refusal);
void broker_refund(struct broker *broker, struct tenant *tenant, enum ledger_resource resource,
		   uint64_t amount);

struct rate_request {
	enum rate_kind kind;
	uint64_t n;      /* at most BROKER_REFRESH_RANGES_MAX */
	uint64_t now_ns; /* monotonic */
	uint64_t delay_max_ns;
	bool gives_back; /* waits for delay_max_ns rather than being refused */
	bool guest_only; /* tenant and host are not to pay, or did already */
	/* The guest, or something of it, that is to pay as well; 0: none. Of a handle that the
	 * session does not have nobody pays. */
	uint64_t handle;
	struct session *session;
};
/* INLINE, two loads at most. Whether any rate of that kind is set for who is to pay: the tenant,
 * the host; and with a handle, whether any guest has one. */
bool broker_rate_limited(const struct broker *broker, const struct tenant *tenant,
			 const struct rate_request *request);
/* INLINE. 0: *ret_wait_ns from now it may be done, and is paid for at every level. REFUSED (RATE):
 * it would be longer than delay_max_ns; nothing was paid at any. */
int broker_rate_take(struct broker *broker, struct tenant *tenant,
		     const struct rate_request *request, uint64_t *ret_wait_ns,
		     struct refusal *refusal);
/* Of one account. */
struct rate_usage {
	uint64_t per_second, burst;  /* UINT64_MAX: no limit */
	uint64_t delayed, refused;   /* for want of this account's tokens */
	char where[LIMIT_WHERE_MAX]; /* the limit stands; "" if there is none */
};

/* max, high: UINT64_MAX for none. */
struct usage {
	uint64_t current, max, high, peak;
	uint64_t events;      /* charges refused at this limit */
	uint64_t events_high; /* rises above high */
	bool over;            /* above max, which was lowered since */
};

/* A charge made current rise above high. */
struct quota_high {
	enum ledger_resource resource;
	enum limit_level level;
	uint64_t used, high, max;
	uint64_t guest;      /* whose charge it was, or 0 */
	bool log;            /* it is not the next of too many */
	uint32_t suppressed; /* not to be logged before this one */
	char tenant[BROKER_NAME_MAX];
	char rule[LIMIT_WHERE_MAX]; /* where high stands */
};

/* Tells every rise above high: from any thread, with locks held, so it must neither wait nor call
 * the broker. log: not too often since the last of that tenant and its guests that was to be
 * logged. Once, before the first session; broker_free() returns after the last of its calls. */
void broker_on_quota_high(struct broker *broker,
			  void (*tell)(void *context, const struct quota_high *high),
			  void *context);

struct usage_report {
	char tenant[BROKER_NAME_MAX]; /* "host" for all */
	bool idle;                    /* nobody of it is connected; what it counted is kept */
	uint64_t calls;               /* of a tenant: those that were accepted */
	struct usage usage[LEDGER_RESOURCES];
	struct rate_usage rates[RATES];
};

/* What tenants counted that are forgotten: refusals and the like. */
struct usage_past {
	uint64_t n_tenants; /* 0: there are none */
	struct {
		uint64_t events, events_high;
	} usage[LEDGER_RESOURCES];
	struct {
		uint64_t delayed, refused;
	} rates[RATES];
};

/* What somebody asks whether it would fit: new guests, and what all of them together shall have,
 * shared among them as evenly as it goes; of what is for guests and none are asked for, one
 * guest's. Mappings are shared among the nested domains likewise; 0: each reserves the default. */
struct fit_request {
	uint64_t guests, pinned_bytes, regions, memory_files, devices, nested_domains, mappings,
		rings, ring_bytes; /* charged for each */
};
#define FIT_MISSING_MAX (LEDGER_RESOURCES * LIMIT_LEVELS)
/* A limit that is too low, by missing. At the level of a guest requested is one guest's share. */
struct fit_missing {
	enum ledger_resource resource;
	enum limit_level level;
	uint64_t limit, used, requested, missing;
	char rule[LIMIT_WHERE_MAX];
};

/* One account, for operators. */
struct quota_report {
	enum limit_level level;
	char tenant[BROKER_NAME_MAX]; /* "host" for all */
	uint64_t guest;               /* with LIMIT_GUEST, and its name */
	char name[BROKER_NAME_MAX];
	char rule_name[BROKER_NAME_MAX]; /* the tenant's; "": the settings' limits */
	bool stranger;                   /* no rule is for it any more */
	bool idle;                       /* nobody of it is connected; what it counted is kept */
	struct usage usage[LEDGER_RESOURCES];
	char where[LEDGER_RESOURCES][LIMIT_WHERE_MAX]; /* max stands; "" if there is none */
	struct rate_usage rates[RATES];                /* LIMIT_GUEST: the first RATES_OF_GUEST */
};

/* INLINE. session NULL: the host's. */
int usage_report(struct broker *broker, struct session *session, struct usage_report *ret,
		 struct refusal *refusal);
/* INLINE. The tenants' reports, without the host's, those that are idle last: fills up to n, *ret_n
 * the number there are. */
int usage_list(struct broker *broker, struct usage_report *ret, size_t n, size_t *ret_n,
	       struct refusal *refusal);
/* INLINE. The same of tenants whose names come after a name, by bytes, in that order; at most
 * USAGE_PAGE_MAX. *ret_more: others follow. */
#define USAGE_PAGE_MAX 512
int usage_page(struct broker *broker, const char *after, struct usage_report *ret, size_t n,
	       size_t *ret_n, bool *ret_more, struct refusal *refusal);
/* INLINE. */
void usage_past(struct broker *broker, struct usage_past *ret);
/* INLINE. The host and all tenants, or (tenant not NULL) that one and each of its guests: a
 * snapshot on the heap, for free(). */
int quota_list(struct broker *broker, const char *tenant, struct quota_report **ret, size_t *ret_n,
	       struct refusal *refusal);
/* INLINE. As the real calls would be answered now. Nothing missing: it fits. session NULL: only the
 * host's limits. ret[FIT_MISSING_MAX], by resource, then from guest to host. */
int check_fit(struct broker *broker, struct session *session, const struct fit_request *request,
	      struct fit_missing *ret, size_t *ret_n, struct refusal *refusal);
/* INLINE. The same for the next session of a tenant, which need not have any yet. */
int check_fit_tenant(struct broker *broker, const char *tenant, const struct fit_request *request,
		     struct fit_missing *ret, size_t *ret_n, struct refusal *refusal);

struct broker_status {
	uint32_t sessions, guests, devices, nested_domains;
	uint64_t pinned_bytes, mappings_installed, mappings_reserved;
};
/* INLINE. */
void broker_status(struct broker *broker, struct broker_status *ret);

#endif
