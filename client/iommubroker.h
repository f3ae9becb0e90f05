/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IOMMUBROKER_H
#define IOMMUBROKER_H

/*
 * libiommubroker: a VMM's side of iommubrokerd.
 *
 * A session is a connection to the daemon; it owns guests, a guest owns memory files and devices, a
 * device owns nested domains. The library keeps a small object for each of them:
 *
 *   X_create / X_open / X_add   ask the daemon for one, and answer an object
 *   X_destroy / X_close / X_remove   ask the daemon to end it; the object stays
 *   X_free   frees the object, asks nobody, takes NULL, returns NULL, never fails
 *
 * A session must be freed after all of its objects. What was not destroyed is taken down by the
 * daemon when the session's connection ends, that is in iommubroker_session_free() or when the
 * process dies.
 *
 * Results. 0, or a negative errno; an out parameter (ret_...) is written only on 0. A function that
 * takes ret_error writes there, unless it is NULL, an error object that the caller frees, or NULL
 * if there was no memory for one, whenever its result is negative, and leaves it alone otherwise:
 *
 *   -EINVAL     a parameter; iommubroker_error_field() names it     (INVALID_ARGUMENT)
 *   -ENOENT     unknown, or someone else's                         (NOT_FOUND)
 *   -EEXIST     overlap, or the same again                         (ALREADY_EXISTS)
 *   -EACCES     no rule lets this caller do it                     (PERMISSION_DENIED)
 *   -EPERM      no session, or one that ended; also one that a     (UNAUTHENTICATED)
 *               restarted daemon does not know: its guests are gone
 *   -EBUSY      legal, but not now: order, unpopulated memory      (FAILED_PRECONDITION)
 *   -EDQUOT     a limit; the error tells which, and all numbers    (RESOURCE_EXHAUSTED)
 *   -ENOMEM     the host's own limit: memory, locked memory        (RESOURCE_EXHAUSTED)
 *   -EAGAIN     later; iommubroker_error_retry_after_ms()          (UNAVAILABLE, or a rate)
 *   -ECANCELED  was cancelled, and undone                          (CANCELLED)
 *   -EOPNOTSUPP this daemon or its kernel lacks it                 (UNIMPLEMENTED)
 *   -EIO        the host answered something unexpected             (INTERNAL and all others)
 * and from the library itself:
 *   -ECONNRESET the daemon is gone, and did not come back in time, or lets this process not connect
 *               (its log says so); every later call says the same
 *   -EBADMSG    the daemon's answer made no sense; if not even its envelope did, the connection was
 *               dropped, and every later call says the same
 *   -ETIMEDOUT  nothing came for as long as iommubroker_session_set_timeout() allows; a change that
 *               was asked for may still happen
 *   -EMSGSIZE   the request does not fit a message
 *
 * Threads. Every function may be called from any thread at any time, on the same session too, with
 * these exceptions: the last use of an object must be over before X_free(), and callbacks come from
 * iommubroker_process() alone, which one thread at a time may call. A blocking call needs neither
 * an event loop nor any other thread: whoever waits first reads the socket and hands the others
 * their answers. The library makes no threads, installs no signal handlers, raises no signals, and
 * writes nothing anywhere.
 *
 * Restart. When the daemon is killed or upgraded, its successor goes on where it was: guests, their
 * memory, devices and domains stay as they are. The library connects again, says which session it
 * is, and asks again for every change that had not been answered, which is done once all the same.
 * So a call sees nothing but a pause, in which progress may start over. iommubroker_refresh() does
 * not wait: it answers BUSY as long as it lasts. Whoever waits in a call does what is to be done;
 * while nobody does it is iommubroker_process(), for which the session's descriptor becomes
 * readable, or whatever is called next, iommubroker_session_state() too.
 *
 * Fork. All descriptors are close-on-exec. A child that forks without exec must use none of the
 * parent's objects, not even free them; it holds a copy of the connection, but the daemon ends the
 * session when its owner dies all the same.
 *
 * Units. Addresses and lengths are bytes. A range with first and last includes both ends; one with
 * start and length must not wrap around 2^64. Times are nanoseconds, relative unless said
 * otherwise.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define IOMMUBROKER_API __attribute__((visibility("default")))
#else
#define IOMMUBROKER_API
#endif

#define IOMMUBROKER_NO_TIMEOUT         UINT64_MAX
#define IOMMUBROKER_REFRESH_RANGES_MAX 256 /* of one iommubroker_refresh() */
#define IOMMUBROKER_ENTRIES_MAX        256 /* of one iommubroker_nested_update() */
#define IOMMUBROKER_RING_LANES_MAX     64
#define IOMMUBROKER_RING_ENTRIES_MAX   1024 /* of each queue of a lane */
#define IOMMUBROKER_UUID_BYTES         16
#define IOMMUBROKER_SECRET_BYTES       16

struct iommubroker_session;
struct iommubroker_guest;
struct iommubroker_memory_file;
struct iommubroker_device;
struct iommubroker_nested;
struct iommubroker_ring;
struct iommubroker_error;

/* ---- Errors ---------------------------------------------------------------------------------- */

/* What a failure was, in the daemon's own words. All take NULL. Strings belong to the error, are
 * never NULL, and are empty if the daemon said nothing of the kind; they come from another process:
 * escape them before a terminal sees them. */
