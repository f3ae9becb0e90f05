/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CONFIG_LIMITS_H
#define IB_CONFIG_LIMITS_H

/*
 * Every limited resource, one row each. Of a row config_table.c makes the settings of [Limits], for
 * the host, for each tenant and for each guest, and the keys of [Quota], for a tenant and its
 * guests: names, types, defaults and documentation.
 *
 * The defaults are for a host with some hundreds of guests, and hold together by this sum:
 *
 *   descriptors   a memory file, a guest, a session, a waiting descriptor take one each, a device
 *                 two, a connection up to four (its socket, its process, and gRPC's own two), a
 *                 ring up to 66:
 *                 49152 + 2048 + 2048 + 4096 + 2 * 8192 + 4 * 2048 + 66 * 512 = 115712,
 *                 of LimitNOFILE=131072
 *   mappings      of the daemon's own address space: a memory file one, a nested domain two (its
 *                 tables and the list of what it maps), a ring one:
 *                 49152 + 2 * 8192 + 512 = 66048 at the very worst;
 *                 vm.max_map_count is 65530, and whoever is refused by it is told so
 *   memory        what waits, 256 MiB; events, 2097152 of 128 bytes, 256 MiB; kept tables, a
 *                 quarter of the host's memory; each only as far as clients really fill it
 *   threads       do not grow with clients
 *
 * R(resource, key, type, least, host, tenant, guest, what, more) is one of enum ledger_resource;
 * its settings are called by key and Max, PerTenantMax or PerGuestMax, its keys of a rule by key
 * and Max or PerGuestMax; what and more are their documentation. T(resource, key, type, least,
 * host, tenant, what, more) is one that no guest has.
 */
/* clang-format off */
#define CONFIG_LIMITS(R, T)                                                                        \
	R(PINNED_BYTES, "PinnedMemory", BYTES, 0, "80%", "infinity", "infinity",                   \
	  "Guest memory that may be mapped and pinned,", "")                                       \
	R(MAPPINGS, "Mappings", COUNT64, 1, "268435456", "infinity", "4194304",                    \
	  "4 KiB mappings that nested domains may reserve,",                                       \
	  " A nested domain reserves when it is created what it may grow to, so that no refresh "  \
	  "fails for what others use.")                                                            \
	R(TABLE_BYTES, "TableMemory", BYTES, 0, "25%", "infinity", "infinity",                     \
	  "Memory of the daemon for guests' tables, as far as nested domains have reserved it,",   \
	  "")                                                                                      \
	R(REGIONS, "Regions", COUNT64, 1, "1048576", "infinity", "4096", "Memory regions", "")     \
	R(MEMORY_FILES, "MemoryFiles", COUNT64, 1, "49152", "16384", "64", "Memory files",         \
	  " Each takes a descriptor and a mapping of the daemon's, of which it may have as many "  \
	  "as LimitNOFILE= of its unit and vm.max_map_count say.")                                 \
	R(DEVICES, "Devices", COUNT64, 1, "8192", "infinity", "32", "Devices", "")                 \
	R(NESTED, "NestedDomains", COUNT64, 1, "8192", "infinity", "64", "Nested domains", "")     \
	R(RINGS, "Rings", COUNT64, 1, "512", "256", "4", "Update rings",                           \
	  " Each takes two descriptors of the daemon's and one for each lane, 66 at most.")        \
	T(GUESTS, "Guests", COUNT64, 1, "2048", "1024", "Guests", "")                              \
	T(EVENT_SLOTS, "EventSlots", COUNT64, 1, "2097152", "1048576",                             \
	  "Events that may wait in the queues of all guests", "")                                  \
	T(WATCHES, "EventWatches", COUNT64, 1, "8192", "2048", "Calls of WatchEvents", "")         \
	T(SESSIONS, "Sessions", COUNT64, 1, "2048", "1024", "Sessions", "")                        \
	T(CONNECTIONS, "Connections", COUNT64, 1, "2048", "1024", "Connections", "")               \
	T(CALLS, "Calls", COUNT64, 1, "16384", "4096", "Calls in flight", "")                      \
	T(DESCRIPTORS, "Descriptors", COUNT64, 1, "4096", "1024",                                  \
	  "Descriptors that wait to be used or fetched,", "")                                      \
	T(QUEUED_BYTES, "QueuedMemory", BYTES, 1, "256M", "64M",                                   \
	  "Bytes of requests that wait to be worked on, and of answers not sent yet,", "")
/* Every rate: R(kind, key, host, tenant, guest, what, more). Its settings are called by key and
 * Max, PerTenantMax or PerGuestMax, its keys of a rule by key and Max or PerGuestMax. T(kind, key,
 * host, tenant, what, more) is one that no guest has. The units of what is counted are those of
 * enum rate_kind. */
#define CONFIG_RATES(R, T)                                                                         \
	R(REQUESTS, "RequestRate", "infinity", "infinity", "infinity",                             \
	  "Calls, but RefreshNested, that may begin each second,",                                 \
	  " As many may come at once; those beyond are delayed, up to RateDelayMax, then refused " \
	  "until there is room again. Calls that only give back are delayed and never refused. "   \
	  "A guest's are those that name it, or something of it.")                                 \
	R(REFRESHES, "RefreshRate", "infinity", "infinity", "infinity",                            \
	  "Ranges of RefreshNested, and entries of UpdateNested, that may come each second,",      \
	  " As many, and at least 256, may come at once; calls beyond are delayed, up to "         \
	  "RateDelayMax, then refused: the guest is told to try again.")                           \
	T(CONNECTIONS, "ConnectionRate", "infinity", "infinity",                                   \
	  "Connections that may be made each second,",                                             \
	  " As many may come at once; the calls of those beyond are delayed, up to RateDelayMax, " \
	  "then refused until there is room again.")
/* clang-format on */

#endif
