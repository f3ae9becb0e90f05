/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_FAIL_NTH_CONTROL_H
#define IB_VM_FAIL_NTH_CONTROL_H

/* The sweep's side of fail_nth.h. All of it needs root, and REQUIREs (check.h) what it needs. */

#include <stdint.h>

#include "fail_nth.h"

/* Makes the kernel count every allocation, and log a line for each that it lets fail. */
void fail_nth_prepare(void);
/* The block that a daemon with this environment maps: "IB_FAIL_NTH=...", "LD_PRELOAD=...". Both
 * strings live as long as the block. */
struct fail_nth *fail_nth_new(const char *ret_environment[2]);
struct fail_nth *fail_nth_free(struct fail_nth *control);
/* From now on; call or request 0: none, only counting. */
void fail_nth_arm(struct fail_nth *control, uint32_t call, uint32_t request, uint32_t nth);
void fail_nth_disarm(struct fail_nth *control);

/* "IOMMU_IOAS_COPY", "open"; never NULL. */
const char *request_name(uint32_t request);

#endif