IOMMUBROKER_API int iommubroker_error_errno(const struct iommubroker_error *error); /* negative */
/* The gRPC status code, 1 to 16; 14 (UNAVAILABLE) for a lost connection. 0 for NULL. */
IOMMUBROKER_API int iommubroker_error_code(const struct iommubroker_error *error);
IOMMUBROKER_API const char *iommubroker_error_message(const struct iommubroker_error *error);
/* Stable, UPPER_SNAKE: for programs. */
IOMMUBROKER_API const char *iommubroker_error_reason(const struct iommubroker_error *error);
/* Path of the request's field with -EINVAL: "map[3].offset". */
IOMMUBROKER_API const char *iommubroker_error_field(const struct iommubroker_error *error);
/* With -EDQUOT: which limit, its value, what was used, what was asked for, who is charged, and
 * where the limit is written down (file:line). With -ENOENT: what kind of object was not found. */
IOMMUBROKER_API const char *iommubroker_error_resource(const struct iommubroker_error *error);
IOMMUBROKER_API uint64_t iommubroker_error_limit(const struct iommubroker_error *error);
IOMMUBROKER_API uint64_t iommubroker_error_used(const struct iommubroker_error *error);
IOMMUBROKER_API uint64_t iommubroker_error_requested(const struct iommubroker_error *error);
IOMMUBROKER_API const char *iommubroker_error_tenant(const struct iommubroker_error *error);
IOMMUBROKER_API const char *iommubroker_error_rule(const struct iommubroker_error *error);
/* With -EAGAIN: when to try again; 0: not said. */
IOMMUBROKER_API uint64_t iommubroker_error_retry_after_ms(const struct iommubroker_error *error);
IOMMUBROKER_API struct iommubroker_error *iommubroker_error_free(struct iommubroker_error *error);

/* ---- Sessions -------------------------------------------------------------------------------- */

/* Connect to the daemon's fd.sock and open a session for this process. path NULL:
 * /run/iommubroker/fd.sock. name is shown to operators: at most 63 bytes, or NULL. Also -ENOENT,
 * -EACCES, -ECONNREFUSED and the like of connect(2). */
IOMMUBROKER_API int iommubroker_session_open(const char *path, const char *name,
					     struct iommubroker_session **ret_session,
					     struct iommubroker_error **ret_error);
/* The same over a connected SOCK_SEQPACKET socket, consumed also on failure. */
IOMMUBROKER_API int iommubroker_session_open_fd(int consume_fd, const char *name,
						struct iommubroker_session **ret_session,
						struct iommubroker_error **ret_error);
/* How long a blocking call, other than iommubroker_refresh(), waits for the next sign of life of
 * its answer (the answer or progress), 1 ns to IOMMUBROKER_NO_TIMEOUT. At first: no limit. */
IOMMUBROKER_API void iommubroker_session_set_timeout(struct iommubroker_session *session,
						     uint64_t timeout_ns);
/* What gRPC calls of this same process carry as metadata "iommubroker-session-bin" to be calls of
 * this session: IOMMUBROKER_SECRET_BYTES bytes, the session's. Not to be logged. */
IOMMUBROKER_API const uint8_t *iommubroker_session_secret(
	const struct iommubroker_session *session);
/* Who is charged for what this session uses. */
IOMMUBROKER_API const char *iommubroker_session_tenant(const struct iommubroker_session *session);
/* 0: the daemon is there. -EAGAIN: it is not, and the session waits for its successor. For good:
 * -ECONNRESET, it did not come back in time, or it is not known where it listens; -EPERM, it came
 * back and does not know the session any more, whose guests are released; -EBADMSG. Looks by itself
 * whether the daemon is there, and goes on with connecting; never waits. */
IOMMUBROKER_API int iommubroker_session_state(struct iommubroker_session *session);
/* How long a lost daemon is waited for, 0 (not at all) to IOMMUBROKER_NO_TIMEOUT; at first 60
 * seconds. Counts while anybody waits or looks, from each loss anew. */
IOMMUBROKER_API void iommubroker_session_set_reconnect_limit(struct iommubroker_session *session,
							     uint64_t limit_ns);
/* Where the daemon's fd.sock is found again, at most 107 bytes. At first: the path that
 * iommubroker_session_open() was given; of a socket, the path that it was connected to, if that is
 * absolute. Without one a lost daemon is not waited for. -ENAMETOOLONG. */
IOMMUBROKER_API int iommubroker_session_set_reconnect_path(struct iommubroker_session *session,
							   const char *path);
/* Called by iommubroker_process() after the session's state has changed, with what
 * iommubroker_session_state() says; once for changes that it came too late for. NULL: nobody. */
typedef void (*iommubroker_state_fn)(void *user_data, int state);
IOMMUBROKER_API void iommubroker_session_on_state(struct iommubroker_session *session,
						  iommubroker_state_fn function, void *user_data);
/* End it and wait until all of its guests are taken down. The object still has to be freed. */
IOMMUBROKER_API int iommubroker_session_close(struct iommubroker_session *session,
					      struct iommubroker_error **ret_error);
/* Close the connection, and so the session. Outstanding asynchronous calls end without callback.
 * No other thread may be in a call. */
IOMMUBROKER_API struct iommubroker_session *iommubroker_session_free(
	struct iommubroker_session *session);

/* ---- Asynchronous calls ---------------------------------------------------------------------- */

/*
 * iommubroker_..._submit() and iommubroker_watch_events() send a request and return at once with a
 * call number. Poll the session's descriptor for POLLIN in any event loop and call
 * iommubroker_process() then. -EAGAIN: the socket is full, or 63 calls are in flight.
 * Blocking calls may be made beside them, from callbacks too.
 */

/* The descriptor belongs to the session; only poll it. It stays readable once the daemon is gone
 * for good, and becomes readable whenever something is to be done to get it back. */
IOMMUBROKER_API int iommubroker_session_fd(const struct iommubroker_session *session);
/* Read what has come and call the callbacks, without waiting. Returns how many were called, or
 * -ECONNRESET, -EPERM or -EBADMSG when the session is lost and every call has had its last
 * callback; -EBUSY if called by two threads at once or from a callback. */
