/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The emulated address spaces against a model that is too simple to be wrong: an array of pages
 * and a list of areas for each of three address spaces, every page looked at one at a time.
 * Random maps, copies, unmaps and cuts must give the same answers, show the same memory to the DMA
 * engine, and pin as many pages. The seed is printed; it may be given as the first argument.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "iommu/emulated/dma.h"
#include "iommu/emulated/emulated.h"

#define PAGE         UINT64_C(4096)
#define SPACES       3u
#define PAGES        96u
#define MEMORY_PAGES 64u
#define OPERATIONS   20000u
#define MAPS_MAX     (OPERATIONS + 1)
#define RW           (IOMMU_PROT_READ | IOMMU_PROT_WRITE)

struct area {
	unsigned int first, n;
	unsigned int prot;
};

struct page {
	unsigned int map; /* 0: not mapped; which map call brought the memory in */
	unsigned int memory_page;
};

struct space {
	bool cuttable, has_page_table;
	uint32_t ioas, page_table;
	struct page pages[PAGES];
	struct area areas[PAGES];
	unsigned int n_areas;
};

struct world {
	uint64_t random;
	struct iommu_backend *backend;
	const struct iommu_backend_ops *ops;
	struct iommu_context *context;
	struct iommu_device *device;
	struct emulated_dma *dma;
	struct iommu_file file;
	struct space spaces[SPACES];
	unsigned int attached;
	unsigned int n_maps;
	bool map_writable[MAPS_MAX];
	uint64_t base;
};

static uint64_t seed;

static unsigned int random_below(struct world *w, unsigned int n)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (unsigned int)((w->random >> 11) % n);
}

/* Pages spread over two lowest tables. */
static uint64_t iova_of(const struct world *w, unsigned int page)
{
	return w->base + page * PAGE;
}

/* --- the model --- */

static bool range_is_free(const struct space *s, unsigned int first, unsigned int n)
{
	for (unsigned int i = first; i < first + n; i++)
		if (s->pages[i].map)
			return false;
	return true;
}

static void area_add(struct space *s, unsigned int first, unsigned int n, unsigned int prot)
{
	s->areas[s->n_areas++] = (struct area){first, n, prot};
}

static struct area *area_at(struct space *s, unsigned int page)
{
	for (unsigned int i = 0; i < s->n_areas; i++)
		if (page >= s->areas[i].first && page < s->areas[i].first + s->areas[i].n)
			return &s->areas[i];
	return NULL;
}

static void area_remove(struct space *s, struct area *area)
{
	for (unsigned int i = area->first; i < area->first + area->n; i++)
		s->pages[i].map = 0;
	*area = s->areas[--s->n_areas];
}

static int model_map(struct world *w, struct space *s, unsigned int first, unsigned int n,
		     unsigned int memory_page, unsigned int prot)
{
	if (!range_is_free(s, first, n))
		return EEXIST;
	w->map_writable[++w->n_maps] = prot & IOMMU_PROT_WRITE;
	for (unsigned int i = 0; i < n; i++)
		s->pages[first + i] = (struct page){w->n_maps, memory_page + i};
	area_add(s, first, n, prot);
	return 0;
}

static int model_copy(struct world *w, struct space *dst, unsigned int to, struct space *src,
		      unsigned int from, unsigned int n, unsigned int prot)
{
	for (unsigned int i = 0; i < n; i++)
		if (!src->pages[from + i].map)
			return ENOENT;
	if (!range_is_free(dst, to, n))
		return EEXIST;
	for (unsigned int i = 0; i < n; i++)
		if (prot & IOMMU_PROT_WRITE && !w->map_writable[src->pages[from + i].map])
			return EPERM;
	for (unsigned int i = 0; i < n; i++) {
		dst->pages[to + i] = src->pages[from + i];
		if (i > 0 && area_at(src, from + i) == area_at(src, from + i - 1))
			area_at(dst, to + i - 1)->n++;
		else
			area_add(dst, to + i, 1, prot);
	}
	return 0;
}

static int model_unmap(struct space *s, unsigned int first, unsigned int n, unsigned int *ret_n)
{
	struct area *area;

	*ret_n = 0;
	for (unsigned int i = first; i < first + n; i++) {
		area = area_at(s, i);
		if (!area)
			continue;
		if (area->first < first || area->first + area->n > first + n) {
			*ret_n = 0;
			return ENOENT;
		}
		*ret_n += area->n;
		area_remove(s, area);
	}
	return *ret_n ? 0 : ENOENT;
}

