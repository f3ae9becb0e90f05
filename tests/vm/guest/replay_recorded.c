/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The recorded guests of tests/data/traces, through the installed daemon on the machine's kernel,
 * with two real functions. As `replay_recorded [NAME...]`.
 */

#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "machine.h"
#include "replay_guest.h"

#define DATA "/usr/lib/iommubroker-tests/data/"

static const struct replay_recording lazy = {
	.trace = DATA "nvme-virtio-lazy.trace.xz",
	.refreshes = 4342,
	.leaves_mapped = 56638,
	.leaves_unmapped = 56481,
	.live = {24, 133},
};
static const struct replay_recording strict = {
	.trace = DATA "nvme-virtio-strict.trace.xz",
	.refreshes = 8465,
	.leaves_mapped = 56621,
	.leaves_unmapped = 56432,
	.live = {56, 133},
};
static const struct replay_recording tables = {
	.trace = DATA "nvme-virtio-lazy.trace.xz",
	.tables = DATA "nvme-virtio-lazy.tables.gz",
	.refreshes = 2,
	.leaves_mapped = 24 + 133,
	.live = {24, 133},
};

static void vmm(const struct machine *machine, void *user_data)
{
	const struct replay_place place = {
		.socket = machine->fd_sock,
		.daemon = machine->daemon,
		.pci_addresses = {machine_pci(), getenv("IB_VM_PCI2")},
		.by_function_id = machine_is_s390x(),
	};

	replay_guest_run(user_data, &place);
}

static void run(const struct replay_recording *recording)
{
	struct replay_recording copy = *recording;
	struct machine_options options = {0};
	struct machine machine;
	char rules[160];

	REQUIRE(getenv("IB_VM_PCI2") != NULL);
	snprintf(rules, sizeof(rules), "[Device]\nUser=%d\nPciAddress=%s %s\n", VMM_UID,
		 machine_pci(), getenv("IB_VM_PCI2"));
	options.device_rules = rules;
	machine_start(&machine, &options);
	machine_run_vmm(&machine, vmm, &copy);
	machine_stop(&machine);
}

static void run_lazy(void)
{
	run(&lazy);
}

static void run_strict(void)
{
	run(&strict);
}

static void run_tables(void)
{
	run(&tables);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{"lazy", run_lazy, 3600},
		{"strict", run_strict, 3600},
		{"tables", run_tables, 600},
	};

	return cases_main(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
