/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See command_table.h. */

#include "ctl/command_table.h"

#include <string.h>

#define AT(member) offsetof(struct options, member)

static const struct option_row explain_options[] = {
	{"fid", "N", OPTION_ID, AT(function_id), "by zPCI function id, in decimal, or hex with 0x"},
	{"nested", "HANDLE", OPTION_HEX, AT(nested), "by nested domain, in hex"},
	{0},
};

static const struct option_row top_options[] = {
	{"interval", "SECONDS", OPTION_SECONDS, AT(interval_ms), "time between frames (2)"},
	{"count", "N", OPTION_NUMBER, AT(count), "so many frames (until q; 1 if not a terminal)"},
	{"sort", "KEY", OPTION_TEXT, AT(sort),
	 "pinned (default), mappings, refreshes, refused, name"},
	{0},
};

static const struct option_row quota_options[] = {
	{"tenant", "TENANT", OPTION_TEXT, AT(tenant), "this tenant, and each of its guests"},
	{0},
};

static const struct option_row quota_explain_options[] = {
	{"user", "NAME", OPTION_TEXT, AT(user), "a user, by name or number"},
	{"unit", "UNIT", OPTION_TEXT, AT(unit), "a systemd unit that runs"},
	{"pid", "PID", OPTION_NUMBER, AT(pid), "a process"},
	{0},
};

static const struct option_row check_fit_options[] = {
	{"tenant", "TENANT", OPTION_TEXT, AT(tenant),
	 "for this tenant; without it the host's limits"},
	{"guests", "N", OPTION_NUMBER, AT(guests), "guests"},
	{"pinned", "SIZE", OPTION_SIZE, AT(pinned_bytes), "memory of all of them: 16G, 512M"},
	{"files", "N", OPTION_NUMBER, AT(memory_files), "memory files"},
	{"regions", "N", OPTION_NUMBER, AT(regions), "regions of memory"},
	{"devices", "N", OPTION_NUMBER, AT(devices), "devices"},
	{"nested", "N", OPTION_NUMBER, AT(nested_domains), "nested domains"},
	{"mappings", "N", OPTION_NUMBER, AT(mappings), "mappings reserved by all nested domains"},
	{"rings", "N", OPTION_NUMBER, AT(rings), "update rings"},
	{"ring-lanes", "N", OPTION_NUMBER, AT(ring_lanes), "lanes of each ring, 1 if not given"},
	{"ring-entries", "N", OPTION_NUMBER, AT(ring_entries),
	 "entries of each lane, 64 if not given"},
	{0},
};

static const struct option_row config_check_options[] = {
	{"config-dir", "DIR", OPTION_TEXT, AT(config_dir),
	 "without a daemon: read only this folder"},
	{"daemon", "FILE", OPTION_TEXT, AT(daemon), "without a daemon: the program that checks"},
	{0},
};

static const struct option_row config_show_options[] = {
	{"changed", NULL, OPTION_FLAG, AT(changed), "only what is written in some file"},
	{0},
};

static const struct option_row revoke_options[] = {
	{"reason", "TEXT", OPTION_TEXT, AT(reason), "for the journal and the guest's owner"},
	{0},
};

static const struct option_row drain_options[] = {
	{"wait", NULL, OPTION_FLAG, AT(wait), "until no guest is left"},
	{"timeout", "SECONDS", OPTION_SECONDS, AT(timeout_ms), "with --wait: at most so long"},
	{"cancel", NULL, OPTION_FLAG, AT(cancel), "accept again"},
	{0},
};

static const struct option_row monitor_options[] = {
	{"count", "N", OPTION_NUMBER, AT(count), "end after so many events"},
	{0},
};

static const struct option_row doctor_options[] = {
	{"root", "DIR", OPTION_TEXT, AT(root), "look at a tree of files under DIR"},
	{0},
};