/* Splits the area that page is in, before page. */
static void model_split(struct space *s, unsigned int page)
{
	struct area *area = page < PAGES ? area_at(s, page) : NULL;
	unsigned int n;

	if (!area || area->first == page)
		return;
	n = area->first + area->n - page;
	area->n -= n;
	area_add(s, page, n, area->prot);
}

static int model_cut(struct space *s, unsigned int first, unsigned int n, unsigned int *ret_n)
{
	model_split(s, first);
	model_split(s, first + n);
	model_unmap(s, first, n, ret_n);
	return 0;
}

static uint64_t model_pinned(struct world *w)
{
	static bool seen[MAPS_MAX][MEMORY_PAGES];
	uint64_t pinned = 0;

	for (int count = 1; count >= 0; count--)
		for (unsigned int s = 0; s < SPACES; s++)
			for (unsigned int i = 0; i < PAGES; i++) {
				struct page *p = &w->spaces[s].pages[i];

				if (!p->map || !w->spaces[s].has_page_table)
					continue;
				if (count && !seen[p->map][p->memory_page])
					pinned++;
				seen[p->map][p->memory_page] = count;
			}
	return pinned;
}

/* --- comparing --- */

static void check_attached(struct world *w)
{
	struct space *s = &w->spaces[w->attached];

	for (unsigned int i = 0; i < PAGES; i++) {
		struct emulated_dma_target t;
		enum emulated_dma_reason reason =
			emulated_dma_translate(w->dma, iova_of(w, i) + 8, &t);

		if (!s->pages[i].map) {
			assert_int_equal(reason, EMULATED_DMA_NOT_MAPPED);
			continue;
		}
		assert_int_equal(reason, EMULATED_DMA_OK);
		assert_int_equal(t.offset, s->pages[i].memory_page * PAGE + 8);
		assert_int_equal((t.readable ? IOMMU_PROT_READ : 0) |
					 (t.writable ? IOMMU_PROT_WRITE : 0),
				 area_at(s, i)->prot);
	}
}

static void check_pinned(struct world *w)
{
	struct iommu_emulated_counters counters;

	iommu_emulated_counters(w->context, &counters);
	assert_int_equal(counters.pinned_pages, model_pinned(w));
}

/* --- operations --- */

static unsigned int random_prot(struct world *w)
{
	return random_below(w, 4) ? RW : 1 + random_below(w, 2);
}

static void random_range(struct world *w, unsigned int limit, unsigned int *ret_first,
			 unsigned int *ret_n)
{
	*ret_n = 1 + random_below(w, random_below(w, 4) ? 8 : limit);
	*ret_first = random_below(w, limit - *ret_n + 1);
}

static void do_map(struct world *w, struct space *s)
{
	unsigned int first, n, prot = random_prot(w), memory_page;

	random_range(w, MEMORY_PAGES, &memory_page, &n);
	first = random_below(w, PAGES - n + 1);
	assert_int_equal(w->ops->map_file(w->context, s->ioas, &w->file, memory_page * PAGE,
					  n * PAGE, iova_of(w, first), prot),
			 model_map(w, s, first, n, memory_page, prot));
}

static void do_copy(struct world *w, struct space *dst)
{
	struct space *src = &w->spaces[random_below(w, SPACES)];
	unsigned int from, to, n, prot = random_prot(w);

	random_range(w, PAGES, &from, &n);
	to = random_below(w, PAGES - n + 1);
	assert_int_equal(w->ops->copy(w->context, dst->ioas, iova_of(w, to), src->ioas,
				      iova_of(w, from), n * PAGE, prot),
			 model_copy(w, dst, to, src, from, n, prot));
}

static void do_unmap(struct world *w, struct space *s)
{
	unsigned int first, n, want_n;
	uint64_t got;

	random_range(w, PAGES, &first, &n);
	assert_int_equal(w->ops->unmap(w->context, s->ioas, iova_of(w, first), n * PAGE, &got),
			 model_unmap(s, first, n, &want_n));
	assert_int_equal(got, want_n * PAGE);
}

static void do_cut(struct world *w, struct space *s)
{
	unsigned int first, n, want_n;
	uint64_t got;

	if (!s->cuttable)
		return;
	random_range(w, PAGES, &first, &n);
	assert_int_equal(w->ops->cut(w->context, s->ioas, iova_of(w, first), n * PAGE, &got),
			 model_cut(s, first, n, &want_n));
	assert_int_equal(got, want_n * PAGE);
}

