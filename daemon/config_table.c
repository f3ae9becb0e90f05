/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every setting of the daemon: name, type, default, bounds and documentation in one place. */

#include "config_table.h"

#include "config.h"

#define BROKER(field) offsetof(struct config, broker.field)
#define RPC(field)    offsetof(struct config, rpc.field)
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const char *const seals_choices[] = {"off", "permissive", "required", NULL};
static const char *const unpopulated_choices[] = {"reject", "charge", NULL};

const struct setting config_settings[] = {
	{"Limits", "PinnedMemoryMax", SETTING_BYTES, BROKER(host_pinned_bytes_max), "80%", 0, 0,
	 NULL, "Guest memory of all guests together that may be mapped and pinned."},
	{"Limits", "PinnedMemoryPerGuestMax", SETTING_BYTES, BROKER(guest_pinned_bytes_max),
	 "infinity", 0, 0, NULL, "Guest memory that one guest may map."},
	{"Limits", "MappingsPerGuestMax", SETTING_COUNT64, BROKER(guest_mappings_max), "4194304", 1,
	 0, NULL,
	 "4 KiB mappings that all nested domains of one guest may reserve together. A nested "
	 "domain "
	 "reserves when it is created what it may grow to, so that no refresh fails for what "
	 "others "
	 "use."},
	{"Limits", "MappingsPerNestedDomainDefault", SETTING_COUNT64,
	 BROKER(nested_mappings_default), "524288", 1, 1ull << 40, NULL,
	 "Mappings that a nested domain reserves when its VMM asks for no number, at most; a "
	 "smaller "
	 "DMA window reserves less."},
	{"Limits", "GuestsPerSessionMax", SETTING_COUNT32, BROKER(guests_per_session_max), "16", 1,
	 65536, NULL, "Guests of one session."},
	{"Limits", "SessionsMax", SETTING_COUNT32, BROKER(sessions_max), "1024", 1, 65536, NULL,
	 "Sessions of all clients."},
	{"Limits", "SessionsPerUserMax", SETTING_COUNT32, BROKER(sessions_per_user_max), "256", 1,
	 65536, NULL, "Sessions of the processes of one user."},
	{"Limits", "MemoryFilesMax", SETTING_COUNT32, BROKER(memory_files_max), "49152", 1, 1048576,
	 NULL,
	 "Memory files of all guests. Each takes a descriptor and a mapping of the daemon's, of "
	 "which "
	 "it may have as many as LimitNOFILE= of its unit and vm.max_map_count say."},
	{"Limits", "MemoryFilesPerUserMax", SETTING_COUNT32, BROKER(memory_files_per_user_max),
	 "16384", 1, 1048576, NULL, "Memory files of the guests of one user's processes."},
	{"Limits", "RegionsPerGuestMax", SETTING_COUNT32, BROKER(regions_per_guest_max), "4096", 1,
	 65536, NULL, "Memory regions of one guest."},
	{"Limits", "DevicesPerGuestMax", SETTING_COUNT32, BROKER(devices_per_guest_max), "32", 1,
	 4096, NULL, "Devices of one guest."},
	{"Limits", "NestedDomainsPerGuestMax", SETTING_COUNT32, BROKER(nested_per_guest_max), "64",
	 1, 4096, NULL, "Nested domains of one guest."},
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
	{"Clients", "ConnectionsMax", SETTING_COUNT32, RPC(connections_max), "1024", 1, 65536, NULL,
	 "Connections of all clients."},
	{"Clients", "ConnectionsPerUserMax", SETTING_COUNT32, RPC(connections_per_user_max), "256",
	 1, 65536, NULL, "Connections of the processes of one user."},
	{"Clients", "CallsPerConnectionMax", SETTING_COUNT32, RPC(calls_per_connection_max), "64",
	 1, 1024, NULL, "Calls in flight on one connection; a client that makes more is dropped.",
	 true},
	{"Clients", "DescriptorsWaitingMax", SETTING_COUNT32, RPC(descriptors_waiting_max), "16", 1,
	 64, NULL, "Descriptors of one session that wait to be used or fetched."},
	{"Clients", "DescriptorTimeout", SETTING_MILLISECONDS, RPC(descriptor_wait_ms), "10s", 10,
	 600000, NULL, "How long such a descriptor waits before it is closed."},
	{"Clients", "FirstRequestTimeout", SETTING_MILLISECONDS, RPC(first_request_ms), "10s", 10,
	 600000, NULL, "How long a new connection may stay silent before it is dropped.", true},
	{"Translation", "Designations", SETTING_DESIGNATIONS, BROKER(designations), "ST RT RS RF",
	 0, 0, NULL, "Designation types of s390 anchors that are served, blank between them."},
	{"Service", "WorkerThreadsMax", SETTING_COUNT32, BROKER(threads_max), "32", 4, 32, NULL,
	 "Threads for long work; one tenant uses at most a quarter of them.", true},
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
	{"User", "*",
	 "Users that the rule is for: names or numbers, blank between them; * is any."},
	{"FunctionId", "",
	 "zPCI function ids that they may open, blank or comma between them; * is any."},
	{"PciAddress", "", "PCI addresses that they may open, likewise."},
	{"PassedDescriptor", "no", "Whether they may pass in descriptors of devices they opened."},
	{"RelaxedTranslation", "no",
	 "Whether the function may use relaxed (direct) translation over all guest memory."},
};
const size_t n_device_rule_keys = LENGTH(device_rule_keys);

