/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See play.h. Files are checked as they are read: sizes, functions, frames within guest memory. */

#include "replay/play.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replay/check.h"
#include "replay/workspace.h"

/* Trace: little-endian u64 ns; u32 type; u32 fid; u64 a, b, c. */
#define RECORD_BYTES 40u
#define REGISTERED   1u /* a IOTA, b PBA, c PAL; fresh, empty tables */
#define DEREGISTERED 2u
#define REFRESHED    3u /* a first IOVA, b bytes */
#define LEAF         4u /* a IOVA, b gpa, c access */

/* Tables: u64 gpa; u8 page[4096]. */
#define TABLE_RECORD_BYTES (8u + ZPCI_PAGE_BYTES)

struct record {
	uint32_t type, function_id;
	uint64_t a, b, c;
};

static struct record record_at(const struct input *trace, size_t i)
{
	const uint8_t *from = trace->bytes + i * RECORD_BYTES;

	return (struct record){
		.type = input_le32(from + 8),
		.function_id = input_le32(from + 12),
		.a = input_le64(from + 16),
		.b = input_le64(from + 24),
		.c = input_le64(from + 32),
	};
}

int play_trace_functions(const struct input *trace, uint32_t *ret_ids, size_t *ret_n)
{
	size_t n_records = trace->n_bytes / RECORD_BYTES;
	size_t n = 0;

	if (n_records == 0 || trace->n_bytes % RECORD_BYTES != 0)
		return -EBADMSG;
	for (size_t i = 0; i < n_records; i++) {
		struct record record = record_at(trace, i);
		size_t k = 0;

		if (record.type < REGISTERED || record.type > LEAF)
			return -EBADMSG;
		while (k < n && ret_ids[k] != record.function_id)
			k++;
		if (k < n)
			continue;
		if (n == FUNCTIONS_MAX)
			return -E2BIG;
		ret_ids[n++] = record.function_id;
	}
	*ret_n = n;
	return 0;
}

static int bad_record(struct machine *machine, size_t i, const char *what)
{
	machine_fail(machine, "record %zu of the trace: %s", i, what);
	return -EBADMSG;
}

/* Registered: the checks' own leaves are in the tables already. */
static int start_checks(struct machine *machine, struct function *function)
{
	int r = machine->checks->start != NULL ? machine->checks->start(machine, function) : 0;

	if (r < 0)
		machine_fail(machine, "function %u: its DMA engine does not start: %s",
			     function->id, strerrordesc_np(-r));
	return r;
}

static int play_register(struct machine *machine, struct function *function,
			 const struct record *record)
{
	unsigned int fresh = !function->current;
	struct zpci_tables *tables = &function->tables[fresh];
	struct iommubroker_anchor anchor = {.pba = record->b, .pal = record->c};
	int r;

	r = zpci_tables_init(tables, record->a);
	if (r < 0) {
		machine_fail(machine, "function %u: no tables can be laid out for IOTA 0x%llx",
			     function->id, (unsigned long long)record->a);
		return r;
	}
	anchor.iota = zpci_tables_iota(tables, record->a);
	function->current = fresh;
	r = workspace_lay_out(function, tables, anchor.pba);
	if (r == 0)
		r = machine_register(machine, function, &anchor);
	if (r == 0)
		r = workspace_expect(machine, function);
	return r < 0 ? r : start_checks(machine, function);
}

static int play_leaf(struct machine *machine, struct function *function,
		     const struct record *record)
{
	unsigned int access = record->c;
	int r;

	if (record->c != ZPCI_LEAF_NONE && record->c != ZPCI_LEAF_READ &&
	    record->c != ZPCI_LEAF_READ_WRITE)
		return -EBADMSG;
	if (access != ZPCI_LEAF_NONE &&
	    (record->b % ZPCI_PAGE_BYTES != 0 || record->b > machine->ram_bytes - ZPCI_PAGE_BYTES))
		return -EBADMSG;
	if (workspace_has_iova(function, record->a) ||
	    (access != ZPCI_LEAF_NONE && workspace_has_frame(machine, record->b)))
		return -EADDRINUSE;
	r = zpci_tables_set(&function->tables[function->current], record->a, record->b, access);
	return r < 0 ? r : machine_expect(machine, function, record->a, record->b, access);
}

