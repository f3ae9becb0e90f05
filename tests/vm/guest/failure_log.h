/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_FAILURE_LOG_H
#define IB_VM_FAILURE_LOG_H

/* What the kernel logs while its allocations are made to fail, read as it comes. */

struct failure_log {
	int fd;
	unsigned int trouble; /* warnings and worse, which were printed */
	char injector[32];    /* what failed last: "failslab", "fail_page_alloc", "fail_iommufd" */
};

/* From now on. As root; REQUIREs (check.h) that it can be read. */
void failure_log_open(struct failure_log *log);
void failure_log_close(struct failure_log *log);
/* Forgets the injector first: "" if nothing was made to fail. */
void failure_log_read(struct failure_log *log);

#endif
