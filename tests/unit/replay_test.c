/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What iommubroker-replay judges with has to be right itself: reading recordings, laying out and
 * walking tables, and above all noticing a device that reaches what it must not. The device is an
 * emulated function in this process, set up wrongly on purpose.
 */

#include <errno.h>
#include <lzma.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "iommu/backend.h"
#include "replay/check.h"
#include "replay/input.h"
#include "replay/play.h"
#include "replay/workspace.h"
#include "replay/zpci.h"

/* ---- Files ---- */

#define CONTENT_BYTES 3000000u

static uint8_t *content(void)
{
	uint8_t *bytes = malloc(CONTENT_BYTES);

	assert_non_null(bytes);
	for (size_t i = 0; i < CONTENT_BYTES; i++)
		bytes[i] = i * i >> 7;
	return bytes;
}

static void memory_path(int fd, char *to, size_t n)
{
	snprintf(to, n, "/proc/self/fd/%d", fd);
}

static void put(int fd, const void *bytes, size_t n_bytes)
{
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, bytes, n_bytes, 0), n_bytes);
}

static void expect_content(const char *path, const uint8_t *bytes)
{
	struct input input;

	assert_int_equal(input_read(path, &input), 0);
	assert_int_equal(input.n_bytes, CONTENT_BYTES);
	assert_memory_equal(input.bytes, bytes, CONTENT_BYTES);
	input_free(&input);
}

static void test_plain_and_gz(void **state)
{
	int fd = memfd_create("recording", MFD_CLOEXEC);
	uint8_t *bytes = content();
	struct input input;
	struct stat st;
	char path[64];
	gzFile gz;

	memory_path(fd, path, sizeof(path));
	put(fd, bytes, CONTENT_BYTES);
	expect_content(path, bytes);
	gz = gzopen(path, "wb");
	assert_int_equal(gzwrite(gz, bytes, CONTENT_BYTES), CONTENT_BYTES);
	assert_int_equal(gzclose(gz), Z_OK);
	expect_content(path, bytes);
	/* Cut short. */
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size - 9), 0);
	assert_int_equal(input_read(path, &input), -EBADMSG);
	assert_int_equal(input_read("/dev/null/x", &input), -ENOTDIR);
	free(bytes);
	close(fd);
}

static void test_xz(void **state)
{
	static uint8_t packed[4 * CONTENT_BYTES];
	int fd = memfd_create("recording", MFD_CLOEXEC);
	uint8_t *bytes = content();
	struct input input;
	size_t n_packed = 0;
	char path[64];

	memory_path(fd, path, sizeof(path));
	assert_int_equal(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, NULL, bytes, CONTENT_BYTES,
						 packed, &n_packed, sizeof(packed)),
			 LZMA_OK);
	put(fd, packed, n_packed);
	expect_content(path, bytes);
	put(fd, packed, n_packed - 1);
	assert_int_equal(input_read(path, &input), -EBADMSG);
	packed[n_packed / 2] ^= 1;
	put(fd, packed, n_packed);
	assert_int_equal(input_read(path, &input), -EBADMSG);
	free(bytes);
	close(fd);
}

/* ---- Tables ---- */

#define AREA_BYTES (1u << 20)

static struct zpci_tables tables_at(uint8_t *host, uint64_t n_bytes)
{
	return (struct zpci_tables){.host = host, .gpa = 0, .n_bytes = n_bytes};
}

struct leaves {
	uint64_t iova[16], gpa[16];
	unsigned int access[16];
	size_t n;
};

static int note_leaf(void *user_data, uint64_t iova, uint64_t gpa, unsigned int access)
{
	struct leaves *leaves = user_data;

	assert_true(leaves->n < 16);
	leaves->iova[leaves->n] = iova;
	leaves->gpa[leaves->n] = gpa;
	leaves->access[leaves->n++] = access;
	return 0;
}

