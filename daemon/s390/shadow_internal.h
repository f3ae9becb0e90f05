/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_S390_SHADOW_INTERNAL_H
#define IB_S390_SHADOW_INTERNAL_H

/*
 * What the files of the shadow share.
 *
 *   shadow.c	       object, window, statistics, lookups
 *   shadow_store.c    kept page tables in the caller's storage, found in IOVA order
 *   shadow_run.c      leaves joined into runs, charged and refunded, failures of map and cut
 *   shadow_visit.c    one segment: what the guest wants against what is kept
 *   shadow_pass.c     a range: present segments merged with kept tables
 *   shadow_step.c     operations as sequences of passes, cut into steps
 *   shadow_adopt.c    what a process that died left in the storage
 *
 * Invariant of a kept table, between visits: a leaf is installed, or held (valid and on purpose
 * not installed), or its raw word has the invalid bit. Nothing else may have a valid raw word, so
 * a table whose raw words equal the guest's owes nothing; one that is only half checked says so by
 * incomplete. A managed table has no other place for what the VMM wants: there a valid raw word
 * alone is a wish that could not be granted yet.
 */

#include <bsd/sys/tree.h>
#include <stdatomic.h>

#include "s390/scan.h"
#include "s390/shadow.h"

#define SEGMENT_LAST (UINT64_MAX >> S390_SEGMENT_SHIFT)
#define SLOT_NONE    UINT32_MAX

/* One call's leaves times aliases, of a cut and of a map: the kernel looks at every place that
 * shows the same page, in a call that cannot be killed. */
#define CALL_WEIGHT_MAX 65536u
/* Newly mapped leaves after which a sweep is due. */
#define SWEEP_LEAVES 512u
/* Tables that one pass reads at least before it stops scanning. */
#define VISITED_MIN 262144u
/* What an ioctl costs of a step's budget, in compared tables: to begin with, and by its weight. */
#define IOCTL_COST      16
#define WEIGHT_PER_UNIT 4
/* What telling a refused leaf costs: an event with its watchers woken. */
#define REFUSAL_COST 4

struct leaf_bits {
	uint64_t words[S390_PT_ENTRIES / 64];
};

static inline bool bit_get(const struct leaf_bits *bits, unsigned int i)
{
	return bits->words[i / 64] >> (i % 64) & 1;
}

static inline void bit_put(struct leaf_bits *bits, unsigned int i, bool value)
{
	uint64_t bit = UINT64_C(1) << (i % 64);

	if (value)
		bits->words[i / 64] |= bit;
	else
		bits->words[i / 64] &= ~bit;
}

static inline bool bits_any(const struct leaf_bits *bits)
{
	return bits->words[0] | bits->words[1] | bits->words[2] | bits->words[3];
}

/*
 * A kept page table: a slot of the caller's storage, without pointers, so that it means the same
 * to the next process that maps the storage.
 */
struct kept_table {
	uint64_t segment;         /* IOVA >> 20 */
	uint64_t view_generation; /* against which every leaf was decided */
	uint64_t window_generation;
	uint64_t segment_entry; /* from_frame: the entry that the words were made from */
	uint8_t used;
	uint8_t protect;    /* inherited from above */
	uint8_t from_frame; /* raw is made from a 1 MiB frame's entry */
	uint8_t incomplete; /* some leaf may be due although nothing changed */
	uint8_t managed;    /* raw is what the VMM asked for */
	uint8_t reserved[27];
	struct leaf_bits installed, writable; /* what the device sees; writable: of installed */
	struct leaf_bits held;                /* valid, and on purpose not installed */
	struct leaf_bits changed;             /* cut in operation kept_node.changed_epoch */
	uint64_t raw[S390_PT_ENTRIES];        /* as last acted upon, in memory order */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct kept_table) % 64 == 0, "slots begin on cache lines");

/* What a run that is not through may have changed: leaves of it are booked before the call. */
struct shadow_intent {
	uint64_t first, last;
	uint64_t set; /* written behind the range, and cleared first */
};

/* The first page of the storage. A process that dies leaves its stores in the order in which they
 * stand in the program, so it is the compiler alone that has to be held to it: intent_set(). */
struct shadow_header {
	uint64_t magic;
	uint32_t version, tables_max;
	uint64_t leaves_max;
	uint32_t touched; /* slots that were ever used */
	uint32_t reserved;
	struct shadow_intent cut, map, owed;
};

