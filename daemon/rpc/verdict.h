/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_VERDICT_H
#define IB_RPC_VERDICT_H

/*
 * The one place that says what a VMM tells its guest for a verdict (the s390 architecture's
 * condition codes, and the status in the instruction's general register; QEMU
 * hw/s390x/s390-pci-inst.c).
 */

#include <stdint.h>

#include "broker/broker.h"
#include "iommubroker/v1/common.pb-c.h"

struct verdict_answer {
	Iommubroker__V1__Verdict verdict;
	uint32_t condition_code; /* OPERAND and GONE: see the verdict, an exception or an event */
	uint32_t status;         /* with condition code 1 */
};

struct verdict_answer verdict_answer(enum verdict verdict);
Iommubroker__V1__TableLevel verdict_table_level(enum s390_level level);

/* Both structs are initialised; *ret_fault is used only with VERDICT_ERROR and belongs to *ret. */
void verdict_range_result(const struct range_result *result, Iommubroker__V1__RangeResult *ret,
			  Iommubroker__V1__WalkFault *ret_fault);
void verdict_walk_fault(const struct s390_fault *fault, Iommubroker__V1__WalkFault *ret);

#endif