static void test_designations(void **state)
{
	static const struct {
		uint64_t iota, high;
	} cases[] = {
		{0x800, UINT64_C(0x7ffff000)},
		{0x804, UINT64_C(0x3fffffff000)},
		{0x808, UINT64_C(0x1ffffffffff000)},
		{0x80c, UINT64_C(0xfffffffffffff000)},
	};
	uint8_t *host = aligned_alloc(0x4000, AREA_BYTES);

	for (size_t i = 0; i < 4; i++) {
		struct zpci_tables tables = tables_at(host, AREA_BYTES);
		struct leaves leaves = {.n = 0};
		uint64_t iota;

		memset(host, 0xff, AREA_BYTES);
		assert_int_equal(zpci_tables_init(&tables, cases[i].iota), 0);
		iota = zpci_tables_iota(&tables, cases[i].iota);
		assert_int_equal(iota & 0x3fff, cases[i].iota);
		assert_int_equal(zpci_tables_set(&tables, 0, 0x5000, ZPCI_LEAF_READ_WRITE), 0);
		assert_int_equal(zpci_tables_set(&tables, 0x1000, 0, ZPCI_LEAF_READ), 0);
		assert_int_equal(zpci_tables_set(&tables, 0x2000, 0x6000, ZPCI_LEAF_READ), 0);
		assert_int_equal(zpci_tables_set(&tables, 0x2000, 0, ZPCI_LEAF_NONE), 0);
		assert_int_equal(
			zpci_tables_set(&tables, cases[i].high, 0x7000, ZPCI_LEAF_READ_WRITE), 0);
		if (i < 3)
			assert_int_equal(zpci_tables_set(&tables, cases[i].high + 0x1000, 0, 1),
					 -EINVAL);
		assert_int_equal(
			zpci_walk(host, AREA_BYTES, iota, 0, UINT64_MAX, note_leaf, &leaves), 0);
		assert_int_equal(leaves.n, 3);
		assert_true(leaves.iova[0] == 0 && leaves.gpa[0] == 0x5000);
		assert_int_equal(leaves.access[0], ZPCI_LEAF_READ_WRITE);
		assert_true(leaves.iova[1] == 0x1000 && leaves.gpa[1] == 0);
		assert_int_equal(leaves.access[1], ZPCI_LEAF_READ);
		assert_true(leaves.iova[2] == cases[i].high && leaves.gpa[2] == 0x7000);
		/* Windows and a protected anchor. */
		leaves.n = 0;
		assert_int_equal(zpci_walk(host, AREA_BYTES, iota | 0x200, 0x1000, 0x1fff,
					   note_leaf, &leaves),
				 0);
		assert_int_equal(leaves.n, 1);
		assert_int_equal(leaves.access[0], ZPCI_LEAF_READ);
	}
	free(host);
}

static void test_bad_tables(void **state)
{
	uint8_t *host = aligned_alloc(0x4000, AREA_BYTES);
	struct zpci_tables tables = tables_at(host, AREA_BYTES);
	struct leaves leaves = {.n = 0};

	assert_int_equal(zpci_tables_init(&tables, 0x4), -EINVAL);   /* no T */
	assert_int_equal(zpci_tables_init(&tables, 0x810), -EINVAL); /* direct */
	tables.n_bytes = 0x3fff;
	assert_int_equal(zpci_tables_init(&tables, 0x804), -ENOSPC);
	tables.n_bytes = 0x4000;
	assert_int_equal(zpci_tables_init(&tables, 0x804), 0);
	assert_int_equal(zpci_tables_set(&tables, 0, 0, 1), -ENOSPC);
	/* An entry of 0, the wrong type, a table beyond memory. */
	memset(host, 0, 8);
	assert_int_equal(zpci_walk(host, AREA_BYTES, 0x804, 0, 4095, note_leaf, &leaves), -EBADMSG);
	host[7] = 0xb;
	assert_int_equal(zpci_walk(host, AREA_BYTES, 0x804, 0, 4095, note_leaf, &leaves), -EBADMSG);
	host[7] = 0x7;
	host[2] = 0x7f;
	assert_int_equal(zpci_walk(host, AREA_BYTES, 0x804, 0, 4095, note_leaf, &leaves), -EFAULT);
	assert_int_equal(leaves.n, 0);
	free(host);
}

/* ---- Traces ---- */

