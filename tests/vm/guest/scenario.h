/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_SCENARIO_H
#define IB_VM_SCENARIO_H

/* The cases of the program vm-scenario: the daemon on a real kernel, with a real device's DMA as
 * the judge. The same for edu behind VT-d and for nvme as a zPCI function. */

/* Who may do what. */
void case_vmm_may_open_nothing(void);
void case_daemon_has_no_capability(void);
void case_device_rules(void);
void case_strangers(void);

/* Translation. */
void case_main_job(void);
void case_read_only(void);
void case_read_only_memory(void);
void case_cut_in_a_run(void);
void case_replace(void);
void case_aliases(void);

/* What lies under and beside it. */
void case_region_removal(void);
void case_relaxed(void);
void case_relaxed_anchor(void);
void case_parent_and_blocked(void);

/* The end of a VMM. */
void case_killed(void);
void case_killed_but_device_held(void);

/* And the daemon's. */
void case_kills(void);

/* Refusals. */
void case_device_of_another(void);
void case_device_at_no_vfio_driver(void);
void case_quota(void);

/* The kernel's own limit. */
void case_memlock_at_bind(void);
void case_memlock_at_update(void);
void case_memlock_rolls_back(void);
void case_memlock_shrunk(void);

#endif
