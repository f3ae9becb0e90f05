/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_BACKEND_H
#define IB_IOMMU_BACKEND_H

/*
 * The seam between the model and what translates and pins: the kernel's iommufd and VFIO
 * (iommufd/), or the same semantics in software (emulated/). One conformance suite
 * (tests/unit/conformance.c) runs against both.
 *
 * Terms are the kernel's: a context is one open iommufd, an IOAS an address space, a page table
 * (HWPT) what a device is attached to. Ids are the kernel's object ids within a context.
 *
 * Every operation answers 0 or the positive errno of the kernel; out parameters are written only on
 * 0 unless it says otherwise. Rules of error that callers rely on (Documentation/userspace-api/
 * iommufd.rst; drivers/iommu/iommufd/):
 *  - map and copy never overwrite: overlap is EEXIST and changes nothing.
 *  - copy: every byte of the source must be mapped, else ENOENT; a writable copy of a read-only
 *    source is EPERM. It pins nothing.
 *  - unmap takes whole areas only: part of one is ENOENT, and areas before it in the range are
 *    gone; nothing mapped in the range is ENOENT.
 *  - cut takes whatever lies in the range and splits what crosses its ends; nothing there is
 *    success. An end inside of a page that is mapped is EINVAL. On an IOAS that was not made
 *    cuttable it takes whole areas only, as unmap does.
 *  - map and copy look at length, alignment, wrap, place in this order; copy at its source before
 *    its destination, and last of all whether the source may be written. IOVAs, offsets and
 *    lengths are of whole pages, else EINVAL; what an IOAS takes beyond that before its first page
 *    table is not to be relied on.
 *  - map pins only when the IOAS has a page table; the first page table on a filled IOAS pins all
 *    of it.
 *  - destroy of an object in use is EBUSY.
 *
 * A context's calls may come from several threads at once; the caller serialises changes of one
 * IOAS, and all calls on one device. Calls other than copy and cut can take long.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define IOMMU_PROT_READ  1u
#define IOMMU_PROT_WRITE 2u

#define IOMMU_IOVA_RANGES_MAX 32
#define IOMMU_HW_INFO_MAX     128

struct iommu_backend;
struct iommu_context;
struct iommu_device;

struct iommu_features {
	bool map_file; /* IOMMU_IOAS_MAP_FILE: else the daemon's own mapping is used */
	bool cut;      /* VFIO-compatible unmap on a context */
	bool change_process;
	bool nest_parent; /* some device was seen to nest; known after the first bind */
	bool dirty_tracking;
};

struct iommu_range {
	uint64_t first, last;
};

struct iommu_device_info {
	uint32_t fid; /* zPCI function id; has_fid */
	bool has_fid;
	char pci_address[16]; /* "0000:00:04.0", or "" */
	uint16_t vendor, device;
	uint64_t dma_first, dma_last; /* start and end of DMA, inclusive */
	uint64_t page_sizes;          /* bit mask */
	uint32_t designations;        /* set of enum s390_level; 0: not an s390 function */
	bool refresh_required;        /* zPCI group REFRESH flag */
	uint8_t pft; /* zPCI function type; 5: ISM, reset before translation changes */
	uint32_t hw_info_type;
	uint32_t hw_info_bytes;
	uint8_t hw_info[IOMMU_HW_INFO_MAX];
	uint32_t kernel_device_id; /* after bind */
};

/* As operators know it: "0000:00:04.0 (function 0x1)"; "a function" if it has no name. */
#define IOMMU_DEVICE_NAME_BYTES 48
void iommu_device_name(const struct iommu_device_info *info, char ret[IOMMU_DEVICE_NAME_BYTES]);

/* What OpenDevice names. Exactly one of them. */
struct iommu_device_address {
	bool by_fid;
	uint32_t fid;
	char pci_address[16]; /* if !by_fid: "dddd:bb:ss.f" */
};

