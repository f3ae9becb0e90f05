/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a refresh costs in this process, without sockets and without a kernel: JSON lines
 * {"name", "value", "unit", "ratio", "against"}.
 *
 *     shadow_bench RECORDED.tables.gz	(tests/data/traces)
 *
 * Ratios are of medians, the two sides measured in turn.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <zlib.h>

#include "s390/entry.h"
#include "s390/shadow.h"
#include "util/guest_read.h"

#define MIB        (UINT64_C(1) << 20)
#define TURNS      61
#define BIG_LEAVES UINT64_C(1000000)

static int null_map(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable)
{
	return 0;
}

static int null_cut(void *context, uint64_t iova, uint64_t length)
{
	return 0;
}

static const struct shadow_ops null_ops = {.map = null_map, .cut = null_cut};

static void die(const char *why)
{
	fprintf(stderr, "shadow_bench: %s\n", why);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static double median(uint64_t *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_u64);
	return (double)values[n / 2];
}

static void *pages(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("no memory");
	return memory;
}

static void report(const char *name, double value, const char *unit, double ratio,
		   const char *against)
{
	printf("{\"name\": \"%s\", \"value\": %.3f, \"unit\": \"%s\", \"ratio\": ", name, value,
	       unit);
	if (against)
		printf("%.3f, \"against\": \"%s\"}\n", ratio, against);
	else
		printf("null, \"against\": null}\n");
}

struct bench {
	uint8_t *memory;
	uint64_t bytes;
	struct memory_view *view;
	struct shadow *shadow;
	struct s390_anchor anchor;
};

static void bench_memory(struct bench *bench, uint64_t bytes)
{
	bench->bytes = bytes;
	bench->memory = pages(bytes);
	bench->view = calloc(1, sizeof(*bench->view) + sizeof(bench->view->regions[0]));
	if (!bench->view)
		die("no memory");
	bench->view->generation = 1;
	bench->view->n_regions = 1;
	bench->view->regions[0] = (struct memory_view_region){
		.gpa_last = bytes - 1,
		.host = bench->memory,
		.writable = true,
		.aliases = calloc(bytes >> 12, sizeof(uint16_t)),
	};
}

static void bench_shadow(struct bench *bench, uint64_t leaves_max, uint32_t tables_max)
{
	struct shadow_limits limits = {.leaves_max = leaves_max, .tables_max = tables_max};
	void *storage = pages(shadow_storage_bytes(&limits));

	if (shadow_new(&bench->shadow, &null_ops, NULL, &limits, storage) < 0)
		die("no memory");
	shadow_set_anchor(bench->shadow, &bench->anchor);
}

static struct shadow_result bench_refresh(struct bench *bench, uint64_t first, uint64_t length)
{
	struct shadow_op op;

	shadow_op_refresh(&op, first, length);
	while (shadow_step(bench->shadow, bench->view, &op, 0))
		;
	if (op.result.verdict != SHADOW_DONE)
		die("a refresh is not DONE");
	return op.result;
}

static void put(struct bench *bench, uint64_t table, uint64_t index, uint64_t entry)
{
	((uint64_t *)(bench->memory + table))[index] = htobe64(entry);
}

/* One region-third table, two segment tables, page tables one behind the other; every leaf shows
 * one of the frames behind the tables. */
