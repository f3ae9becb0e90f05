/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vm-scenario [PART OF A NAME...]: runs the cases of scenario.h inside a machine of
 * tests/vm/run.sh.
 */

#include "scenario.h"

#include "check.h"

static const struct test_case cases[] = {
	{"privilege/vmm_may_open_nothing", case_vmm_may_open_nothing, 60},
	{"privilege/daemon_has_no_capability", case_daemon_has_no_capability, 60},
	{"privilege/device_rules", case_device_rules, 60},
	{"privilege/strangers", case_strangers, 60},
	{"main/main_job", case_main_job, 120},
	{"main/read_only", case_read_only, 120},
	{"main/read_only_memory", case_read_only_memory, 120},
	{"main/cut_in_a_run", case_cut_in_a_run, 240},
	{"main/replace", case_replace, 120},
	{"main/aliases", case_aliases, 120},
	{"main/region_removal", case_region_removal, 120},
	{"main/relaxed", case_relaxed, 120},
	{"main/relaxed_anchor", case_relaxed_anchor, 120},
	{"main/parent_and_blocked", case_parent_and_blocked, 120},
	{"death/killed", case_killed, 240},
	{"death/killed_but_device_held", case_killed_but_device_held, 120},
	{"refusal/device_of_another", case_device_of_another, 120},
	{"refusal/device_at_no_vfio_driver", case_device_at_no_vfio_driver, 60},
	{"refusal/quota", case_quota, 60},
	{"backstop/memlock_at_bind", case_memlock_at_bind, 60},
	{"backstop/memlock_at_update", case_memlock_at_update, 60},
	{"backstop/memlock_rolls_back", case_memlock_rolls_back, 60},
	{"backstop/memlock_shrunk", case_memlock_shrunk, 60},
};

int main(int argc, char **argv)
{
	return cases_main(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