/* A refresh and the changes that it found: changes into the tables, the refresh, and a look at
 * each. Returns how many changes there were, or a negative errno. */
static int play_refresh(struct machine *machine, struct function *function,
			const struct input *trace, size_t at)
{
	size_t n_records = trace->n_bytes / RECORD_BYTES;
	struct record refresh = record_at(trace, at);
	size_t first = at + 1, next = first;
	struct record leaf;

	for (; next < n_records; next++) {
		leaf = record_at(trace, next);
		if (leaf.type != LEAF || leaf.function_id != function->id)
			break;
		if (play_leaf(machine, function, &leaf) < 0)
			return bad_record(machine, next, "a leaf that cannot be");
	}
	machine_refresh(machine, function, refresh.a, refresh.b);
	for (size_t i = first; i < next; i++)
		check_leaf(machine, function, record_at(trace, i).a);
	return next - first;
}

int play_trace(struct machine *machine, const struct input *trace)
{
	size_t n_records = trace->n_bytes / RECORD_BYTES;
	int r = 0;

	for (size_t i = 0; i < n_records && r >= 0; i++) {
		struct record record = record_at(trace, i);
		struct function *function = machine_function(machine, record.function_id);

		if (record.type == REGISTERED)
			r = play_register(machine, function, &record);
		else if (record.type == LEAF)
			r = bad_record(machine, i, "a leaf without a refresh");
		else if (function->nested == NULL)
			r = bad_record(machine, i, "the function is not registered");
		else if (record.type == DEREGISTERED)
			r = machine_deregister(machine, function);
		else
			r = play_refresh(machine, function, trace, i);
		if (record.type == REFRESHED && r > 0)
			i += r;
	}
	return r < 0 ? r : 0;
}

static int load_pages(struct machine *machine, const struct input *tables)
{
	if (tables->n_bytes == 0 || tables->n_bytes % TABLE_RECORD_BYTES != 0) {
		machine_fail(machine, "not a file of table pages");
		return -EBADMSG;
	}
	for (size_t at = 0; at < tables->n_bytes; at += TABLE_RECORD_BYTES) {
		uint64_t gpa = input_le64(tables->bytes + at);

		if (gpa % ZPCI_PAGE_BYTES != 0 || gpa > machine->ram_bytes - ZPCI_PAGE_BYTES) {
			machine_fail(machine, "a page at 0x%llx is outside guest memory",
				     (unsigned long long)gpa);
			return -EBADMSG;
		}
		memcpy(machine->memory + gpa, tables->bytes + at + 8, ZPCI_PAGE_BYTES);
	}
	return 0;
}

struct expectation {
	struct machine *machine;
	struct function *function;
};

static int expect_leaf(void *user_data, uint64_t iova, uint64_t gpa, unsigned int access)
{
	struct expectation *expectation = user_data;

	if (gpa > expectation->machine->ram_bytes - ZPCI_PAGE_BYTES)
		return 0; /* the daemon is not to install it either */
	return machine_expect(expectation->machine, expectation->function, iova, gpa, access);
}

/* The guest's own tables get the checks' leaves added. */
static int add_workspace(struct machine *machine, struct function *function,
			 const struct iommubroker_anchor *anchor)
{
	struct zpci_tables *tables = &function->tables[function->current];

	if (function->workspace.n_pages == 0)
		return 0;
	*tables = workspace_adopt(machine, function, anchor->iota);
	return workspace_lay_out(function, tables, anchor->pba);
}