static void put_record(uint8_t *to, uint32_t type, uint32_t function_id)
{
	memset(to, 0, 40);
	to[8] = type;
	to[12] = function_id;
}

static void test_trace_functions(void **state)
{
	uint8_t bytes[40 * 70];
	struct input trace = {bytes, 3 * 40};
	uint32_t ids[FUNCTIONS_MAX];
	size_t n;

	put_record(bytes, 1, 7);
	put_record(bytes + 40, 1, 5);
	put_record(bytes + 80, 4, 7);
	assert_int_equal(play_trace_functions(&trace, ids, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(ids[0], 7);
	assert_int_equal(ids[1], 5);
	trace.n_bytes--;
	assert_int_equal(play_trace_functions(&trace, ids, &n), -EBADMSG);
	trace.n_bytes = 0;
	assert_int_equal(play_trace_functions(&trace, ids, &n), -EBADMSG);
	trace.n_bytes = 3 * 40;
	for (unsigned int type = 0; type <= 5; type += 5) {
		put_record(bytes + 80, type, 7);
		assert_int_equal(play_trace_functions(&trace, ids, &n), -EBADMSG);
	}
	for (unsigned int i = 0; i < 65; i++)
		put_record(bytes + 40 * i, 1, i);
	trace.n_bytes = 65 * 40;
	assert_int_equal(play_trace_functions(&trace, ids, &n), -E2BIG);
}

/* ---- The judge of DMA ---- */

#define MEMORY_BYTES 0x10000u
#define WINDOW       UINT64_C(0x100000000)

struct bench {
	struct iommu_backend *backend;
	struct iommu_context *context;
	struct iommu_device *device;
	struct iommu_file file;
	uint32_t ioas, page_table;
	struct machine machine;
	struct function *function;
};

static void begin(struct bench *bench)
{
	const struct iommu_device_address address = {.by_fid = true, .fid = 1};
	const struct iommu_backend_ops *ops;
	uint32_t id;
	struct stat st;

	*bench = (struct bench){.machine = {.n_functions = 1}};
	bench->function = &bench->machine.functions[0];
	bench->machine.memory_fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(bench->machine.memory_fd, MEMORY_BYTES), 0);
	assert_int_equal(fstat(bench->machine.memory_fd, &st), 0);
	bench->machine.memory_dev = st.st_dev;
	bench->machine.memory_ino = st.st_ino;
	bench->machine.ram_bytes = MEMORY_BYTES;
	bench->machine.memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
				     bench->machine.memory_fd, 0);
	assert_int_equal(iommu_emulated_new(&bench->backend, NULL, 0), 0);
	ops = bench->backend->ops;
	assert_int_equal(ops->context_new(bench->backend, &bench->context), 0);
	assert_int_equal(ops->device_open(bench->backend, &address, &bench->device), 0);
	assert_int_equal(ops->device_descriptor(bench->device, &bench->function->device_fd), 0);
	assert_int_equal(ops->device_bind(bench->device, bench->context, NULL, &id), 0);
	assert_int_equal(ops->ioas_new(bench->context, true, &bench->ioas), 0);
	bench->file =
		(struct iommu_file){bench->machine.memory_fd, bench->machine.memory, MEMORY_BYTES};
	assert_int_equal(ops->map_file(bench->context, bench->ioas, &bench->file, 0, 4096, WINDOW,
				       IOMMU_PROT_READ | IOMMU_PROT_WRITE),
			 0);
	assert_int_equal(
		ops->page_table_new(bench->context, bench->device, bench->ioas, &bench->page_table),
		0);
	assert_int_equal(ops->attach(bench->device, bench->page_table), 0);
	assert_int_equal(ops->map_file(bench->context, bench->ioas, &bench->file, 0x2000, 4096,
				       WINDOW + 0x1000, IOMMU_PROT_READ),
			 0);
	bench->machine.checks = &check_emulated;
	assert_int_equal(check_emulated.open(&bench->machine, bench->function), 0);
	/* As the model has it, all is right. */
	machine_expect(&bench->machine, bench->function, WINDOW, 0, ZPCI_LEAF_READ_WRITE);
	machine_expect(&bench->machine, bench->function, WINDOW + 0x1000, 0x2000, ZPCI_LEAF_READ);
}