IOMMUBROKER_API int iommubroker_process(struct iommubroker_session *session);
/* End an asynchronous call. A change that has begun is undone; its callback comes with -ECANCELED,
 * or with 0 if it was too late. A refresh or a watch just ends, with -ECANCELED. -ENOENT: no
 * such call, or its last callback has come. */
IOMMUBROKER_API int iommubroker_cancel(struct iommubroker_session *session, uint64_t call);

/* ---- The daemon ------------------------------------------------------------------------------ */

struct iommubroker_host_info {
	const char *version; /* of the daemon */
	uint32_t api_version;
	uint32_t ring_version;  /* 0: no update rings */
	uint32_t state_version; /* 0: state is not kept across a restart */
	const char *backend;    /* "iommufd" or "emulated" */
	size_t n_features;
	const char *const *features;
	size_t n_formats;
	const char *const *formats; /* user page table formats: "s390", "managed" */
	uint32_t message_bytes_max;
	uint32_t map_ranges_max; /* of one iommubroker_memory_update(), unmaps and maps each */
	uint32_t refresh_ranges_max;
	uint32_t managed_entries_max;
};
IOMMUBROKER_API int iommubroker_host_info(struct iommubroker_session *session,
					  struct iommubroker_host_info **ret_info,
					  struct iommubroker_error **ret_error);
IOMMUBROKER_API struct iommubroker_host_info *iommubroker_host_info_free(
	struct iommubroker_host_info *info);

/* What a guest is going to need. */
struct iommubroker_demand {
	uint64_t guests;
	uint64_t pinned_bytes; /* sum of the lengths of all regions */
	uint64_t regions;
	uint64_t devices;
	uint64_t nested_domains;
	uint64_t mappings; /* sum of the reservations of all nested domains, 4 KiB leaves */
	uint64_t update_rings;
	uint32_t ring_lanes, ring_entries; /* of each; 0: one lane, 64 entries */
};
struct iommubroker_missing {
	const char *resource;
	uint64_t limit, used, requested;
	uint64_t missing; /* by how much it does not fit */
	const char *rule; /* where the limit is written down */
};
struct iommubroker_fit {
	bool fits;
	size_t n_missing;
	const struct iommubroker_missing *missing;
};
/* Would this fit? Answers as the real calls would, and changes nothing. */
IOMMUBROKER_API int iommubroker_check_fit(struct iommubroker_session *session,
					  const struct iommubroker_demand *demand,
					  struct iommubroker_fit **ret_fit,
					  struct iommubroker_error **ret_error);
IOMMUBROKER_API struct iommubroker_fit *iommubroker_fit_free(struct iommubroker_fit *fit);

struct iommubroker_usage_entry {
	const char *resource; /* "pinned_bytes", "mappings", "guests", ... */
	uint64_t current;
	uint64_t max; /* UINT64_MAX: no limit */
	uint64_t peak;
	uint64_t events; /* refusals */
};
struct iommubroker_usage {
	const char *tenant;
	size_t n_entries;
	const struct iommubroker_usage_entry *entries;
};
/* What this session's tenant uses. */
IOMMUBROKER_API int iommubroker_usage(struct iommubroker_session *session,
				      struct iommubroker_usage **ret_usage,
				      struct iommubroker_error **ret_error);
IOMMUBROKER_API struct iommubroker_usage *iommubroker_usage_free(struct iommubroker_usage *usage);

/* ---- Guests ---------------------------------------------------------------------------------- */

struct iommubroker_label {
	const char *key, *value; /* at most 63 bytes each */
};
struct iommubroker_guest_options {
	size_t struct_bytes; /* sizeof(struct iommubroker_guest_options) */
	const uint8_t *uuid; /* 16 bytes, or NULL */
	const char *name;    /* at most 63 bytes, or NULL */
	size_t n_labels;     /* at most 8 */
	const struct iommubroker_label *labels;
	uint64_t pinned_bytes_max; /* limits below those of the tenant; 0: none */
	uint64_t mappings_max;     /* sum of the reservations of its nested domains */
};
/* options may be NULL. */
IOMMUBROKER_API int iommubroker_guest_create(struct iommubroker_session *session,
					     const struct iommubroker_guest_options *options,
					     struct iommubroker_guest **ret_guest,
					     struct iommubroker_error **ret_error);

struct iommubroker_region {
	uint64_t memory_file; /* handle */
	uint64_t offset, gpa, length, granule;
	uint32_t access; /* enum iommubroker_access */
};
struct iommubroker_guest_device {
	uint64_t device;     /* handle */
	uint64_t nested;     /* handle of what it is attached to, or 0 */
	uint32_t attachment; /* enum iommubroker_attachment */
	bool bound;
	bool has_function_id;
	uint32_t function_id;
	const char *pci_address;
};
struct iommubroker_guest_nested {
	uint64_t nested, device; /* handles */
	uint32_t index;
	bool attached;
	const char *format; /* "s390", "relaxed", "managed" */
	uint64_t iota;
	uint64_t first, last; /* window */
	uint64_t live_leaves; /* installed, in 4 KiB */
	uint64_t kept_tables, kept_bytes;
	uint64_t mappings_reserved;
	uint64_t refreshes;
	uint64_t backend_maps, backend_unmaps; /* calls of the backend */
};
struct iommubroker_guest_info {
	uint64_t guest; /* handle */
	const char *name;
	const char *tenant;
	bool pinned; /* its memory is pinned: a device has been bound */
	uint64_t region_bytes;
	uint64_t mappings_reserved;
	size_t n_regions, n_devices, n_nested;
	const struct iommubroker_region *regions;
	const struct iommubroker_guest_device *devices;
	const struct iommubroker_guest_nested *nested;
};
/* A guest with many regions takes several answers. If its memory is changed meanwhile the regions
 * can be partly of before and partly of after: describe it when no update is under way. */
