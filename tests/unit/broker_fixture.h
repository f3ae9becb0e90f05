/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_BROKER_FIXTURE_H
#define IB_TESTS_BROKER_FIXTURE_H

/*
 * A broker on the emulated backend, a session of this process, a guest with one memory file, tables
 * in that memory as a guest writes them, and functions with their DMA engines.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "broker/broker.h"
#include "iommu/emulated/dma.h"
#include "iommu/emulated/emulated.h"

#define KIB      1024ull
#define MIB      (1024 * KIB)
#define PAGE     4096ull
#define DMA_BASE 0x100000000ull /* start of DMA of the default functions */
#define DMA_LAST 0x1fffffffffffffull

/* Within the fixture's memory: tables from TABLES_GPA on, data below. */
#define MEMORY_BYTES (32 * MIB)
#define TABLES_GPA   (16 * MIB)

struct fixture {
	struct iommu_backend *backend;
	struct broker *broker;
	struct session *session;
	struct peer peer;
	uint8_t secret[BROKER_SECRET_BYTES];
	struct refusal refusal;
	uint64_t guest;
	uint8_t guest_secret[BROKER_SECRET_BYTES]; /* of the last that was made */
	int memory_fd;
	uint8_t *memory; /* this process's mapping: guest address 0 */
	uint64_t memory_file;
	uint64_t table_next; /* guest address of the next table */
};

/* A bound function. */
struct function {
	uint64_t device;
	int fd; /* the VMM's descriptor */
	struct emulated_dma *dma;
};

/* Generous, so that a test sets only what it is about. */
struct broker_settings settings_default(void);
/* Stands at "limit of a guest", and so on: see limit_place(). */
void limit_set(struct broker_settings *settings, enum limit_level level,
	       enum ledger_resource resource, uint64_t max);
const char *limit_place(enum limit_level level);
void fixture_init(struct fixture *f, const struct broker_settings *settings);
/* The same without a session. */
void fixture_init_broker(struct fixture *f, const struct broker_settings *settings);
/* And with functions of the test's own. */
void fixture_init_functions(struct fixture *f, const struct broker_settings *settings,
			    const struct iommu_emulated_function *functions, size_t n);
void fixture_deinit(struct fixture *f);
/* The same with a guest, its memory file added and mapped from address 0 on. */
void fixture_init_guest(struct fixture *f, const struct broker_settings *settings);

struct session *session_make(struct fixture *f);
int guest_make(struct fixture *f, uint64_t *ret);
int memfd_filled(uint64_t bytes, uint8_t **ret_host);
uint64_t file_add(struct fixture *f, int borrow_fd, bool writable);
int memory_map_one(struct fixture *f, uint64_t file, uint64_t offset, uint64_t gpa, uint64_t length,
		   bool writable);
int memory_map_granule(struct fixture *f, uint64_t file, uint64_t offset, uint64_t gpa,
		       uint64_t length, uint64_t granule);
int memory_unmap_one(struct fixture *f, uint64_t first, uint64_t last);

struct function function_open(struct fixture *f, uint32_t fid);
struct function function_bind(struct fixture *f, uint32_t fid);
/* The VMM's side only; the device stays. */
void function_free(struct function *function);

/* The guest's tables: region-third designation. */
uint64_t table_root(struct fixture *f); /* guest address of an empty region-third table */
uint64_t anchor_of(uint64_t root);      /* IOTA */
void table_map(struct fixture *f, uint64_t root, uint64_t iova, uint64_t gpa, bool writable);
void table_unmap(struct fixture *f, uint64_t root, uint64_t iova);
/* A bad entry where the segment table stands. */
void table_break(struct fixture *f, uint64_t root, uint64_t iova);

struct nested_created nested_make_s390(struct fixture *f, uint64_t device, uint64_t root,
				       uint64_t first, uint64_t last, bool attach);
struct nested_created nested_make_managed(struct fixture *f, uint64_t device, uint64_t first,
					  uint64_t last, bool attach);
/* Runs it to its end. */
struct range_result refresh_one(struct fixture *f, uint64_t nested, uint64_t start,
				uint64_t length);
int refresh_status(struct fixture *f, struct refresh *refresh);

struct usage host_usage(struct fixture *f, enum ledger_resource resource);
/* Nothing is charged but the fixture's session. */
void assert_ledger_empty(struct fixture *f);
size_t descriptors_open(void);

#define assert_refused(f, status, expected_kind)                    \
	do {                                                        \
		assert_int_equal(status, REFUSED);                  \
		assert_int_equal((f)->refusal.kind, expected_kind); \
	} while (0)
/* status 0, with the refusal's words if not. */
#define assert_done(f, status)                                                            \
	do {                                                                              \
		int assert_done_status = (status);                                        \
		if (assert_done_status)                                                   \
			fail_msg("%s:%d: %d: %s", __FILE__, __LINE__, assert_done_status, \
				 (f)->refusal.message);                                   \
	} while (0)

#endif
