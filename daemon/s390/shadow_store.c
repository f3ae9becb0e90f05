/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Kept page tables: slots of the caller's storage, a free list, and a balanced tree over them in
 * IOVA order. Slots hold everything that must outlive the process; the tree and the free list can
 * be made from them again. All memory is taken at the beginning.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "s390/shadow_internal.h"

static int node_compare(const struct kept_node *a, const struct kept_node *b)
{
	return a->segment < b->segment ? -1 : a->segment > b->segment;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
RB_GENERATE_INTERNAL(kept_tree, kept_node, link, node_compare, static)
#pragma GCC diagnostic pop

struct kept_node *store_node(const struct kept_store *store, const struct kept_table *table)
{
	return &store->nodes[table - store->tables];
}

static struct kept_table *node_table(const struct kept_store *store, const struct kept_node *node)
{
	return node ? &store->tables[node - store->nodes] : NULL;
}

int store_init(struct kept_store *store, void *storage, uint32_t slots)
{
	struct kept_node *nodes = calloc(slots, sizeof(*nodes));

	if (!nodes)
		return -ENOMEM;
	*store = (struct kept_store){
		.header = storage,
		.tables = (struct kept_table *)((char *)storage + SHADOW_HEADER_BYTES),
		.nodes = nodes,
		.slots = slots,
		.free = SLOT_NONE,
	};
	RB_INIT(&store->tree);
	return 0;
}

void store_deinit(struct kept_store *store)
{
	free(store->nodes);
	store->nodes = NULL;
}

struct kept_table *store_find(const struct kept_store *store, uint64_t segment)
{
	struct kept_tree *tree = (struct kept_tree *)&store->tree;
	struct kept_node key = {.segment = segment};

	return node_table(store, RB_FIND(kept_tree, tree, &key));
}

struct kept_table *store_at_or_after(const struct kept_store *store, uint64_t segment)
{
	struct kept_tree *tree = (struct kept_tree *)&store->tree;
	struct kept_node key = {.segment = segment};

	return node_table(store, RB_NFIND(kept_tree, tree, &key));
}

struct kept_table *store_next(const struct kept_store *store, const struct kept_table *table)
{
	return node_table(store, RB_NEXT(kept_tree, &store->tree, store_node(store, table)));
}

/* Whether bits and words fit each other. Those that a process left in the middle of a change lie in
 * the range of an intent, and were taken away before. */
static bool table_makes_sense(const struct kept_table *table)
{
	if (table->segment > SEGMENT_LAST)
		return false;
	for (unsigned int i = 0; i < S390_PT_ENTRIES; i++) {
		bool installed = bit_get(&table->installed, i);

		if (bit_get(&table->writable, i) && !installed)
			return false;
		if (installed && !s390_word_valid(table->raw[i]))
			return false;
	}
	return true;
}

static void slot_free(struct kept_store *store, uint32_t slot)
{
	store->tables[slot].used = false;
	store->nodes[slot].next_free = store->free;
	store->free = slot;
}

/* false: another one is kept for the same segment. */
static bool slot_keep(struct kept_store *store, uint32_t slot)
{
	store->nodes[slot] = (struct kept_node){
		.segment = store->tables[slot].segment,
		.next_free = SLOT_NONE,
	};
	if (RB_INSERT(kept_tree, &store->tree, &store->nodes[slot]))
		return false;
	store->kept++;
	return true;
}

int store_adopt(struct kept_store *store, void *storage, uint32_t slots,
		int (*lost)(void *context, const struct kept_table *table), void *context)
{
	int status = store_init(store, storage, slots);

	if (status)
		return status;
	store->touched = store->header->touched;
	for (uint32_t slot = 0; !status && slot < store->touched; slot++) {
		struct kept_table *table = &store->tables[slot];

		if (table->used && table_makes_sense(table) && slot_keep(store, slot))
			continue;
		if (table->used)
			status = lost(context, table);
		slot_free(store, slot);
	}
	if (status)
		store_deinit(store);
	return status;
}

static uint32_t slot_take(struct kept_store *store)
{
	uint32_t slot = store->free;

	if (slot != SLOT_NONE) {
		store->free = store->nodes[slot].next_free;
		return slot;
	}
	if (store->touched == store->slots)
		return SLOT_NONE;
	INTENT_STORE(store->header->touched, store->touched + 1);
	return store->touched++;
}

struct kept_table *store_add(struct kept_store *store, uint64_t segment)
{
	uint32_t slot = slot_take(store);
	struct kept_table *table;

	if (slot == SLOT_NONE)
		return NULL;
	table = &store->tables[slot];
	memset(table, 0, offsetof(struct kept_table, raw));
	table->segment = segment;
	for (unsigned int i = 0; i < S390_PT_ENTRIES; i++)
		table->raw[i] = htobe64(S390_PAGE_INVALID);
	atomic_signal_fence(memory_order_seq_cst);
	table->used = true;
	store->nodes[slot] = (struct kept_node){.segment = segment, .next_free = SLOT_NONE};
	RB_INSERT(kept_tree, &store->tree, &store->nodes[slot]);
	store->kept++;
	return table;
}

void store_remove(struct kept_store *store, struct kept_table *table)
{
	struct kept_node *node = store_node(store, table);

	RB_REMOVE(kept_tree, &store->tree, node);
	table->used = false;
	node->next_free = store->free;
	store->free = (uint32_t)(node - store->nodes);
	store->kept--;
}

bool table_is_empty(const struct kept_table *table)
{
	if (bits_any(&table->installed) || bits_any(&table->held))
		return false;
	for (unsigned int i = 0; table->managed && i < S390_PT_ENTRIES; i++) {
		if (s390_word_valid(table->raw[i]))
			return false;
	}
	return true;
}
