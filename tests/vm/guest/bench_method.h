/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_BENCH_METHOD_H
#define IB_VM_BENCH_METHOD_H

/*
 * The ways to bring a device's translations in line with a guest's table: the daemon's, the
 * daemon's kernel calls without the daemon, and that of VMMs which map and unmap each page.
 */

#include "bench_machine.h"

struct bench_time {
	uint64_t ns; /* of all refreshes */
	uint64_t ioctls;
	uint64_t mapped, unmapped; /* leaves, as the method counts them */
	uint64_t sweep_ns,
		sweeps; /* by the daemon: refreshes of a page that also cut, all of each */
};

/* What reading the clock twice costs; taken from every measured interval. */
void bench_method_init(void);

/* Each plays all scripts, adds to *time, and leaves nothing installed. */

/* log: kernel calls are written down, and time is not to be believed. */
void bench_by_broker(struct bench_machine *machine, const struct bench_scripts *scripts,
		     struct bench_log *logs, struct bench_time *time);
/* logs: one for each script. */
void bench_by_bare_calls(struct bench_machine *machine, const struct bench_scripts *scripts,
			 const struct bench_log *logs, struct bench_time *time);
/* One IOMMU_IOAS_MAP of our memory, or one IOMMU_IOAS_UNMAP, for each leaf that changed. */
void bench_by_page(struct bench_machine *machine, const struct bench_scripts *scripts,
		   struct bench_time *time);

#endif