#define SHADOW_MAGIC        UINT64_C(0x3077646873626d69) /* "imbshdw0" */
#define SHADOW_VERSION      1u
#define SHADOW_HEADER_BYTES 4096u

_Static_assert(sizeof(struct shadow_header) <= SHADOW_HEADER_BYTES, "the header has a page");

#define INTENT_STORE(field, value)                             \
	__atomic_store_n(&(field), (value), __ATOMIC_RELAXED), \
		atomic_signal_fence(memory_order_seq_cst)

static inline void intent_set(struct shadow_intent *intent, uint64_t first, uint64_t last)
{
	atomic_signal_fence(memory_order_seq_cst);
	INTENT_STORE(intent->first, first);
	INTENT_STORE(intent->last, last);
	INTENT_STORE(intent->set, 1);
}

/* One that is set reaches further now. */
static inline void intent_extend(struct shadow_intent *intent, uint64_t last)
{
	atomic_signal_fence(memory_order_seq_cst);
	INTENT_STORE(intent->last, last);
}

static inline void intent_clear(struct shadow_intent *intent)
{
	atomic_signal_fence(memory_order_seq_cst);
	INTENT_STORE(intent->set, 0);
}

/* Order and what need not outlive the process; one for each slot, same index. */
struct kept_node {
	RB_ENTRY(kept_node) link;
	uint64_t segment;
	uint32_t checked_epoch; /* found unchanged in that operation */
	uint32_t changed_epoch;
	uint32_t next_free;
};

RB_HEAD(kept_tree, kept_node);

struct kept_store {
	struct shadow_header *header; /* borrowed storage */
	struct kept_table *tables;    /* behind it */
	struct kept_node *nodes;
	struct kept_tree tree;
	uint32_t slots, touched, free; /* all; ever used; head of the free list */
	uint32_t kept;
};

enum shadow_source {
	SHADOW_SOURCE_NONE,
	SHADOW_SOURCE_ANCHOR,
	SHADOW_SOURCE_MANAGED,
};

struct shadow {
	const struct shadow_ops *ops;
	void *context;
	struct shadow_limits limits;
	struct kept_store store;
	enum shadow_source source, kept_source; /* kept_source: the last one that was one */
	struct s390_anchor anchor;
	bool has_window; /* not without an anchor, nor with a relaxed one */
	uint64_t window_first, window_last;
	uint64_t window_generation;
	uint32_t epoch;
	bool foreign; /* what is kept came from the other kind of source: to be forgotten */
	uint64_t leaves_installed;
	uint64_t leaves_new; /* mapped since the last whole walk began */
	/* A cut that failed: it is owed before anything else is done. */
	bool cut_owed;
	uint64_t owed_first, owed_last;
	struct shadow_stats stats;
};

/* shadow_op's cursor.pass */
enum pass {
	PASS_BEGIN,
	PASS_FOREIGN, /* what another kind of source left */
	PASS_BELOW,
	PASS_ABOVE,
	PASS_UNMAP,
	PASS_MAP,
	PASS_FAULT, /* what lies under a bad entry that PASS_MAP met */
	PASS_TIDY,
	PASS_DROP,
	PASS_UNDO,
	PASS_DONE,
};

/* One step at work: on the stack of shadow_step() and of nobody else. */
struct shadow_work {
	struct shadow *shadow;
	const struct memory_view *view;
	struct shadow_op *op;
	uint64_t first, last; /* IOVAs that this pass may touch */
	int64_t budget;
	bool broken;
	bool whole; /* the operation walks the whole window */
	size_t hint;
	/* What the first pass of this step found, if the operation is about one segment only: the
	 * second need not search for it again. */
	bool has_seen;
	struct s390_found seen;
	struct {
		uint64_t first, last, weight;
		bool pending;
	} cut;
	struct {
		uint64_t iova, gpa, length, weight;
		uint64_t changed; /* leaves of it that were cut before by this operation */
		bool writable, pending;
	} map;
};

/* shadow_store.c */
int store_init(struct kept_store *store, void *storage, uint32_t slots);
/* Over storage with a header that was checked: tables that make no sense are given back, and told.
 * 0, -ENOMEM; or what told() answers, if that is not 0. */
int store_adopt(struct kept_store *store, void *storage, uint32_t slots,
		int (*lost)(void *context, const struct kept_table *table), void *context);