static void finish(struct bench *bench)
{
	const struct iommu_backend_ops *ops = bench->backend->ops;
	uint64_t unmapped;

	machine_forget_leaves(bench->function);
	check_emulated.close(bench->function);
	close(bench->function->device_fd);
	ops->detach(bench->device);
	ops->destroy(bench->context, bench->page_table);
	ops->unmap(bench->context, bench->ioas, 0, UINT64_MAX, &unmapped);
	ops->destroy(bench->context, bench->ioas);
	ops->device_close(bench->device);
	ops->context_free(bench->context);
	ops->free(bench->backend);
	munmap(bench->machine.memory, MEMORY_BYTES);
	close(bench->machine.memory_fd);
}

static uint64_t failures_of(struct bench *bench, uint64_t iova)
{
	uint64_t before = bench->machine.totals.dma_failures;

	check_leaf(&bench->machine, bench->function, iova);
	assert_int_equal(bench->machine.totals.failures, 0);
	return bench->machine.totals.dma_failures - before;
}

static void test_honest_device(void **state)
{
	struct bench bench;

	begin(&bench);
	memset(bench.machine.memory, 0x5a, MEMORY_BYTES);
	assert_int_equal(failures_of(&bench, WINDOW), 0);
	assert_int_equal(failures_of(&bench, WINDOW + 0x1000), 0);
	assert_int_equal(failures_of(&bench, WINDOW + 0x2000), 0);
	assert_int_equal(bench.machine.totals.dma_checks, 6);
	for (size_t i = 0; i < MEMORY_BYTES; i++)
		assert_int_equal(bench.machine.memory[i], 0x5a);
	finish(&bench);
}

static void test_wrong_device(void **state)
{
	struct bench bench;

	begin(&bench);
	/* Reaches another frame. */
	machine_expect(&bench.machine, bench.function, WINDOW, 0x1000, ZPCI_LEAF_READ_WRITE);
	assert_int_equal(failures_of(&bench, WINDOW), 2);
	/* May write what is to be read only. */
	machine_expect(&bench.machine, bench.function, WINDOW, 0, ZPCI_LEAF_READ);
	assert_int_equal(failures_of(&bench, WINDOW), 1);
	/* Reaches what is to be unmapped. */
	machine_expect(&bench.machine, bench.function, WINDOW, 0, ZPCI_LEAF_NONE);
	assert_int_equal(failures_of(&bench, WINDOW), 1);
	/* May not write what it should. */
	machine_expect(&bench.machine, bench.function, WINDOW + 0x1000, 0x2000,
		       ZPCI_LEAF_READ_WRITE);
	assert_int_equal(failures_of(&bench, WINDOW + 0x1000), 1);
	/* Does not reach what it should. */
	machine_expect(&bench.machine, bench.function, WINDOW + 0x2000, 0, ZPCI_LEAF_READ_WRITE);
	assert_int_equal(failures_of(&bench, WINDOW + 0x2000), 2);
	finish(&bench);
}

static uint64_t leaf_failures(struct bench *bench)
{
	uint64_t before = bench->machine.totals.failures;

	check_all_leaves(&bench->machine, bench->function);
	return bench->machine.totals.failures - before;
}

static void test_leaf_set(void **state)
{
	struct bench bench;

	begin(&bench);
	bench.function->pba = WINDOW;
	bench.function->pal = WINDOW + 0x2fff;
	bench.function->live_leaves = 2;
	/* Only whether it is registered matters here. */
	bench.function->nested = (struct iommubroker_nested *)&bench;
	assert_int_equal(leaf_failures(&bench), 0);
	bench.function->live_leaves = 3;
	assert_int_equal(leaf_failures(&bench), 1);
	machine_expect(&bench.machine, bench.function, WINDOW + 0x2000, 0x3000, ZPCI_LEAF_READ);
	assert_int_equal(leaf_failures(&bench), 1); /* missing */
	machine_expect(&bench.machine, bench.function, WINDOW, 0, ZPCI_LEAF_NONE);
	bench.function->live_leaves = 2;
	assert_int_equal(leaf_failures(&bench), 2); /* too many as well */
	machine_expect(&bench.machine, bench.function, WINDOW, 0, ZPCI_LEAF_READ);
	bench.function->live_leaves = 3;
	assert_int_equal(leaf_failures(&bench), 2); /* the wrong permission */
	finish(&bench);
}

