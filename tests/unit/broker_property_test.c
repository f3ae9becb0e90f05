/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random operations of several guests against a simple model.
 *
 * The model knows, for each page of a small guest, which page of which file is there, and for each
 * page of a nested domain what its guest's table (or its VMM) says. After every operation: the
 * ledger is what is held, and every device sees what the model says, page by page, as its DMA
 * engine translates. What was refused changed nothing.
 */
#include "broker_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker_invariant.h"

#define GUESTS     3
#define FUNCTIONS  2 /* of each guest */
#define FILES      2
#define PAGES      24 /* guest pages from DATA on, pages of a file, pages of a window */
#define DATA       (1ull << 40)
#define WINDOW     (DMA_BASE + PAGES * PAGE - 1)
#define OPERATIONS 3000

struct page_model {
	int file; /* -1: nothing there */
	unsigned int file_page;
	bool writable;
	unsigned int region, granule_pages; /* 0: may not be cut from its region's other pages */
};

struct leaf_model {
	bool valid, writable;
	unsigned int gpa_page;
};

struct nested_model {
	uint64_t handle; /* 0: none */
	bool managed;
	uint64_t root;
	struct leaf_model leaves[PAGES];
};

struct function_model {
	struct function function;
	bool bound;
	enum attachment attachment;
	struct nested_model nested;
};

struct guest_model {
	struct fixture f; /* guest, memory for tables; broker and session are shared */
	uint64_t files[FILES];
	struct page_model pages[PAGES];
	unsigned int regions;
	struct function_model functions[FUNCTIONS];
};

static struct fixture shared;
static struct guest_model guests[GUESTS];
static int file_fds[FILES];
static struct stat file_stats[FILES];
static uint64_t seed = 0x9e3779b97f4a7c15;

static unsigned int pick(unsigned int n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned int)((seed >> 33) % n);
}

/* ── what must hold ────────────────────────────────────────────────────────────────────────── */

/* What a page of guest memory is, and whether a leaf that wants it so may show it. */
static const struct page_model *shown(const struct guest_model *g, const struct leaf_model *leaf)
{
	const struct page_model *page = &g->pages[leaf->gpa_page];

	if (!leaf->valid || page->file < 0 || (leaf->writable && !page->writable))
		return NULL;
	return page;
}

static void check_page(const struct function_model *m, uint64_t iova,
		       const struct page_model *expected, bool writable)
{
	struct emulated_dma_target target;
	enum emulated_dma_reason reason = emulated_dma_translate(m->function.dma, iova, &target);

	if (!expected) {
		assert_int_not_equal(reason, EMULATED_DMA_OK);
		return;
	}
	assert_int_equal(reason, EMULATED_DMA_OK);
	assert_int_equal(target.ino, file_stats[expected->file].st_ino);
	assert_int_equal(target.offset, expected->file_page * PAGE);
	assert_int_equal(target.writable, writable);
}

static void check_function(const struct guest_model *g, const struct function_model *m)
{
	for (unsigned int i = 0; m->bound && i < PAGES; i++) {
		const struct leaf_model *leaf = &m->nested.leaves[i];
		const struct page_model *page = NULL;

		if (m->attachment == ATTACHMENT_NESTED)
			page = shown(g, leaf);
		/* Relaxed, the memory with the tables is there. */
		if (m->attachment != ATTACHMENT_RELAXED)
			check_page(m, DMA_BASE + i * PAGE, page, leaf->writable);
		/* Relaxed: guest memory itself, shifted. */
		page = g->pages[i].file < 0 ? NULL : &g->pages[i];
		if (m->attachment != ATTACHMENT_RELAXED)
			page = NULL;
		check_page(m, DMA_BASE + DATA + i * PAGE, page, page && page->writable);
	}
}

static void check_all(void)
{
	assert_ledger_is_held(shared.broker);
	for (unsigned int i = 0; i < GUESTS; i++)
		for (unsigned int k = 0; k < FUNCTIONS; k++)
			check_function(&guests[i], &guests[i].functions[k]);
}

/* ── memory ────────────────────────────────────────────────────────────────────────────────── */

/* Whether a boundary before this page would cut a region that may not be cut. */
static bool cuts(const struct guest_model *g, unsigned int page)
{
	const struct page_model *a, *b;

	if (page == 0 || page >= PAGES)
		return false;
	a = &g->pages[page - 1];
	b = &g->pages[page];
	if (a->file < 0 || b->file < 0 || a->region != b->region)
		return false;
	return !b->granule_pages || page % b->granule_pages;
}

