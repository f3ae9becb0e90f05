/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_REPLAY_ZPCI_H
#define IB_REPLAY_ZPCI_H

/*
 * zPCI translation tables as a guest keeps them: written here for a recorded guest whose own tables
 * are not known, and read for one whose are. On purpose no code of the daemon's: what the daemon
 * made of the tables is compared with this. Geometry: Linux arch/s390/include/asm/pci_dma.h.
 */

#include <stdint.h>

#define ZPCI_PAGE_BYTES  4096u
#define ZPCI_IOTA_ORIGIN (~UINT64_C(0x3fff))

/* What a leaf lets a device do; the numbers are those of the traces. */
#define ZPCI_LEAF_NONE       0u
#define ZPCI_LEAF_READ       1u
#define ZPCI_LEAF_READ_WRITE 3u

/* Tables, growing in an area of guest memory that is theirs alone. */
struct zpci_tables {
	uint8_t *host; /* of the area's first byte */
	uint64_t gpa, n_bytes;
	uint64_t n_used;
	unsigned int designation; /* 0 segment table, 1 to 3 region-third to -first */
	uint64_t root;            /* gpa */
};

/* Fresh and empty, with the root that iota's designation asks for. 0, or -EINVAL (direct forms),
 * -ENOSPC. The area's gpa is a multiple of 16 KiB. */
int zpci_tables_init(struct zpci_tables *tables, uint64_t iota);
/* What to register: iota's flags with the root's address. */
uint64_t zpci_tables_iota(const struct zpci_tables *tables, uint64_t iota);
/* 0, -EINVAL: iova is not what the root covers, -ENOSPC: the area is full. */
int zpci_tables_set(struct zpci_tables *tables, uint64_t iova, uint64_t gpa, unsigned int leaf);

/* Calls visit for each valid leaf within [first, last]. Guest memory is n_bytes from gpa 0 at host.
 * 0, -EFAULT: a table outside of it, -EBADMSG: an entry that is not allowed, or what visit said. */
typedef int (*zpci_visit_fn)(void *user_data, uint64_t iova, uint64_t gpa, unsigned int leaf);
int zpci_walk(const uint8_t *host, uint64_t n_bytes, uint64_t iota, uint64_t first, uint64_t last,
	      zpci_visit_fn visit, void *user_data);

#endif
