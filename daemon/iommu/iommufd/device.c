/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Bound devices: bind, attach, detach, and whether somebody else still holds one.
 *
 * The kernel answers EINVAL to everything but bind before a device is bound, and EINVAL too to a
 * bind of what is bound already, in this open or another (drivers/vfio/device_cdev.c,
 * vfio_df_open()). The second is told apart here, since callers must know a device in use.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/iommufd.h"
#include "iommu/iommufd/uapi.h"
#include "iommu/iommufd/device_query.h"

/* How long attach goes on when the device is in reset. A function-level reset takes 100 ms and may
 * take a device a minute; beyond this a caller had better know. */
#define ATTACH_WAIT_NS UINT64_C(5000000000)

static int bind_call(int fd, int iommufd, const uint8_t *vf_token, uint32_t *ret_kernel_id)
{
	struct uapi_vfio_bind bind = {.argsz = UAPI_VFIO_BIND_V1_BYTES, .iommufd = iommufd};
	int error;

	if (vf_token) {
		bind.argsz = sizeof(bind);
		bind.flags = UAPI_VFIO_BIND_TOKEN;
		bind.token_uuid_ptr = (uintptr_t)vf_token;
	}
	error = iommufd_call(fd, UAPI_VFIO_DEVICE_BIND, &bind);
	if (!error)
		*ret_kernel_id = bind.out_devid;
	return error;
}

/* A kernel that knows tokens looks at all bytes that a caller says it has, and answers E2BIG if one
 * beyond its own structure is set; a kernel without them looks at its first bytes only, and finds
 * no iommufd there. Neither gets as far as binding. */
static bool knows_tokens(int fd)
{
	union {
		struct uapi_vfio_bind bind;
		uint8_t bytes[256];
	} probe = {.bytes = {0}};

	probe.bytes[sizeof(probe) - 1] = 1;
	probe.bind.argsz = sizeof(probe);
	probe.bind.iommufd = -1;
	return iommufd_call(fd, UAPI_VFIO_DEVICE_BIND, &probe) == E2BIG;
}

/* What EINVAL from bind means. Its arguments are right, so without a token one cause is left on
 * PCI: bound in another open (or an IOMMU without cache coherency, where no bind ever works). */
static int explain_bind_refusal(struct iommu_device *device, const uint8_t *vf_token)
{
	if (device_is_bound(device->fd))
		return EBUSY;
	if (!vf_token)
		return EBUSY;
	return knows_tokens(device->fd) ? EINVAL : EOPNOTSUPP;
}

/* Whether page tables over this device can be nested in, by making one and dropping it. */
static bool can_nest(struct iommu_context *context, uint32_t kernel_id)
{
	uint32_t ioas, page_table;
	int error;

	if (iommufd_ioas_new(context, false, &ioas))
		return false;
	error = iommufd_page_table_with(context, kernel_id, ioas, UAPI_IOMMU_HWPT_NEST_PARENT,
					&page_table);
	if (!error)
		iommufd_destroy(context, page_table);
	iommufd_destroy(context, ioas);
	return !error;
}

/* What is known of a device's IOMMU from now on. Nothing here makes a bind fail. */
static void learn(struct iommu_device *device)
{
	struct iommufd_backend *backend = device->backend;
	struct iommufd_facts facts;
	uint64_t capabilities = 0;

	if (!device_query_hw_info(device->context, device->kernel_id, &facts, &capabilities))
		device->dirty_tracking = capabilities & UAPI_IOMMU_CAP_DIRTY_TRACKING;
	if (device->dirty_tracking)
		atomic_store(&backend->seen_dirty_tracking, true);
	if (!atomic_load(&backend->seen_nest_parent) &&
	    can_nest(device->context, device->kernel_id))
		atomic_store(&backend->seen_nest_parent, true);
}

void iommufd_device_bound(struct iommu_device *device, struct iommu_context *context,
			  uint32_t kernel_id)
{
	device->context = context;
	device->kernel_id = kernel_id;
	learn(device);
}

int iommufd_device_bind(struct iommu_device *device, struct iommu_context *context,
			const uint8_t *vf_token, uint32_t *ret_kernel_id)
{
	int error = bind_call(device->fd, context->fd, vf_token, &device->kernel_id);

	if (error)
		return error == EINVAL ? explain_bind_refusal(device, vf_token) : error;
	device->context = context;
	if (vf_token) {
		device->has_vf_token = true;
		memcpy(device->vf_token, vf_token, sizeof(device->vf_token));
	}
	learn(device);
	*ret_kernel_id = device->kernel_id;
	return 0;
}

int iommufd_attach(struct iommu_device *device, uint32_t page_table)
{
	struct iommufd_retry retry = iommufd_retry_for(ATTACH_WAIT_NS);
	struct uapi_vfio_attach attach;
	int error;

	do {
		attach = (struct uapi_vfio_attach){.argsz = sizeof(attach), .pt_id = page_table};
		error = iommufd_call(device->fd, UAPI_VFIO_DEVICE_ATTACH, &attach);
	} while (error == EBUSY && iommufd_retry_again(&retry));
	return error;
}

int iommufd_detach(struct iommu_device *device)
{
	struct uapi_vfio_detach detach = {.argsz = sizeof(detach)};
	int error = iommufd_call(device->fd, UAPI_VFIO_DEVICE_DETACH, &detach);

	/* What is not bound is attached to nothing. */
	return error == EINVAL && !device_is_bound(device->fd) ? 0 : error;
}

/* The node opened anew and bound to an iommufd of its own, for as long as the answer takes. */
static int try_bind(struct iommu_device *device)
{
	int fd, iommufd, error;
	uint32_t kernel_id;

	error = iommufd_open_node(device->backend, &device->vfio, 0, &fd);
	if (error)
		return error;
	iommufd = open(device->backend->iommu_path, O_RDWR | O_CLOEXEC);
	error = iommufd < 0 ? errno
			    : bind_call(fd, iommufd, device->has_vf_token ? device->vf_token : NULL,
					&kernel_id);
	close(fd);
	if (iommufd >= 0)
		close(iommufd);
	return error;
}

/*
 * The kernel counts the opens of a device that are bound: one at most. Such an open ends with its
 * last descriptor, mapping of a region or KVM association, in whichever process. So after ours is
 * closed, a second open can be bound exactly if nobody else holds the first. Answers of the kernel:
 *  - success: nobody does. The device is bound to an empty context for a moment, attached to
 *    nothing, and goes through the reset that every open and close of it means.
 *  - EBUSY: nobody does either: the count is looked at first. The function's IOMMU group still
 *    belongs to another context (through another function of it), or is open the legacy way.
 *  - EINVAL: somebody does.
 * A holder cannot hide from this, as it could from an advisory lock on the descriptor.
 */
int iommufd_device_held(struct iommu_device *device, bool *ret)
{
	int error;

	if (device->fd >= 0)
		close(device->fd);
	device->fd = -1;
	device->context = NULL;
	error = try_bind(device);
	if (error && error != EBUSY && error != EINVAL)
		return error;
	*ret = error == EINVAL;
	return 0;
}
