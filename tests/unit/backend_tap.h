/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_BACKEND_TAP_H
#define IB_TESTS_BACKEND_TAP_H

#include "iommu/backend.h"

/* From now on hook is asked before each call of the backend, with the call's name and the backend,
 * context or device that it is made on: 0 lets it through, an errno is its answer and nothing is
 * done. Calls that cannot fail (context_free, device_close) are told and done all the same. One
 * backend at a time. */
void backend_tap(struct iommu_backend *backend, int (*hook)(const char *call, const void *object));

#endif