/* clang-format off */
const struct command_row command_table[COMMANDS_N] = {
	[COMMAND_STATUS] = {"status", "", 0, 0, "the daemon, its totals, and who uses what",
		"The daemon: version, backend, what there is at present, and what the host as a whole\n"
		"and each tenant use, with the limit, the highest value so far and the number of\n"
		"refusals.", NULL},
	[COMMAND_LIST] = {"list", "", 0, 0, "all guests, one a line",
		"One line for each guest: handle, name, process of its owner, tenant, number of devices\n"
		"and of nested domains, memory, whether that is pinned, and leaves installed (in units\n"
		"of 4 KiB).", NULL},
	[COMMAND_SHOW] = {"show", "[GUEST]", 0, 1, "a guest in full, or all of them",
		"A guest in full, or every guest: memory map, devices and what they are attached to, and\n"
		"for each nested domain its window, anchor, leaves, kept tables and counters.", NULL},
	[COMMAND_TOP] = {"top", "", 0, 0, "who uses what, live",
		"Tenants and their guests: pinned memory, mappings installed, devices, refreshes a second\n"
		"and refusals, again and again; of tenants and the host also calls a second. On a\n"
		"terminal q ends it, and p, m, r, f and n sort by pinned memory, mappings, refreshes, refusals and name.\n"
		"Elsewhere it prints plain lines of at most 80 columns, one frame if --count is not\n"
		"given. With --json each frame is an object on a line.", top_options},
	[COMMAND_MONITOR] = {"monitor", "", 0, 0, "what happens, as it happens",
		"A line that begins with the time for each event, and indented lines for what it has no\n"
		"room for in 80 columns: sessions and guests that come and go, refusals, and what the\n"
		"guests' owners are told. An event 'lost' says how many could not wait for a slow\n"
		"reader. With --json each is an object on a line.", monitor_options},
	[COMMAND_EXPLAIN] = {"explain", "GUEST IOVA", 2, 2, "walk a guest's tables for an address",
		"Walk the guest's tables for one address, entry by entry, and compare what they say with\n"
		"what the device sees. The nested domain is the one that the function of --fid is\n"
		"attached to, or the one named by --nested: one of them must be given.", explain_options},
	[COMMAND_DUMP] = {"dump", "", 0, 0, "everything, as JSON",
		"Status and all guests, as one JSON object.", NULL},
	[COMMAND_QUOTA] = {"quota", "", 0, 0, "limits: use, peaks, refusals, and whose rule",
		"Every limit of the host and of each tenant: what is used, the soft limit, the limit, the\n"
		"highest use so far, refusals, and where the limit is written down. OVER marks what is\n"
		"above its limit since that was lowered. Rates follow, with how often somebody had to\n"
		"wait and was refused. What is neither limited nor was ever used is left out, but with\n"
		"--json. What tenants counted is kept after the last of their clients has left, of the\n"
		"256 that left last.", quota_options},
	[COMMAND_QUOTA_EXPLAIN] = {"quota explain", "USER|UNIT|PID", 0, 1,
		"which rule is for someone, and why",
		"Which tenant a user, a systemd unit or a process would be charged to, by which rule,\n"
		"with which limits, and why the rules before it are not for it. A number is a process, a\n"
		"name that ends as units do (.service, .scope, .slice) is a unit, any other a user;\n"
		"--user, --unit and --pid say it outright. A unit is looked for among those that run, as\n"
		"one of its processes is asked for its user and groups. It is refused (status 1) if the\n"
		"daemon would not serve that client: because Users= and Groups= of [Clients] do not let\n"
		"it connect, or because no rule is for it.", quota_explain_options},
	[COMMAND_CHECK_FIT] = {"check-fit", "", 0, 0, "whether guests would be accepted",
		"Whether that much more would be accepted now: status 0 if it fits, 1 if not, with what\n"
		"is missing, by how much, and under which rule. Nothing is reserved. What is not given\n"
		"counts as 0, and nothing at all given is wrong usage: a guest of 16 GiB with a device\n"
		"is --guests 1 --pinned 16G --devices 1.", check_fit_options},
	[COMMAND_CONFIG_CHECK] = {"config check", "", 0, 0, "read the configuration, tell mistakes",
		"Have the daemon read its configuration, and tell all mistakes, without taking it. If no\n"
		"daemon answers, or with --config-dir or --daemon, its program checks it instead.",
		config_check_options},
	[COMMAND_CONFIG_SHOW] = {"config show", "", 0, 0, "every setting, and where it comes from",
		"Every setting and rule that holds, with the file and line that it comes from.",
		config_show_options},
	[COMMAND_CONFIG_RELOAD] = {"config reload", "", 0, 0, "the same as reload",
		"The same as reload.", NULL},
	[COMMAND_RELOAD] = {"reload", "", 0, 0, "read the configuration again, and take it",
		"Have the daemon read its configuration again, and take it; tell what has changed by it,\n"
		"and what will at the next start only. A mistake in any file keeps everything as it was;\n"
		"all are told with file, line and key. Nothing that guests have is taken from them: what\n"
		"is used above a lower limit stays.", NULL},
	[COMMAND_REVOKE] = {"revoke", "guest|tenant|device WHAT", 2, 2,
		"take a guest's, tenant's or device's DMA away",
		"Take everything of a guest or of all guests of a tenant away, or a device from its\n"
		"guest: devices are stopped first, and the owners are told. A device is a PCI address,\n"
		"or fid: and a zPCI function id in hex. What was taken is printed, a line for each.",
		revoke_options},
	[COMMAND_DRAIN] = {"drain", "", 0, 0, "accept nothing new, before a stop",
		"Accept no new session, guest or device from now on; what there is goes on. When no guest\n"
		"is left, the daemon can be stopped without loss. With --wait it ends when that is so, or\n"
		"with status 1 when the time is over.", drain_options},
	[COMMAND_DOCTOR] = {"doctor", "", 0, 0, "look for what is wrong with this host",
		"Look at kernel, device nodes, groups, memory, service manager and daemon for what stops\n"
		"guests from being served, or will: each finding with its remedy, and what could not be\n"
		"seen without being root. Status 4 if something serious was found.", doctor_options},
	[COMMAND_METRICS] = {"metrics", "", 0, 0, "all metrics, as OpenMetrics text",
		"All metrics, as OpenMetrics text; with --json that text as the member 'text'.", NULL},
	[COMMAND_NAMES] = {"names", "guests|tenants", 1, 1, "names for scripts and completion",
		"Handles and names of guests, or names of tenants, one a line. Names that hold anything\n"
		"but letters, digits and . _ : @ + - are left out: clients choose them.", NULL},
};
/* clang-format on */

