/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_BENCH_SCRIPT_H
#define IB_VM_BENCH_SCRIPT_H

/*
 * What a guest does with one registered table: steps, each of them writes into the table and then
 * the refresh of a range. Recorded, or made up here.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_PAGE_BYTES UINT64_C(4096)
#define BENCH_DMA_FIRST  UINT64_C(0x100000000)

struct bench_leaf {
	uint64_t iova, gpa;
	unsigned int access; /* ZPCI_LEAF_... */
	bool was_mapped;     /* in the eyes of who looks only at what is refreshed */
};

struct bench_step {
	uint64_t start, length;
	/* Before the refresh: what the guest writes into its table, and what of the refreshed range
	 * is not as it was at the last refresh of it. The first has also what the guest says of in
	 * no refresh yet, as one does that flushes lazily. */
	size_t first_write, n_writes;
	size_t first_change, n_changes;
};

struct bench_script {
	uint64_t iota, first, last; /* window */
	struct bench_step *steps;
	size_t n_steps;
	struct bench_leaf *writes, *changes;
	size_t n_writes, n_changes;
	uint64_t mapped, unmapped; /* sums over the changes */
};

struct bench_scripts {
	struct bench_script *scripts;
	size_t n;
};

/* One script for each registration in a recorded trace (tests/data/traces). Ends the program if it
 * is none. */
void bench_scripts_load(struct bench_scripts *ret, const char *path);

/* A trace tells of a leaf when it was refreshed, and a guest that flushes lazily has invalidated it
 * long before. When is not recorded, but where its frame was mapped anew it had been: let those be
 * written there. */
void bench_scripts_invalidate_early(struct bench_scripts *scripts);

/*
 * A guest that flushes lazily (Linux, DMA-FQ): n_frames frames in turn are each mapped at an IOVA
 * that was not used before, said by a refresh of that page, and invalidated without one when the
 * next frame's turn comes; until each frame has had n_places IOVAs. Then all is refreshed.
 */
void bench_scripts_lazy(struct bench_scripts *ret, size_t n_frames, size_t n_places);

/* n_frames frames, each of them truly shown at n_places, no two neighbours that could be one run:
 * one refresh of all. */
void bench_scripts_filled(struct bench_scripts *ret, size_t n_frames, size_t n_places);

void bench_scripts_free(struct bench_scripts *scripts);

_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *bench_alloc(size_t n, size_t bytes);

#endif
