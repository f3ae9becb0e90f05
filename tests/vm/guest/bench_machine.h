/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_BENCH_MACHINE_H
#define IB_VM_BENCH_MACHINE_H

/*
 * The daemon's broker in this process, over the kernel's iommufd, with one guest, its memory pinned
 * and the machine's device bound; and a seat between broker and backend, from which its calls can
 * be written down and the same context used without it.
 */

#include "bench_script.h"
#include "broker/broker.h"
#include "replay/zpci.h"

enum bench_call_kind {
	BENCH_COPY,
	BENCH_CUT,
};

/* One call of the backend. */
struct bench_call {
	enum bench_call_kind kind;
	unsigned int prot;
	size_t step;
	uint64_t iova, gpa, length;
};

struct bench_log {
	struct bench_call *calls;
	size_t n, room;
};

struct bench_machine {
	struct iommu_backend *backend;
	struct iommu_backend_ops ops;               /* ours, between broker and kernel */
	const struct iommu_backend_ops *kernel_ops; /* what it stands for */
	struct iommu_context *context;              /* the guest's; the broker's */
	struct iommu_device *kernel_device;
	struct broker *broker;
	struct session *session;
	uint64_t guest, device, nested;
	struct refusal refusal;
	uint8_t *memory; /* guest address 0 */
	uint64_t memory_bytes;
	struct zpci_tables tables;
	uint32_t parent_ioas;  /* source of copies; known after the first one */
	struct bench_log *log; /* NULL: nothing is written down */
	size_t step;
	uint64_t longest_ns; /* of one cut or destroy */
};

/* Ends the program if it cannot be had. The machine stays where it is. */
void bench_machine_init(struct bench_machine *machine);
void bench_machine_deinit(struct bench_machine *machine);
/* Its guest's holder ends; back when nothing of the guest is left. Then only deinit. */
void bench_guest_end(struct bench_machine *machine);

/* Register the script's window with an empty table, device attached; and take it away. */
void bench_nested_make(struct bench_machine *machine, const struct bench_script *script);
void bench_nested_destroy(struct bench_machine *machine);
void bench_write(struct bench_machine *machine, const struct bench_leaf *leaf);
/* One refresh of one range, to its end. Ends the program if it is not DONE. */
void bench_refresh(struct bench_machine *machine, struct refresh *refresh);
/* Write down every copy and cut, until log is NULL. The log's step is machine->step. */
void bench_machine_record(struct bench_machine *machine, struct bench_log *log);
/* Take the time of every cut and destroy, for longest_ns; or end that. */
void bench_machine_watch(struct bench_machine *machine, bool watch);

/* An address space with the device attached to it, of no broker. */
struct bench_space {
	struct bench_machine *machine;
	uint32_t ioas, page_table;
};
void bench_space_init(struct bench_space *space, struct bench_machine *machine, bool cuttable);
void bench_space_deinit(struct bench_space *space);

uint64_t bench_now_ns(void);

#endif
