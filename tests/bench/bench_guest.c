/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench_guest.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "benchmark: %s\n", what);
	exit(1);
}

double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double percentile(double *values, size_t n, double p)
{
	qsort(values, n, sizeof(*values), compare_double);
	return values[(size_t)((double)(n - 1) * p + 0.5)];
}

double median(double *values, size_t n)
{
	return percentile(values, n, 0.5);
}

void bench_entry_write(struct bench_guest *guest, uint64_t gpa, uint64_t entry)
{
	__atomic_store_n((uint64_t *)(void *)(guest->memory + gpa), htobe64(entry),
			 __ATOMIC_RELEASE);
}

void bench_memory_make(struct bench_guest *guest)
{
	int fd = memfd_create("bench", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	must(fd >= 0 && !ftruncate(fd, BENCH_MEMORY_BYTES) &&
		     !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK),
	     "memfd");
	guest->memory_fd = fd;
	guest->memory = mmap(NULL, BENCH_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(guest->memory != MAP_FAILED, "mmap");
	memset(guest->memory, 0, BENCH_MEMORY_BYTES);
	for (uint64_t i = 0; i < 2048; i++) {
		bench_entry_write(guest, BENCH_REGION_TABLE + i * 8, 0x20);
		bench_entry_write(guest, BENCH_SEGMENT_TABLE + i * 8, 0x20);
	}
	for (uint64_t i = 0; i < 256; i++)
		bench_entry_write(guest, BENCH_PAGE_TABLE + i * 8, 0x400);
	bench_entry_write(guest, BENCH_REGION_TABLE + 2 * 8, BENCH_SEGMENT_TABLE | 0x4 | 3);
	bench_entry_write(guest, BENCH_SEGMENT_TABLE, BENCH_PAGE_TABLE);
}

void bench_guest_make(struct bench_guest *guest, const char *runtime_dir, uint32_t function)
{
	const struct iommubroker_guest_options options = {.struct_bytes = sizeof(options)};
	const struct iommubroker_anchor anchor = {.iota = BENCH_REGION_TABLE | 0x804,
						  .pba = BENCH_WINDOW_FIRST,
						  .pal = BENCH_WINDOW_LAST};
	struct iommubroker_map map = {.length = BENCH_MEMORY_BYTES,
				      .access = IOMMUBROKER_ACCESS_READ_WRITE};
	const struct iommubroker_memory_update update = {.n_map = 1, .map = &map};
	struct iommubroker_registration registration;
	char path[256];

	snprintf(path, sizeof(path), "%s/fd.sock", runtime_dir);
	must(!iommubroker_session_open(path, "bench", &guest->session, NULL), "session");
	must(!iommubroker_guest_create(guest->session, &options, &guest->guest, NULL), "guest");
	must(!iommubroker_memory_file_add(guest->guest, guest->memory_fd, true, &map.file, NULL),
	     "memory file");
	guest->file = map.file;
	must(!iommubroker_memory_update(guest->guest, &update, NULL, NULL, NULL, NULL), "memory");
	must(!iommubroker_device_open_function(guest->guest, function, &guest->device,
					       &guest->device_fd, NULL),
	     "device");
	must(!iommubroker_device_bind(guest->device, NULL, NULL, NULL, NULL), "bind");
	must(!iommubroker_nested_create_s390(guest->device, &anchor, true, 0, &guest->nested,
					     &registration, NULL) &&
		     registration.verdict == IOMMUBROKER_VERDICT_DONE,
	     "anchor");
	guest->nested_index = registration.index;
}

void bench_guest_end(struct bench_guest *guest)
{
	iommubroker_nested_free(guest->nested);
	iommubroker_device_free(guest->device);
	iommubroker_memory_file_free(guest->file);
	iommubroker_guest_free(guest->guest);
	close(guest->device_fd);
	must(!iommubroker_session_close(guest->session, NULL), "end of the session");
	iommubroker_session_free(guest->session);
	guest->session = NULL;
}

void bench_leaf_change(struct bench_guest *guest)
{
	guest->mapped = !guest->mapped;
	bench_entry_write(guest, BENCH_PAGE_TABLE, guest->mapped ? 0x200000 : 0x400);
}

void bench_leaf_refresh(struct bench_guest *guest)
{
	const struct iommubroker_range range = {.start = BENCH_WINDOW_FIRST, .length = 4096};
	struct iommubroker_result result;

	bench_leaf_change(guest);
	must(!iommubroker_refresh(guest->nested, &range, 1, UINT64_C(5000000000), &result) &&
		     result.verdict == IOMMUBROKER_VERDICT_DONE,
	     "refresh");
	must(result.mapped + result.unmapped == 1, "the refresh did nothing");
}