void store_deinit(struct kept_store *store);
/* The kept table of the segment, or NULL. */
struct kept_table *store_find(const struct kept_store *store, uint64_t segment);
/* The first kept table at or behind the segment; the one behind table. NULL: none. */
struct kept_table *store_at_or_after(const struct kept_store *store, uint64_t segment);
struct kept_table *store_next(const struct kept_store *store, const struct kept_table *table);
/* A new empty one, or NULL if there are as many as may be. There must be none for the segment. */
struct kept_table *store_add(struct kept_store *store, uint64_t segment);
void store_remove(struct kept_store *store, struct kept_table *table);
struct kept_node *store_node(const struct kept_store *store, const struct kept_table *table);
bool table_is_empty(const struct kept_table *table);

/* shadow_run.c */
void work_verdict(struct shadow_work *work, enum shadow_verdict verdict, int host_errno);
void work_fault(struct shadow_work *work, const struct s390_fault *fault);
/* Cut leaf i of table, soon. What becomes of its raw word is the caller's. false: a cut failed
 * before, and the leaf stays installed. */
bool run_cut_leaf(struct shadow_work *work, struct kept_table *table, unsigned int i);
/* An installed leaf stays: no cut may reach over it. */
void run_cut_barrier(struct shadow_work *work);
/* Install leaf i of table as word, soon. false: a limit refused it, verdict is set. */
bool run_map_leaf(struct shadow_work *work, struct kept_table *table, unsigned int i, uint64_t word,
		  bool writable);
/* Before a leaf is mapped: if that ends the run before it, and the run would spend the budget, the
 * run goes now, so that the step can end between the two. */
void run_map_end(struct shadow_work *work, uint64_t iova, uint64_t word, bool writable);
void run_flush(struct shadow_work *work);
bool run_pay_owed_cut(struct shadow_work *work);
/* One more place shows the frame; one outside of memory has no count. false: there are as many as
 * may be. */
bool leaf_count(const struct memory_view *view, size_t *hint, uint64_t gpa);
void leaf_refund(struct shadow *shadow, const struct memory_view *view, size_t *hint,
		 struct kept_table *table, unsigned int i);
/* What is left of a leaf's raw word when it is not installed any more but the guest may still
 * show it: nothing for a guest's table, the wish for a managed one. */
void leaf_unsettle(struct kept_table *table, unsigned int i);

/* shadow_visit.c: one segment. table: the kept one or NULL. */
void visit_unmap(struct shadow_work *work, const struct s390_found *found,
		 struct kept_table *table);
void visit_map(struct shadow_work *work, const struct s390_found *found, struct kept_table *table);
enum visit_absent {
	ABSENT_FORGET, /* cut, and nothing is wanted there */
	ABSENT_HOLD,   /* cut, a managed shadow still wants it */
	ABSENT_TIDY,   /* give back the table if it keeps nothing */
};
void visit_absent(struct shadow_work *work, enum visit_absent how, struct kept_table *table);
void visit_fault(struct shadow_work *work, const struct s390_fault *fault,
		 struct kept_table *table);
/* Which frames go: those that are not in kept, or without it those in the range. */
struct frame_filter {
	const struct memory_view *kept;
	uint64_t gpa_first, gpa_last;
	size_t hint;
};
void visit_drop_frames(struct shadow_work *work, struct kept_table *table,
		       struct frame_filter *filter);

/* shadow_pass.c. Each goes on from segment cursor.next and answers true when it is through. */
bool pass_unmap(struct shadow_work *work);
bool pass_map(struct shadow_work *work); /* one dirty interval */
bool mapping_ends(const struct shadow_work *work);
bool pass_absent(struct shadow_work *work, enum visit_absent how, uint64_t segment_last);

static inline uint64_t segment_of(uint64_t iova)
{
	return iova >> S390_SEGMENT_SHIFT;
}

/* The indices of a segment that lie within the pass's range. */
static inline unsigned int leaf_low(const struct shadow_work *work, uint64_t segment)
{
	return segment == segment_of(work->first) ? work->first >> 12 & (S390_PT_ENTRIES - 1) : 0;
}

static inline unsigned int leaf_high(const struct shadow_work *work, uint64_t segment)
{
	return segment == segment_of(work->last) ? work->last >> 12 & (S390_PT_ENTRIES - 1)
						 : S390_PT_ENTRIES - 1;
}

#endif