IOMMUBROKER_API int iommubroker_guest_describe(struct iommubroker_guest *guest,
					       struct iommubroker_guest_info **ret_info,
					       struct iommubroker_error **ret_error);
IOMMUBROKER_API struct iommubroker_guest_info *iommubroker_guest_info_free(
	struct iommubroker_guest_info *info);
/* The guest reboots: devices are blocked, all nested domains go (free their objects), memory stays
 * pinned. ret_destroyed, how many went, may be NULL. */
IOMMUBROKER_API int iommubroker_guest_reset(struct iommubroker_guest *guest,
					    uint32_t *ret_destroyed,
					    struct iommubroker_error **ret_error);
/* Take it down; answers when nothing of it is left. */
IOMMUBROKER_API int iommubroker_guest_destroy(struct iommubroker_guest *guest,
					      struct iommubroker_error **ret_error);
/* Announce that the guest goes on in another process: for so many seconds from now, 1 to 3600, the
 * end of this one does not take it down. block_dma: its devices are blocked while nobody has it.
 * The session must then end with its connection or the process, not by iommubroker_session_close(),
 * which would wait for the other. */
IOMMUBROKER_API int iommubroker_guest_prepare_handover(struct iommubroker_guest *guest,
						       uint32_t seconds, bool block_dma,
						       struct iommubroker_error **ret_error);
/* The other process: the guest, with all that is in it, is this session's. secret:
 * IOMMUBROKER_SECRET_BYTES, see below. iommubroker_guest_describe() tells what there is,
 * iommubroker_guest_device() gives its devices. -ENOENT: no guest has that secret, it is another
 * user's, or its time was over; -EBUSY: somebody still has it; -EDQUOT: this session's tenant has
 * no room for it, and it waits on. */
IOMMUBROKER_API int iommubroker_guest_resume(struct iommubroker_session *session,
					     const uint8_t *secret,
					     struct iommubroker_guest **ret_guest,
					     struct iommubroker_error **ret_error);
/* What it can be resumed by: IOMMUBROKER_SECRET_BYTES bytes, the guest's, not to be logged; NULL of
 * a guest that was delegated to this session. */
IOMMUBROKER_API const uint8_t *iommubroker_guest_secret(const struct iommubroker_guest *guest);
/* The daemon's name for it, as operators see it. */
IOMMUBROKER_API uint64_t iommubroker_guest_handle(const struct iommubroker_guest *guest);
IOMMUBROKER_API struct iommubroker_guest *iommubroker_guest_free(struct iommubroker_guest *guest);

/* ---- Managers -------------------------------------------------------------------------------- */

/*
 * A manager creates a guest, opens its devices, and hands the guest on to its VMM: by a connected
 * socket that the VMM inherits and gives to iommubroker_session_open_fd(), or by a socket that
 * listens, to whose path the VMM connects with iommubroker_session_open(). The VMM then has a
 * session that can use this one guest, with the rights that it was given; the first process that
 * opens it has it, and no other.
 */

/* The same as iommubroker_guest_create() for another process, which its pidfd names: charged to
 * that one's tenant, as it is at this moment: name the VMM once it is in its cgroup and has dropped
 * its privileges; a child that is still root is charged to root's tenant, and the guest stays
 * there. -EACCES: no rule marks this process as a manager, or no rule is for that one. */
IOMMUBROKER_API int iommubroker_guest_create_for(struct iommubroker_session *session,
						 int borrow_pidfd,
						 const struct iommubroker_guest_options *options,
						 struct iommubroker_guest **ret_guest,
						 struct iommubroker_error **ret_error);

#define IOMMUBROKER_RIGHT_MAP    (1u << 1) /* memory files and regions */
#define IOMMUBROKER_RIGHT_DEVICE (1u << 2) /* open, bind, close, its descriptor */
#define IOMMUBROKER_RIGHT_DOMAIN                                         \
	(1u << 3) /* nested domains, what devices are attached to, reset \
		   */
#define IOMMUBROKER_RIGHT_REFRESH (1u << 4)
#define IOMMUBROKER_RIGHT_EVENTS  (1u << 5)
#define IOMMUBROKER_RIGHT_HOLD    (1u << 6) /* the guest lives while a session with it lives */
#define IOMMUBROKER_RIGHTS_ALL    0x7eu

struct iommubroker_delegation_options {
	size_t struct_bytes;       /* sizeof(struct iommubroker_delegation_options) */
	uint32_t rights;           /* set of IOMMUBROKER_RIGHT_...; at least one */
	uint64_t pinned_bytes_max; /* of the guest, while the delegation lasts; 0: no further limit
				    */
	uint64_t mappings_max;
	size_t n_devices;        /* 0: all; else calls on others are -ENOENT, at most 64 */
	const uint64_t *devices; /* iommubroker_device_handle() */
	int peer_pidfd;          /* who alone may use it, borrowed; -1: who does so first */
};
/* ret_socket: the connected socket, close-on-exec, the caller's. The delegation ends when nobody
 * has it any more, when its session ends, or when it is revoked. */
IOMMUBROKER_API int iommubroker_guest_delegate(struct iommubroker_guest *guest,
					       const struct iommubroker_delegation_options *options,
					       uint64_t *ret_delegation, int *ret_socket,
					       struct iommubroker_error **ret_error);
/* The daemon listens on borrow_socket, a unix socket of type SOCK_SEQPACKET that listens, until the
 * first session through it has ended, and over restarts of its own. -EINVAL: it listens on this
 * open socket for another delegation. For managers only. peer_pidfd must be -1. */
IOMMUBROKER_API int iommubroker_guest_delegate_listening(
	struct iommubroker_guest *guest, const struct iommubroker_delegation_options *options,
	int borrow_socket, uint64_t *ret_delegation, struct iommubroker_error **ret_error);