/* A memory file as map_file sees it. */
struct iommu_file {
	int fd;           /* borrowed for the call */
	const void *host; /* our own mapping of byte 0 of the file: for kernels without MAP_FILE */
	uint64_t bytes;   /* length of the file and of that mapping */
};

struct iommu_nested_data; /* formats that the kernel nests itself; none is made yet */

struct iommu_backend_ops {
	const char *name; /* "iommufd", "emulated" */

	/* What this kernel has, found by trying. */
	int (*probe)(struct iommu_backend *backend, struct iommu_features *ret);
	struct iommu_backend *(*free)(struct iommu_backend *backend); /* returns NULL */

	/* One context for each guest. free closes it: the caller has emptied it before, since a
	 * bound device's descriptor keeps the kernel's context alive. */
	int (*context_new)(struct iommu_backend *backend, struct iommu_context **ret);
	struct iommu_context *(*context_free)(struct iommu_context *context);
	/* Borrowed descriptor of the context, to be stored across restarts. */
	int (*context_fd)(struct iommu_context *context);
	/* A context that another process made, from its stored descriptor: its objects keep their
	 * ids, what was mapped stays mapped. consume_fd: taken also on failure. EINVAL: it is none.
	 * A call that was under way when the other process died has ended as a whole. */
	int (*context_adopt)(struct iommu_backend *backend, int consume_fd,
			     struct iommu_context **ret);
	/* Whether the id is that of a bound device. What no record names and is none can be
	 * destroyed. */
	int (*context_has_device)(struct iommu_context *context, uint32_t id, bool *ret);
	/* The pages that the context has pinned are charged to this process from now on, as far as
	 * the kernel counts by process; every area must be of a file. EOPNOTSUPP: it cannot, and
	 * nothing is wrong. */
	int (*context_change_process)(struct iommu_context *context);

	/* cuttable: made for cut(), which needs huge pages off before any area exists. */
	int (*ioas_new)(struct iommu_context *context, bool cuttable, uint32_t *ret_ioas);
	int (*map_file)(struct iommu_context *context, uint32_t ioas, const struct iommu_file *file,
			uint64_t offset, uint64_t length, uint64_t iova, unsigned int prot);
	int (*copy)(struct iommu_context *context, uint32_t dst_ioas, uint64_t dst_iova,
		    uint32_t src_ioas, uint64_t src_iova, uint64_t length, unsigned int prot);
	/* ret_unmapped: bytes taken, also when it fails in the middle (then what is known: 0). */
	int (*unmap)(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		     uint64_t *ret_unmapped);
	int (*cut)(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		   uint64_t *ret_unmapped);
	/* Fills up to n, *ret_n the number there are. */
	int (*iova_ranges)(struct iommu_context *context, uint32_t ioas, struct iommu_range *ret,
			   size_t n, size_t *ret_n);

	/* A page table over an IOAS, for a bound device. Fills (and pins) what the IOAS holds. */
	int (*page_table_new)(struct iommu_context *context, struct iommu_device *device,
			      uint32_t ioas, uint32_t *ret_page_table);
	/* A page table that the kernel nests itself. EOPNOTSUPP where it does not. */
	int (*page_table_new_nested)(struct iommu_context *context, struct iommu_device *device,
				     uint32_t parent, const struct iommu_nested_data *data,
				     uint32_t *ret_page_table);
	/* ret_consumed: entries done, also when it fails at one of them. */
	int (*invalidate)(struct iommu_context *context, uint32_t page_table, uint32_t type,
			  const void *entries, uint32_t entry_bytes, uint32_t n,
			  uint32_t *ret_consumed);
	int (*dirty_tracking)(struct iommu_context *context, uint32_t page_table, bool on);
	int (*dirty_read)(struct iommu_context *context, uint32_t page_table, uint64_t iova,
			  uint64_t length, uint64_t page_bytes, void *bitmap);
	/* An IOAS or page table. Can wait long. */
	int (*destroy)(struct iommu_context *context, uint32_t id);

