/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_RANDOM_H
#define IB_UTIL_RANDOM_H

/* Unguessable bytes, for handles and secrets. */

#include <stddef.h>
#include <stdint.h>

/* 0 or a negative errno: then the kernel has no random numbers to give and nothing here can go on.
 */
int random_bytes(void *ret, size_t bytes);
/* Never 0. */
int random_handle(uint64_t *ret);

#endif