const struct command_example command_examples[] = {
	{"Which process holds the most memory:",
	 "iommubrokerctl --json list | jq '.guests | max_by(.region_bytes) | .pid'"},
	{"Why a device's DMA to an address faults:",
	 "iommubrokerctl explain --fid 0x10 web-3 0x100042000"},
	{"Why a VMM is refused, and whether a guest of 16 GiB would fit:",
	 "iommubrokerctl quota explain machine-web.scope"},
	{NULL, "iommubrokerctl check-fit --tenant prod --guests 1 --pinned 16G --devices 2"},
	{"Before a stop of the daemon:", "iommubrokerctl drain --wait --timeout 600"},
	{0},
};

static bool is_named(const char *name, const char *word, const char *next)
{
	size_t n = strlen(word);

	if (strncmp(name, word, n) != 0)
		return false;
	if (next == NULL)
		return name[n] == '\0';
	return name[n] == ' ' && strcmp(name + n + 1, next) == 0;
}

const struct command_row *command_find(int argc, char **argv, int *ret_words)
{
	for (int words = argc > 1 ? 2 : 1; words > 0 && argc > 0; words--)
		for (size_t i = 0; i < COMMANDS_N; i++)
			if (is_named(command_table[i].name, argv[0], words > 1 ? argv[1] : NULL)) {
				*ret_words = words;
				return &command_table[i];
			}
	return NULL;
}
