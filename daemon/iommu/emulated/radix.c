/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Radix trees of translations, see radix.h. */

#include "iommu/emulated/radix.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static struct radix_table *as_table(struct radix_node *node)
{
	return (struct radix_table *)node;
}

static struct radix_leaf *as_leaf(struct radix_node *node)
{
	return (struct radix_leaf *)node;
}

static _Atomic uint64_t *node_words(const struct radix *radix, const struct radix_node *node)
{
	return arena_at(radix->arena, node->page);
}

static int node_new(struct radix *radix, unsigned int level, struct radix_node **ret)
{
	struct radix_node *node;
	int error;

	node = calloc(1, level ? sizeof(struct radix_table) : sizeof(struct radix_leaf));
	if (!node)
		return ENOMEM;
	error = arena_alloc(radix->arena, &node->page);
	if (error) {
		free(node);
		return error;
	}
	*ret = node;
	return 0;
}

static void node_free(struct radix *radix, struct radix_node *node)
{
	arena_free(radix->arena, node->page);
	free(node);
}

static void subtree_free(struct radix *radix, struct radix_node *node, unsigned int level)
{
	struct radix_table *table = as_table(node);

	for (unsigned int i = 0; level > 0 && node->used && i < EMULATED_TABLE_WORDS; i++) {
		if (!table->child[i])
			continue;
		subtree_free(radix, table->child[i], level - 1);
		node->used--;
	}
	node_free(radix, node);
}

int radix_init(struct radix *radix, struct arena *arena)
{
	struct radix_node *node;
	int error;

	*radix = (struct radix){.arena = arena};
	error = node_new(radix, EMULATED_LEVELS - 1, &node);
	if (error) {
		radix->arena = NULL;
		return error;
	}
	radix->root = as_table(node);
	return 0;
}

void radix_deinit(struct radix *radix)
{
	if (radix->root)
		subtree_free(radix, &radix->root->node, EMULATED_LEVELS - 1);
	*radix = (struct radix){0};
}

/* Pages that one word of a table of that level covers. */
static uint64_t word_pages(unsigned int level)
{
	return UINT64_C(1) << (level * EMULATED_TABLE_BITS);
}

/* ── what another process made ─────────────────────────────────────────────────────────────── */

struct adoption {
	struct radix *radix;
	uint8_t *used;
	bool (*good)(void *context, uint64_t page, uint64_t *word);
	void *context;
};

static void leaf_adopt(struct adoption *adoption, struct radix_leaf *leaf, uint64_t base)
{
	_Atomic uint64_t *words = node_words(adoption->radix, &leaf->node);

	for (unsigned int i = 0; i < EMULATED_TABLE_WORDS; i++) {
		uint64_t word = words[i], as_it_was = word;

		if (!word)
			continue;
		if (!adoption->good(adoption->context, base + i, &word))
			word = 0;
		if (word != as_it_was)
			words[i] = word;
		if (!word)
			continue;
		leaf->present[i / 64] |= UINT64_C(1) << (i % 64);
		leaf->node.used++;
	}
}

static int node_adopt(struct adoption *adoption, uint32_t page, unsigned int level, uint64_t base,
		      struct radix_node **ret);

static int table_adopt(struct adoption *adoption, struct radix_table *table, unsigned int level,
		       uint64_t base)
{
	_Atomic uint64_t *words = node_words(adoption->radix, &table->node);
	int error = 0;

	for (unsigned int i = 0; !error && i < EMULATED_TABLE_WORDS; i++) {
		uint64_t page = words[i];

		if (!page)
			continue;
		if (page > UINT32_MAX ||
		    !arena_claim(adoption->radix->arena, adoption->used, (uint32_t)page)) {
			words[i] = 0;
			continue;
		}
		error = node_adopt(adoption, (uint32_t)page, level - 1,
				   base + i * word_pages(level), &table->child[i]);
		table->node.used += table->child[i] != NULL;
	}
	return error;
}

static int node_adopt(struct adoption *adoption, uint32_t page, unsigned int level, uint64_t base,
		      struct radix_node **ret)
{
	struct radix_node *node =
		calloc(1, level ? sizeof(struct radix_table) : sizeof(struct radix_leaf));
	int error = 0;

	if (!node)
		return ENOMEM;
	node->page = page;
	if (level)
		error = table_adopt(adoption, as_table(node), level, base);
	else
		leaf_adopt(adoption, as_leaf(node), base);
	/* One that failed in the middle is given up with its tree, like one that is whole. */
	*ret = node;
	return error;
}

int radix_adopt(struct radix *radix, struct arena *arena, uint8_t *used, uint32_t root,
		bool (*good)(void *context, uint64_t page, uint64_t *word), void *context)
{
	struct adoption adoption = {radix, used, good, context};
	struct radix_node *node = NULL;
	int error;

	*radix = (struct radix){.arena = arena};
	if (!arena_claim(arena, used, root))
		return EINVAL;
	error = node_adopt(&adoption, root, EMULATED_LEVELS - 1, 0, &node);
	radix->root = (struct radix_table *)node;
	return error;
}

static int table_add(struct radix *radix, struct radix_table *table, unsigned int level,
		     unsigned int i)
{
	struct radix_node *child;
	int error;

	error = node_new(radix, level - 1, &child);
	if (error)
		return error;
	table->child[i] = child;
	table->node.used++;
	atomic_store_explicit(&node_words(radix, &table->node)[i], child->page,
			      memory_order_release);
	return 0;
}