/* By the session that delegated: the other session ends, and its guest with it if nobody else holds
 * that. */
IOMMUBROKER_API int iommubroker_delegation_revoke(struct iommubroker_session *session,
						  uint64_t delegation,
						  struct iommubroker_error **ret_error);

/* For whom it was delegated to: the session's guest (its first, if it has several). -ENOENT: none.
 */
IOMMUBROKER_API int iommubroker_session_guest(struct iommubroker_session *session,
					      struct iommubroker_guest **ret_guest,
					      struct iommubroker_error **ret_error);
/* An object for a device that another session of the guest has opened; handle as in struct
 * iommubroker_guest_device. Asks nobody. -ENOMEM. */
IOMMUBROKER_API int iommubroker_guest_device(struct iommubroker_guest *guest, uint64_t handle,
					     struct iommubroker_device **ret_device);

/* ---- Guest memory ---------------------------------------------------------------------------- */

enum iommubroker_access {
	IOMMUBROKER_ACCESS_NONE = 0, /* for iommubroker_nested_update(): unmap */
	IOMMUBROKER_ACCESS_READ = 1,
	IOMMUBROKER_ACCESS_READ_WRITE = 2,
};

/* Hand over a memfd, or a file of tmpfs or hugetlbfs, sealed against shrinking where it can be. The
 * descriptor is borrowed: it may be closed afterwards. */
IOMMUBROKER_API int iommubroker_memory_file_add(struct iommubroker_guest *guest, int borrow_fd,
						bool writable,
						struct iommubroker_memory_file **ret_file,
						struct iommubroker_error **ret_error);
/* As the daemon took it when it was added. */
IOMMUBROKER_API uint64_t iommubroker_memory_file_length(const struct iommubroker_memory_file *file);
IOMMUBROKER_API uint64_t
iommubroker_memory_file_page_bytes(const struct iommubroker_memory_file *file);
/* -EBUSY while a region uses it. */
IOMMUBROKER_API int iommubroker_memory_file_remove(struct iommubroker_memory_file *file,
						   struct iommubroker_error **ret_error);
IOMMUBROKER_API struct iommubroker_memory_file *iommubroker_memory_file_free(
	struct iommubroker_memory_file *file);

struct iommubroker_address_range {
	uint64_t first, last;
};
struct iommubroker_map {
	struct iommubroker_memory_file *file;
	uint64_t offset, gpa, length; /* multiples of 4096 and of the file's page size */
	uint64_t granule; /* where it may be cut later, a power of two >= 4096; 0: never */
	uint32_t access;  /* enum iommubroker_access, not NONE */
};
/* First every unmap, then every map; as a whole or not at all. At most 512 of each. */
struct iommubroker_memory_update {
	size_t n_unmap, n_map;
	const struct iommubroker_address_range *unmap; /* guest physical; takes what lies inside */
	const struct iommubroker_map *map;
};
struct iommubroker_memory_change {
	bool pinned;                              /* false until a device is bound */
	uint64_t region_bytes;                    /* of the whole guest, after this */
	uint64_t leaves_dropped, leaves_restored; /* in nested domains, 4 KiB */
};
/* How far a long call has come. Answering other than 0 cancels it: it is undone, and ends with
 * -ECANCELED unless it was done already. Called without locks, on the caller's thread. */
typedef int (*iommubroker_progress_fn)(void *user_data, uint64_t done_bytes, uint64_t total_bytes);
/* progress and ret_change may be NULL. */
IOMMUBROKER_API int iommubroker_memory_update(struct iommubroker_guest *guest,
					      const struct iommubroker_memory_update *update,
					      iommubroker_progress_fn progress, void *user_data,
					      struct iommubroker_memory_change *ret_change,
					      struct iommubroker_error **ret_error);
/* change is NULL unless result is 0; error is NULL if it is, and lives as long as the callback. */
typedef void (*iommubroker_memory_fn)(void *user_data, int result,
				      const struct iommubroker_memory_change *change,
				      const struct iommubroker_error *error);
IOMMUBROKER_API int iommubroker_memory_update_submit(struct iommubroker_guest *guest,
						     const struct iommubroker_memory_update *update,
						     iommubroker_progress_fn progress,
						     iommubroker_memory_fn done, void *user_data,
						     uint64_t *ret_call);

/* ---- Devices --------------------------------------------------------------------------------- */

/* Open a device by its zPCI function id, its PCI address ("0000:00:04.0"), or from a descriptor of
 * an unbound VFIO device (borrowed). *ret_fd, unless ret_fd is NULL, is the VMM's own descriptor,
 * unbound and close-on-exec: tell KVM about it (KVM_DEV_VFIO_FILE_ADD), then bind. */
IOMMUBROKER_API int iommubroker_device_open_function(struct iommubroker_guest *guest,
						     uint32_t function_id,
						     struct iommubroker_device **ret_device,
						     int *ret_fd,
						     struct iommubroker_error **ret_error);
IOMMUBROKER_API int iommubroker_device_open_pci(struct iommubroker_guest *guest,
						const char *address,
						struct iommubroker_device **ret_device, int *ret_fd,
						struct iommubroker_error **ret_error);
IOMMUBROKER_API int iommubroker_device_open_fd(struct iommubroker_guest *guest, int borrow_fd,
					       struct iommubroker_device **ret_device, int *ret_fd,
					       struct iommubroker_error **ret_error);
/* Bind it to the guest; blocked afterwards. The first one pins all of the guest's memory, with
 * progress. vf_token: 16 bytes, or NULL. */