const struct rule_key match_rule_keys[] = {
	{"User", "",
	 "Users: names, numbers or globs, blank between them. Names are looked up when the file is "
	 "read. * is any."},
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
};
const size_t n_match_rule_keys = LENGTH(match_rule_keys);

const struct quota_key quota_rule_keys[] = {
	{{"PinnedMemoryMax", "",
	  "Guest memory of a tenant's guests that may be mapped and pinned."},
	 SETTING_BYTES,
	 LEDGER_PINNED_BYTES,
	 false},
	{{"PinnedMemoryPerGuestMax", "", "The same, of one guest."},
	 SETTING_BYTES,
	 LEDGER_PINNED_BYTES,
	 true},
	{{"MappingsMax", "",
	  "4 KiB mappings that the nested domains of all of a tenant's guests may reserve."},
	 SETTING_COUNT64,
	 LEDGER_MAPPINGS,
	 false},
	{{"MappingsPerGuestMax", "", "The same, of one guest."},
	 SETTING_COUNT64,
	 LEDGER_MAPPINGS,
	 true},
	{{"TableMemoryMax", "",
	  "Memory that kept tables may take, as far as nested domains have reserved it."},
	 SETTING_BYTES,
	 LEDGER_TABLE_BYTES,
	 false},
	{{"SessionsMax", "", "Sessions of a tenant's processes."},
	 SETTING_COUNT64,
	 LEDGER_SESSIONS,
	 false},
	{{"GuestsMax", "", "Guests of a tenant."}, SETTING_COUNT64, LEDGER_GUESTS, false},
	{{"RegionsMax", "", "Memory regions of all of its guests."},
	 SETTING_COUNT64,
	 LEDGER_REGIONS,
	 false},
	{{"RegionsPerGuestMax", "", "Memory regions of one guest."},
	 SETTING_COUNT64,
	 LEDGER_REGIONS,
	 true},
	{{"MemoryFilesMax", "", "Memory files of all of its guests."},
	 SETTING_COUNT64,
	 LEDGER_MEMORY_FILES,
	 false},
	{{"DevicesMax", "", "Devices of all of its guests."},
	 SETTING_COUNT64,
	 LEDGER_DEVICES,
	 false},
	{{"DevicesPerGuestMax", "", "Devices of one guest."},
	 SETTING_COUNT64,
	 LEDGER_DEVICES,
	 true},
	{{"NestedDomainsMax", "", "Nested domains of all of its guests."},
	 SETTING_COUNT64,
	 LEDGER_NESTED,
	 false},
	{{"NestedDomainsPerGuestMax", "", "Nested domains of one guest."},
	 SETTING_COUNT64,
	 LEDGER_NESTED,
	 true},
};
const size_t n_quota_rule_keys = LENGTH(quota_rule_keys);
