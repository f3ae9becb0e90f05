/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_MEMORY_FAULT_H
#define IB_TESTS_MEMORY_FAULT_H

/* malloc, calloc, realloc and mmap with one call that fails. Link with --wrap for each of them. */

#include <stdatomic.h>

/* The n-th call from now on fails, once; then it is 0. 0: none does. */
extern _Atomic unsigned int memory_fault_countdown;

#endif
