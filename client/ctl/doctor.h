/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_DOCTOR_H
#define IB_CTL_DOCTOR_H

/*
 * iommubrokerctl doctor: checks that look at files of the host, under a root that is "" or a tree
 * for tests, and at what the daemon says of itself. Each check tells findings.
 */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ctl/rpc.h"

/*
 * Each check: id, what it looks at, what to do about a finding if the finding says nothing of its
 * own. Manual page, tests and the order of the findings are made from this table.
 */
#define DOCTOR_CHECKS(X)                                                                    \
	X(iommufd, "the kernel has IOMMUFD, and its device node is there")                  \
	X(iommu, "an IOMMU is active")                                                      \
	X(vfio_cdev, "the kernel makes a device node for each VFIO device")                 \
	X(modules, "iommufd and vfio_pci are loaded, or built in")                          \
	X(node_modes, "the device nodes belong to the daemon's group, and to nobody else")  \
	X(devices, "PCI functions are bound to vfio-pci")                                   \
	X(groups, "no IOMMU group is shared with another driver")                           \
	X(legacy_group, "nobody has opened a group the legacy way")                         \
	X(daemon, "the daemon runs and answers")                                            \
	X(memlock, "the daemon's locked-memory limit admits what its configuration allows") \
	X(capability, "the daemon cannot pin without being charged")                        \
	X(nofile, "the daemon may have enough descriptors")                                 \
	X(kernel_charge, "the kernel charges no more than the daemon knows of")             \
	X(store, "guests outlive the daemon, and there is room for more")                   \
	X(takeover, "no guest was lost when the daemon was last restarted")                 \
	X(systemd, "the service manager keeps descriptors over a stop")                     \
	X(huge_pages, "there are huge pages for guests")                                    \
	X(movable, "memory can be pinned for long")                                         \
	X(clients, "the clients' group has members, and the daemon's has none")             \
	X(sockets, "the sockets are open to those who should connect, and to nobody else")  \
	X(s390, "this s390 host can pass PCI functions through")

enum doctor_check {
#define X(name, what) DOCTOR_##name,
	DOCTOR_CHECKS(X)
#undef X
		DOCTOR_CHECKS_N
};

enum severity { SEVERITY_OK, SEVERITY_NOTE, SEVERITY_WARNING, SEVERITY_SERIOUS };

#define DOCTOR_TEXT_BYTES 400

struct finding {
	enum doctor_check check;
	enum severity severity;
	char what[DOCTOR_TEXT_BYTES], remedy[DOCTOR_TEXT_BYTES];
};

#define DOCTOR_FINDINGS_MAX 256

struct doctor {
	const char *root; /* "": the host's own */
	struct rpc *rpc;
	const char *socket_path;
	const char *runtime_dir, *admin_dir; /* below the root */
	/* Of the daemon, if it answers; else 0. */
	bool answers;
	uint64_t pid, pinned_bytes, pinned_bytes_max; /* UINT64_MAX: no limit */
	bool emulated;
	uint64_t stored, stored_max;   /* descriptors; max 0: nothing is */
	uint32_t taken_over, released; /* guests */
	size_t n_findings;
	struct finding findings[DOCTOR_FINDINGS_MAX];
};

/* The id that people see: with - in place of _. */
const char *doctor_check_name(enum doctor_check check);
const char *doctor_check_what(enum doctor_check check);
const char *doctor_severity_name(enum severity severity);

/* remedy may be NULL. What has no place any more is left out. */
__attribute__((format(printf, 5, 6))) void doctor_tell(struct doctor *doctor,
						       enum doctor_check check,
						       enum severity severity, const char *remedy,
						       const char *what, ...);

void doctor_check_iommufd(struct doctor *doctor);
void doctor_check_iommu(struct doctor *doctor);
void doctor_check_vfio_cdev(struct doctor *doctor);
void doctor_check_modules(struct doctor *doctor);
void doctor_check_node_modes(struct doctor *doctor);
void doctor_check_devices(struct doctor *doctor);
void doctor_check_groups(struct doctor *doctor);
void doctor_check_legacy_group(struct doctor *doctor);
void doctor_check_daemon(struct doctor *doctor);
void doctor_check_memlock(struct doctor *doctor);
void doctor_check_capability(struct doctor *doctor);
void doctor_check_nofile(struct doctor *doctor);
void doctor_check_kernel_charge(struct doctor *doctor);
void doctor_check_store(struct doctor *doctor);
void doctor_check_takeover(struct doctor *doctor);
void doctor_check_systemd(struct doctor *doctor);
void doctor_check_huge_pages(struct doctor *doctor);
void doctor_check_movable(struct doctor *doctor);
void doctor_check_clients(struct doctor *doctor);
void doctor_check_sockets(struct doctor *doctor);
void doctor_check_s390(struct doctor *doctor);

#endif