static void add_page_table(struct world *w, struct space *s)
{
	assert_int_equal(w->ops->page_table_new(w->context, w->device, s->ioas, &s->page_table), 0);
	s->has_page_table = true;
}

/* Attach elsewhere, or take the page table from a space that is not attached. */
static void do_attach(struct world *w, unsigned int i)
{
	struct space *s = &w->spaces[i];

	if (!s->has_page_table) {
		add_page_table(w, s);
	} else if (i != w->attached && random_below(w, 2)) {
		assert_int_equal(w->ops->destroy(w->context, s->page_table), 0);
		s->has_page_table = false;
		return;
	}
	assert_int_equal(w->ops->attach(w->device, s->page_table), 0);
	w->attached = i;
}

static void do_one(struct world *w)
{
	unsigned int i = random_below(w, SPACES), what = random_below(w, 100);

	if (what < 25)
		do_map(w, &w->spaces[i]);
	else if (what < 60)
		do_copy(w, &w->spaces[i]);
	else if (what < 75)
		do_unmap(w, &w->spaces[i]);
	else if (what < 98)
		do_cut(w, &w->spaces[i]);
	else
		do_attach(w, i);
}

/* --- the world --- */

static void world_open_device(struct world *w)
{
	struct iommu_device_address address = {.by_fid = true, .fid = 1};
	uint32_t id;
	int fd;

	assert_int_equal(w->ops->device_open(w->backend, &address, &w->device), 0);
	assert_int_equal(w->ops->device_bind(w->device, w->context, NULL, &id), 0);
	assert_int_equal(w->ops->device_descriptor(w->device, &fd), 0);
	assert_int_equal(emulated_dma_open(&w->dma, fd), 0);
	close(fd);
}

static void world_init(struct world *w, uint64_t base)
{
	int fd = memfd_create("property", MFD_CLOEXEC);

	memset(w, 0, sizeof(*w));
	w->random = seed;
	w->base = base;
	assert_int_equal(ftruncate(fd, MEMORY_PAGES * PAGE), 0);
	w->file = (struct iommu_file){.fd = fd, .bytes = MEMORY_PAGES * PAGE};
	assert_int_equal(iommu_emulated_new(&w->backend, NULL, 0), 0);
	w->ops = w->backend->ops;
	assert_int_equal(w->ops->context_new(w->backend, &w->context), 0);
	world_open_device(w);
	for (unsigned int i = 0; i < SPACES; i++) {
		w->spaces[i].cuttable = i > 0;
		assert_int_equal(w->ops->ioas_new(w->context, i > 0, &w->spaces[i].ioas), 0);
	}
	do_attach(w, 1);
}

static void world_deinit(struct world *w)
{
	struct iommu_emulated_counters counters;
	uint64_t n;

	/* Whatever is left goes, and with it every pin. */
	for (unsigned int i = 0; i < SPACES; i++)
		assert_int_equal(w->ops->unmap(w->context, w->spaces[i].ioas, 0, UINT64_MAX, &n),
				 0);
	iommu_emulated_counters(w->context, &counters);
	assert_int_equal(counters.pinned_pages, 0);
	assert_int_equal(counters.table_pages, SPACES);
	emulated_dma_close(w->dma);
	w->ops->device_close(w->device);
	w->ops->context_free(w->context);
	w->ops->free(w->backend);
	close(w->file.fd);
}

static void run_at(uint64_t base)
{
	static struct world w;

	world_init(&w, base);
	for (unsigned int i = 0; i < OPERATIONS; i++) {
		do_one(&w);
		check_attached(&w);
		if (i % 16 == 0)
			check_pinned(&w);
	}
	world_deinit(&w);
}

/* Over the border of two lowest tables, where tables of several levels meet, at the window's end.
 */
static void like_the_model(void **state)
{
	run_at(UINT64_C(0x100000000) + 470 * PAGE);
	run_at((UINT64_C(1) << 48) - 40 * PAGE);
	run_at(UINT64_C(0x20000000000000) - PAGES * PAGE);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(like_the_model)};
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = argc > 1 ? strtoull(argv[1], NULL, 0)
			: (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
	if (!seed)
		seed = 1;
	printf("seed %llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
