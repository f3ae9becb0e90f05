/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_REPLAY_MACHINE_H
#define IB_REPLAY_MACHINE_H

/*
 * The guest that is replayed, and its VMM: memory, functions, a model of what every leaf has to be,
 * and the daemon at the other end.
 */

#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "iommubroker.h"
#include "replay/zpci.h"

#define FUNCTIONS_MAX 64

/* What a leaf has to be. */
struct leaf {
	uint64_t iova;
	uint64_t gpa;
	unsigned int access; /* ZPCI_LEAF_READ or _READ_WRITE */
	UT_hash_handle hh;
};

/* Pages of the device's own, for checks; see workspace.h. */
struct workspace {
	unsigned int n_pages; /* 0: there are none */
	uint64_t iova, gpa;
	uint8_t *host;
};

struct function {
	uint32_t id;
	const char *pci_address; /* NULL: opened by its id */
	struct iommubroker_device *device;
	int device_fd;
	void *device_engine; /* the checker's */
	struct workspace workspace;
	struct iommubroker_nested *nested; /* NULL: not registered */
	uint32_t nested_index;
	uint64_t pba, pal;
	struct leaf *leaves;  /* by iova */
	struct leaf *dropped; /* unmapped since it was registered, as they were last; by iova */
	uint64_t live_leaves; /* as the daemon said at the end */
	/* Two areas for tables, so that a new anchor's are laid out while the old ones live. */
	struct zpci_tables tables[2];
	unsigned int current;
};

struct totals {
	uint64_t refreshes;
	uint64_t leaves_mapped, leaves_unmapped; /* as the daemon answered */
	uint64_t model_mapped, model_unmapped;   /* as it should have */
	bool differed;                           /* they do; it has been told */
	uint64_t backend_maps, backend_unmaps;
	uint64_t dma_checks, dma_failures;
	uint64_t failures; /* all else, each told on stderr */
	double seconds;
};

struct check_ops;

struct machine {
	const struct check_ops *checks;
	void *checks_data; /* the checker's */
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_ring *ring; /* refreshes go through it; NULL: by calls */
	struct iommubroker_memory_file *file;
	int memory_fd;
	uint64_t memory_dev, memory_ino;
	uint8_t *memory; /* RAM, then the table area */
	uint64_t ram_bytes, tables_bytes;
	struct function functions[FUNCTIONS_MAX];
	size_t n_functions;
	struct totals totals;
};

struct machine_options {
	const char *socket;
	const char *guest_name;
	uint64_t ram_bytes;
	const uint32_t *function_ids;
	/* NULL, or for each function where it is, where there are no function ids. */
	const char *const *pci_addresses;
	size_t n_functions;
	bool by_ring;
	bool own_tables; /* the replay lays out tables itself */
	const struct check_ops *checks;
	void *checks_data;
};

/* 0, -ENOTCONN: no daemon there, or another negative errno. Told on stderr. */
int machine_open(struct machine *machine, const struct machine_options *options);
/* Takes the guest down and waits for it. Failures are counted. */
void machine_close(struct machine *machine);

/* NULL: not one of those. */
struct function *machine_function(struct machine *machine, uint32_t id);

/* Register, re-register if it is registered, deregister. 0, or a negative errno, told on stderr.
 * The model is emptied: what the tables hold is for the caller to say. */
int machine_register(struct machine *machine, struct function *function,
		     const struct iommubroker_anchor *anchor);
int machine_deregister(struct machine *machine, struct function *function);
/* As a guest does it: again while BUSY. Anything else but DONE is a failure, and so are other
 * counts than what machine_expect() has counted since the last refresh; the first of those is told.
 */
void machine_refresh(struct machine *machine, struct function *function, uint64_t start,
		     uint64_t length);

/* Say what a leaf has to be, and count it. */
int machine_expect(struct machine *machine, struct function *function, uint64_t iova, uint64_t gpa,
		   unsigned int access);

/* All of them, and what was dropped. */
void machine_forget_leaves(struct function *function);

/* Read the daemon's view: live leaves, and the backend's counters. */
int machine_read_counters(struct machine *machine);

/* Counts, and tells on stderr. */
void machine_fail(struct machine *machine, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