static bool model_map(struct guest_model *g, const struct memory_map_entry *map, int file)
{
	unsigned int first = (unsigned int)((map->gpa - DATA) / PAGE);
	unsigned int n = (unsigned int)(map->length / PAGE);
	unsigned int offset = (unsigned int)(map->offset / PAGE);

	g->regions++;
	for (unsigned int i = 0; i < n; i++) {
		if (g->pages[first + i].file >= 0)
			return false;
		g->pages[first + i] = (struct page_model){
			.file = file,
			.file_page = offset + i,
			.writable = map->writable,
			.granule_pages = (unsigned int)(map->granule / PAGE),
			.region = g->regions,
		};
	}
	return true;
}

/* A multiple of four pages can have a granule of as many. */
static uint64_t random_granule(unsigned int first, unsigned int offset, unsigned int n)
{
	static const uint64_t granules[] = {0, PAGE, PAGE, 4 * PAGE};
	uint64_t granule = granules[pick(4)];

	return granule > PAGE && ((first | offset | n) & 3) ? PAGE : granule;
}

static void random_map(struct guest_model *g, struct memory_map_entry *map, int *file)
{
	unsigned int n = pick(3) ? 1 + pick(6) : 4 + 4 * pick(2);
	unsigned int first = pick(PAGES - n + 1), offset;

	if (!(n & 3))
		first &= ~3u;
	/* Often what is there already: alike. */
	offset = pick(2) ? first : pick(PAGES - n + 1);
	*file = (int)pick(FILES);
	*map = (struct memory_map_entry){
		.memory_file = g->files[*file],
		.offset = offset * PAGE,
		.gpa = DATA + first * PAGE,
		.length = n * PAGE,
		.granule = random_granule(first, offset, n),
		.writable = pick(4),
	};
}

/* Now and then the memory that is there already, taken away and mapped again with another granule:
 * what is alike stays. */
static void alike_map(struct guest_model *g, struct memory_update_request *request, int *file)
{
	unsigned int first = pick(PAGES), n = 0;
	const struct page_model *page = &g->pages[first];

	while (first && page->file >= 0 && g->pages[first - 1].region == page->region &&
	       g->pages[first - 1].file >= 0)
		page = &g->pages[--first];
	while (first + n < PAGES && g->pages[first + n].file >= 0 &&
	       g->pages[first + n].region == page->region)
		n++;
	*file = page->file;
	request->n_unmap = request->n_map = n != 0;
	request->unmap[0] =
		(struct iommu_range){DATA + first * PAGE, DATA + (first + n) * PAGE - 1};
	if (n > 1 && pick(2))
		n = 1 + pick(n - 1); /* only the beginning comes back */
	request->map[0] = (struct memory_map_entry){
		.memory_file = g->files[page->file < 0 ? 0 : page->file],
		.offset = page->file_page * PAGE,
		.gpa = DATA + first * PAGE,
		.length = n * PAGE,
		.granule = random_granule(first, page->file_page, n),
		.writable = page->writable,
	};
}

static void do_update(struct guest_model *g)
{
	static struct memory_update_request request;
	struct guest_model before = *g;
	struct memory_updated updated;
	bool legal = true, alike = !pick(4);
	int status, alike_file = 0;

	request.n_unmap = pick(3);
	request.n_map = pick(3);
	for (size_t i = 0; i < request.n_unmap; i++) {
		unsigned int n = 1 + pick(8), first = pick(PAGES - n + 1);

		request.unmap[i] =
			(struct iommu_range){DATA + first * PAGE, DATA + (first + n) * PAGE - 1};
	}
	if (alike)
		alike_map(g, &request, &alike_file);
	/* Cuts are judged on what is there before. */
	for (size_t i = 0; i < request.n_unmap; i++)
		legal &= !cuts(&before, (unsigned int)((request.unmap[i].first - DATA) / PAGE)) &&
			 !cuts(&before, (unsigned int)((request.unmap[i].last + 1 - DATA) / PAGE));
	for (size_t i = 0; i < request.n_unmap; i++)
		for (uint64_t at = request.unmap[i].first; legal && at < request.unmap[i].last;
		     at += PAGE)
			g->pages[(at - DATA) / PAGE].file = -1;
	for (size_t i = 0; i < request.n_map; i++) {
		int file = alike_file;

		if (!alike)
			random_map(g, &request.map[i], &file);
		legal = legal && model_map(g, &request.map[i], file);
	}
	status = memory_update(shared.broker, shared.session, g->f.guest, &request, NULL, &updated,
			       &shared.refusal);
	assert_int_equal(status, legal ? 0 : REFUSED);
	if (!legal)
		*g = before;
}