IOMMUBROKER_API int iommubroker_device_bind(struct iommubroker_device *device,
					    const uint8_t *vf_token,
					    iommubroker_progress_fn progress, void *user_data,
					    struct iommubroker_error **ret_error);
typedef void (*iommubroker_bind_fn)(void *user_data, int result,
				    const struct iommubroker_error *error);
IOMMUBROKER_API int iommubroker_device_bind_submit(struct iommubroker_device *device,
						   const uint8_t *vf_token,
						   iommubroker_progress_fn progress,
						   iommubroker_bind_fn done, void *user_data,
						   uint64_t *ret_call);

struct iommubroker_device_info {
	uint32_t kernel_device_id; /* 0 before bind */
	bool has_function_id;
	uint32_t function_id;
	const char *pci_address;
	uint32_t vendor, device;
	size_t n_iova_ranges; /* usable ones, after bind */
	const struct iommubroker_address_range *iova_ranges;
	uint64_t page_sizes;          /* bit mask */
	uint64_t dma_first, dma_last; /* start and end of DMA */
	uint32_t designations; /* s390: bit 0 segment table, 1 region-third, 2 -second, 3 -first */
	bool relaxed_granted;
	bool refresh_required;
	uint64_t mappings_budget; /* what a nested domain may reserve at most now */
	uint32_t hw_info_type;
	size_t hw_info_bytes;
	const uint8_t *hw_info; /* as the kernel gave it */
	size_t n_features, n_group_members;
	const char *const *features;
	const char *const *group_members; /* PCI addresses */
};
IOMMUBROKER_API int iommubroker_device_info(struct iommubroker_device *device,
					    struct iommubroker_device_info **ret_info,
					    struct iommubroker_error **ret_error);
IOMMUBROKER_API struct iommubroker_device_info *iommubroker_device_info_free(
	struct iommubroker_device_info *info);
/* One more descriptor of it; the caller owns it. */
IOMMUBROKER_API int iommubroker_device_descriptor(struct iommubroker_device *device, int *ret_fd,
						  struct iommubroker_error **ret_error);
/* Stop and block it, destroy its nested domains (free their objects), close the daemon's
 * descriptor. *ret_still_held, unless NULL: somebody holds another descriptor of it, so that it
 * cannot be opened again yet. */
IOMMUBROKER_API int iommubroker_device_close(struct iommubroker_device *device,
					     bool *ret_still_held,
					     struct iommubroker_error **ret_error);
IOMMUBROKER_API uint64_t iommubroker_device_handle(const struct iommubroker_device *device);
IOMMUBROKER_API struct iommubroker_device *iommubroker_device_free(
	struct iommubroker_device *device);

/* ---- Nested domains -------------------------------------------------------------------------- */

/* The numbers are the API's. What a VMM tells its guest, for s390 zPCI: */
enum iommubroker_verdict {
	IOMMUBROKER_VERDICT_UNSPECIFIED = 0,
	IOMMUBROKER_VERDICT_DONE = 1,      /* condition code 0 */
	IOMMUBROKER_VERDICT_OPERAND = 2,   /* operand exception; nothing changed */
	IOMMUBROKER_VERDICT_SEQUENCE = 3,  /* cc 1, status 24 */
	IOMMUBROKER_VERDICT_RESOURCES = 4, /* cc 1, status 16; every unmap took effect */
	IOMMUBROKER_VERDICT_ERROR = 5,     /* cc 1, status 8, and the error event event_code; with
					      event_code 0 the host's function is in error */
	IOMMUBROKER_VERDICT_BUSY = 6,      /* cc 2: the guest tries again */
	IOMMUBROKER_VERDICT_GONE = 7,      /* error event 0x3b, from then on cc 3 */
};

enum iommubroker_level {
	IOMMUBROKER_LEVEL_UNSPECIFIED = 0,
	IOMMUBROKER_LEVEL_ANCHOR = 1,
	IOMMUBROKER_LEVEL_REGION_FIRST = 2,
	IOMMUBROKER_LEVEL_REGION_SECOND = 3,
	IOMMUBROKER_LEVEL_REGION_THIRD = 4,
	IOMMUBROKER_LEVEL_SEGMENT = 5,
	IOMMUBROKER_LEVEL_PAGE = 6,
};

/* The outcome of one refreshed range or of a first walk. */
struct iommubroker_result {
	uint32_t verdict;        /* enum iommubroker_verdict */
	uint32_t condition_code; /* what to set for the guest */
	uint32_t status;         /* what to store when condition_code is 1 */
	uint32_t event_code;     /* PEC of the error event with VERDICT_ERROR */
	uint64_t fault_iova;
	uint64_t fault_entry;          /* as read; of a table outside guest memory, its address */
	uint32_t fault_level;          /* enum iommubroker_level */
	uint32_t fault_outside_memory; /* 1: that table lies outside guest memory */
	uint64_t mapped;   /* 4 KiB leaves that became mapped, or changed frame or permission */
	uint64_t unmapped; /* 4 KiB leaves that were installed and now are not */
	uint64_t reserved[2];
};

struct iommubroker_anchor {
	uint64_t iota;
	uint64_t pba, pal; /* first and last IOVA; rounded outwards to 4 KiB */
};

/* What a registration came to. */
struct iommubroker_registration {
	uint32_t verdict; /* enum iommubroker_verdict */
	uint32_t condition_code, status;
	uint32_t index; /* names the domain in an update ring */
	/* Of the walk of the window that follows. An error there is an event, and no failure. */
	struct iommubroker_result walk;
	char reason[128]; /* with VERDICT_OPERAND: which rule the anchor broke */
};

/* Register the guest's tables: make a nested domain for the device; with attach the device is
 * attached to it, empty, and it is then filled from the tables. mappings_max: leaves that may be
 * installed at one time, charged now; 0: the daemon's default. With a verdict other than DONE the
 * call answers 0 and *ret_nested is NULL. */
