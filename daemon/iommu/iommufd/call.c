/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How the kernel is called; see call.h. */

#include <errno.h>
#include <sys/ioctl.h>
#include <time.h>

#include "iommu/call_count.h"
#include "iommu/iommufd/call.h"
#include "iommu/iommufd/uapi.h"

#define PAUSE_FIRST_NS UINT64_C(1000000)
#define PAUSE_MAX_NS   UINT64_C(64000000)
#define NS_PER_S       UINT64_C(1000000000)

static enum iommu_call call_of(unsigned long request)
{
	switch (request) {
	case UAPI_IOMMU_IOAS_COPY:
		return IOMMU_CALL_COPY;
	case UAPI_VFIO_IOMMU_UNMAP_DMA:
		return IOMMU_CALL_CUT;
	case UAPI_IOMMU_IOAS_MAP:
	case UAPI_IOMMU_IOAS_MAP_FILE:
		return IOMMU_CALL_MAP;
	case UAPI_IOMMU_IOAS_UNMAP:
		return IOMMU_CALL_UNMAP;
	case UAPI_IOMMU_IOAS_ALLOC:
		return IOMMU_CALL_IOAS_NEW;
	case UAPI_IOMMU_HWPT_ALLOC:
		return IOMMU_CALL_PAGE_TABLE_NEW;
	case UAPI_IOMMU_DESTROY:
		return IOMMU_CALL_DESTROY;
	case UAPI_VFIO_DEVICE_BIND:
		return IOMMU_CALL_BIND;
	case UAPI_VFIO_DEVICE_ATTACH:
		return IOMMU_CALL_ATTACH;
	case UAPI_VFIO_DEVICE_DETACH:
		return IOMMU_CALL_DETACH;
	case UAPI_VFIO_DEVICE_RESET:
		return IOMMU_CALL_STOP;
	default:
		return IOMMU_CALL_OTHER;
	}
}

/* EINTR comes back only where nothing was done, or (pinning) where everything was undone: repeating
 * is always right, and a process that is being killed does not return from the call. */
int iommufd_call(int fd, unsigned long request, void *argument)
{
	enum iommu_call call = call_of(request);
	int error;

	iommu_call_enter(call, request);
	do
		error = ioctl(fd, request, argument) < 0 ? errno : 0;
	while (error == EINTR);
	return iommu_call_exit(call, request, error);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

struct iommufd_retry iommufd_retry_for(uint64_t wait_ns)
{
	struct iommufd_retry retry = {.pause_ns = PAUSE_FIRST_NS};

	if (__builtin_add_overflow(now_ns(), wait_ns, &retry.deadline_ns))
		retry.deadline_ns = UINT64_MAX;
	return retry;
}

bool iommufd_retry_again(struct iommufd_retry *retry)
{
	uint64_t now = now_ns(), pause = retry->pause_ns;
	struct timespec length;

	if (now >= retry->deadline_ns)
		return false;
	if (pause > retry->deadline_ns - now)
		pause = retry->deadline_ns - now;
	length.tv_sec = (time_t)(pause / NS_PER_S);
	length.tv_nsec = (long)(pause % NS_PER_S);
	/* A signal shortens the pause, which does no harm. */
	nanosleep(&length, NULL);
	if (retry->pause_ns < PAUSE_MAX_NS)
		retry->pause_ns *= 2;
	return true;
}