/* The part of [first, last] that word i of a table at base covers. */
static void clip(uint64_t base, unsigned int level, unsigned int i, uint64_t *first, uint64_t *last)
{
	uint64_t word_first = base + i * word_pages(level);
	uint64_t word_last = word_first + word_pages(level) - 1;

	if (*first < word_first)
		*first = word_first;
	if (*last > word_last)
		*last = word_last;
}

static int table_prepare(struct radix *radix, struct radix_table *table, unsigned int level,
			 uint64_t first, uint64_t last)
{
	uint64_t base = first & ~(word_pages(level + 1) - 1);
	int error;

	for (unsigned int i = emulated_index(first, level); i <= emulated_index(last, level); i++) {
		uint64_t f = first, l = last;

		if (!table->child[i]) {
			error = table_add(radix, table, level, i);
			if (error)
				return error;
		}
		if (level == 1)
			continue;
		clip(base, level, i, &f, &l);
		error = table_prepare(radix, as_table(table->child[i]), level - 1, f, l);
		if (error)
			return error;
	}
	return 0;
}

int radix_prepare(struct radix *radix, uint64_t first, uint64_t last)
{
	return table_prepare(radix, radix->root, EMULATED_LEVELS - 1, first, last);
}

static void table_prune(struct radix *radix, struct radix_table *table, unsigned int level,
			uint64_t first, uint64_t last)
{
	uint64_t base = first & ~(word_pages(level + 1) - 1);

	for (unsigned int i = emulated_index(first, level); i <= emulated_index(last, level); i++) {
		struct radix_node *child = table->child[i];
		uint64_t f = first, l = last;

		if (!child)
			continue;
		if (level > 1) {
			clip(base, level, i, &f, &l);
			table_prune(radix, as_table(child), level - 1, f, l);
		}
		if (child->used)
			continue;
		table->child[i] = NULL;
		table->node.used--;
		atomic_store_explicit(&node_words(radix, &table->node)[i], 0, memory_order_release);
		node_free(radix, child);
	}
}

void radix_prune(struct radix *radix, uint64_t first, uint64_t last)
{
	table_prune(radix, radix->root, EMULATED_LEVELS - 1, first, last);
}

static bool leaf_next(const struct radix_leaf *leaf, uint64_t first, uint64_t last,
		      uint64_t *ret_page)
{
	unsigned int i = emulated_index(first, 0), end = emulated_index(last, 0);
	uint64_t base = first - i;

	while (i <= end) {
		uint64_t bits = leaf->present[i / 64] >> (i % 64);

		if (bits) {
			i += (unsigned int)__builtin_ctzll(bits);
			if (i > end)
				return false;
			*ret_page = base + i;
			return true;
		}
		i = (i / 64 + 1) * 64;
	}
	return false;
}

static bool table_next(const struct radix_table *table, unsigned int level, uint64_t first,
		       uint64_t last, uint64_t *ret_page)
{
	uint64_t base = first & ~(word_pages(level + 1) - 1);

	if (!table->node.used)
		return false;
	for (unsigned int i = emulated_index(first, level); i <= emulated_index(last, level); i++) {
		struct radix_node *child = table->child[i];
		uint64_t f = first, l = last;

		if (!child)
			continue;
		clip(base, level, i, &f, &l);
		if (level > 1 ? table_next(as_table(child), level - 1, f, l, ret_page)
			      : leaf_next(as_leaf(child), f, l, ret_page))
			return true;
	}
	return false;
}

bool radix_next(const struct radix *radix, uint64_t first, uint64_t last, uint64_t *ret_page)
{
	return first <= last && table_next(radix->root, EMULATED_LEVELS - 1, first, last, ret_page);
}

static struct radix_leaf *cursor_leaf(struct radix_cursor *cursor, uint64_t page)
{
	struct radix_node *node = &cursor->radix->root->node;

	if (cursor->leaf_number == page >> EMULATED_TABLE_BITS)
		return cursor->leaf;
	for (unsigned int level = EMULATED_LEVELS - 1; node && level > 0; level--)
		node = as_table(node)->child[emulated_index(page, level)];
	cursor->leaf = node ? as_leaf(node) : NULL;
	cursor->leaf_number = page >> EMULATED_TABLE_BITS;
	return cursor->leaf;
}

bool radix_is_set(struct radix_cursor *cursor, uint64_t page)
{
	struct radix_leaf *leaf = cursor_leaf(cursor, page);
	unsigned int i = emulated_index(page, 0);

	return leaf && leaf->present[i / 64] >> (i % 64) & 1;
}

uint64_t radix_get(struct radix_cursor *cursor, uint64_t page)
{
	_Atomic uint64_t *words;

	if (!radix_is_set(cursor, page))
		return 0;
	words = node_words(cursor->radix, &cursor->leaf->node);
	return atomic_load_explicit(&words[emulated_index(page, 0)], memory_order_relaxed);
}

void radix_set(struct radix_cursor *cursor, uint64_t page, uint64_t word)
{
	bool was = radix_is_set(cursor, page);
	struct radix_leaf *leaf = cursor->leaf;
	unsigned int i = emulated_index(page, 0);

	if (!word && !was)
		return;
	assert(leaf);
	if (was != (word != 0)) {
		leaf->present[i / 64] ^= UINT64_C(1) << (i % 64);
		leaf->node.used += word ? 1 : -1u;
	}
	atomic_store_explicit(&node_words(cursor->radix, &leaf->node)[i], word,
			      memory_order_release);
}