static void test_model(void **state)
{
	struct bench bench;
	struct totals *totals = &bench.machine.totals;

	begin(&bench);
	assert_int_equal(totals->model_mapped, 2);
	machine_expect(&bench.machine, bench.function, WINDOW, 0, ZPCI_LEAF_READ_WRITE);
	assert_int_equal(totals->model_mapped, 2); /* the same again */
	machine_expect(&bench.machine, bench.function, WINDOW, 0x1000, ZPCI_LEAF_READ_WRITE);
	machine_expect(&bench.machine, bench.function, WINDOW, 0x1000, ZPCI_LEAF_READ);
	assert_int_equal(totals->model_mapped, 4);
	assert_int_equal(totals->model_unmapped, 0);
	machine_expect(&bench.machine, bench.function, WINDOW, 0, ZPCI_LEAF_NONE);
	machine_expect(&bench.machine, bench.function, WINDOW, 0, ZPCI_LEAF_NONE);
	assert_int_equal(totals->model_unmapped, 1);
	finish(&bench);
}

/* ---- Pages of the device's own ---- */

static void test_workspace(void **state)
{
	static const struct check_ops checks = {.workspace_pages = 8};
	struct machine machine = {.checks = &checks, .ram_bytes = AREA_BYTES, .n_functions = 2};
	struct function *function = &machine.functions[1];
	struct leaves leaves = {.n = 0};
	struct zpci_tables tables;

	machine.memory = aligned_alloc(0x4000, AREA_BYTES);
	assert_int_equal(workspaces_place(&machine), 0);
	assert_true(workspace_has_frame(&machine, AREA_BYTES - 1));
	assert_false(workspace_has_frame(&machine, AREA_BYTES));
	assert_false(workspace_has_frame(&machine, machine.functions[0].workspace.gpa - 1));
	/* A guest's own tables, with one leaf beside which the pages go. */
	tables = tables_at(machine.memory, AREA_BYTES);
	assert_int_equal(zpci_tables_init(&tables, 0x804), 0);
	assert_int_equal(zpci_tables_set(&tables, WINDOW + 0x200000, 0, ZPCI_LEAF_READ), 0);
	tables = workspace_adopt(&machine, function, zpci_tables_iota(&tables, 0x804));
	assert_int_equal(workspace_lay_out(function, &tables, WINDOW + 0x123), 0);
	assert_int_equal(zpci_walk(machine.memory, AREA_BYTES, zpci_tables_iota(&tables, 0x804),
				   WINDOW, UINT64_MAX, note_leaf, &leaves),
			 0);
	assert_int_equal(leaves.n, 9);
	for (uint64_t i = 0; i < 8; i++) {
		assert_true(leaves.iova[i] == WINDOW + i * 0x1000);
		assert_true(workspace_has_iova(function, leaves.iova[i]));
		assert_true(workspace_has_frame(&machine, leaves.gpa[i]));
		assert_int_equal(leaves.access[i], ZPCI_LEAF_READ_WRITE);
	}
	assert_false(workspace_has_iova(function, leaves.iova[8]));
	assert_false(workspace_has_iova(function, WINDOW - 1));
	/* Guest memory that has no room for them. */
	machine.ram_bytes = 0x20000;
	assert_int_equal(workspaces_place(&machine), -ENOSPC);
	free(machine.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_and_gz),    cmocka_unit_test(test_xz),
		cmocka_unit_test(test_designations),    cmocka_unit_test(test_bad_tables),
		cmocka_unit_test(test_trace_functions), cmocka_unit_test(test_honest_device),
		cmocka_unit_test(test_wrong_device),    cmocka_unit_test(test_leaf_set),
		cmocka_unit_test(test_model),           cmocka_unit_test(test_workspace),
	};

	return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}