static int play_anchor(struct machine *machine, const struct play_anchor *anchor)
{
	struct function *function = machine_function(machine, anchor->function_id);
	struct expectation expectation = {machine, function};
	struct leaf *leaf, *next;
	int r;

	r = add_workspace(machine, function, &anchor->anchor);
	if (r == 0)
		r = machine_register(machine, function, &anchor->anchor);
	if (r < 0)
		return r;
	r = zpci_walk(machine->memory, machine->ram_bytes, anchor->anchor.iota, anchor->anchor.pba,
		      anchor->anchor.pal, expect_leaf, &expectation);
	if (r < 0) {
		machine_fail(machine, "function %u: these are no tables: %s", function->id,
			     strerrordesc_np(-r));
		return r;
	}
	machine_refresh(machine, function, anchor->anchor.pba,
			anchor->anchor.pal - anchor->anchor.pba + 1);
	r = start_checks(machine, function);
	HASH_ITER (hh, function->leaves, leaf, next)
		if (r == 0 && !workspace_has_iova(function, leaf->iova))
			check_leaf(machine, function, leaf->iova);
	return r;
}

int play_tables(struct machine *machine, const struct input *tables,
		const struct play_anchor *anchors, size_t n_anchors)
{
	int r;

	r = load_pages(machine, tables);
	for (size_t i = 0; i < n_anchors && r == 0; i++)
		r = play_anchor(machine, &anchors[i]);
	return r;
}

/* ── what a trace leaves behind ───────────────────────────────────────────────────────────── */

static void leaves_clear(struct leaf **leaves)
{
	struct leaf *leaf, *next;

	HASH_ITER (hh, *leaves, leaf, next) {
		HASH_DEL(*leaves, leaf);
		free(leaf);
	}
}

static int leaf_put(struct leaf **leaves, const struct record *record)
{
	struct leaf *leaf;

	HASH_FIND(hh, *leaves, &record->a, sizeof(record->a), leaf);
	if (record->c == ZPCI_LEAF_NONE) {
		if (leaf != NULL) {
			HASH_DEL(*leaves, leaf);
			free(leaf);
		}
		return 0;
	}
	if (leaf == NULL) {
		leaf = calloc(1, sizeof(*leaf));
		if (leaf == NULL)
			return -ENOMEM;
		leaf->iova = record->a;
		HASH_ADD(hh, *leaves, iova, sizeof(leaf->iova), leaf);
	}
	leaf->gpa = record->b;
	leaf->access = record->c;
	return 0;
}

static void leaves_compare(struct machine *machine, const struct function *function,
			   struct leaf *wanted)
{
	struct leaf *leaf, *next, *other;
	unsigned int n_leaves = HASH_COUNT(function->leaves) - function->workspace.n_pages;
	unsigned int different = HASH_COUNT(wanted) != n_leaves;

	HASH_ITER (hh, wanted, leaf, next) {
		HASH_FIND(hh, function->leaves, &leaf->iova, sizeof(leaf->iova), other);
		different +=
			other == NULL || other->gpa != leaf->gpa || other->access != leaf->access;
	}
	if (different > 0)
		machine_fail(machine,
			     "function %u: the tables hold %u leaves, the trace ends with %u; %u "
			     "are not the same",
			     function->id, n_leaves, HASH_COUNT(wanted), different);
}

int play_compare_end(struct machine *machine, const struct input *trace)
{
	size_t n_records = trace->n_bytes / RECORD_BYTES;
	int r = 0;

	for (size_t f = 0; f < machine->n_functions && r == 0; f++) {
		const struct function *function = &machine->functions[f];
		struct leaf *wanted = NULL;

		for (size_t i = 0; i < n_records && r == 0; i++) {
			struct record record = record_at(trace, i);

			if (record.function_id != function->id)
				continue;
			if (record.type == LEAF)
				r = leaf_put(&wanted, &record);
			else if (record.type != REFRESHED)
				leaves_clear(&wanted);
		}
		if (r == 0)
			leaves_compare(machine, function, wanted);
		leaves_clear(&wanted);
	}
	return r;
}