/* ── devices and domains ───────────────────────────────────────────────────────────────────── */

static void do_open_or_close(struct guest_model *g, struct function_model *m, unsigned int fid)
{
	bool held;

	if (!m->bound) {
		m->function = function_bind(&g->f, fid);
		m->bound = true;
		m->attachment = ATTACHMENT_BLOCKED;
		return;
	}
	assert_done(&shared, device_close(shared.broker, shared.session, m->function.device, &held,
					  &shared.refusal));
	assert_true(held);
	function_free(&m->function);
	*m = (struct function_model){0};
}

static void do_nested(struct guest_model *g, struct function_model *m)
{
	bool attach = pick(2);
	struct nested_created created;
	uint64_t dropped;

	if (m->nested.handle) {
		assert_done(&shared, nested_destroy(shared.broker, shared.session, m->nested.handle,
						    &dropped, &shared.refusal));
		if (m->attachment == ATTACHMENT_NESTED)
			m->attachment = ATTACHMENT_BLOCKED;
		m->nested = (struct nested_model){0};
		return;
	}
	m->nested.managed = pick(2);
	if (m->nested.managed) {
		created = nested_make_managed(&g->f, m->function.device, DMA_BASE, WINDOW, attach);
	} else {
		g->f.table_next = m == &g->functions[0] ? TABLES_GPA : TABLES_GPA + MIB;
		m->nested.root = table_root(&g->f);
		created = nested_make_s390(&g->f, m->function.device, m->nested.root, DMA_BASE,
					   WINDOW, attach);
	}
	assert_int_equal(created.verdict, VERDICT_DONE);
	m->nested.handle = created.nested;
	if (attach)
		m->attachment = ATTACHMENT_NESTED;
}

static void do_attach(struct function_model *m)
{
	static const enum attachment to[] = {
		ATTACHMENT_BLOCKED,
		ATTACHMENT_RELAXED,
		ATTACHMENT_NESTED,
	};
	enum attachment attachment = to[pick(3)];
	struct range_result walk;

	if (attachment == ATTACHMENT_NESTED && !m->nested.handle)
		return;
	assert_done(&shared, device_attach(shared.broker, shared.session, m->function.device,
					   attachment, m->nested.handle, &walk, &shared.refusal));
	m->attachment = attachment;
}

static void update_managed(struct guest_model *g, struct function_model *m)
{
	unsigned int n = 1 + pick(4), first = pick(PAGES - n + 1), gpa = pick(PAGES - n + 1);
	const struct nested_entry entry = {
		.iova = DMA_BASE + first * PAGE,
		.length = n * PAGE,
		.gpa = DATA + gpa * PAGE,
		.map = pick(3),
		.writable = pick(2),
	};
	struct range_result result;
	bool legal = true;
	size_t tried;

	for (unsigned int i = 0; entry.map && i < n; i++)
		legal &= g->pages[gpa + i].file >= 0 &&
			 (!entry.writable || g->pages[gpa + i].writable);
	assert_done(&shared, nested_update(shared.broker, shared.session, m->nested.handle, &entry,
					   1, &result, &tried, &shared.refusal));
	assert_int_equal(result.verdict, legal ? VERDICT_DONE : VERDICT_OPERAND);
	for (unsigned int i = 0; legal && i < n; i++)
		m->nested.leaves[first + i] =
			(struct leaf_model){entry.map, entry.writable, gpa + i};
}

