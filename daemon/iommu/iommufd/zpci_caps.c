/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Walking the capability chain of a device's info; see zpci_caps.h. Nothing is read in place: the
 * chain's offsets promise no alignment. */

#include <string.h>

#include "iommu/iommufd/uapi.h"
#include "iommu/iommufd/zpci_caps.h"

/* As many as there can be kinds, with room for later ones. */
#define CAPS_MAX 64

static void take_base(struct zpci_caps *ret, const uint8_t *at, size_t bytes)
{
	struct uapi_zpci_base base;

	if (bytes < UAPI_ZPCI_BASE_V1_BYTES)
		return;
	memcpy(&base, at, UAPI_ZPCI_BASE_V1_BYTES);
	ret->has_base = true;
	ret->dma_first = base.start_dma;
	ret->dma_last = base.end_dma;
	ret->pchid = base.pchid;
	ret->pft = base.pft;
	ret->gid = base.gid;
}

static void take_group(struct zpci_caps *ret, const uint8_t *at, size_t bytes)
{
	struct uapi_zpci_group group;

	if (bytes < UAPI_ZPCI_GROUP_V1_BYTES)
		return;
	memcpy(&group, at, UAPI_ZPCI_GROUP_V1_BYTES);
	ret->has_group = true;
	ret->refresh = group.flags & UAPI_ZPCI_GROUP_REFRESH;
}

void zpci_caps_parse(struct zpci_caps *ret, const void *info, size_t bytes)
{
	struct uapi_vfio_device_info head;
	const uint8_t *base = info;
	struct uapi_vfio_cap cap;
	size_t offset;

	memset(ret, 0, sizeof(*ret));
	if (bytes < sizeof(head))
		return;
	memcpy(&head, info, sizeof(head));
	offset = head.flags & UAPI_VFIO_DEVICE_FLAG_CAPS ? head.cap_offset : 0;
	for (int i = 0; i < CAPS_MAX && offset; i++) {
		if (offset > bytes || bytes - offset < sizeof(cap))
			return;
		memcpy(&cap, base + offset, sizeof(cap));
		if (cap.id == UAPI_VFIO_CAP_ZPCI_BASE)
			take_base(ret, base + offset, bytes - offset);
		else if (cap.id == UAPI_VFIO_CAP_ZPCI_GROUP)
			take_group(ret, base + offset, bytes - offset);
		offset = cap.next;
	}
}
