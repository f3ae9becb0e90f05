/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_S390_SHADOW_H
#define IB_S390_SHADOW_H

/*
 * The shadow of one nested domain: what of the guest's tables is installed, and how a change of
 * the tables becomes runs of map and cut.
 *
 * The caller serialises all calls on one shadow. Distinct shadows of one guest may run at the same
 * time; they share the frames' alias counters, which are atomic. Nothing here allocates once
 * shadow_new() has returned, and nothing here locks.
 *
 * Work comes in operations (struct shadow_op) that are run in steps, so that a whole-aperture
 * refresh of a large guest delays nobody: between two steps of one operation the caller may run
 * others on the same shadow, and may publish another view.
 */

#include "s390/walk.h"

/* What the guest is answered, see the API's Verdict. */
enum shadow_verdict {
	SHADOW_DONE,
	SHADOW_RESOURCES, /* out of mappings; every unmap of the range took effect */
	SHADOW_ERROR, /* walk error: fault is set; or the host function is in error: fault.code 0 */
	SHADOW_BROKEN, /* a cut failed although retried: the caller must block the device. The cut
			* is owed: each later step tries it again before anything else */
};

/* Why a valid leaf was not installed (rule 8 of the translation rules); an event, not an error. */
enum shadow_leaf_refusal {
	SHADOW_LEAF_OUTSIDE_MEMORY,
	SHADOW_LEAF_READ_ONLY_MEMORY, /* writable leaf over a read-only region */
};

struct shadow_ops {
	/* Install [iova, iova + length) as [gpa, gpa + length). 0, or the kernel's errno: ENOSPC
	 * and ENOMEM are want of mappings, ENOENT a region that just went, EIO a function in error.
	 */
	int (*map)(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable);
	/* Take away whatever is installed in [iova, iova + length); nothing there is success.
	 * 0, or the kernel's errno. */
	int (*cut)(void *context, uint64_t iova, uint64_t length);
	/* A valid leaf that is not installed. Called once for each change of the leaf or of the
	 * guest's memory, from within shadow_step(). May be NULL. */
	void (*leaf_refused)(void *context, uint64_t iova, uint64_t gpa,
			     enum shadow_leaf_refusal refusal);
};

struct shadow_limits {
	uint64_t leaves_max; /* installed 4 KiB leaves, 1 .. 2^40 */
	uint32_t tables_max; /* kept page tables, 1 .. 2^24 */
};

struct shadow;

/* Bytes of storage that a shadow with these limits uses for kept tables, at most. What is not
 * used yet costs address space only. */
uint64_t shadow_storage_bytes(const struct shadow_limits *limits);

/* storage: shadow_storage_bytes() zero bytes, 4 KiB aligned, borrowed until shadow_free(); kept
 * tables live in it directly and in no other place. 0 or -ENOMEM. */
int shadow_new(struct shadow **ret, const struct shadow_ops *ops, void *context,
	       const struct shadow_limits *limits, void *storage);
/*
 * The same over storage that a shadow with the same limits used in another process, which died at
 * any instant. What is installed is taken over as it is, and its alias counts are taken in view;
 * the ranges of calls that were under way are cut. Everything is decided again: run
 * SHADOW_OP_RECONCILE once the anchor, or the managed window, is set. The storage is not trusted:
 * a table that does not make sense is given up, and its segment cut.
 * *ret_damaged (may be NULL): how many tables were. 0 or -ENOMEM; -EBADMSG: it is no shadow's
 * storage; or what cut() answered, negative: then nobody knows what is installed.
 */
int shadow_adopt(struct shadow **ret, const struct shadow_ops *ops, void *context,
		 const struct shadow_limits *limits, void *storage, const struct memory_view *view,
		 uint32_t *ret_damaged);
/* Gives back alias counts of what is still installed, installs and cuts nothing. NULL is fine. */
struct shadow *shadow_free(struct shadow *shadow, const struct memory_view *view);

/* Source of the translations: an s390 anchor, or (managed) what shadow_managed_*() wrote. NULL:
 * no anchor; a refresh then answers INVALAS. Changing the anchor leaves what is installed: run
 * SHADOW_OP_RECONCILE after it. */
void shadow_set_anchor(struct shadow *shadow, const struct s390_anchor *anchor);
void shadow_set_managed(struct shadow *shadow, uint64_t first, uint64_t last);
const struct s390_anchor *shadow_anchor(const struct shadow *shadow); /* NULL: none or managed */

struct shadow_result {
	enum shadow_verdict verdict;
	struct s390_fault fault;
	int host_errno;    /* of the map or cut that failed, or 0 */
	uint64_t mapped;   /* leaves that became mapped, or changed frame or permission */
	uint64_t unmapped; /* leaves that were installed and now are not; not those that changed */
};