IOMMUBROKER_API int iommubroker_nested_create_s390(
	struct iommubroker_device *device, const struct iommubroker_anchor *anchor, bool attach,
	uint64_t mappings_max, struct iommubroker_nested **ret_nested,
	struct iommubroker_registration *ret_registration, struct iommubroker_error **ret_error);
/* A nested domain whose entries the VMM gives itself, with iommubroker_nested_update(). */
IOMMUBROKER_API int iommubroker_nested_create_managed(
	struct iommubroker_device *device, const struct iommubroker_address_range *window,
	bool attach, uint64_t mappings_max, struct iommubroker_nested **ret_nested,
	struct iommubroker_registration *ret_registration, struct iommubroker_error **ret_error);
/* Re-register: another anchor. With a verdict other than DONE the old one stays. */
IOMMUBROKER_API int iommubroker_nested_replace(struct iommubroker_nested *nested,
					       const struct iommubroker_anchor *anchor,
					       struct iommubroker_registration *ret_registration,
					       struct iommubroker_error **ret_error);
/* Deregister. ret_leaves_dropped may be NULL. */
IOMMUBROKER_API int iommubroker_nested_destroy(struct iommubroker_nested *nested,
					       uint64_t *ret_leaves_dropped,
					       struct iommubroker_error **ret_error);
IOMMUBROKER_API uint64_t iommubroker_nested_handle(const struct iommubroker_nested *nested);
IOMMUBROKER_API struct iommubroker_nested *iommubroker_nested_free(
	struct iommubroker_nested *nested);

enum iommubroker_attachment {
	IOMMUBROKER_ATTACHMENT_UNSPECIFIED = 0,
	IOMMUBROKER_ATTACHMENT_BLOCKED = 1, /* no DMA */
	IOMMUBROKER_ATTACHMENT_PARENT = 2,  /* IOVA is the guest physical address */
	IOMMUBROKER_ATTACHMENT_RELAXED = 3, /* the same plus start of DMA */
	IOMMUBROKER_ATTACHMENT_NESTED = 4,
};
/* nested: with ATTACHMENT_NESTED one of this device, else NULL. ret_walk, written with
 * ATTACHMENT_NESTED, may be NULL. */
IOMMUBROKER_API int iommubroker_device_attach(struct iommubroker_device *device,
					      uint32_t attachment,
					      const struct iommubroker_nested *nested,
					      struct iommubroker_result *ret_walk,
					      struct iommubroker_error **ret_error);

struct iommubroker_range {
	uint64_t start, length; /* widened to whole 4 KiB pages; length 0 is done at once */
};
/*
 * The guest refreshed its tables: bring ranges in line with them, in order. For a vCPU thread, any
 * number of them at once: allocates nothing, needs no event loop, and is back at timeout_ns (or
 * soon after: as late as the scheduler lets it) with something that the guest can be told. Pins
 * nothing.
 *
 * n: 1 to 256. ret_results: n of them, all written when the result is 0. What kept the daemon from
 * answering is a verdict too:
 *   BUSY   timeout, daemon lost or restarting, rate exceeded, too many calls in flight. Not
 *          answered sooner than 1 ms after the call, or at timeout_ns if that is less.
 *   GONE   the nested domain, or its session, is no more, also after a restart
 *   ERROR  with event_code 0: the host failed
 * The result is -EINVAL for a wrong n or a request that the daemon calls malformed.
 * After a timeout the daemon may still act on the request; to refresh again is always right.
 */
IOMMUBROKER_API int iommubroker_refresh(struct iommubroker_nested *nested,
					const struct iommubroker_range *ranges, size_t n,
					uint64_t timeout_ns,
					struct iommubroker_result *ret_results);
/* results live as long as the callback; NULL unless result is 0. Without timeout: the VMM answers
 * BUSY when it likes and cancels the call. */
typedef void (*iommubroker_refresh_fn)(void *user_data, int result,
				       const struct iommubroker_result *results, size_t n);
IOMMUBROKER_API int iommubroker_refresh_submit(struct iommubroker_nested *nested,
					       const struct iommubroker_range *ranges, size_t n,
					       iommubroker_refresh_fn done, void *user_data,
					       uint64_t *ret_call);

struct iommubroker_entry {
	uint64_t iova, length, gpa; /* multiples of 4096; length not 0 */
	uint32_t access;            /* enum iommubroker_access; NONE unmaps */
};
/* Entries of a managed domain: done in order, stops at the first that fails. n: 1 to 256;
 * ret_results has room for n, *ret_n says how many were tried. */
IOMMUBROKER_API int iommubroker_nested_update(struct iommubroker_nested *nested,
					      const struct iommubroker_entry *entries, size_t n,
					      struct iommubroker_result *ret_results, size_t *ret_n,
					      struct iommubroker_error **ret_error);

/* ---- Update rings ---------------------------------------------------------------------------- */

enum iommubroker_ring_operation {
	IOMMUBROKER_RING_REFRESH = 1,
	IOMMUBROKER_RING_MAP = 2, /* an entry of a managed domain */
	IOMMUBROKER_RING_UNMAP = 3,
};
struct iommubroker_ring_entry {
	uint32_t operation;    /* enum iommubroker_ring_operation */
	uint32_t nested_index; /* iommubroker_registration's index */
	uint64_t iova, length; /* bytes, as of the calls */
	uint64_t gpa;          /* with RING_MAP */
	uint64_t user_data;    /* comes back with the result */
	uint32_t writable;     /* with RING_MAP: 0 or 1 */
	uint32_t reserved[5];
};
struct iommubroker_ring_result {
	uint64_t user_data;
	struct iommubroker_result result; /* fault_entry, fault_level and fault_outside_memory: 0 */
};