	/* What is known of a function without opening it: its PCI address, zPCI function id, vendor
	 * and device id; all else is 0. Takes no longer than a few reads of sysfs. ENOENT: there is
	 * none. */
	int (*device_identify)(struct iommu_backend *backend,
			       const struct iommu_device_address *address,
			       struct iommu_device_info *ret);
	/* Open an unbound device. ENOENT: no such device or not at the VFIO driver; EACCES: node
	 * not ours (yet); EBUSY: open elsewhere. */
	int (*device_open)(struct iommu_backend *backend,
			   const struct iommu_device_address *address, struct iommu_device **ret);
	/* The same from a descriptor that a client opened; it is consumed also on failure. EINVAL:
	 * not a device's descriptor. */
	int (*device_open_fd)(struct iommu_backend *backend, int consume_fd,
			      struct iommu_device **ret);
	/* A device that another process opened, from its stored descriptor; consume_fd: taken also
	 * on failure. address: as it was known then. context NULL: it was not bound; else it is
	 * bound there as kernel_id, and attached to whatever it was attached to. */
	int (*device_adopt)(struct iommu_backend *backend, int consume_fd,
			    const struct iommu_device_address *address,
			    struct iommu_context *context, uint32_t kernel_id,
			    struct iommu_device **ret);
	/* Closes our descriptor. Bound devices are unbound with the last descriptor. Returns NULL.
	 */
	struct iommu_device *(*device_close)(struct iommu_device *device);
	/* A new descriptor of the same open device for its VMM; the caller owns it. */
	int (*device_descriptor)(struct iommu_device *device, int *ret_fd);
	/* Borrowed, for the store. */
	int (*device_fd)(struct iommu_device *device);
	/* Whether anyone else still holds a descriptor of this open device. The kernel tells it
	 * only once ours is gone, so this ends a device's life: our descriptor is closed, also on
	 * failure, and nothing but device_close may follow. Can wait long. A descriptor that was
	 * never bound gives no access and does not count. */
	int (*device_held)(struct iommu_device *device, bool *ret);
	/* vf_token: 16 bytes or NULL. EBUSY: bound already. */
	int (*device_bind)(struct iommu_device *device, struct iommu_context *context,
			   const uint8_t *vf_token, uint32_t *ret_kernel_id);
	int (*device_info)(struct iommu_device *device, struct iommu_device_info *ret);
	/* Attach to a page table, replacing what was attached. EBUSY: the device is in reset.
	 * After a failure the device may be blocked, and is only attached to what it was attached
	 * to before if it is detached first (VT-d, s390: the driver blocks it, then fails; the
	 * kernel does not know). Never after EADDRINUSE. */
	int (*attach)(struct iommu_device *device, uint32_t page_table);
	/* Blocked afterwards; nothing attached is success. */
	int (*detach)(struct iommu_device *device);
	/* Stop all DMA: reset, or where there is none clear bus mastering. Can wait long. */
	int (*device_stop)(struct iommu_device *device);
};

struct iommu_backend {
	const struct iommu_backend_ops *ops;
};

/* An emulated function, from an [EmulatedFunction] section or the default ids 1 to 8. */
struct iommu_emulated_function {
	uint32_t fid;
	char pci_address[16];
	uint16_t vendor, device;
	uint64_t dma_first, dma_last;
	uint32_t designations;
	bool refresh_required;
};
#define IOMMU_EMULATED_FUNCTIONS_MAX 512

/* 0 or a negative errno. n == 0: fids 1 to 8 at 0000:00:01.0 to 0000:00:08.0, start of DMA
 * 0x100000000, end of DMA 0x1fffffffffffff, all designations. */
int iommu_emulated_new(struct iommu_backend **ret, const struct iommu_emulated_function *functions,
		       size_t n);
/* iommu_path: "/dev/iommu", vfio_dir: "/dev/vfio", sysfs: "/sys"; other values for tests.
 * 0 or a negative errno (-ENOENT: no such kernel interface here). */
int iommu_iommufd_new(struct iommu_backend **ret, const char *iommu_path, const char *vfio_dir,
		      const char *sysfs);

#endif
