/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a daemon has to take over: restart_load FD_SOCK GUESTS REGIONS LEAVES
 *
 * Makes so many guests with so many regions and installed leaves each, every leaf a run of its own,
 * says "ready" and keeps them until its standard input ends; then it refreshes one leaf of each,
 * says "served", and is gone.
 */

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "iommubroker.h"

#define PAGE           UINT64_C(4096)
#define WINDOW_FIRST   UINT64_C(0x100000000)
#define WINDOW_LAST    UINT64_C(0x17fffffff)
#define MAPS_MAX       512u
#define LEAVES_A_TABLE 256u
#define REGION_TABLE   UINT64_C(0)
#define SEGMENT_TABLE  UINT64_C(0x4000)
#define PAGE_TABLES    UINT64_C(0x8000)
#define TABLES_BYTES   (UINT64_C(1) << 20)
#define DATA_GPA       (UINT64_C(1) << 30)
#define REFRESH_NS     UINT64_C(30000000000)

static uint8_t *memory;
static int memory_fd;

static void check(int result, const char *what, struct iommubroker_error *error)
{
	if (!result)
		return;
	fprintf(stderr, "restart_load: %s: %s\n", what,
		error ? iommubroker_error_message(error) : strerror(-result));
	exit(EXIT_FAILURE);
}

static void write_entry(uint64_t gpa, uint64_t entry)
{
	uint64_t word = htobe64(entry);

	memcpy(memory + gpa, &word, sizeof(word));
}

/* One file for all guests: tables, and one page of data that every region shows. Regions two pages
 * apart, so that no two leaves join into one run. */
static void make_memory(unsigned int regions, unsigned int leaves)
{
	memory_fd = memfd_create("restart-load", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (memory_fd < 0 || ftruncate(memory_fd, TABLES_BYTES + PAGE) ||
	    fallocate(memory_fd, 0, 0, TABLES_BYTES + PAGE) ||
	    fcntl(memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		check(-1, "memory", NULL);
	memory = mmap(NULL, TABLES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
	if (memory == MAP_FAILED)
		check(-1, "memory", NULL);
	for (uint64_t i = 0; i < 2048; i++) {
		write_entry(REGION_TABLE + i * 8, 0x20);
		write_entry(SEGMENT_TABLE + i * 8, 0x20);
	}
	write_entry(REGION_TABLE + 2 * 8, SEGMENT_TABLE | 0x4 | 3);
	for (uint64_t i = 0; i < (leaves + LEAVES_A_TABLE - 1) / LEAVES_A_TABLE; i++)
		write_entry(SEGMENT_TABLE + i * 8, PAGE_TABLES + i * 0x800);
	for (uint64_t i = 0; i < (leaves + LEAVES_A_TABLE - 1) / LEAVES_A_TABLE * LEAVES_A_TABLE;
	     i++)
		write_entry(PAGE_TABLES + i * 8,
			    i < leaves ? DATA_GPA + i % (regions - 1) * 2 * PAGE : 0x400);
}

static void map_regions(struct iommubroker_guest *guest, struct iommubroker_memory_file *file,
			unsigned int regions)
{
	static struct iommubroker_map maps[MAPS_MAX];
	struct iommubroker_error *error = NULL;

	for (unsigned int done = 0; done < regions;) {
		struct iommubroker_memory_update update = {.map = maps};

		for (; done < regions && update.n_map < MAPS_MAX; done++)
			maps[update.n_map++] = (struct iommubroker_map){
				.file = file,
				.offset = done ? TABLES_BYTES : 0,
				.gpa = done ? DATA_GPA + (done - 1) * 2 * PAGE : 0,
				.length = done ? PAGE : TABLES_BYTES,
				.access = IOMMUBROKER_ACCESS_READ_WRITE,
			};
		check(iommubroker_memory_update(guest, &update, NULL, NULL, NULL, &error),
		      "regions", error);
	}
}

static struct iommubroker_nested *make_guest(struct iommubroker_session *session, uint32_t function,
					     unsigned int regions, unsigned int leaves)
{
	const struct iommubroker_anchor anchor = {
		.iota = REGION_TABLE | 0x804,
		.pba = WINDOW_FIRST,
		.pal = WINDOW_LAST,
	};
	struct iommubroker_guest_options options = {.struct_bytes = sizeof(options)};
	struct iommubroker_registration registration = {0};
	struct iommubroker_memory_file *file;
	struct iommubroker_nested *nested;
	struct iommubroker_device *device;
	struct iommubroker_guest *guest;
	struct iommubroker_error *error = NULL;
	int fd;

	check(iommubroker_guest_create(session, &options, &guest, &error), "guest", error);
	check(iommubroker_memory_file_add(guest, memory_fd, true, &file, &error), "file", error);
	map_regions(guest, file, regions);
	check(iommubroker_device_open_function(guest, function, &device, &fd, &error), "open",
	      error);
	check(iommubroker_device_bind(device, NULL, NULL, NULL, &error), "bind", error);
	check(iommubroker_nested_create_s390(device, &anchor, true, leaves, &nested, &registration,
					     &error),
	      "register", error);
	if (registration.verdict != IOMMUBROKER_VERDICT_DONE ||
	    registration.walk.mapped != leaves) {
		fprintf(stderr, "restart_load: verdict %u, %llu leaves\n", registration.verdict,
			(unsigned long long)registration.walk.mapped);
		exit(EXIT_FAILURE);
	}
	return nested;
}

static void refresh(struct iommubroker_nested *nested)
{
	const struct iommubroker_range range = {.start = WINDOW_FIRST, .length = PAGE};
	struct iommubroker_result result;

	do {
		check(iommubroker_refresh(nested, &range, 1, REFRESH_NS, &result), "refresh", NULL);
	} while (result.verdict == IOMMUBROKER_VERDICT_BUSY);
	if (result.verdict != IOMMUBROKER_VERDICT_DONE)
		check(-1, "refresh", NULL);
}

int main(int argc, char **argv)
{
	struct iommubroker_session *session;
	struct iommubroker_nested **nested;
	struct iommubroker_error *error = NULL;
	unsigned int guests, regions, leaves;
	char line[16];

	if (argc != 5)
		return 2;
	guests = (unsigned int)strtoul(argv[2], NULL, 0);
	regions = (unsigned int)strtoul(argv[3], NULL, 0);
	leaves = (unsigned int)strtoul(argv[4], NULL, 0);
	if (!guests || regions < 2 || leaves > (TABLES_BYTES - PAGE_TABLES) / 8)
		return 2;
	nested = calloc(guests, sizeof(*nested));
	make_memory(regions, leaves);
	check(iommubroker_session_open(argv[1], "restart-load", &session, &error), "session",
	      error);
	for (unsigned int i = 0; nested && i < guests; i++)
		nested[i] = make_guest(session, i + 1, regions, leaves);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		;
	for (unsigned int i = 0; nested && i < guests; i++)
		refresh(nested[i]);
	puts("served");
	return EXIT_SUCCESS;
}