/* A ring for a guest's refreshes without a call each: `lanes` queues (1 to 64), one for each thread
 * that submits, of `entries` (a power of two, at most 1024) submissions and as many results. It
 * belongs to this session and ends with it and with the guest. It outlives the daemon's process:
 * what is submitted while there is none is done by the next. */
IOMMUBROKER_API int iommubroker_ring_create(struct iommubroker_guest *guest, uint32_t lanes,
					    uint32_t entries, struct iommubroker_ring **ret_ring,
					    struct iommubroker_error **ret_error);
/* What is under way may be done or not. The object stays until it is freed. */
IOMMUBROKER_API int iommubroker_ring_destroy(struct iommubroker_ring *ring,
					     struct iommubroker_error **ret_error);
IOMMUBROKER_API struct iommubroker_ring *iommubroker_ring_free(struct iommubroker_ring *ring);
/* The next three never allocate and take no lock; of one lane they are for one thread at a time.
 * What a call would have refused is a verdict: OPERAND for what is wrong or not this session's
 * right, GONE for an index that names nothing, BUSY above a rate (never delayed, as a call is).
 *
 * How many of the n were taken, which is fewer if results were not reaped: at most `entries` may be
 * between submission and reaping. -EINVAL: no such lane. -EIO: the daemon stopped the lane, because
 * somebody wrote nonsense into its indices; destroy the ring. -ECONNRESET: the ring has ended. */
IOMMUBROKER_API int iommubroker_ring_submit(struct iommubroker_ring *ring, uint32_t lane,
					    const struct iommubroker_ring_entry *entries, size_t n);
/* Results, in the order of the lane's submissions: how many, 0 if none is there yet. -EINVAL,
 * -EIO and -ECONNRESET as above; -EBADMSG: the daemon's index makes no sense. */
IOMMUBROKER_API int iommubroker_ring_reap(struct iommubroker_ring *ring, uint32_t lane,
					  struct iommubroker_ring_result *ret_results,
					  size_t n_max);
/* Until there is something to reap, or never will be, as the next call says. timeout_ns:
 * nanoseconds, or IOMMUBROKER_NO_TIMEOUT. 0, -ETIMEDOUT, or -ECONNRESET: the ring has ended. */
IOMMUBROKER_API int iommubroker_ring_wait(struct iommubroker_ring *ring, uint32_t lane,
					  uint64_t timeout_ns);

struct iommubroker_step {
	uint32_t level; /* enum iommubroker_level */
	uint64_t table_gpa, entry_gpa, entry;
	const char *note;
};
struct iommubroker_explanation {
	uint64_t iova;
	size_t n_steps;
	const struct iommubroker_step *steps;
	/* What the guest's tables say now. */
	bool present, in_guest_memory;
	uint32_t access;
	uint64_t gpa, frame_bytes;
	uint32_t event_code; /* 0: no walk error */
	/* What the device sees. */
	bool installed;
	uint32_t installed_access;
	uint64_t installed_gpa;
	bool consistent;  /* both say the same */
	const char *text; /* one sentence for people */
};
/* Walk the guest's tables for one IOVA, and compare with what is installed. */
IOMMUBROKER_API int iommubroker_explain(struct iommubroker_nested *nested, uint64_t iova,
					struct iommubroker_explanation **ret_explanation,
					struct iommubroker_error **ret_error);
IOMMUBROKER_API struct iommubroker_explanation *iommubroker_explanation_free(
	struct iommubroker_explanation *explanation);

/* ---- Events ---------------------------------------------------------------------------------- */

enum iommubroker_event_kind {
	IOMMUBROKER_EVENT_UNSPECIFIED = 0,
	IOMMUBROKER_EVENT_TRANSLATION_ERROR = 1,
	IOMMUBROKER_EVENT_LEAF_REFUSED = 2,
	IOMMUBROKER_EVENT_MEMORY_LOST = 3,
	IOMMUBROKER_EVENT_DEVICE_FAULT = 4,
	IOMMUBROKER_EVENT_DEVICE_BLOCKED = 5,
	IOMMUBROKER_EVENT_DEVICE_WANTED = 6,
	IOMMUBROKER_EVENT_QUOTA_HIGH = 7,
	IOMMUBROKER_EVENT_REVOKED = 8,
	/* Told by the library; sequence: that of the event before. */
	IOMMUBROKER_EVENT_RESTARTING = 9,
	IOMMUBROKER_EVENT_RESUMED = 10,
	IOMMUBROKER_EVENT_GUEST_GONE = 11,
	IOMMUBROKER_EVENT_LOST = 12,
};
struct iommubroker_event {
	uint64_t sequence;              /* rises by one */
	uint64_t time_ns;               /* CLOCK_REALTIME */
	uint32_t kind;                  /* enum iommubroker_event_kind, or a newer one */
	uint64_t guest, device, nested; /* handles, or 0 */
	uint64_t iova, gpa;
	uint32_t event_code; /* with TRANSLATION_ERROR */
	uint64_t lost;       /* with LOST: how many */
	const char *text;
};
/* event is NULL in the last callback of a watch, which says why it ended: 0 with the guest, or
 * -ECANCELED, or -EOVERFLOW if 256 events waited for iommubroker_process(): watch again with since
 * at the last sequence number that was seen. */
typedef void (*iommubroker_event_fn)(void *user_data, int result,
				     const struct iommubroker_event *event,
				     const struct iommubroker_error *error);
/* since: sequence number of the last event seen; 0: from the oldest that is kept. */
IOMMUBROKER_API int iommubroker_watch_events(struct iommubroker_guest *guest, uint64_t since,
					     iommubroker_event_fn function, void *user_data,
					     uint64_t *ret_call);

#ifdef __cplusplus
}
#endif
#endif
