/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/backend_call.h"

#include <errno.h>

#include "broker/guest.h"
#include "broker/root.h"

bool backend_unmap(struct guest *guest, uint32_t ioas, uint64_t iova, uint64_t length)
{
	const struct iommu_backend_ops *ops = broker_ops(guest->broker);
	uint64_t unmapped;

	for (int i = 0; i < BROKER_TRIES; i++) {
		int error = ops->unmap(guest->context, ioas, iova, length, &unmapped);

		if (!error || error == ENOENT)
			return true;
	}
	return false;
}

bool backend_destroy(struct guest *guest, uint32_t id)
{
	const struct iommu_backend_ops *ops = broker_ops(guest->broker);

	for (int i = 0; i < BROKER_TRIES; i++) {
		int error = ops->destroy(guest->context, id);

		if (!error || error == ENOENT)
			return true;
	}
	return false;
}