static void big_tables(struct bench *bench, uint64_t base)
{
	uint64_t pt_first = 4 * S390_UPPER_BYTES, frames = bench->bytes / S390_PAGE_BYTES;
	uint64_t tables = (BIG_LEAVES + S390_PT_ENTRIES - 1) / S390_PT_ENTRIES;

	for (uint64_t t = 0; t < 4; t++)
		for (uint64_t i = 0; i < S390_UPPER_ENTRIES; i++)
			put(bench, t * S390_UPPER_BYTES, i, S390_UPPER_INVALID);
	for (uint64_t t = 0; t < 3; t++)
		put(bench, 0, (base >> 31) + t, ((t + 1) * S390_UPPER_BYTES) | 0x7);
	for (uint64_t t = 0; t < tables; t++) {
		put(bench, (1 + t / S390_UPPER_ENTRIES) * S390_UPPER_BYTES, t % S390_UPPER_ENTRIES,
		    pt_first + t * S390_PT_BYTES);
		for (uint64_t i = 0; i < S390_PT_ENTRIES; i++) {
			uint64_t leaf = t * S390_PT_ENTRIES + i;

			put(bench, pt_first + t * S390_PT_BYTES, i,
			    leaf < BIG_LEAVES ? leaf * 7 % frames * S390_PAGE_BYTES
					      : S390_PAGE_INVALID);
		}
	}
	bench->anchor = (struct s390_anchor){.iota = S390_IOTA_TABLES | 0x4,
					     .pba = base,
					     .pal = base + (8u << 20) * 4096ull - 1};
}

static void bench_unchanged(void)
{
	uint64_t ours[TURNS], theirs[TURNS], base = UINT64_C(1) << 32;
	uint64_t table_bytes = (BIG_LEAVES + 255) / 256 * S390_PT_BYTES;
	uint8_t *a = pages(table_bytes), *b = pages(table_bytes);
	struct bench bench;
	struct shadow_stats stats;

	bench_memory(&bench, 256 * MIB);
	big_tables(&bench, base);
	bench_shadow(&bench, UINT64_C(1) << 21, 1 << 14);
	memcpy(a, bench.memory + 4 * S390_UPPER_BYTES, table_bytes);
	memcpy(b, a, table_bytes);
	if (bench_refresh(&bench, base, bench.anchor.pal - base + 1).mapped != BIG_LEAVES)
		die("not a million leaves");
	for (unsigned int i = 0; i < TURNS; i++) {
		uint64_t start = now_ns();

		if (memcmp(a, b, table_bytes))
			abort();
		theirs[i] = now_ns() - start;
		start = now_ns();
		bench_refresh(&bench, base, bench.anchor.pal - base + 1);
		ours[i] = now_ns() - start;
	}
	shadow_stats(bench.shadow, &stats);
	report("refresh_million_unchanged", median(ours, TURNS) / 1e3, "us",
	       median(ours, TURNS) / median(theirs, TURNS), "memcmp of as many table bytes");
	report("kept_bytes_per_leaf_full_tables",
	       (double)stats.bytes_kept / (double)stats.leaves_installed, "bytes", 0, NULL);
}

/* Map and unmap the same page of a full table in turn. */
static void bench_single(void)
{
	uint64_t changed[TURNS], same[TURNS], base = UINT64_C(1) << 32, n = 1000;
	uint64_t table = 4 * S390_UPPER_BYTES;
	struct bench bench;

	bench_memory(&bench, 256 * MIB);
	big_tables(&bench, base);
	bench_shadow(&bench, UINT64_C(1) << 21, 1 << 14);
	bench_refresh(&bench, base, bench.anchor.pal - base + 1);
	for (unsigned int i = 0; i < TURNS; i++) {
		uint64_t start = now_ns();

		for (uint64_t k = 0; k < n; k++) {
			put(&bench, table, 9, k & 1 ? 0x7000 : S390_PAGE_INVALID);
			bench_refresh(&bench, base + 9 * S390_PAGE_BYTES, S390_PAGE_BYTES);
		}
		changed[i] = (now_ns() - start) / n;
		start = now_ns();
		for (uint64_t k = 0; k < n; k++)
			bench_refresh(&bench, base + k * 0x101000, S390_PAGE_BYTES);
		same[i] = (now_ns() - start) / n;
	}
	report("refresh_one_leaf_changed", median(changed, TURNS), "ns", 0, NULL);
	report("refresh_one_leaf_unchanged", median(same, TURNS), "ns", 0, NULL);
}

static unsigned int calls_of_step;

static int counting_map(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable)
{
	calls_of_step++;
	return 0;
}

