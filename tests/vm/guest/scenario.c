/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vm-scenario [PART OF A NAME...]: runs the cases of scenario.h inside a machine of
 * tests/vm/run.sh.
 */

#include "scenario.h"

#include "check.h"

static const struct test_case cases[] = {
	{"privilege/vmm_may_open_nothing", case_vmm_may_open_nothing},
	{"privilege/daemon_has_no_capability", case_daemon_has_no_capability},
	{"privilege/device_rules", case_device_rules},
	{"privilege/strangers", case_strangers},
	{"main/main_job", case_main_job},
	{"main/read_only", case_read_only},
	{"main/read_only_memory", case_read_only_memory},
	{"main/cut_in_a_run", case_cut_in_a_run},
	{"main/replace", case_replace},
	{"main/aliases", case_aliases},
	{"main/region_removal", case_region_removal},
	{"main/relaxed", case_relaxed},
	{"main/relaxed_anchor", case_relaxed_anchor},
	{"main/parent_and_blocked", case_parent_and_blocked},
	{"death/killed", case_killed},
	{"death/killed_but_device_held", case_killed_but_device_held},
	{"kills/kills", case_kills, 3000},
	{"refusal/device_of_another", case_device_of_another},
	{"refusal/device_at_no_vfio_driver", case_device_at_no_vfio_driver},
	{"refusal/quota", case_quota},
	{"backstop/memlock_at_bind", case_memlock_at_bind},
	{"backstop/memlock_at_update", case_memlock_at_update},
	{"backstop/memlock_rolls_back", case_memlock_rolls_back},
	{"backstop/memlock_shrunk", case_memlock_shrunk},
};

int main(int argc, char **argv)
{
	return cases_main(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