static void update_table(struct guest_model *g, struct function_model *m)
{
	unsigned int n = 1 + pick(4), first = pick(PAGES - n + 1), gpa = pick(PAGES - n + 1);
	bool map = pick(3), writable = pick(2);

	g->f.table_next = (m == &g->functions[0] ? TABLES_GPA : TABLES_GPA + MIB) + 64 * KIB;
	for (unsigned int i = 0; i < n; i++) {
		uint64_t iova = DMA_BASE + (first + i) * PAGE;

		if (map)
			table_map(&g->f, m->nested.root, iova, DATA + (gpa + i) * PAGE, writable);
		else
			table_unmap(&g->f, m->nested.root, iova);
		m->nested.leaves[first + i] = (struct leaf_model){map, writable, gpa + i};
	}
	assert_int_equal(
		refresh_one(&g->f, m->nested.handle, DMA_BASE + first * PAGE, n * PAGE).verdict,
		VERDICT_DONE);
}

static void do_reset(struct guest_model *g)
{
	uint32_t destroyed, expected = 0;

	for (unsigned int i = 0; i < FUNCTIONS; i++) {
		expected += g->functions[i].nested.handle != 0;
		g->functions[i].nested = (struct nested_model){0};
		g->functions[i].attachment = ATTACHMENT_BLOCKED;
	}
	assert_done(&shared, guest_reset(shared.broker, shared.session, g->f.guest, &destroyed,
					 &shared.refusal));
	assert_int_equal(destroyed, expected);
}

/* ── guests ────────────────────────────────────────────────────────────────────────────────── */

static void guest_begin(struct guest_model *g)
{
	memset(g, 0, sizeof(*g));
	g->f = shared;
	assert_done(&shared, guest_make(&shared, &g->f.guest));
	g->f.memory_fd = memfd_filled(MEMORY_BYTES, &g->f.memory);
	g->f.memory_file = file_add(&g->f, g->f.memory_fd, true);
	assert_done(&g->f, memory_map_one(&g->f, g->f.memory_file, 0, 0, MEMORY_BYTES, true));
	for (unsigned int i = 0; i < FILES; i++)
		g->files[i] = file_add(&g->f, file_fds[i], true);
	for (unsigned int i = 0; i < PAGES; i++)
		g->pages[i].file = -1;
}

static void guest_end(struct guest_model *g)
{
	assert_done(&shared,
		    guest_destroy(shared.broker, shared.session, g->f.guest, &shared.refusal));
	for (unsigned int i = 0; i < FUNCTIONS; i++)
		if (g->functions[i].bound)
			function_free(&g->functions[i].function);
	munmap(g->f.memory, MEMORY_BYTES);
	close(g->f.memory_fd);
}

static void step(void)
{
	unsigned int which = pick(GUESTS), k = pick(FUNCTIONS), what = pick(100);
	struct guest_model *g = &guests[which];
	struct function_model *m = &g->functions[k];

	if (what < 40) {
		do_update(g);
	} else if (what < 46 || !m->bound) {
		do_open_or_close(g, m, 1 + which * FUNCTIONS + k);
	} else if (what < 54) {
		/* A second registration while the device is attached to one is a sequence error. */
		if (m->nested.handle || m->attachment != ATTACHMENT_NESTED)
			do_nested(g, m);
	} else if (what < 62) {
		do_attach(m);
	} else if (what < 63) {
		do_reset(g);
	} else if (what < 64) {
		guest_end(g);
		guest_begin(g);
	} else if (m->nested.handle) {
		if (m->nested.managed)
			update_managed(g, m);
		else
			update_table(g, m);
	}
}

static unsigned int operations = OPERATIONS;

static void test_model(void **state)
{
	struct broker_settings settings = settings_default();

	settings.nested_mappings_default = 256;
	fixture_init(&shared, &settings);
	for (unsigned int i = 0; i < FILES; i++) {
		file_fds[i] = memfd_filled(PAGES * PAGE, NULL);
		assert_int_equal(fstat(file_fds[i], &file_stats[i]), 0);
	}
	for (unsigned int i = 0; i < GUESTS; i++)
		guest_begin(&guests[i]);
	for (unsigned int i = 0; i < operations; i++) {
		step();
		check_all();
	}
	for (unsigned int i = 0; i < GUESTS; i++)
		guest_end(&guests[i]);
	assert_ledger_empty(&shared);
	fixture_deinit(&shared);
	for (unsigned int i = 0; i < FILES; i++)
		close(file_fds[i]);
}

/* Another seed, and more operations, may be given. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0) | 1;
	if (argc > 2)
		operations = (unsigned int)strtoul(argv[2], NULL, 0);
	printf("seed %#llx, %u operations\n", (unsigned long long)seed, operations);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