static int counting_cut(void *context, uint64_t iova, uint64_t length)
{
	calls_of_step++;
	return 0;
}

static const struct shadow_ops counting_ops = {.map = counting_map, .cut = counting_cut};

/* Steps of what a refresh may spend on the event loop, over one table of which every leaf changed
 * and none joins its neighbour: how many calls of the kernel the longest step makes. */
static void bench_longest_step(void)
{
	static const unsigned int inline_units = 256;
	struct shadow_limits limits = {.leaves_max = 1 << 20, .tables_max = 1 << 12};
	uint64_t base = UINT64_C(1) << 32, table = 4 * S390_UPPER_BYTES;
	unsigned int most = 0, all = 0;
	struct shadow_op op;
	struct bench bench;
	bool more;

	bench_memory(&bench, 256 * MIB);
	big_tables(&bench, base);
	if (shadow_new(&bench.shadow, &counting_ops, NULL, &limits,
		       pages(shadow_storage_bytes(&limits))) < 0)
		die("no memory");
	shadow_set_anchor(bench.shadow, &bench.anchor);
	bench_refresh(&bench, base, MIB);
	for (uint64_t i = 0; i < S390_PT_ENTRIES; i++)
		put(&bench, table, i, (S390_PT_ENTRIES - i) * 2 * S390_PAGE_BYTES);
	shadow_op_refresh(&op, base, MIB);
	do {
		calls_of_step = 0;
		more = shadow_step(bench.shadow, bench.view, &op, inline_units);
		most = calls_of_step > most ? calls_of_step : most;
		all += calls_of_step;
	} while (more);
	if (op.result.verdict != SHADOW_DONE || op.result.mapped != S390_PT_ENTRIES)
		die("not a table of leaves");
	report("refresh_longest_inline_step", most, "calls", (double)most / all,
	       "all calls of the refresh");
}

static void recorded_load(struct bench *bench, const char *path)
{
	gzFile file = gzopen(path, "rb");
	uint8_t record[8 + 4096];
	uint64_t gpa;

	if (!file)
		die("cannot open the recorded tables");
	while (gzread(file, record, sizeof(record)) == (int)sizeof(record)) {
		memcpy(&gpa, record, sizeof(gpa));
		gpa = le64toh(gpa);
		if (gpa > bench->bytes - 4096)
			die("a recorded page lies outside the guest");
		memcpy(bench->memory + gpa, record + 8, 4096);
	}
	gzclose(file);
}

static void bench_recorded(const char *path)
{
	uint64_t times[TURNS], n = 100;
	struct bench bench;
	struct shadow_stats stats;

	bench_memory(&bench, 384 * MIB);
	recorded_load(&bench, path);
	bench.anchor = (struct s390_anchor){
		.iota = 0x3010804, .pba = UINT64_C(1) << 32, .pal = (UINT64_C(1) << 42) - 1};
	bench_shadow(&bench, 1 << 20, 1 << 12);
	if (bench_refresh(&bench, bench.anchor.pba, bench.anchor.pal - bench.anchor.pba + 1)
		    .mapped != 133)
		die("not 133 leaves");
	for (unsigned int i = 0; i < TURNS; i++) {
		uint64_t start = now_ns();

		for (uint64_t k = 0; k < n; k++)
			bench_refresh(&bench, bench.anchor.pba,
				      bench.anchor.pal - bench.anchor.pba + 1);
		times[i] = (now_ns() - start) / n;
	}
	shadow_stats(bench.shadow, &stats);
	report("refresh_133_leaves_4tib", median(times, TURNS) / 1e3, "us", 0, NULL);
	report("kept_bytes_per_leaf_recorded",
	       (double)stats.bytes_kept / (double)stats.leaves_installed, "bytes", 0, NULL);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		die("usage: shadow_bench RECORDED.tables.gz");
	if (guest_read_init() < 0)
		die("no SIGBUS handler");
	bench_unchanged();
	bench_single();
	bench_recorded(argv[1]);
	bench_longest_step();
	return 0;
}
