/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_CRASH_POINT_H
#define IB_UTIL_CRASH_POINT_H

/*
 * Named places at which the daemon can be made to die at once, for tests of what its successor
 * finds: $IOMMUBROKER_CRASH_AT names one, or one and how often it is to be passed ("pin-area:3"
 * dies the third time). $IOMMUBROKER_HANG_AT names one, and a file ("pin-area:/run/hold"): threads
 * that pass it stay there for as long as the file is, and the first makes another beside it, with
 * ".held" behind its name. Only where the build asked for them (-Dcrash_points=true); otherwise
 * they are nothing.
 */

/* name, what was done when it is passed. One table for the code, the tests and the list that
 * `iommubrokerd --crash-points` prints. Names of a mutation stand in the order in which it passes
 * them. */
#define CRASH_POINTS(X)                                                                          \
	X(CONTEXT_MADE, "context-made", "CreateGuest: the kernel has a context")                 \
	X(STATE_STORED, "state-stored", "CreateGuest: the state file is stored")                 \
	X(CONTEXT_STORED, "context-stored", "CreateGuest: the context is stored")                \
	X(PARENT_MADE, "parent-made", "CreateGuest: the parent's address space is made")         \
	X(GUEST_LISTED, "guest-listed", "CreateGuest: the guest has a handle")                   \
	X(FILE_MAPPED, "file-mapped", "AddMemoryFile: checked and mapped")                       \
	X(FILE_STORED, "file-stored", "AddMemoryFile: its descriptor is stored")                 \
	X(FILE_LISTED, "file-listed", "AddMemoryFile: the file has a handle")                    \
	X(FILE_WITHDRAWN, "file-withdrawn", "RemoveMemoryFile: its handle is gone")              \
	X(FILE_UNWRITTEN, "file-unwritten", "RemoveMemoryFile: no record names it")              \
	X(FILE_FORGOTTEN, "file-forgotten", "RemoveMemoryFile: it is stored no more")            \
	X(MEMORY_POPULATED, "memory-populated", "UpdateMemory: all was looked at")               \
	X(MEMORY_WRITTEN, "memory-written", "UpdateMemory: written down, nothing done")          \
	X(MEMORY_HIDDEN, "memory-hidden", "UpdateMemory: what goes is closed to walks")          \
	X(MEMORY_CUT, "memory-cut", "UpdateMemory: a nested domain shows it no more")            \
	X(MEMORY_RELAXED_CUT, "memory-relaxed-cut", "UpdateMemory: nor do relaxed mappings")     \
	X(MEMORY_UNMAPPED, "memory-unmapped", "UpdateMemory: the parent has lost it")            \
	X(PIN_AREA, "pin-area", "UpdateMemory, BindDevice: one more area is pinned")             \
	X(MEMORY_MAPPED, "memory-mapped", "UpdateMemory: all that comes is pinned")              \
	X(MEMORY_FOLLOWED, "memory-followed", "UpdateMemory: relaxed mappings have it")          \
	X(MEMORY_PUT_BACK, "memory-put-back", "UpdateMemory: refused, and a region is back")     \
	X(MEMORY_SHOWN, "memory-shown", "UpdateMemory: open to walks")                           \
	X(MEMORY_LISTED, "memory-listed", "UpdateMemory: the guest has it")                      \
	X(MEMORY_RECONCILED, "memory-reconciled", "UpdateMemory: nested domains follow")         \
	X(DEVICE_OPENED, "device-opened", "OpenDevice: open and granted")                        \
	X(DEVICE_STORED, "device-stored", "OpenDevice: its descriptor is stored")                \
	X(DEVICE_LISTED, "device-listed", "OpenDevice: the device has a handle")                 \
	X(BIND_WRITTEN, "bind-written", "BindDevice: written down, nothing done")                \
	X(BIND_BOUND, "bind-bound", "BindDevice: the kernel has it bound")                       \
	X(BIND_PAGE_TABLE, "bind-page-table", "BindDevice: the parent has a page table")         \
	X(BIND_PINNED, "bind-pinned", "BindDevice: all memory is pinned")                        \
	X(BIND_DONE, "bind-done", "BindDevice: done, not written down")                          \
	X(CLOSE_WRITTEN, "close-written", "CloseDevice: written down, nothing done")             \
	X(CLOSE_BLOCKED, "close-blocked", "CloseDevice: the device is blocked")                  \
	X(CLOSE_DROPPED, "close-dropped", "CloseDevice: its domains are gone")                   \
	X(CLOSE_FORGOTTEN, "close-forgotten", "CloseDevice: it is stored no more")               \
	X(CLOSE_CLOSED, "close-closed", "CloseDevice: our descriptor is closed")                 \
	X(CLOSE_DONE, "close-done", "CloseDevice: no record names it")                           \
	X(NESTED_STORAGE, "nested-storage", "CreateNested: charged, with storage")               \
	X(NESTED_IOAS, "nested-ioas", "CreateNested, Attach: an address space is made")          \
	X(NESTED_PAGE_TABLE, "nested-page-table", "CreateNested, Attach: with a page table")     \
	X(NESTED_LISTED, "nested-listed", "CreateNested: it has a handle")                       \
	X(NESTED_ATTACHED, "nested-attached", "CreateNested: attached, empty")                   \
	X(NESTED_FILLED, "nested-filled", "CreateNested: filled")                                \
	X(SHADOW_MAP, "shadow-map", "refresh: before a run is mapped")                           \
	X(SHADOW_MAPPED, "shadow-mapped", "refresh: a run is mapped, not booked")                \
	X(SHADOW_CUT, "shadow-cut", "refresh: before a run is cut")                              \
	X(SHADOW_WAS_CUT, "shadow-was-cut", "refresh: a run is cut, not booked")                 \
	X(REPLACE_ANCHOR, "replace-anchor", "ReplaceNested: the anchor is the new one")          \
	X(REPLACE_FILLED, "replace-filled", "ReplaceNested: the tables of the new one hold")     \
	X(REPLACE_MADE, "replace-made", "ReplaceNested: another address space is made")          \
	X(REPLACE_EXCHANGED, "replace-exchanged", "ReplaceNested: the device is attached to it") \
	X(REPLACE_WRITTEN, "replace-written", "ReplaceNested: the former one is to go")          \
	X(NESTED_GOES, "nested-goes", "DestroyNested: written down, nothing done")               \
	X(NESTED_BLOCKED, "nested-blocked", "DestroyNested: its device is blocked")              \
	X(NESTED_EMPTIED, "nested-emptied", "DestroyNested: it shows nothing")                   \
	X(DOMAIN_HALF, "domain-half", "a page table is destroyed, its address space is not")     \
	X(NESTED_GONE, "nested-gone", "DestroyNested: gone, a record names it")                  \
	X(ATTACH_DONE, "attach-done", "Attach: the kernel has it attached")                      \
	X(ATTACH_LEFT, "attach-left", "Attach: what it was attached to is left")                 \
	X(ATTACH_FILLED, "attach-filled", "Attach: the relaxed mapping is filled")               \
	X(ATTACH_WALKED, "attach-walked", "Attach: the nested domain is filled")                 \
	X(RESET_BLOCKED, "reset-blocked", "ResetGuest: a device is blocked")                     \
	X(RESET_DROPPED, "reset-dropped", "ResetGuest: a nested domain is gone")                 \
	X(RING_MADE, "ring-made", "CreateUpdateRing: charged, with memory and doorbells")        \
	X(RING_STORED, "ring-stored", "CreateUpdateRing: its descriptors are stored")            \
	X(RING_LOADED, "ring-loaded", "update ring: entries are read, nothing done")             \
	X(RING_WRITTEN, "ring-written", "update ring: done, completions are written")            \
	X(RING_COMMITTED, "ring-committed", "update ring: booked, not published")                \
	X(RING_PUBLISHED, "ring-published", "update ring: published, nobody rung")               \
	X(RING_ENDED, "ring-ended", "DestroyUpdateRing: it has ended, a record names it")        \
	X(DELEGATED, "delegated", "Delegate: the session is made")                               \
	X(HOME_LOST, "home-lost", "a guest goes to the next session that holds it")              \
	X(GUEST_GOES, "guest-goes", "DestroyGuest: written down, nothing done")                  \
	X(GUEST_DEVICES, "guest-devices", "DestroyGuest: its devices are gone")                  \
	X(GUEST_MEMORY, "guest-memory", "DestroyGuest: its memory is unpinned")                  \
	X(GUEST_CONTEXT, "guest-context", "DestroyGuest: its context is closed")                 \
	X(GUEST_FORGOTTEN, "guest-forgotten", "DestroyGuest: nothing of it is stored")           \
	X(PACKET_READ, "packet-read", "native: the loop has a packet, nothing done")             \
	X(BYTES_READ, "bytes-read", "gRPC: the guard's loop has a client's bytes")               \
	X(CALL_TAKEN, "call-taken", "gRPC: its queue's thread has a call")                       \
	X(SETTLE, "settle", "a call is over, not written down")                                  \
	X(SETTLE_WRITTEN, "settle-written", "a call is over and written down")                   \
	X(SETTLE_STORED, "settle-stored", "and all is stored: the reply comes next")             \
	X(RESTORE_ADOPTED, "restore-adopted", "start: a context is adopted")                     \
	X(RESTORE_DEVICES, "restore-devices", "start: devices are attached as recorded")         \
	X(RESTORE_SETTLED, "restore-settled", "start: what was under way is resolved")           \
	X(RESTORE_SWEPT, "restore-swept", "start: what no record names is destroyed")            \
	X(RESTORE_RECONCILED, "restore-reconciled", "start: nested domains are in line")         \
	X(RESTORE_DONE, "restore-done", "start: the guest is restored and written down")

enum crash_point {
#define CRASH_POINT_ENUM(id, name, what) CRASH_##id,
	CRASH_POINTS(CRASH_POINT_ENUM)
#undef CRASH_POINT_ENUM
		CRASH_POINTS_N
};

#ifdef IB_CRASH_POINTS
void crash_point(enum crash_point point);
#define CRASH_POINT(id) crash_point(CRASH_##id)
#else
#define CRASH_POINT(id) ((void)0)
#endif

/* One line each on stdout: name and what was done. Nothing where there are none. */
void crash_points_print(void);

#endif
