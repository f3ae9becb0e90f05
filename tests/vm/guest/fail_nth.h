/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_FAIL_NTH_H
#define IB_VM_FAIL_NTH_H

/*
 * What the sweep of kernel failures and fail_nth_preload.so, inside the daemon, have in common: a
 * page of shared memory, in the file that the environment variable IB_FAIL_NTH names.
 *
 * Calls are those that reach iommufd or VFIO: every ioctl of theirs, opening their descriptors,
 * closing those of iommufd, and mapping a client's memory file. They are numbered from 1 on while
 * counting is on. The call that is aimed at is made with the thread's fail-nth set (Linux,
 * Documentation/fault-injection/fault-injection.rst): the nth allocation that the kernel makes in
 * it fails, and no other.
 */

#include <stdatomic.h>
#include <stdint.h>

#define FAIL_NTH_FILE      "IB_FAIL_NTH"
#define FAIL_NTH_CALLS_MAX 1024u

/* Calls that are no ioctl; numbers of ioctls are larger than these. */
enum {
	FAIL_NTH_OPEN = 1,
	FAIL_NTH_CLOSE = 2,
	FAIL_NTH_MMAP = 3,
};

struct fail_nth {
	/* Written by the sweep while counting is off. */
	_Atomic uint32_t counting;
	uint32_t call;    /* the one to fail; 0: none by its number */
	uint32_t request; /* every call of this kind fails; 0: none by its kind */
	uint32_t nth;     /* allocation, from 1 on */

	/* Written by the daemon. */
	_Atomic uint32_t calls;    /* made while counting */
	_Atomic uint32_t aimed;    /* calls that were armed */
	_Atomic uint32_t injected; /* of these, calls in which the allocation was reached */
	_Atomic uint32_t broken;   /* fail-nth could not be used: the sweep means nothing */
	uint32_t last_request;     /* of the call that was armed last */
	int32_t last_error;        /* its errno, or 0 */
	uint32_t requests[FAIL_NTH_CALLS_MAX]; /* of calls 1, 2, … */
};

#endif
