/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every setting of the daemon: name, type, default, bounds and documentation in one place. */

#include "config_table.h"

#include "config.h"
#include "config_limits.h"

#define BROKER(field) offsetof(struct config, broker.field)
#define RPC(field)    offsetof(struct config, rpc.field)
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const char *const seals_choices[] = {"off", "permissive", "required", NULL};
static const char *const rule_lost_choices[] = {"keep", "revoke", NULL};
static const char *const unpopulated_choices[] = {"reject", "charge", NULL};

/* ── limits ────────────────────────────────────────────────────────────────────────────────── */

#define LIMIT(key, kind, of_level, of_resource, of_type, least, most, text, what)            \
	{                                                                                    \
		.section = "Limits", .name = key, .type = SETTING_##of_type,                 \
		.offset = BROKER(limits[LIMIT_##of_level].kind[LEDGER_##of_resource]),       \
		.default_text = text, .min = least, .max = most, .doc = what, .limit = true, \
	}
#define LIMIT_THREE(resource, key, type, least, host, tenant, guest, what, more)                   \
	LIMIT(key "Max", max, HOST, resource, type, least, 0, host, what " of all tenants." more), \
		LIMIT(key "PerTenantMax", max, TENANT, resource, type, least, 0, tenant,           \
		      "The same, of the guests of each tenant."),                                  \
		LIMIT(key "PerGuestMax", max, GUEST, resource, type, least, 0, guest,              \
		      "The same, of each guest."),
#define LIMIT_TWO(resource, key, type, least, host, tenant, what, more)                            \
	LIMIT(key "Max", max, HOST, resource, type, least, 0, host, what " of all tenants." more), \
		LIMIT(key "PerTenantMax", max, TENANT, resource, type, least, 0, tenant,           \
		      "The same, of each tenant."),

#define RATE(key, of_level, kind, text, what)                                                  \
	{                                                                                      \
		.section = "Limits", .name = key, .type = SETTING_RATE,                        \
		.offset = BROKER(limits[LIMIT_##of_level].rate[RATE_##kind]),                  \
		.default_text = text, .min = 1, .max = UINT64_MAX, .doc = what, .limit = true, \
	}
#define RATE_THREE(kind, key, host, tenant, guest, what, more)                   \
	RATE(key "Max", HOST, kind, host, what " of all tenants." more),         \
		RATE(key "PerTenantMax", TENANT, kind, tenant,                   \
		     "The same, of the guests of each tenant and whatever else " \
		     "it does."),                                                \
		RATE(key "PerGuestMax", GUEST, kind, guest, "The same, of each guest."),
#define RATE_TWO(kind, key, host, tenant, what, more)                    \
	RATE(key "Max", HOST, kind, host, what " of all tenants." more), \
		RATE(key "PerTenantMax", TENANT, kind, tenant, "The same, of each tenant."),

const struct setting config_settings[] = {
	/* clang-format off */
	CONFIG_LIMITS(LIMIT_THREE, LIMIT_TWO)
	/* clang-format on */
	LIMIT("PinnedMemoryHigh", high, HOST, PINNED_BYTES, BYTES, 0, 0, "70%",
	      "Guest memory of all tenants above which the log gets a warning and the guest that "
	      "was last to map some an event; nothing is refused."),
	LIMIT("PinnedMemoryPerTenantHigh", high, TENANT, PINNED_BYTES, BYTES, 0, 0, "infinity",
	      "The same, of the guests of each tenant."),
	LIMIT("PinnedMemoryPerGuestHigh", high, GUEST, PINNED_BYTES, BYTES, 0, 0, "infinity",
	      "The same, of each guest."),
	LIMIT("GuestsPerSessionMax", max, SESSION, GUESTS, COUNT64, 1, 0, "256",
	      "Guests of one session."),
	LIMIT("EventQueueSize", max, GUEST, EVENT_SLOTS, COUNT64, 16, BROKER_EVENTS_MAX, "1024",
	      "Events of a guest that wait until they are read; then the oldest are lost. A guest "
	      "keeps the size that it was created with."),
	/* clang-format off */
	CONFIG_RATES(RATE_THREE, RATE_TWO)
	/* clang-format on */
	{"Limits", "MappingsPerNestedDomainDefault", SETTING_COUNT64,
	 BROKER(nested_mappings_default), "524288", 1, 1ull << 40, NULL,
	 "Mappings that a nested domain reserves when its VMM asks for no number, at most; a "
	 "smaller DMA window reserves less."},
	{"Memory", "RequireSeals", SETTING_CHOICE, BROKER(require_seals), "permissive", 0, 0,
	 seals_choices,
	 "Whether memory files must be sealed against shrinking: off, permissive (if the file can "
	 "be "
	 "sealed at all; files of tmpfs and hugetlbfs, and memfds made without MFD_ALLOW_SEALING, "
	 "cannot), or required. An unsealed file that shrinks harms only its own guest."},
	{"Memory", "UnpopulatedMemory", SETTING_CHOICE, BROKER(unpopulated_memory), "reject", 0, 0,
	 unpopulated_choices,
	 "What to do with memory whose pages are not allocated yet: reject the request, or charge "
	 "it, "
	 "allocating the pages on the daemon's own memory cgroup."},
	{"Memory", "PinSliceSize", SETTING_BYTES, BROKER(pin_slice_bytes), "256M", 1ull << 20,
	 256ull << 20, NULL,
	 "Memory that is pinned in one call of the kernel; between calls progress is told, and the "
	 "operation can be cancelled.",
	 true},
	{"Clients", "Users", SETTING_USERS, RPC(client_uids), "", 0, 0, NULL,
	 "Users whose processes may connect, besides root and the daemon's own user."},
	{"Clients", "Groups", SETTING_GROUPS, RPC(client_gids), "", 0, 0, NULL,
	 "Groups whose members may connect."},
	{"Clients", "CallsPerConnectionMax", SETTING_COUNT32, RPC(calls_per_connection_max), "64",
	 1, 1024, NULL, "Calls in flight on one connection; a client that makes more is dropped.",
	 true},
	{"Clients", "DescriptorsWaitingMax", SETTING_COUNT32, RPC(descriptors_waiting_max), "16", 1,
	 64, NULL, "Descriptors of one session that wait to be used or fetched."},
	{"Clients", "DescriptorTimeout", SETTING_MILLISECONDS, RPC(descriptor_wait_ms), "10s", 10,
	 600000, NULL, "How long such a descriptor waits before it is closed."},
	{"Clients", "FirstRequestTimeout", SETTING_MILLISECONDS, RPC(first_request_ms), "10s", 10,
	 600000, NULL, "How long a new connection may stay silent before it is dropped.", true},
	{"Clients", "DelegationClaimTimeout", SETTING_MILLISECONDS, BROKER(delegation_claim_ms),
	 "600s", 10, 86400000, NULL,
	 "How long a guest waits for the process that it was delegated to with HOLD, once nobody "
	 "else holds it and that process has not come yet; then it is taken down."},
	{"Clients", "RateDelayMax", SETTING_MILLISECONDS, RPC(rate_delay_ms), "1s", 10, 60000, NULL,
	 "How long a call waits, at most, when its tenant or the host is above a rate; one that "
	 "would have to wait longer is refused."},
	{"Translation", "Designations", SETTING_DESIGNATIONS, BROKER(designations), "ST RT RS RF",
	 0, 0, NULL, "Designation types of s390 anchors that are served, blank between them."},
	{"Devices", "OnRuleLost", SETTING_CHOICE, BROKER(rule_lost), "keep", 0, 0,
	 rule_lost_choices,
	 "What becomes of a device that no rule of device.d gives its guest any more after a "
	 "reload: "
	 "keep it until the guest gives it back, or revoke it: stop it and take it away. Revoke "
	 "also "
	 "blocks a device whose rule no longer grants relaxed translation, if that is what it "
	 "uses."},
	{"Service", "WorkerThreadsMax", SETTING_COUNT32, BROKER(threads_max), "32", 4, 32, NULL,
	 "Threads for long work; one tenant uses at most a quarter of them.", true},
	{"Service", "RingThreads", SETTING_COUNT32, offsetof(struct config, ring_threads), "2", 1,
	 8, NULL, "Threads that serve update rings.", true},
	{"Service", "DescriptorStoreMax", SETTING_COUNT32,
	 offsetof(struct config, descriptor_store_max), "16384", 0, 32768, NULL,
	 "Descriptors that lie with the service manager, at most, so that guests outlive the "
	 "daemon: a guest takes two, and one for each memory file, device and ring. Not more than "
	 "the unit's FileDescriptorStoreMax=: the manager drops silently what it has no room for "
	 "(from systemd 254 on it tells the daemon, and the smaller number holds). What has no "
	 "room is refused. 0: guests end with the daemon.",
	 true},
};
const size_t n_config_settings = LENGTH(config_settings);

#define FUNCTION(field) offsetof(struct iommu_emulated_function, field)

const struct setting emulated_settings[] = {
	{"EmulatedFunction", "FunctionId", SETTING_COUNT32, FUNCTION(fid), "", 0, UINT32_MAX, NULL,
	 "zPCI function id. Needed."},
	{"EmulatedFunction", "PciAddress", SETTING_PCI_ADDRESS, FUNCTION(pci_address), "", 0, 0,
	 NULL, "PCI address. Needed."},
	{"EmulatedFunction", "Vendor", SETTING_HEX16, FUNCTION(vendor), "0x1af4", 0, 0xffff, NULL,
	 "PCI vendor id."},
	{"EmulatedFunction", "Device", SETTING_HEX16, FUNCTION(device), "0x10f0", 0, 0xffff, NULL,
	 "PCI device id."},
	{"EmulatedFunction", "DmaFirst", SETTING_HEX64, FUNCTION(dma_first), "0x100000000", 0, 0,
	 NULL, "Start of DMA."},
	{"EmulatedFunction", "DmaLast", SETTING_HEX64, FUNCTION(dma_last), "0x1fffffffffffff", 0, 0,
	 NULL, "End of DMA, inclusive."},
	{"EmulatedFunction", "Designations", SETTING_DESIGNATIONS, FUNCTION(designations),
	 "ST RT RS RF", 0, 0, NULL, "Designation types that the function supports."},
	{"EmulatedFunction", "RefreshRequired", SETTING_BOOL, FUNCTION(refresh_required), "yes", 0,
	 0, NULL, "Whether the guest is told to refresh also what it made valid."},
};
const size_t n_emulated_settings = LENGTH(emulated_settings);

const struct rule_key device_rule_keys[] = {
	{"Tenant", "*",
	 "Tenants that the rule is for, by their names (see quota.d), as globs, blank between "
	 "them: prod, users/1000, vms/*."},
	{"User", "*",
	 "Users that the rule is for: names or numbers, blank between them; * is any. With Tenant= "
	 "both must fit."},
	{"FunctionId", "",
	 "zPCI function ids that they may open: numbers and ranges (0x10-0x1f), blank or comma "
	 "between them; * is any function, also one that has no id."},
	{"PciAddress", "", "PCI addresses, as globs: 0000:3b:00.*."},
	{"Id", "",
	 "Vendor and device ids in hex: 8086:1572, 1af4:*. Of FunctionId=, PciAddress= and Id= all "
	 "that are given must fit, each with one of its values."},
	{"Allow", "yes",
	 "no: who is named may not have these functions, whatever later rules say."},
	{"PassedDescriptor", "no",
	 "Whether they may also pass in descriptors of these functions that they opened; with no "
	 "function named, of any, and then none is opened for them."},
	{"RelaxedTranslation", "no",
	 "Whether the function may use relaxed (direct) translation over all guest memory."},
};
const size_t n_device_rule_keys = LENGTH(device_rule_keys);

const struct rule_key match_rule_keys[] = {
	{"User", "",
	 "Users: names, numbers or globs, blank between them. Names are looked up when the file is "
	 "read; one that does not exist is a mistake, unless a - stands before it. * is any."},
	{"Group", "", "Groups, likewise: any that the client is in, supplementary ones too."},
	{"Unit", "",
	 "Globs of the client's unit (.service, .scope): the system manager's, not one below it."},
	{"Slice", "", "Globs of slices that the client is in, at any depth."},
	{"CGroup", "",
	 "Globs of cgroup paths, the client's own or one above it; * does not cross a /."},
	{"TenantPer", "rule",
	 "Who is one tenant, with limits of its own: all for whom the rule is (rule), each user, "
	 "each "
	 "unit, or each slice; of several slices the innermost."},
	{"Manager", "no",
	 "Whether these clients may create guests on behalf of other processes, which are then "
	 "charged to the tenants of those. Says nothing about whom the rule matches."},
};
const size_t n_match_rule_keys = LENGTH(match_rule_keys);

#define QUOTA(name, kind, level, resource, type, least, most, what)                              \
	{                                                                                        \
		{name, "", what}, SETTING_##type, LIMIT_##level, LEDGER_##resource, kind, least, \
			most                                                                     \
	}
#define QUOTA_THREE(resource, key, type, least, host, tenant, guest, what, more) \
	QUOTA(key "Max", false, TENANT, resource, type, 0, 0,                    \
	      what " of all of a tenant's guests." more),                        \
		QUOTA(key "PerGuestMax", false, GUEST, resource, type, 0, 0,     \
		      "The same, of each of its guests."),
#define QUOTA_TWO(resource, key, type, least, host, tenant, what, more) \
	QUOTA(key "Max", false, TENANT, resource, type, 0, 0, what " of a tenant." more),

#define QUOTA_RATE(name, of_level, kind, what)                                            \
	{                                                                                 \
		.key = {name, "", what}, .type = SETTING_RATE, .level = LIMIT_##of_level, \
		.is_rate = true, .rate = RATE_##kind, .min = 1, .max = UINT64_MAX         \
	}
#define QUOTA_RATE_THREE(kind, name, host, tenant, guest, what, more)    \
	QUOTA_RATE(name "Max", TENANT, kind, what " of a tenant." more), \
		QUOTA_RATE(name "PerGuestMax", GUEST, kind, "The same, of each of its guests."),
#define QUOTA_RATE_TWO(kind, name, host, tenant, what, more) \
	QUOTA_RATE(name "Max", TENANT, kind, what " of a tenant." more),

const struct quota_key quota_rule_keys[] = {
	/* clang-format off */
	CONFIG_LIMITS(QUOTA_THREE, QUOTA_TWO)
	CONFIG_RATES(QUOTA_RATE_THREE, QUOTA_RATE_TWO)
	/* clang-format on */
	QUOTA("PinnedMemoryHigh", true, TENANT, PINNED_BYTES, BYTES, 0, 0,
	      "Guest memory of a tenant above which the log gets a warning and the guest that was "
	      "last to map some an event; nothing is refused."),
	QUOTA("PinnedMemoryPerGuestHigh", true, GUEST, PINNED_BYTES, BYTES, 0, 0,
	      "The same, of each of its guests."),
	QUOTA("GuestsPerSessionMax", false, SESSION, GUESTS, COUNT64, 0, 0,
	      "Guests of one session."),
	QUOTA("EventQueueSize", false, GUEST, EVENT_SLOTS, COUNT64, 16, BROKER_EVENTS_MAX,
	      "Events of a guest that wait until they are read."),
};
const size_t n_quota_rule_keys = LENGTH(quota_rule_keys);