enum shadow_op_kind {
	SHADOW_OP_REFRESH,   /* [first, last] as the guest's instruction asks */
	SHADOW_OP_RECONCILE, /* whole window, after a new anchor or new memory: cuts what lies
			      * outside the window; a walk error is reported, and what can be
			      * mapped is mapped */
	SHADOW_OP_SWEEP, /* whole window, unmaps only; a walk error is noted in result.fault and the
			  * verdict is DONE all the same */
	SHADOW_OP_DROP,  /* cut everything in [first, last], forget it was installed; what a managed
			  * shadow was told to show stays wanted */
	SHADOW_OP_MANAGED_MAP,  /* managed: [first, last] shows gpa… with that permission */
	SHADOW_OP_MANAGED_UNMAP /* managed: [first, last] shows nothing */
};

#define SHADOW_DIRTY_MAX 32

/* A resumable operation: plain memory of the caller, nothing to release. */
struct shadow_op {
	enum shadow_op_kind kind;
	uint64_t first, last; /* inclusive IOVAs, whole pages */
	uint64_t gpa;         /* SHADOW_OP_MANAGED_MAP */
	bool writable;
	struct shadow_result result; /* complete when shadow_step() answered false */
	uint64_t cost;               /* of all steps so far, in units of their budgets */
	/* The rest belongs to shadow_step(). */
	struct {
		uint32_t pass, epoch;
		bool overflow;       /* of start + length */
		bool stop;           /* map no more */
		bool untidy;         /* a table may have been left that keeps nothing */
		uint64_t next;       /* segment (IOVA >> 20) to go on from in this pass */
		uint64_t visited;    /* tables, in this pass */
		uint64_t at_segment; /* of this segment ... */
		uint32_t at_leaf;    /* ... the leaves below are done in this pass */
		bool resumed;        /* the last step ended within a segment */
		uint64_t fault_last; /* segment: end of a fault that was met while mapping */
		uint64_t resume;     /* segment behind it */
		uint64_t changed;    /* leaves that were cut and mapped again */
		uint64_t swept;      /* leaves that were newly mapped when a whole walk began */
		uint32_t n_dirty, at_dirty;
		struct {
			uint64_t first, last; /* segments */
		} dirty[SHADOW_DIRTY_MAX];
	} cursor;
};

/* Begin. REFRESH: start and length in bytes as the guest gave them, widened to whole pages; length
 * 0 is complete at once. The other ranges must be whole pages; RECONCILE and SWEEP put the window
 * for theirs. */
void shadow_op_refresh(struct shadow_op *op, uint64_t start, uint64_t length);
void shadow_op_range(struct shadow_op *op, enum shadow_op_kind kind, uint64_t first, uint64_t last);
void shadow_op_managed_map(struct shadow_op *op, uint64_t first, uint64_t last, uint64_t gpa,
			   bool writable);

/* Work for about budget units (one for a compared table, some for an ioctl and for each refused
 * leaf that is told; 0: to the end). It ends between two leaves of a table, too: what it spends
 * beyond the budget is the cut and the run to map that are under way then, and one path of tables.
 * true: call again. */
bool shadow_step(struct shadow *shadow, const struct memory_view *view, struct shadow_op *op,
		 unsigned int budget);

/* Cut every installed leaf that shows a frame in [gpa_first, gpa_last]: before a region goes.
 * view is the view that still has the region's counters. 0, or SHADOW_BROKEN's errno. */
int shadow_drop_frames(struct shadow *shadow, const struct memory_view *view, uint64_t gpa_first,
		       uint64_t gpa_last);
/* The same for every frame that is not in kept, however many regions go, in one pass. */
int shadow_drop_outside(struct shadow *shadow, const struct memory_view *view,
			const struct memory_view *kept);

/* Everything installed is gone (the address space was destroyed or emptied by the caller): forget
 * it, give the alias counts back. */
void shadow_forget(struct shadow *shadow, const struct memory_view *view);

/* The refresh or map ran up so many leaves without a whole walk that a sweep is due: design.md
 * section 7, aliases. The caller runs SHADOW_OP_SWEEP when it suits. */
bool shadow_sweep_due(const struct shadow *shadow);

struct shadow_stats {
	uint64_t leaves_installed;
	uint64_t tables_kept;
	uint64_t bytes_kept;                    /* all memory that this shadow uses now */
	uint64_t refreshes, sweeps, maps, cuts; /* operations begun; calls of ops->map and ->cut */
};
void shadow_stats(const struct shadow *shadow, struct shadow_stats *ret);

/* What is installed at iova: false if nothing is. */
bool shadow_lookup(const struct shadow *shadow, uint64_t iova, uint64_t *ret_gpa,
		   bool *ret_writable);

/* Every installed run from iova on, joined while contiguous: fills up to n, returns the number. */
struct shadow_run {
	uint64_t iova, gpa, length;
	bool writable;
};
size_t shadow_runs(const struct shadow *shadow, uint64_t iova, struct shadow_run *ret, size_t n);

#endif
